"""The built-in methods for the unlabeled batch, but for those in `matching`."""

import torch
import torch.nn.functional as F

from ssl_runner.methods.base import Method, Networks, UnlabeledBatch
from ssl_runner.methods.settings import MethodSettings

# B = images in this rank's batch, C = channels, H and W = height and width, K = classes


class Pass(Method):
    """Nothing is learned from an unlabeled batch: the reference for every other method.

    The batches stay in the epoch's plan and are counted; no pixel of them is fetched.
    """

    needs_unlabeled = False


class PseudoLabel(Method):
    """The model's own arg-max where it is confident, learned on the same view (Lee 2013, section 2.2).

    The threshold on the confidence, and the mean over all images with the others at zero, are those
    of google-research/fixmatch, `pseudo_label.py`. Defaults: τ 0.95, λ 1, μ 1, ramp over 40 %.
    """

    def unlabeled_loss(self, networks: Networks, batch: UnlabeledBatch, step: int) -> torch.Tensor:
        """Cross entropy with the arg-max, where its probability is at least τ."""
        assert self.settings.threshold is not None
        logits_BK = networks.student(batch.weak(0))
        confidence_B, pseudo_B = logits_BK.detach().softmax(1).max(1)
        accepted_B = confidence_B >= self.settings.threshold
        batch.record(confidence_B=confidence_B, accepted_B=accepted_B, pseudo_B=pseudo_B)
        return (F.cross_entropy(logits_BK, pseudo_B, reduction="none") * accepted_B).mean()


class PiModel(Method):
    """Two views of an image should have the same probabilities (Laine and Aila 2017, section 2.1).

    The mean over the classes of the squared difference, with gradient through both views. Defaults:
    λ 10, μ 1, ramp over 40 %, as in google-research/fixmatch.
    """

    def unlabeled_loss(self, networks: Networks, batch: UnlabeledBatch, step: int) -> torch.Tensor:
        """Squared difference of the softmax outputs under two weak views."""
        both = networks.student(torch.cat([batch.weak(0), batch.weak(1)])).softmax(1)
        one_BK, other_BK = both.chunk(2)
        batch.record(confidence_B=one_BK.detach().amax(1))
        return F.mse_loss(one_BK, other_BK)


class MeanTeacher(Method):
    """The same with a teacher, the running average of the weights (Tarvainen and Valpola 2017,
    section 2).

    The teacher predicts in evaluation mode; its average starts as a plain one, min(1 − 1/(step + 1),
    α). Defaults: λ 50, μ 1, ramp over 40 %, α 0.99 for runs of some thousand steps (0.999 there).
    """

    def unlabeled_loss(self, networks: Networks, batch: UnlabeledBatch, step: int) -> torch.Tensor:
        """Squared difference of the softmax outputs of student and teacher under two weak views."""
        target_BK = networks.teacher(batch.weak(1)).softmax(1)
        student_BK = networks.student(batch.weak(0)).softmax(1)
        batch.record(confidence_B=target_BK.amax(1))
        return F.mse_loss(student_BK, target_BK)


class FixMatch(Method):
    """A confident pseudo-label of the weak view, learned on the strong view (Sohn et al. 2020,
    section 2.2).

    Defaults: τ 0.95, λ 1 from the start, hard labels; α 0.99 for runs of some thousand steps (the
    paper: 0.999 of 2²⁰); μ 1 where the paper has 7, to suit a CPU. With a `temperature` the target
    is the sharpened softmax. With `alignment` the predictions are first scaled by the labeled pool's
    class shares over the running mean of the predictions (Berthelot et al. 2020, "ReMixMatch",
    section 3.1).
    """

    has_class_thresholds = False
    shares_K: torch.Tensor
    mean_K: torch.Tensor

    def __init__(self, settings: MethodSettings, shares_K: torch.Tensor) -> None:
        super().__init__(settings, shares_K)
        self.register_buffer("shares_K", shares_K, persistent=False)
        self.register_buffer("mean_K", torch.full_like(shares_K, 1 / len(shares_K)))

    def unlabeled_loss(self, networks: Networks, batch: UnlabeledBatch, step: int) -> torch.Tensor:
        """Cross entropy of the strong view with the weak view's target, where that is confident."""
        logits_BK = networks.predict(batch.weak(0))
        probability_BK = logits_BK.softmax(1)
        if self.settings.alignment or self.has_class_thresholds:
            self.move(self.mean_K, batch.mean(probability_BK))
        if self.settings.alignment:
            logits_BK = logits_BK + (self.shares_K / self.mean_K).log()
            probability_BK = logits_BK.softmax(1)
        confidence_B, pseudo_B = probability_BK.max(1)
        accepted_B = confidence_B >= self.thresholds(confidence_B, batch)[pseudo_B]
        batch.record(confidence_B=confidence_B, accepted_B=accepted_B, pseudo_B=pseudo_B)
        temperature = self.settings.temperature
        target = (logits_BK / temperature).softmax(1) if temperature else pseudo_B
        strong_BK = networks.student(batch.strong(0))
        return (F.cross_entropy(strong_BK, target, reduction="none") * accepted_B).mean()

    def move(self, running: torch.Tensor, new: torch.Tensor) -> None:
        """Update a running mean."""
        assert self.settings.momentum is not None
        running.lerp_(new, 1 - self.settings.momentum)

    def thresholds(self, confidence_B: torch.Tensor, batch: UnlabeledBatch) -> torch.Tensor:
        """The minimum confidence of a pseudo-label, for each class, (K,)."""
        assert self.settings.threshold is not None
        return torch.full_like(self.mean_K, self.settings.threshold)


class FreeMatch(FixMatch):
    """FixMatch with thresholds that follow the model (Wang et al. 2023, section 3.1, equations 5 to 8).

    The global one is the running mean of the confidence; each class's is that times the class's share
    in the running mean of the predictions, the most frequent class's being 1. In place of the
    paper's fairness term (section 3.2), whose logarithms of batch means would make the loss depend
    on how a batch is split over workers, the predictions are aligned to the labels' shares (as in
    `FixMatch`). Defaults: λ 1, μ 1, running means at 0.99 for runs of some thousand steps (the paper:
    0.999 of 2²⁰), α 0.99.
    """

    has_class_thresholds = True
    confidence: torch.Tensor

    def __init__(self, settings: MethodSettings, shares_K: torch.Tensor) -> None:
        super().__init__(settings, shares_K)
        self.register_buffer("confidence", shares_K.new_tensor(1 / len(shares_K)))

    def thresholds(self, confidence_B: torch.Tensor, batch: UnlabeledBatch) -> torch.Tensor:
        """The global threshold, lower for classes that are rarely predicted."""
        self.move(self.confidence, batch.mean(confidence_B))
        return self.mean_K / self.mean_K.max() * self.confidence
