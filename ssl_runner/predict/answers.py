"""What models say of images: one model's answers, or those of several together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr, softmax

# M = models, N = images, K = classes


@dataclass(frozen=True)
class Answers:
    """What one or several models say of images.

    Attributes:
        of_each: The probabilities of each class by each model, (M, N, K).
    """

    of_each: np.ndarray

    @property
    def probabilities(self) -> np.ndarray:
        """Of each class, the mean over the models, (N, K)."""
        mean: np.ndarray = self.of_each.mean(axis=0)
        return mean

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image, (N,); of equal ones the first."""
        predicted: np.ndarray = self.probabilities.argmax(axis=1)
        return predicted

    @property
    def confidence(self) -> np.ndarray:
        """The probability of that class, (N,)."""
        confidence: np.ndarray = self.probabilities.max(axis=1)
        return confidence

    @property
    def margin(self) -> np.ndarray:
        """Its lead over the second most probable class, (N,)."""
        two = np.partition(self.probabilities, -2, axis=1)[:, -2:]
        margin: np.ndarray = two[:, 1] - two[:, 0]
        return margin

    @property
    def entropy(self) -> np.ndarray:
        """Of the probabilities, in nats, (N,)."""
        p = self.probabilities
        entropy: np.ndarray = entr(p).sum(axis=1)
        return entropy

    @property
    def disagreement(self) -> np.ndarray:
        """The share of the models whose own answer differs from that of all together, (N,)."""
        share: np.ndarray = (self.of_each.argmax(axis=2) != self.predicted).mean(axis=0)
        return share


def answers_of(
    logits_MNK: Sequence[np.ndarray], temperatures: Sequence[float] | None = None
) -> Answers:
    """The answers behind the logits of one or several models.

    Args:
        logits_MNK: Of each model, (N, K).
        temperatures: What each model's logits are divided by; None: 1.
    """
    scaled = [
        logits_NK / (1.0 if temperatures is None else temperatures[m])
        for m, logits_NK in enumerate(logits_MNK)
    ]
    return Answers(np.stack([softmax(logits_NK, axis=1) for logits_NK in scaled]))
