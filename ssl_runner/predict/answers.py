"""Asking saved models: logits in batches, one model's answers or those of several together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import entr, softmax

from ssl_runner.saved_model import SavedModel
from ssl_runner.train.device import autocast, dtype_of, to_model_input
from ssl_runner.train.evaluation import EVALUATION_BATCH

# M = models, N = images, B = images in a batch, C = channels, H, W = height, width, K = classes


@torch.inference_mode()
def logits_of(
    saved: SavedModel, images_NCHW: np.ndarray, device: torch.device | None = None
) -> np.ndarray:
    """A model's logits, computed as in its own evaluation: the same batches, the same precision.

    Args:
        saved: The model, on the device.
        images_NCHW: uint8 images of the shape it takes; they may be a map of a file.
        device: Where it is; None: the CPU.

    Returns:
        float64, (N, K).
    """
    device = device or torch.device("cpu")
    parts = []
    for images_BCHW in _batches(images_NCHW, EVALUATION_BATCH[device.type]):
        made = to_model_input(
            torch.from_numpy(images_BCHW.copy()), device, dtype_of(saved.card.precision)
        )
        with autocast(saved.card.precision, device):
            logits_BK = saved.module(made)
        parts.append(logits_BK.to(torch.float64).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, len(saved.class_names)))


def _batches(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


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
