"""Answers beside the labels that are known: accuracy, confusion, calibration."""

from dataclasses import dataclass

import numpy as np

from ssl_runner.labels import UNLABELED
from ssl_runner.predict.answers import Answers
from ssl_runner.predict.calibration import Reliability, reliability_of

# b = images of a block, N = all labeled images, K = classes


@dataclass(frozen=True)
class Judgement:
    """What labels say of answers.

    Attributes:
        images: Those with a label, N.
        confusion: Counts, true class × predicted class, (K, K).
        log_loss: Mean cross entropy in nats.
        reliability: Confidence beside accuracy.
    """

    images: int
    confusion: np.ndarray
    log_loss: float
    reliability: Reliability

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return int(self.confusion.trace()) / self.images


class Tally:
    """Collects what a judgement needs, a few bytes of each image.

    Args:
        classes: Number of classes, K.
    """

    def __init__(self, classes: int) -> None:
        self._confusion = np.zeros((classes, classes), np.int64)
        self._loss = 0.0
        self._confidence: list[np.ndarray] = []
        self._right: list[np.ndarray] = []

    def add(self, labels_b: np.ndarray, answers: Answers) -> None:
        """Add a block; images without a label don't count."""
        known = labels_b != UNLABELED
        labels, predicted = labels_b[known], answers.predicted[known]
        np.add.at(self._confusion, (labels, predicted), 1)
        of_label = answers.probabilities[known, labels]
        # As small as a probability may be before its logarithm is no number.
        self._loss -= float(np.log(np.maximum(of_label, np.finfo(np.float64).tiny)).sum())
        self._confidence.append(answers.confidence[known])
        self._right.append(labels == predicted)

    def judge(self) -> Judgement | None:
        """The judgement; None: no image has a label."""
        images = int(self._confusion.sum())
        if not images:
            return None
        return Judgement(
            images=images,
            confusion=self._confusion,
            log_loss=self._loss / images,
            reliability=reliability_of(np.concatenate(self._confidence), np.concatenate(self._right)),
        )
