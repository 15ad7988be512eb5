"""Chosen images in order, each with its score; and how arrays of probabilities are checked."""

from typing import NamedTuple

import numpy as np

from ssl_runner.errors import InputError, require

DECIMALS = 12
"""Scores of probabilities that agree to so many decimals are equal: logarithms differ in their last
bits from CPU to CPU, and must not decide the order."""

ROUNDING = 0.01
"""A row of probabilities may miss 1 by so much: bf16 has eight bits."""


class Choice(NamedTuple):
    """Chosen images, the most wanted first.

    Attributes:
        indices: Index of each image, int64, shape (chosen,), none twice.
        scores: Why it was chosen, float64, shape (chosen,).
    """

    indices: np.ndarray
    scores: np.ndarray


def highest(scores: np.ndarray, indices: np.ndarray, number: int) -> Choice:
    """The `number` images of the highest scores; those of equal scores by index.

    Args:
        scores: A score for each of `indices`, finite.
        indices: Images, in any order.
    """
    rounded = np.round(scores.astype(np.float64), DECIMALS) + 0.0  # no −0.0
    order = np.lexsort((indices, -rounded))[:number]
    return Choice(indices[order].astype(np.int64), rounded[order])


def check_finite(values: np.ndarray, images: np.ndarray, name: str) -> None:
    """Raise an `InputError` that names the first image with a NaN or an infinity.

    Args:
        values: One row for each of `images`, shape (N, …).
        images: What to call the rows, shape (N,).
        name: What the values are.
    """
    finite_N = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))
    if not finite_N.all():
        row = int(np.argmin(finite_N))
        wrong = values[row][~np.isfinite(values[row])].flat[0]
        raise InputError(
            f"{name} must be finite, got {wrong} for image {images[row]}. "
            "Check the model that gave them, or leave the image out of the candidates."
        )


def check_probabilities(probabilities_NK: np.ndarray, images: np.ndarray) -> None:
    """Raise an `InputError` unless every row is a distribution over the classes.

    Args:
        probabilities_NK: Probabilities by one model, float64, shape (N, K).
        images: What to call the rows, shape (N,).
    """
    fix = "Give softmax's output, not logits."
    check_finite(probabilities_NK, images, "probabilities")
    require(
        probabilities_NK.shape[1] > 0,
        "probabilities",
        "of one class or more",
        0,
        "Give one column each.",
    )
    least = probabilities_NK.min(initial=0.0)
    require(bool(least >= 0), "probabilities", "at least 0", float(least), fix)
    miss_N = np.abs(probabilities_NK.sum(axis=1) - 1)
    if miss_N.max(initial=0.0) > ROUNDING:
        row = int(miss_N.argmax())
        total = float(probabilities_NK[row].sum())
        raise InputError(
            f"probabilities must add up to 1 for each image, got {total:g} "
            f"for image {images[row]}. {fix}"
        )
