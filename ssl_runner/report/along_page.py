"""What the page has of the questions about the pools: a sentence, a chart and a table for each."""

from dataclasses import dataclass

import pandas as pd

from ssl_runner.report import charts, words
from ssl_runner.report.search_page import Drawn, Listed
from ssl_runner.results.along import Line, conclusion_of, lines_along

HEADING = "What the unlabeled images are worth as the pools change"


@dataclass(frozen=True)
class AlongPart:
    """What the page has of one line: trials that differ along one axis alone.

    Attributes:
        sentence: What it says.
        chart: The gains drawn.
        table: The same as a table, a row for each method and a column for each value.
    """

    sentence: str
    chart: Drawn
    table: Listed


def along_parts(trials: pd.DataFrame) -> list[AlongPart]:
    """A part for each line along which methods can be compared with `pass`.

    Args:
        trials: Rows as in `results/trials`.
    """
    return [
        AlongPart(
            conclusion_of(line),
            _drawn(line, number),
            Listed(
                line.title,
                words.gain_caption(line),
                words.gain_headings(line),
                tuple(words.gain_rows(line)),
            ),
        )
        for number, line in enumerate(lines_along(trials)[: words.MOST_LINES], start=1)
    ]


def _drawn(line: Line, number: int) -> Drawn:
    points = line.points.assign(
        configuration=line.points["method"],
        mean=[100 * gain.value for gain in line.points["gain"]],
        low=[100 * gain.low for gain in line.points["gain"]],
        high=[100 * gain.high for gain in line.points["gain"]],
        n=[gain.n for gain in line.points["gain"]],
    ).drop(columns="gain")
    is_log = line.axis.is_ratio or (line.axis.plain == 1 and points["value"].min() > 0)
    methods = list(dict.fromkeys(points["method"]))
    spec = charts.gain_chart(points, methods, line.title, is_log, line.axis.is_ratio)
    label = f"Gain over pass, {line.title}; the figures are in the table below"
    return Drawn(f"along-{number}", spec, label, shrinks=True)
