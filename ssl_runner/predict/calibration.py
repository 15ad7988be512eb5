"""Whether a model is as often right as it is sure, and the temperature that mends it."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ssl_runner.errors import require

# N = images, K = classes, J = bins

BINS = 15
"""As in Guo et al. 2017."""

_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Reliability:
    """Confidence beside accuracy, in bins of equal width over (0, 1].

    Attributes:
        edges: Of the bins, (J + 1,).
        counts: Images in each, (J,).
        confidence: Their mean confidence, (J,); NaN where a bin has none.
        accuracy: The share of them that is classified correctly, (J,); NaN where a bin has none.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the bins' mean absolute gap between accuracy and confidence,
        weighted by their images (Naeini et al. 2015; Guo et al. 2017, §2, eq. 3)."""
        gaps = np.abs(self.accuracy - self.confidence)
        filled = self.counts > 0
        return float((self.counts[filled] * gaps[filled]).sum() / self.counts.sum())


def reliability(probabilities_NK: np.ndarray, labels_N: np.ndarray, bins: int = BINS) -> Reliability:
    """How often images of each confidence are classified correctly.

    Args:
        probabilities_NK: Of each class, (N, K), N at least 1.
        labels_N: The true classes, (N,).
        bins: Number of bins; one of (a, b] holds the images of a confidence above a and up to b.
    """
    require(len(labels_N) > 0, "the labeled images", "at least one", 0, "Name a set with labels.")
    confidence_N = probabilities_NK.max(axis=1).astype(np.float64)
    right_N = probabilities_NK.argmax(axis=1) == labels_N
    edges = np.linspace(0, 1, bins + 1)
    place_N = np.clip(np.searchsorted(edges, confidence_N, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place_N, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(place_N, weights=confidence_N, minlength=bins) / counts
        accuracy = np.bincount(place_N, weights=right_N, minlength=bins) / counts
    return Reliability(edges, counts, confidence, accuracy)


def mean_log_loss(logits_NK: np.ndarray, labels_N: np.ndarray, temperature: float = 1.0) -> float:
    """Mean cross entropy in nats of logits that are divided by a temperature."""
    scaled_NK = log_softmax(logits_NK.astype(np.float64) / temperature, axis=1)
    return float(-scaled_NK[np.arange(len(labels_N)), labels_N].mean())


def fit_temperature(logits_NK: np.ndarray, labels_N: np.ndarray) -> float:
    """The temperature of the least cross entropy (Guo et al. 2017, §4.2, temperature scaling).

    It changes how sure the model is, and no answer.

    Args:
        logits_NK: On images that the model was not trained on, (N, K), N at least 1.
        labels_N: Their true classes, (N,).

    Returns:
        A temperature in [0.05, 20].
    """
    require(len(labels_N) > 0, "the images to calibrate on", "at least one", 0, "Name more.")
    low, high = np.log(_TEMPERATURES)
    # The loss is convex in 1/T, so it has one minimum over log T too.
    found = minimize_scalar(
        lambda log_t: mean_log_loss(logits_NK, labels_N, float(np.exp(log_t))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))
