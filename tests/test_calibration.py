"""Reliability and temperature, beside slow versions and cases worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from ssl_runner.predict.answers import Answers, answers_of
from ssl_runner.predict.calibration import fit_temperature, mean_log_loss, reliability


def two_classes(confidence: list[float]) -> np.ndarray:
    """Probabilities of two classes, the first one named with these confidences."""
    return np.array([[c, 1 - c] for c in confidence])


def test_a_bin_holds_what_is_above_its_lower_edge() -> None:
    made = reliability(two_classes([0.6, 0.75, 0.8, 1.0]), np.array([0, 0, 1, 0]), bins=4)
    assert made.counts.tolist() == [0, 0, 2, 2]  # (0.5, 0.75] and (0.75, 1]
    assert made.confidence[2:] == pytest.approx([0.675, 0.9])
    assert made.accuracy[2:] == pytest.approx([1.0, 0.5])
    assert np.isnan(made.accuracy[:2]).all()
    assert made.error == pytest.approx((2 * 0.325 + 2 * 0.4) / 4)


@given(st.integers(1, 60), st.integers(2, 5), st.integers(1, 20), st.integers(0, 99))
def test_the_calibration_error_equals_a_slow_one(n: int, k: int, bins: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = softmax(3 * random.normal(size=(n, k)), axis=1)
    labels = random.integers(0, k, n)
    error = 0.0
    for j in range(bins):
        inside = [
            i
            for i in range(n)
            if j / bins < probabilities[i].max() <= (j + 1) / bins
            or (j == bins - 1 and probabilities[i].max() > 1)
        ]
        if inside:
            confidence = sum(probabilities[i].max() for i in inside) / len(inside)
            accuracy = sum(probabilities[i].argmax() == labels[i] for i in inside) / len(inside)
            error += len(inside) / n * abs(confidence - accuracy)
    made = reliability(probabilities, labels, bins)
    assert made.error == pytest.approx(error, abs=1e-12)
    assert made.counts.sum() == n


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    random = np.random.default_rng(0)
    logits = 4 * random.normal(size=(200_000, 5))
    chances = softmax(logits / temperature, axis=1).cumsum(axis=1)
    labels = (random.random((200_000, 1)) > chances).sum(axis=1).clip(max=4)
    found = fit_temperature(logits, labels)
    # Four standard errors of the maximum-likelihood estimate, from the curvature of the loss.
    step = 1e-3 * found
    losses = [mean_log_loss(logits, labels, found + sign * step) for sign in (-1, 0, 1)]
    curvature = (losses[0] - 2 * losses[1] + losses[2]) / step**2
    assert abs(found - temperature) < 4 / math.sqrt(curvature * 200_000)


def test_a_temperature_changes_no_answer_and_lessens_the_loss() -> None:
    random = np.random.default_rng(1)
    logits = 10 * random.normal(size=(500, 3))
    labels = random.integers(0, 3, 500)
    found = fit_temperature(logits, labels)
    assert found > 5  # these answers are no better than chance, and much too sure
    assert mean_log_loss(logits, labels, found) < mean_log_loss(logits, labels)
    before, after = answers_of([logits]), answers_of([logits], [found])
    assert np.array_equal(before.predicted, after.predicted)
    assert (after.confidence < before.confidence).all()


def test_without_labels_there_is_nothing_to_judge() -> None:
    with pytest.raises(ValueError, match="labeled images must be at least one, got 0"):
        reliability(np.empty((0, 2)), np.empty(0, int))
    with pytest.raises(ValueError, match="images to calibrate on must be at least one"):
        fit_temperature(np.empty((0, 2)), np.empty(0, int))


def test_several_models_answer_with_their_mean() -> None:
    of_each = np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.5, 0.5]], [[0.7, 0.3], [1.0, 0.0]]])
    answers = Answers(of_each)
    assert answers.probabilities == pytest.approx(np.array([[0.6, 0.4], [2 / 3, 1 / 3]]))
    assert answers.predicted.tolist() == [0, 0]
    assert answers.confidence == pytest.approx([0.6, 2 / 3])
    assert answers.margin == pytest.approx([0.2, 1 / 3])
    assert answers.disagreement == pytest.approx([1 / 3, 0])
    expected = [-sum(p * math.log(p) for p in row) for row in answers.probabilities.tolist()]
    assert answers.entropy == pytest.approx(expected)
    assert Answers(np.array([[[1.0, 0.0]]])).entropy.tolist() == [0]
