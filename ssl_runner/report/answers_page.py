"""A model's answers as a page: how right and how sure they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ssl_runner.predict.answering import Written
from ssl_runner.predict.calibrating import Calibrated
from ssl_runner.predict.judging import Judgement
from ssl_runner.report import charts
from ssl_runner.report.page import vega_script
from ssl_runner.report.pictures import environment, time_now

MOST_CLASSES = 50
"""Confusions of more classes are not drawn."""


def answers_page(
    title: str,
    class_names: Sequence[str],
    written: Written,
    calibrated: Sequence[Calibrated],
) -> str:
    """The page as HTML, with everything it needs inside.

    Args:
        title: Which models answered, on which images.
        class_names: Of the classes.
        written: How many, and what the labels say of the answers.
        calibrated: The models' temperatures; empty: they have none.
    """
    judgement, before = written.judgement, written.before
    judged: dict[str, Judgement] = {}
    if judgement is not None:
        judged = {"as the models say" if before is None else "calibrated": judgement}
    if before is not None:
        judged = {"before calibration": before} | judged
    facts = {"images": f"{written.images:,}"}
    for name, each in judged.items():
        facts[name] = (
            f"accuracy {each.accuracy:.4f} of {each.images:,} labeled images, log loss "
            f"{each.log_loss:.4f}, expected calibration error {each.reliability.error:.4f}"
        )
    for one in calibrated:
        facts[f"temperature of {one.model}"] = f"{one.temperature:.4f}, fitted on {one.images}"
    bins = [row for name, each in judged.items() for row in _bins(name, each)]
    made: dict[str, charts.Spec] = {}
    if judgement is not None:
        made["reliability"] = charts.reliability_chart(pd.DataFrame(bins))
        if len(class_names) <= MOST_CLASSES:
            made["confusion"] = charts.confusion_chart(
                class_names, judgement.confusion.tolist(), "Confusions (rows: true classes)"
            )
    template = environment().get_template("answers.html")
    script = vega_script()
    return template.render(
        title=title, facts=facts, bins=bins, charts=made, made=time_now(), script=script
    )


def _bins(name: str, judgement: Judgement) -> list[Mapping[str, Any]]:
    found = judgement.reliability
    return [
        {
            "configuration": name,
            "low": float(found.edges[j]),
            "high": float(found.edges[j + 1]),
            "images": int(found.counts[j]),
            "confidence": float(found.confidence[j]),
            "accuracy": float(found.accuracy[j]),
        }
        for j in np.flatnonzero(found.counts)
    ]
