"""What each method gains over `pass`, or loses, along each question about the pools: a table, and a
sentence for each. Nothing is claimed where an interval includes 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssl_runner.methods.settings import HYPERPARAMETERS
from ssl_runner.results.compare import POOLS, compared_rows, differences, varying_settings
from ssl_runner.results.conclude import Mean, as_points, listed, signed_points


@dataclass(frozen=True)
class Axis:
    """A question about the pools, asked by trials that differ in one of their settings.

    Attributes:
        name: Its name, and that of its columns.
        title: The same in words.
        column: Where the rows have its values.
        settings: Those that may vary along it.
        kind: The setting that tells lines of the same axis apart; None: nothing does.
        is_ratio: Whether its values are ratios, from 1 on; else they are shares.
        plain: The value at which nothing is changed.
    """

    name: str
    title: str
    column: str
    settings: tuple[str, ...]
    kind: str | None = None
    is_ratio: bool = False
    plain: float = 0.0

    def value(self, value: float) -> str:
        """One of its values in words."""
        return f"γ {value:.4g}" if self.is_ratio else f"{100 * value:.4g} %"


_LABELED, _UNLABELED = "labeled_imbalance", "unlabeled_imbalance"

AXES = (
    Axis(
        "unlabeled_fraction",
        "Share of the unlabeled images",
        "unlabeled_fraction",
        ("unlabeled_fraction",),
        plain=1.0,
    ),
    Axis("class_mismatch", "Class mismatch", "class_mismatch", ("unlabeled_classes",)),
    Axis("imbalance", "Long tail of both pools", _LABELED, (_LABELED, _UNLABELED), None, True, 1.0),
    Axis(_LABELED, "Long tail of the labeled pool", _LABELED, (_LABELED,), None, True, 1.0),
    Axis(_UNLABELED, "Long tail of the unlabeled pool", _UNLABELED, (_UNLABELED,), None, True, 1.0),
    Axis("label_noise", "Wrong labels", "label_noise", ("label_noise", "noise_kind"), "noise_kind"),
    Axis("foreign", "Foreign images", "foreign", ("foreign", "foreign_images"), "foreign_images"),
)
"""The questions, in the order in which they are answered."""


@dataclass(frozen=True)
class Line:
    """The gains of several methods along one axis, with all other settings alike.

    Attributes:
        axis: The axis.
        about: What tells it from other lines of that axis, in words; may be empty.
        points: A row for each method and value, methods as in the trials, values rising: `method`,
            `value`, `gain` (a `Mean` over the seeds), `accuracy` and `pass_accuracy` (means).
    """

    axis: Axis
    about: str
    points: pd.DataFrame

    @property
    def title(self) -> str:
        """The axis, and what tells the line apart."""
        return f"{self.axis.title} ({self.about})" if self.about else self.axis.title


def lines_along(trials: pd.DataFrame) -> list[Line]:
    """The lines along which methods can be compared with `pass`.

    Trials are on one line where they differ in nothing but the axis's settings, method and seeds; it
    has at least two values. Each trial's gain is against `pass` with the same seeds at the same value.

    Args:
        trials: Rows as in `results/trials`, of which `compared_rows` are.
    """
    done = compared_rows(trials)
    if done.empty or not any(done[name].nunique(dropna=False) > 1 for name in POOLS):
        return []
    done = differences(trials, ("pass",))
    others = [name for name in varying_settings(done) if name not in (*HYPERPARAMETERS, "order")]
    methods = done[(done["method"] != "pass") & done["to_pass"].notna()]
    lines = []
    for axis in AXES:
        rows = methods
        if axis.name == "imbalance":  # as in both pools: only where both are the same
            rows = rows[rows[_LABELED] == rows[_UNLABELED]]
        keys = ["model", "label_fraction", *(name for name in others if name not in axis.settings)]
        several = [name for name in keys if methods[name].nunique(dropna=False) > 1]
        found: dict[tuple[str, ...], list[Line]] = {}
        for _, group in rows.groupby(keys, dropna=False, sort=False):
            for kind, line in _by_kind(axis, group):
                known = line[line[axis.column].notna()]
                if known[axis.column].nunique() < 2:
                    continue
                first = known.iloc[0]
                apart = [kind, *(_named(name, first) for name in several if name not in POOLS)]
                changed = [
                    _named(name, first)
                    for name in several
                    if name in POOLS and not _is_default(name, first[name])
                ]
                about = ", ".join(filter(None, [*apart, *changed]))
                found.setdefault(tuple(apart), []).append(Line(axis, about, _points(axis, known)))
        for alike in found.values():
            # Where two axes cross, a line that is only as long as the crossing is no line.
            most = max(line.points["value"].nunique() for line in alike)
            lines += [line for line in alike if line.points["value"].nunique() == most]
    return lines


def _named(name: str, row: pd.Series) -> str:
    """A setting and its value; empty: it has none."""
    value = row[name]
    if pd.isna(value):
        return ""
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    return f"{name.replace('_', ' ')} {text}"


def _is_default(name: str, value: Any) -> bool:
    return bool(pd.isna(value) or value == POOLS[name])


def _by_kind(axis: Axis, group: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """A group's rows for each kind of change, the unchanged ones with each."""
    if axis.kind is None:
        return [("", group)]
    kinds = list(group[axis.kind].dropna().unique())
    unchanged = group[axis.kind].isna()
    return [(str(kind), group[unchanged | (group[axis.kind] == kind)]) for kind in kinds]


def _points(axis: Axis, rows: pd.DataFrame) -> pd.DataFrame:
    points = []
    for method in rows["method"].unique():
        own = rows[rows["method"] == method]
        for value, at in own.groupby(axis.column, sort=True):
            points.append(
                {
                    "method": method,
                    "value": float(value),
                    "gain": Mean.of(at["to_pass"]),
                    "accuracy": at["test_accuracy"].mean(),
                    "pass_accuracy": (at["test_accuracy"] - at["to_pass"]).mean(),
                }
            )
    return pd.DataFrame(points)


def gains_along(trials: pd.DataFrame) -> pd.DataFrame:
    """What each method gains over `pass` along each question about the pools.

    Args:
        trials: Rows as in `results/trials`, of which `compared_rows` are.

    Returns:
        A row per axis, line (`about`: what tells it from others of that axis), method and value:
        `accuracy` and `pass_accuracy`, the mean test accuracies; `gain`, `low` and `high`: the mean
        difference, paired by seed, and its 95 % interval by Student's t (NaN of one seed); `n`: the
        pairs.
    """
    names = [
        "axis",
        "about",
        "method",
        "value",
        "accuracy",
        "pass_accuracy",
        "gain",
        "low",
        "high",
        "n",
    ]
    rows = [
        {"axis": line.axis.name, "about": line.about}
        | point
        | {"gain": gain.value, "low": gain.low, "high": gain.high, "n": gain.n}
        for line in lines_along(trials)
        for point in line.points.to_dict("records")
        for gain in [point["gain"]]
    ]
    return pd.DataFrame(rows, columns=names)


# ---- sentences ----


def conclusion_of(line: Line) -> str:
    """What a line says, in a sentence: each method at both ends, and where it harms."""
    clauses = []
    for method in line.points["method"].unique():
        own = line.points[line.points["method"] == method]
        several = own[[gain.n > 1 for gain in own["gain"]]]
        own = own if several.empty else several
        values, gains = own["value"].tolist(), own["gain"].tolist()
        clauses.append(_clause(line.axis, str(method), values, gains))
    return f"{line.title}: {'; '.join(clauses)}."


def _clause(axis: Axis, method: str, values: Sequence[float], gains: Sequence[Mean]) -> str:
    """What one method's gains say."""
    is_one = any(gain.n < 2 for gain in gains)
    ends = [0] if len(values) == 1 else [0, len(values) - 1]
    text = method
    for end in ends:
        gain, before = gains[end], gains[ends[0]]
        verb, figure = _said(gain, is_one)
        is_same = end != ends[0] and verb == _said(before, is_one)[0]
        link = "" if end == ends[0] else "nor " if is_same and gain.sign == 0 and not is_one else "and "
        text += f" {link}{figure if is_same else f'{verb} {figure}'.strip()}".rstrip()
        text += f" at {axis.value(values[end])}"
        if gain.sign == 0 and not is_one:
            text += f" ({signed_points(gain)})"
    if is_one:
        return f"in one seed, {text}"
    harms = _where(axis, values, [gain.sign < 0 for gain in gains])
    helps = _where(axis, values, [gain.sign > 0 for gain in gains])
    if harms:
        return f"{text}, and harms {harms}"
    # Where it gains at both ends and between, that has been said.
    return f"{text}, and surely gains {helps}" if helps and helps != _EVERYWHERE else text


def _said(gain: Mean, is_one: bool) -> tuple[str, str]:
    """A gain as a verb and its figure: `gains`, `1.4 points (1.0 to 1.8)`."""
    if is_one:
        side = "above" if gain.value >= 0 else "below"
        return "was", f"{as_points(gain.absolute())} {side} pass"
    if gain.sign == 0:
        return "is not told from pass", ""
    return "gains" if gain.sign > 0 else "loses", as_points(gain.absolute())


_EVERYWHERE = "at every value tried"


def _where(axis: Axis, values: Sequence[float], holds: Sequence[bool]) -> str:
    """Where something holds, of which both ends have been said; empty: nowhere else."""
    places = [place for place, each in enumerate(holds) if each]
    last = len(values) - 1
    if len(places) == len(values):
        return _EVERYWHERE
    if not [place for place in places if place not in (0, last)]:
        return ""  # at an end alone
    if places == list(range(places[0], last + 1)):
        return f"from {axis.value(values[places[0]])} on"
    if places == list(range(places[-1] + 1)):
        return f"up to {axis.value(values[places[-1]])}"
    return f"at {listed([axis.value(values[place]) for place in places])}"


def conclude_along(trials: pd.DataFrame) -> list[str]:
    """A sentence for each line, from its figures alone; none where no setting of the pools varies."""
    return [conclusion_of(line) for line in lines_along(trials)]
