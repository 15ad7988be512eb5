"""More of FixMatch's kind: soft weights, and a threshold that follows the labeled images."""

import torch
import torch.nn.functional as F

from ssl_runner.methods.base import Networks, UnlabeledBatch
from ssl_runner.methods.methods import FixMatch
from ssl_runner.methods.settings import MethodSettings

# B = images in this rank's batch, K = classes

_DEVIATIONS = 2.0
"""SoftMatch: the weight's Gaussian is so many times narrower than the confidence's."""


class SoftMatch(FixMatch):
    """Every pseudo-label counts, the less the less confident it is (Chen et al. 2023, section 3.2,
    equations 6 to 9).

    An image's weight is 1 where its confidence is at least the running mean μ of the confidence, and
    exp(−(confidence − μ)² / (2 (σ/2)²)) below it, with the running variance σ² and the factor 2 of the
    authors' code. With `alignment` (section 3.3) the confidence is that of the predictions aligned to
    the labeled pool's class shares (the paper: to equal ones); the pseudo-label itself is the
    prediction's own. For the table an image is accepted where its weight is at least a half. Defaults:
    λ 1, μ 1, running means at 0.99 for runs of some thousand steps (the paper: 0.999 of 2²⁰), α 0.99,
    and a ramp over 40 % (the paper: none): at first every pseudo-label counts, right or wrong, and a
    short run does not recover from learning them all.
    """

    confidence: torch.Tensor
    variance: torch.Tensor

    def __init__(self, settings: MethodSettings, shares_K: torch.Tensor) -> None:
        super().__init__(settings, shares_K)
        self.register_buffer("confidence", shares_K.new_tensor(1 / len(shares_K)))
        self.register_buffer("variance", shares_K.new_tensor(1.0))

    def unlabeled_loss(self, networks: Networks, batch: UnlabeledBatch, step: int) -> torch.Tensor:
        """Cross entropy of the strong view with the weak view's target, by the weight."""
        logits_BK = networks.predict(batch.weak(0))
        probability_BK = logits_BK.softmax(1)
        pseudo_B = probability_BK.argmax(1)
        if self.settings.alignment:
            self.move(self.mean_K, batch.mean(probability_BK))
            probability_BK = (logits_BK + (self.shares_K / self.mean_K).log()).softmax(1)
        confidence_B = probability_BK.amax(1)
        weight_B = self.weights(confidence_B, batch)
        batch.record(confidence_B=confidence_B, accepted_B=weight_B >= 0.5, pseudo_B=pseudo_B)
        temperature = self.settings.temperature
        target = (logits_BK / temperature).softmax(1) if temperature else pseudo_B
        strong_BK = networks.student(batch.strong(0))
        return (F.cross_entropy(strong_BK, target, reduction="none") * weight_B).mean()

    def weights(self, confidence_B: torch.Tensor, batch: UnlabeledBatch) -> torch.Tensor:
        """The weight of each image, in (0, 1]."""
        mean = batch.mean(confidence_B)
        variance = batch.mean((confidence_B - mean) ** 2) * (batch.size / max(batch.size - 1, 1))
        self.move(self.confidence, mean)
        self.move(self.variance, variance)
        below_B = (confidence_B - self.confidence).clamp(max=0)
        # A variance of 0 leaves no image below the mean but by rounding.
        narrow = (self.variance / _DEVIATIONS**2).clamp(min=torch.finfo(below_B.dtype).tiny)
        return (-(below_B**2) / (2 * narrow)).exp()


class AdaMatch(FixMatch):
    """FixMatch judged by the labeled images (Berthelot et al. 2022, section 3).

    A pseudo-label counts where its confidence is at least τ times the mean confidence of the labeled
    batch's weak views (section 3.3, relative threshold). The predictions are first aligned to those of
    the labeled images: scaled by the running mean of the one over that of the other (section 3.2; there
    by a batch's means, which are noisy at batches of 32), and learned as they are, not as hard labels.
    The random interpolation of logits (section 3.1) is about batch normalization over labeled and
    unlabeled images together, which no model has here, and is left out. Defaults: τ 0.9, λ 1, μ 1, ramp
    over 50 % (linear; the paper: a cosine), running means at 0.99, α 0.99.
    """

    labeled_K: torch.Tensor

    def __init__(self, settings: MethodSettings, shares_K: torch.Tensor) -> None:
        super().__init__(settings, shares_K)
        self.register_buffer("labeled_K", torch.full_like(shares_K, 1 / len(shares_K)))

    def unlabeled_loss(self, networks: Networks, batch: UnlabeledBatch, step: int) -> torch.Tensor:
        """Cross entropy of the strong view with the weak view's target, where that is confident."""
        assert self.settings.threshold is not None
        known_BK = networks.predict(batch.labeled.weak(0)).softmax(1)
        logits_BK = networks.predict(batch.weak(0))
        if self.settings.alignment:
            self.move(self.labeled_K, batch.labeled.mean(known_BK))
            self.move(self.mean_K, batch.mean(logits_BK.softmax(1)))
            logits_BK = logits_BK + (self.labeled_K / self.mean_K).log()
        confidence_B, pseudo_B = logits_BK.softmax(1).max(1)
        accepted_B = confidence_B >= self.settings.threshold * batch.labeled.mean(known_BK.amax(1))
        batch.record(confidence_B=confidence_B, accepted_B=accepted_B, pseudo_B=pseudo_B)
        temperature = self.settings.temperature
        target = (logits_BK / temperature).softmax(1) if temperature else pseudo_B
        strong_BK = networks.student(batch.strong(0))
        return (F.cross_entropy(strong_BK, target, reduction="none") * accepted_B).mean()
