"""What a terminal shows of answers: how right and how sure they are, which classes they mix up."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from ssl_runner.predict.calibrating import Calibrated
from ssl_runner.predict.judging import Judgement

MOST_CLASSES, MOST_PAIRS = 12, 10
"""Confusions of at most so many classes are shown whole; of more, so many pairs."""


def print_judgement(
    judgement: Judgement, before: Judgement | None, class_names: Sequence[str], console: Console
) -> None:
    """Print what the labels say of the answers.

    Args:
        before: The same without calibration; None: there is none.
    """
    console.print(
        f"{judgement.images:,} labeled images: accuracy {judgement.accuracy:.4f}, log loss "
        f"{judgement.log_loss:.4f}, expected calibration error {judgement.reliability.error:.4f}",
        highlight=False,
    )
    if before is not None:
        console.print(
            f"before calibration: accuracy {before.accuracy:.4f}, log loss {before.log_loss:.4f}, "
            f"expected calibration error {before.reliability.error:.4f}",
            highlight=False,
        )
    console.print(_confusions(judgement.confusion, class_names))
    console.print(_bins(judgement))


def _confusions(confusion: np.ndarray, class_names: Sequence[str]) -> Table:
    if len(class_names) <= MOST_CLASSES:
        table = Table(title="Images by true class (rows) and predicted class")
        for heading in ("", *class_names):
            table.add_column(heading, justify="left" if not heading else "right")
        for name, counts in zip(class_names, confusion, strict=True):
            table.add_row(name, *(f"{count:,}" if count else "·" for count in counts))
        return table
    wrong = confusion - np.diag(np.diag(confusion))
    table = Table(title=f"The {MOST_PAIRS} most frequent confusions")
    for heading in ("true class", "predicted class", "images"):
        table.add_column(heading, justify="right" if heading == "images" else "left")
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:MOST_PAIRS]:
        true, predicted = divmod(int(cell), len(class_names))
        if wrong[true, predicted]:
            table.add_row(class_names[true], class_names[predicted], f"{wrong[true, predicted]:,}")
    return table


def _bins(judgement: Judgement) -> Table:
    bins = judgement.reliability
    table = Table(title="How sure, and how often right")
    for heading in ("confidence", "images", "mean confidence", "accuracy"):
        table.add_column(heading, justify="right")
    for j in np.flatnonzero(bins.counts):
        table.add_row(
            f"{bins.edges[j]:.3f} – {bins.edges[j + 1]:.3f}",
            f"{bins.counts[j]:,}",
            f"{bins.confidence[j]:.4f}",
            f"{bins.accuracy[j]:.4f}",
        )
    return table


def print_calibration(calibrated: Sequence[Calibrated], console: Console) -> None:
    """Print each model's temperature, and what it changes where it was fitted."""
    table = Table(title="Temperatures, and their effect on the images that they were fitted on")
    for heading in (
        "model",
        "fitted on",
        "temperature",
        "ECE before",
        "after",
        "log loss before",
        "after",
    ):
        table.add_column(heading, justify="left" if heading in ("model", "fitted on") else "right")
    for one in calibrated:
        errors = (one.before.reliability.error, one.after.reliability.error)
        losses = (one.before.log_loss, one.after.log_loss)
        figures = (one.temperature, *errors, *losses)
        table.add_row(one.model, one.images, *(f"{figure:.4f}" for figure in figures))
    console.print(table)
