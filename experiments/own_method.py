"""An example of your own method: entropy minimization (Grandvalet and Bengio 2005, section 2.2).

Twenty lines in one file, named by its import path from this folder's parent:

    python -m ssl_runner.tune --configs partial --label-fractions 0.01 --max-steps 1500 --patience 0 \\
        --order paired --methods pass experiments.own_method:EntropyMinimization

It may use any hyperparameter of `TrialConfig`: here the loop's `--unlabeled-weight` (λ), `--ramp` and
`--mu` apply without any code.
"""

import torch

from ssl_runner.methods import Method, Networks, UnlabeledBatch

# B = images in this rank's batch, K = classes


class EntropyMinimization(Method):
    """The model should be confident about an unlabeled image, whatever it predicts."""

    def unlabeled_loss(self, networks: Networks, batch: UnlabeledBatch, step: int) -> torch.Tensor:
        """Mean entropy of the softmax outputs in nats."""
        logits_BK = networks.student(batch.weak(0))
        probability_BK = logits_BK.softmax(1)
        batch.record(confidence_B=probability_BK.detach().amax(1))
        return -(probability_BK * logits_BK.log_softmax(1)).sum(1).mean()
