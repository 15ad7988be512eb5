"""Texts that terminal and page share: headings, configurations, differences, the best."""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ssl_runner.datasets.settings import is_path
from ssl_runner.metrics import COMPARED, is_share

# pandas takes half a second to import, which --help and a refused flag can do without.
if TYPE_CHECKING:
    import pandas as pd

    from ssl_runner.results.along import Line
    from ssl_runner.results.ranking import Ranking
    from ssl_runner.results.standings import Standing

QUESTION = "how far do the labels go?"
"""The question of a sweep that states none."""

Row = Mapping[Hashable, Any]
"""A row of `results.compare`."""


def heading(trials: "pd.DataFrame") -> str:
    """The names of the sweeps, and their questions."""
    questions = list(dict.fromkeys(trials["question"].dropna()))
    return f"{', '.join(sorted(set(trials['sweep'])))}: {' '.join(questions) or QUESTION}"


def is_missing(value: Any) -> bool:
    """Whether a table has no value there: None, or NaN."""
    return value is None or bool(value != value)


def keys_of(compared: "pd.DataFrame") -> list[str]:
    """The columns that tell the rows of a comparison, or the lines of a label curve, apart."""
    end = compared.columns.get_loc("labeled_images")
    assert isinstance(end, int)
    return list(compared.columns[:end])


def configuration(row: Mapping[Any, Any], keys: list[str]) -> str:
    """A configuration in words, such as `CNN partial 0.1 fixmatch, lr 0.01`."""
    fraction = "" if row["config"] == "full" else f" {row['label_fraction']:.4g}"
    method = "" if row["method"] == "pass" else f" {row['method']}"
    return f"{row['model']} {row['config']}{fraction}{method}{_others(row, keys[4:])}"


def series(row: Mapping[Any, Any], varying: list[str]) -> str:
    """A label curve in words: its method, its model if there are several, other varying settings."""
    model = f"{row['model']} " if "model" in varying else ""
    others = [name for name in varying if name not in ("model", "method")]
    return f"{model}{row['method']}{_others(row, others)}"


def value_text(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return str(value)
    short = f"{value:.10g}"
    return short if float(short) == value else repr(value)


def _others(row: Mapping[Any, Any], names: list[str]) -> str:
    """Other settings, such as `, lr 0.01`, without those that have no value."""
    known = [name for name in names if not is_missing(row[name])]
    return "".join(f", {name.replace('_', ' ')} {row[name]}" for name in known)


def metrics_of(compared: "pd.DataFrame") -> dict[str, str]:
    """The metrics to show, with their headings. The macro-averaged accuracy is shown where it says
    something else than the plain one: where the test images are not balanced over the classes."""
    macro = "test_macro_accuracy"
    apart = (compared[f"{macro}_mean"] - compared["test_accuracy_mean"]).abs()
    return {
        name: heading for name, heading in COMPARED.items() if name != macro or (apart > 1e-9).any()
    }


def differences(compared: "pd.DataFrame") -> list[str]:
    """The references ("full", "pass", …) that any other configuration is compared with."""
    names = [
        name[3:-5] for name in map(str, compared) if name.startswith("to_") and name.endswith("_mean")
    ]
    return [
        name
        for name in names
        if any(
            not (math.isnan(row[f"to_{name}_mean"]) or _is_reference(row, name))
            for row in compared.to_dict("records")
        )
    ]


def difference(row: Row, baseline: str) -> str:
    """A mean difference in points, with its confidence interval where there is one."""
    mean, low, high = (row[f"to_{baseline}_{part}"] for part in ("mean", "low", "high"))
    if math.isnan(mean) or _is_reference(row, baseline):
        return "–"
    return points(mean, low, high)


def points(mean: float, low: float, high: float) -> str:
    """A difference of shares in points, with its confidence interval where there is one."""
    text = f"{100 * mean:+.2f}"
    return text if math.isnan(low) else f"{text} ({100 * low:+.2f} to {100 * high:+.2f})"


def _is_reference(row: Row, baseline: str) -> bool:
    if baseline == "full":
        return bool(row["config"] == "full" and row["method"] == "pass")
    return baseline in (row["method"], row.get("selection"))


def is_best(compared: "pd.DataFrame", row: Row, name: str) -> bool:
    """Whether a row has the best of several means: the lowest loss, the highest accuracy."""
    means = compared[f"{name}_mean"]
    best = means.max() if is_share(name) else means.min()
    return bool(means.nunique() > 1 and row[f"{name}_mean"] == best)


def with_spread(row: Row, name: str, as_share: bool | None = None) -> str:
    """A mean, with its standard deviation where there is one; shares in %.

    Args:
        as_share: Whether it is a share; None: it is a compared metric, by whose name that is known.
    """
    mean, spread = row[f"{name}_mean"], row[f"{name}_spread"]
    if math.isnan(mean):
        return "–"
    scale, digits = (100, 2) if (is_share(name) if as_share is None else as_share) else (1, 3)
    text = f"{mean * scale:.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {spread * scale:.{digits}f}"


def tuning(effect: "pd.DataFrame") -> list[str]:
    """What tuning changed, a line for each search.

    Args:
        effect: From `results.winners.tuning_effect`.
    """
    lines = []
    for row in effect.to_dict("records"):
        means = [with_spread(row, name, as_share=True) for name in ("untuned", "tuned")]
        change = points(row["change_mean"], row["change_low"], row["change_high"])
        lines.append(
            f"{row['search_group']}: {means[0]} % untuned, {means[1]} % tuned, {change} points "
            f"(n {row['n']})"
        )
    return lines


MOST_LINES = 12
"""At most so many lines along an axis are shown: a full product of several axes has very many."""


def gain_headings(line: "Line") -> tuple[str, ...]:
    """The headings of a line's table: its values."""
    return ("method", *(line.axis.value(value) for value in sorted(set(line.points["value"]))))


def gain_rows(line: "Line") -> list[tuple[str, ...]]:
    """The accuracy of `pass` at each value of an axis, over all seeds that a method was run with there,
    and what each method gains over it."""
    values = sorted(set(line.points["value"]))
    seeds = line.points["gain"].map(lambda gain: gain.n)
    most_first = line.points.assign(seeds=seeds).sort_values("seeds", ascending=False, kind="stable")
    of_pass = most_first.groupby("value")["pass_accuracy"].first()
    rows = [("pass, accuracy in %", *(f"{100 * of_pass[value]:.2f}" for value in values))]
    for method in line.points["method"].unique():
        own = line.points[line.points["method"] == method].set_index("value")["gain"]
        gains = [own.get(value) for value in values]
        cells = ("–" if gain is None else points(gain.value, gain.low, gain.high) for gain in gains)
        rows.append((str(method), *cells))
    return rows


def gain_caption(line: "Line") -> str:
    """How to read that table."""
    text = "Gain in test accuracy over pass in points, paired by seed"
    if any(gain.n > 1 for gain in line.points["gain"]):
        return f"{text}, with its 95 % interval."
    return f"{text}; one seed, so without an interval."


def holdouts(sizes: "pd.DataFrame") -> list[str]:
    """How much the choice depends on the size of the holdout, a line for each search; none for one
    whose holdout is too small to draw smaller ones.

    Args:
        sizes: From `results.winners.holdout_sizes`.
    """
    lines: list[str] = []
    shares: list[str] = []
    for row in sizes.to_dict("records"):
        if not is_missing(row["rest_accuracy"]):
            shares.append(f"{row['same_winner']:.0%} by {row['holdout_labels']:,}")
            continue
        if shares:  # the last row of a search is its whole holdout
            lines.append(f"{row['search_group']}: {', '.join(shares)} of {row['holdout_labels']:,}")
        shares = []
    return lines


_NOT_KNOWN = {
    "never": "not reached",
    "unfinished": "not yet reached",
    "at_once": "reached at once",
}


def labels_of(row: Row) -> str:
    """A mean number of labels with its standard deviation, or why there is none."""
    mean, spread, of = row["labels_mean"], row["labels_spread"], f"of {row['chains']}"
    for name, why in _NOT_KNOWN.items():
        if row[name]:
            return f"{why} by {row[name]} {of}"
    return f"{mean:,.0f}" if math.isnan(spread) else f"{mean:,.0f} ± {spread:,.0f}"


def labels_saved(row: Row, name: str) -> str:
    """A mean number of saved labels, with its confidence interval where there is one."""
    mean, low, high = (row[f"{name}_{part}"] for part in ("mean", "low", "high"))
    if math.isnan(mean):
        return "–"
    pairs = "" if row[f"{name}_pairs"] == row["chains"] else f", n {row[f'{name}_pairs']}"
    interval = "" if math.isnan(low) else f" ({low:+,.0f} to {high:+,.0f})"
    return f"{mean:+,.0f}{interval}{pairs}"


def needed_caption(needed: "pd.DataFrame") -> str:
    """How to read the labels that are needed and saved."""
    text = (
        "Each chain's accuracy interpolated between its rounds, in the logarithm of the labels; mean "
    )
    text += "± standard deviation over n chains; labels saved paired by seed, with their 95 % interval."
    if needed[[*_NOT_KNOWN]].any(axis=None):
        text += (
            " No mean where a chain does not reach it, or reaches it at once, with its first labels."
        )
    return text


def caption(trials: "pd.DataFrame", compared: "pd.DataFrame") -> str:
    """How to read the figures of a comparison."""
    from ssl_runner.results import compared_rows

    done = compared_rows(trials)
    text = "Accuracies in %, losses in nats, "
    if (compared["n"] <= 1).all():
        text += "one seed each, so no standard deviation and no interval can be given"
    else:
        text += "mean ± standard deviation over n trials"
    if differences(compared):
        text += "; differences in test accuracy in points, paired by seed"
        text += "" if (compared["n"] <= 1).all() else ", with their 95 % interval"
    text = f"{text}. Validation on: {', '.join(sorted(set(done['validation'])))}."
    return f"{text} {chosen}" if (chosen := finals(trials)) else text


def finals(trials: "pd.DataFrame") -> str:
    """What a comparison says where a search chose the settings of its trials; empty without one."""
    from ssl_runner.results.search_history import search_cost

    if not (trials["role"] == "final").any():
        return ""
    cost = search_cost(trials)
    text = "Only finals are compared: the settings"
    if len(cost):  # the samples' rows may be elsewhere
        text += (
            f", chosen among {counted(cost['samples'].tolist())} samples on "
            f"{counted(cost['holdout_labels'].tolist())} holdout labels,"
        )
    return f"{text} trained again under fresh seeds."


def objective(name: str) -> str:
    """What a search is for, in words: the figure is the holdout's."""
    return "holdout accuracy" if is_share(name) else "holdout loss"


def standing(one: "Standing") -> str:
    """How far a search is: its best so far, and how many of its samples are left."""
    left = max(0, one.samples - one.ended)
    samples = (
        f"{left:,} of {one.samples:,} samples left" if left else f"all {one.samples:,} samples done"
    )
    return f"{one.group}: {best_so_far(one)}, {samples}"


def best_so_far(one: "Standing") -> str:
    """The best so far of a search, with the sample's number."""
    if one.best is None:
        return "none has finished yet"
    return f"best {objective(one.objective)} so far {figure(one)} (sample {one.best_sample})"


def figure(one: "Standing") -> str:
    """The best figure of a search that has one."""
    return f"{one.best:.2%}" if is_share(one.objective) else f"{one.best:.4f}"


def counted(counts: Sequence[float]) -> str:
    """Whole numbers in words: one of them, or from the lowest to the highest."""
    low, high = min(counts), max(counts)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def duration(seconds: float) -> str:
    """Seconds, or hours, minutes and seconds where there are many."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} h" if hours else f"{minutes}:{rest:02d} min"


def search_cost(cost: "pd.DataFrame") -> list[str]:
    """What the choice of the settings took, in sentences.

    Args:
        cost: From `results.search_cost`, of one sweep.
    """
    several = f"each of {len(cost)} configurations" if len(cost) > 1 else "one configuration"
    labels = counted(cost["holdout_labels"].tolist())
    lines = [
        f"The settings were chosen among {counted(cost['samples'].tolist())} samples for {several} by "
        f"{labels} holdout labels: {cost['samples'].sum():,} trials, {cost['steps'].sum():,} steps, "
        f"{duration(cost['seconds'].sum())} in all."
    ]
    if stopped := cost["stopped"].sum():
        lines.append(f"Trials that were stopped early, and so can't be chosen: {stopped:,}.")
    if failed := cost["failed"].sum():
        lines.append(f"Trials that failed: {failed:,}.")
    large = cost[cost["holdout_labels"] > cost["labeled_images"]]
    if len(large):
        worst = large.sort_values("labeled_images").iloc[0]
        where = f" in {len(large)} of {len(cost)} configurations" if len(cost) > 1 else ""
        lines.append(
            f"The holdout has more labels than the training{where}: {worst['holdout_labels']:,} "
            f"beside {worst['labeled_images']:,}. With so few labels in all, the settings can't be "
            "chosen like this."
        )
    return lines


def ranking(found: "Ranking") -> str:
    """How to read a ranking of trials."""
    validation = set(found.rows["validation"])
    is_search = (found.rows["role"] == "search").all()
    what = objective(found.by) if is_search else found.by.replace("_", " ")
    text = (
        f"The {len(found.rows):,} best of {found.of:,} {'samples' if is_search else 'trials'} by {what}"
    )
    if found.left_out:
        text += f", without the {found.left_out:,} trials that are no samples of a search"
    if "test" in validation:
        text += (
            ". Their validation images are the test images, so these figures are too high; --holdout "
            "sets others aside"
        )
    return f"{text}."


def rerun_notes(found: "Ranking") -> list[str]:
    """What the commands of a ranking leave to the reader."""
    notes = []
    if files := sorted({name for name in found.rows["dataset"] if is_path(name)}):
        notes.append(
            f"--dataset {', '.join(files)}: rows do not keep the folder, or the flags that say how the "
            "files are read. Add them."
        )
    return notes
