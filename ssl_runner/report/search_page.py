"""What the page has of searches: their charts, what was chosen from, and what it cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ssl_runner.report import search_charts, words
from ssl_runner.report.charts import Spec
from ssl_runner.results.importance import importance_of
from ssl_runner.results.search_history import (
    Search,
    history_of,
    search_cost,
    searches,
)
from ssl_runner.results.winners import holdout_sizes, tuning_effect

MOST_ROWS = 200
"""Each of the tables has at most so many rows."""


@dataclass(frozen=True)
class Drawn:
    """A chart of a page: its name, what it is in words, and whether it fits a phone by shrinking."""

    name: str
    spec: Spec
    label: str
    shrinks: bool


@dataclass(frozen=True)
class Listed:
    """A table of a page: what it is, how to read it, its headings and its rows."""

    title: str
    text: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class SearchPart:
    """What a page has of one sweep's searches.

    Attributes:
        heading: Its heading.
        sentences: What the choice cost, and what that means.
        notes: What is left out of the charts, and what can't be told.
        tables: What tuning changed, and how much the choice depends on the holdout's size.
        overview: The charts over all searches.
        details: Those of each setting, and of all settings side by side.
    """

    heading: str
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    tables: tuple[Listed, ...]
    overview: tuple[Drawn, ...]
    details: tuple[Drawn, ...]

    @property
    def charts(self) -> tuple[Drawn, ...]:
        """All of them."""
        return self.overview + self.details


def search_parts(trials: pd.DataFrame) -> list[SearchPart]:
    """A part of the page for the searches of each sweep; none without a search.

    Args:
        trials: Rows as in `results/trials`.
    """
    of_sweeps: dict[str, list[Search]] = {}
    for one in searches(trials):
        of_sweeps.setdefault(one.keys["sweep"], []).append(one)
    several = len(of_sweeps) > 1
    return [
        _part(
            f"Search of {sweep}" if several else "Search",
            f"search-{n}" if several else "search",
            trials[trials["sweep"] == sweep],
            found,
        )
        for n, (sweep, found) in enumerate(of_sweeps.items(), start=1)
    ]


def _part(heading: str, prefix: str, trials: pd.DataFrame, found: Sequence[Search]) -> SearchPart:
    drawn = found[: search_charts.MOST_SEARCHES]
    overview, details, notes = _histories(prefix, drawn), [], _left_out(found)
    measured = {one.name: importance_of(one) for one in drawn}
    told = {name: one for name, one in measured.items() if not one.refused}
    if told:
        measure = next(iter(told.values())).measure
        title = "Importance of each searched setting"
        chart = search_charts.importance_chart(told, title)
        overview.append(Drawn(f"{prefix}-importance", chart, f"{title}, by {measure}", shrinks=True))
        notes.append(
            f"Importance: {measure}, from {words.counted([one.n for one in told.values()])} finished "
            "samples of each search: the share of what a model explains that a setting decides alone. "
            "What settings decide only together is no setting's."
        )
    notes += [
        f"No importance for {name}: {one.refused}." for name, one in measured.items() if one.refused
    ]
    visible = [one for one in drawn if len(search_charts.drawn_samples(one))]
    for setting in dict.fromkeys(setting for one in visible for setting in one.settings):
        of_setting = [one for one in visible if setting in one.settings]
        label = f"{words.objective(of_setting[0].objective)} by {setting.replace('_', ' ')}"
        chart = search_charts.setting_chart(of_setting, setting)
        details.append(Drawn(f"{prefix}-{setting}", chart, label, shrinks=False))
    for n, one in enumerate(visible[: search_charts.MOST_PARALLEL], start=1):
        label = f"Every sample of {one.name}: its searched settings and what it reached"
        chart = search_charts.parallel_chart(one)
        details.append(Drawn(f"{prefix}-parallel-{n}", chart, label, shrinks=False))
    sentences = words.search_cost(search_cost(trials))
    tables = tuple(one for one in (_tuning(trials), _holdouts(trials)) if one.rows)
    return SearchPart(heading, tuple(sentences), tuple(notes), tables, tuple(overview), tuple(details))


def _tuning(trials: pd.DataFrame) -> Listed:
    """What tuning changed, where the settings as they stood were trained too."""
    rows = [
        (
            row["search_group"],
            words.with_spread(row, "untuned", as_share=True),
            words.with_spread(row, "tuned", as_share=True),
            words.points(row["change_mean"], row["change_low"], row["change_high"]),
            str(row["n"]),
        )
        for row in tuning_effect(trials).head(MOST_ROWS).to_dict("records")
    ]
    text = (
        "Test accuracy in %, mean ± standard deviation, of the settings as they stood and of the "
        "chosen ones under the same fresh seeds; the change in points, paired by seed, with its 95 % "
        "interval."
    )
    headings = ("search", "as they stood", "chosen", "change", "n")
    return Listed("What tuning changed", text, headings, tuple(rows))


def _holdouts(trials: pd.DataFrame) -> Listed:
    """How much the choice depends on the holdout's size."""
    rows = [
        (
            row["search_group"],
            f"{row['holdout_labels']:,}",
            str(row["samples"]),
            f"{row['same_winner']:.0%}",
            f"{100 * row['chosen_accuracy']:.2f}",
            words.with_spread(row | {"rest_mean": row["rest_accuracy"]}, "rest", as_share=True),
        )
        for row in holdout_sizes(trials).head(MOST_ROWS).to_dict("records")
    ]
    text = (
        "Smaller holdouts drawn from the search's own: how often they choose, by accuracy, the sample "
        "that the whole one chooses; their choice's accuracy on the images that chose it, which is too "
        "high, and on the others, in %."
    )
    headings = ("search", "labels", "samples", "same choice", "on those", "on the others")
    return Listed("The choice by smaller holdouts", text, headings, tuple(rows))


def _histories(prefix: str, found: Sequence[Search]) -> list[Drawn]:
    """The best so far, by samples and by seconds; none before the first sample has finished."""
    histories = {one.name: history_of(one) for one in found}
    known = {name: each for name, each in histories.items() if each["best"].notna().any()}
    made = []
    for spent, by in (("samples", "number of samples"), ("seconds", "seconds")) if known else ():
        title = f"Best {words.objective(found[0].objective)} so far, by {by}"
        chart = search_charts.history_chart(known, spent, title)
        made.append(Drawn(f"{prefix}-history-{spent}", chart, title, shrinks=True))
    return made


def _left_out(found: Sequence[Search]) -> list[str]:
    """What the charts leave out, in words."""
    notes = []
    longest = max(len(one.samples) for one in found)
    if longest > search_charts.MOST_LINES:
        best = search_charts.MOST_LINES // 5
        notes.append(
            f"At most {search_charts.MOST_LINES} samples of a search are drawn one by one, of up to "
            f"{longest:,}: the best {best}, and others evenly spread over it. The best so far is of "
            "all."
        )
    for most, what in (
        (search_charts.MOST_SEARCHES, "drawn"),
        (search_charts.MOST_PARALLEL, "drawn with all settings side by side"),
    ):
        if len(found) > most:
            notes.append(f"The first {most} of {len(found)} searches are {what}.")
    return notes
