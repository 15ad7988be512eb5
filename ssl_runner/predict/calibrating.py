"""Temperatures fitted on images that the models were not trained on, and what they change."""

from dataclasses import dataclass

import numpy as np

from ssl_runner.predict.answers import answers_of
from ssl_runner.predict.calibration import fit_temperature
from ssl_runner.predict.judging import Judgement, Tally

# n = images, K = classes


@dataclass(frozen=True)
class Calibrated:
    """A model's temperature, and what it does on the images that it was fitted on.

    Attributes:
        model: Its name.
        images: What they are, in words.
        temperature: What its logits are divided by.
        before, after: Without it, and with it.
    """

    model: str
    images: str
    temperature: float
    before: Judgement
    after: Judgement


def calibrate(model: str, images: str, logits_nK: np.ndarray, labels_n: np.ndarray) -> Calibrated:
    """Fit a model's temperature.

    Args:
        model, images: As in `Calibrated`.
        logits_nK: Its logits.
        labels_n: The classes, each known.

    Raises:
        InputError: If there is no image.
    """
    temperature = fit_temperature(logits_nK, labels_n)
    judged = []
    for divisor in (1.0, temperature):
        tally = Tally(logits_nK.shape[1])
        tally.add(labels_n, answers_of([logits_nK], [divisor]))
        judgement = tally.judge()
        assert judgement is not None, "each label is known"
        judged.append(judgement)
    return Calibrated(model, images, temperature, *judged)
