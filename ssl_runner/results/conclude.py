"""The answer in words: what the table says of fewer labels, of methods, of choosing images, and how
surely. Every sentence is a template over figures; there is none where the figures carry none."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from ssl_runner.errors import InputError
from ssl_runner.methods.settings import HYPERPARAMETERS
from ssl_runner.results.compare import (
    CONFIDENCE,
    baselines_of,
    compared_rows,
    differences,
    plain_rows,
    searched_settings,
    varying_settings,
)
from ssl_runner.results.extrapolate import FEWEST, LabelCurve
from ssl_runner.results.labels_needed import labels_at

MOST_SENTENCES = 5
_MOST_SIZES = 3
_DIGITS = 3  # of a number of labels

_MAY_VARY = ("selection", "label_budgets", "order", *HYPERPARAMETERS)
"""Settings that go with a number of labels, a method or a selection."""


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its 95 % confidence interval by Student's t.

    Attributes:
        value: The mean.
        low, high: The interval; NaN of fewer than two seeds.
        n: The seeds.
    """

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Mean":
        """Of a figure for each seed; those that are missing do not count."""
        known = np.array([value for value in values if not math.isnan(value)], dtype=float)
        n = len(known)
        half = _t(n) * float(known.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
        mean = float(known.mean()) if n else math.nan
        return cls(mean, mean - half, mean + half, n)

    @property
    def sign(self) -> int:
        """1 or −1 where the interval lies on that side of 0; 0: it includes it, or there is none."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def negative(self) -> "Mean":
        """The same with the opposite sign."""
        return Mean(-self.value, -self.high, -self.low, self.n)

    def absolute(self) -> "Mean":
        """The same without its sign."""
        return self if self.value >= 0 else self.negative()


def _t(n: int) -> float:
    """Student's t of a mean of n values."""
    from scipy.special import stdtrit  # scipy.stats loads slowly

    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))


def ratio(gains: np.ndarray, gaps: np.ndarray) -> Mean | None:
    """The ratio of two means over the same seeds, with its 95 % interval by Fieller's theorem (1954).

    Returns:
        None where the interval is unbounded: the lower mean is not told from 0.
    """
    n = len(gaps)
    if n < 2:
        return None
    gap, gain = float(gaps.mean()), float(gains.mean())
    (of_gap, both), (_, of_gain) = np.cov(gaps, gains, ddof=1) * _t(n) ** 2 / n
    a, b, c = gap**2 - of_gap, gap * gain - both, gain**2 - of_gain
    if a <= 0:
        return None
    root = math.sqrt(max(b**2 - a * c, 0.0))
    return Mean(gain / gap, float((b - root) / a), float((b + root) / a), n)


def seeds_for_half(n: int) -> int:
    """The seeds that halve the width of an interval of n seeds, at the same spread."""
    half = _t(n) / math.sqrt(n) / 2
    return next(more for more in range(n + 1, 100 * n) if _t(more) / math.sqrt(more) <= half)


@dataclass(frozen=True)
class Worth:
    """The labels that a reference needs to reach the same accuracy.

    Attributes:
        labels: Their number; NaN: it can't be told.
        low, high: For the ends of the gain's interval; ∞: more than were measured.
        how: How it was read off the reference's curve, or why it can't be.
    """

    labels: float
    low: float
    high: float
    how: str


def labels_worth(reference: pd.DataFrame, name: str, labels: int, gain: Mean) -> Worth:
    """The labels at which a reference's curve is higher by a gain than at a number of labels.

    By a power law where it fits the trials well, else interpolated between the measured numbers of
    labels, linearly in their logarithm. Never beyond them.

    Args:
        reference: The reference's trials: rows as in `results/trials` of one model.
        name: What it is called.
        labels: The number of labels of the gain, with which the reference was measured too.
        gain: In accuracy, more than 0.
    """
    means = reference.groupby("labeled_images")["test_accuracy"].mean()
    labels_n, accuracy_n = means.index.to_numpy(dtype=float), means.to_numpy(dtype=float)
    least, most = int(labels_n[0]), int(labels_n[-1])

    def refused(why: str) -> Worth:
        return Worth(math.nan, math.nan, math.nan, why)

    if most <= labels:
        return refused(f"{name} was not trained with more labels")
    if (law := _law(reference, means, gain)) is not None:
        how = f"by the curve fitted through {least:,} to {most:,} labels"
    else:
        law, how = _interpolation(labels_n, accuracy_n, labels), ""

    def at(more: float) -> float:
        found = law(labels, more)
        return found if found <= most else math.inf

    value = at(gain.value)
    if not math.isfinite(value):
        return refused(
            f"{name} is not that accurate with {most:,} labels, the most it was trained with"
        )
    above = int(np.searchsorted(labels_n, value))
    how = how or f"interpolated between {labels_n[above - 1]:,.0f} and {labels_n[above]:,.0f}"
    return Worth(value, at(gain.low), at(gain.high), how)


_Law = Callable[[int, float], float]
"""From a number of labels and a gain in accuracy to the labels that bring it; ∞ where none do."""


def _law(reference: pd.DataFrame, means: pd.Series, gain: Mean) -> _Law | None:
    """The power law through a reference's trials, if it is nearer to each measured mean than half of
    what is to be read off it."""
    if len(means) < FEWEST:
        return None
    try:
        curve = LabelCurve.fit(reference, str(reference["method"].iloc[0]))
    except InputError:
        return None
    off = [abs(curve.accuracy(int(labels)).value - mean) for labels, mean in means.items()]  # type: ignore[call-overload]
    if max(off) > gain.value / 2:
        return None

    def law(labels: int, more: float) -> float:
        try:
            return curve.labels_needed(curve.accuracy(labels).value + more).value
        except InputError:  # within the uncertainty of what the curve tends to, or above it
            return math.inf

    return law


def _interpolation(labels_n: np.ndarray, accuracy_n: np.ndarray, labels: int) -> _Law:
    """Between the measured numbers of labels from one on."""
    from_here = labels_n >= labels
    labels_n, accuracy_n = labels_n[from_here], accuracy_n[from_here]

    def law(labels: int, more: float) -> float:
        return labels_at(labels_n, accuracy_n, float(accuracy_n[0]) + more)

    return law


# ---- sentences ----


def conclude(trials: pd.DataFrame) -> list[str]:
    """What the table says, in at most five sentences; none where there is nothing to compare.

    Args:
        trials: Rows as in `results/trials`, of which `compared_rows` are.
    """
    done = compared_rows(trials)
    if done.empty:
        return []
    if done["sweep"].nunique() > 1:
        return ["These are several sweeps: --sweep NAME begins with what one of them says."]
    about, done = _one_model(done)
    if (plain := plain_rows(done)).empty:
        return ["Several things that the pools hold vary: see what each method gains along each."]
    if len(plain) < len(done):
        about += "With the pools as they are before anything is changed: "
        done = plain
    if others := _others(done):
        verb = "vary" if len(others) > 1 else "varies"
        return [
            f"Besides labels and methods, {listed(others)} {verb}: the comparison has each "
            "combination, and no conclusion is drawn over them."
        ]
    rows = differences(done, tuple(dict.fromkeys(["full", "pass", *baselines_of(done)])))
    rows = rows.assign(selection=rows["selection"].fillna(""))
    plain = rows[rows["selection"].isin(["", "random"])]
    sentences = [_cost(plain), *_methods(plain), _selections(rows)]
    sentences = [sentence for sentence in sentences if sentence]
    if not sentences:
        return []
    if len(sentences) < MOST_SENTENCES - 1:
        sentences += filter(None, [_harm(plain)])
    sentences = [*sentences[: MOST_SENTENCES - 1], _certainty(rows)]
    return [about + sentences[0], *sentences[1:]] if about else sentences


def _one_model(done: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The trials of the most accurate model, and the words that say so where there are several."""
    models = done.groupby("model")["test_accuracy"].max().sort_values()
    best = models.index[-1]
    about = f"Of {len(models)} models, {best} is the most accurate; of it: " if len(models) > 1 else ""
    return about, done[done["model"] == best]


def _others(done: pd.DataFrame) -> list[str]:
    """The settings that vary besides labels, method and selection, or with the same of them, and were
    not chosen by a search."""
    searched = searched_settings(done)
    alike = done.groupby(["config", "labeled_images", "method", "selection"], dropna=False)

    def varies(name: str) -> bool:
        return name not in _MAY_VARY or alike[name].nunique(dropna=False).max() > 1

    others = [name for name in varying_settings(done) if name not in searched and varies(name)]
    budgets = done.groupby(["config", "labeled_images"])["label_budgets"].nunique()
    if "label_budgets" not in others and budgets.max() > 1:
        others.append("label_budgets")
    return [name.replace("_", " ") for name in others]


def _cost(rows: pd.DataFrame) -> str:
    """How far partial is from full."""
    full = rows[(rows["config"] == "full") & (rows["method"] == "pass")]
    partial = rows[(rows["config"] == "partial") & (rows["method"] == "pass")]
    found = _means(partial, "to_full", ["labeled_images"])
    if full.empty or not found:
        return ""
    if len(found) > _MOST_SIZES:  # the fewest labels, the middle, the most
        found = [found[0], found[len(found) // 2], found[-1]]
    parts: list[str] = []
    for (labels,), mean in found:
        lost, unit = mean.negative(), "" if parts else " labels"
        if mean.n < 2:
            side = "below" if lost.value >= 0 else "above"
            parts.append(f"{as_points(lost.absolute())} {side} with {labels:,}{unit}")
        elif lost.sign == 0:
            parts.append(f"not told from it with {labels:,}{unit} ({_range(mean)} points)")
        else:
            side = "below" if lost.sign > 0 else "above"
            parts.append(f"{as_points(lost.absolute())} {side} with {labels:,}{unit}")
    is_one = all(mean.n < 2 for _, mean in found)
    verbs = ("reached", "was") if is_one else ("reaches", "is")
    accuracy, labels = _percent(full["test_accuracy"].mean()), int(full["labeled_images"].iloc[0])
    return (
        f"Full {verbs[0]} {accuracy} test accuracy with {labels:,} labels; partial {verbs[1]} "
        f"{listed(parts)}."
    )


def _methods(rows: pd.DataFrame) -> list[str]:
    """What the best method gains over `pass`, and what that is worth in labels."""
    others = rows[rows["method"] != "pass"]
    found = _means(others, "to_pass", ["labeled_images", "config", "method"])
    if not found:
        return []
    (labels, config, method), gain = _best(found)
    if gain.n < 2:
        if gain.value <= 0:
            return ["In one seed, no method was above pass."]
        return [f"In one seed, {method} was {as_points(gain)} above pass with {labels:,} labels."]
    if gain.sign <= 0:
        beside = "told from pass" if gain.sign == 0 else "as good as pass"
        return [
            f"No method is {beside}: {method} with {labels:,} labels comes nearest, {_signed(gain)}."
        ]
    own = others[
        (others["labeled_images"] == labels)
        & (others["config"] == config)
        & (others["method"] == method)
    ]
    first = "The unlabeled images help most with" if len(found) > 1 else "With"
    reaches = (
        f"{':' if len(found) > 1 else ''} {method} reaches {_percent(own['test_accuracy'].mean())}"
    )
    text = f"{first} {labels:,} labels{reaches}, {as_points(gain)} above pass"
    known = own[own["to_full"].notna() & own["to_pass"].notna()]
    gains, gaps = (
        known["to_pass"].to_numpy(dtype=float),
        -(known["to_full"] - known["to_pass"]).to_numpy(dtype=float),
    )
    share = ratio(gains, gaps) if config == "partial" and Mean.of(gaps).sign > 0 else None
    if share is not None:
        span = f"{100 * share.low:.0f} to {100 * share.high:.0f} %"
        text += f", and recovers {100 * share.value:.0f} % ({span}) of the gap to full"
    worth = labels_worth(rows[rows["method"] == "pass"], "pass", labels, gain)
    if math.isnan(worth.labels):
        return [f"{text}.", f"How many labels that is worth can't be told: {worth.how}."]
    return [
        f"{text}.",
        f"That makes {labels:,} labels worth {_labels(worth.labels)}: so many pass needs for the same "
        f"accuracy ({_labels(worth.low)} to {_labels(worth.high)}; {worth.how}).",
    ]


def _selections(rows: pd.DataFrame) -> str:
    """What choosing the images to label gains over random ones, and what that is worth in labels."""
    if "to_random" not in rows:
        return ""
    chosen = rows[~rows["selection"].isin(["", "random"])]
    found = _means(chosen, "to_random", ["labeled_images", "method", "selection"])
    found = [(key, gain) for key, gain in found if gain.value or gain.low or gain.high]  # first rounds
    if not found:
        return ""
    (labels, method, selection), gain = _best(found)
    by = selection if method == "pass" else f"{selection} with {method}"
    if gain.n < 2:
        if gain.value <= 0:
            return "In one seed, no choice of images was above random ones."
        return f"In one seed, {by} was {as_points(gain)} above random images with {labels:,} labels."
    if gain.sign <= 0:
        beside = "told from random ones" if gain.sign == 0 else "as good as random ones"
        nearest = f"{by} with {labels:,} labels comes nearest, {_signed(gain)}"
        return f"No choice of images is {beside}: {nearest}."
    own = chosen[
        (chosen["labeled_images"] == labels)
        & (chosen["method"] == method)
        & (chosen["selection"] == selection)
    ]
    text = (
        f"With {labels:,} labels on images chosen by {by}, {_percent(own['test_accuracy'].mean())} are "
        f"reached, {as_points(gain)} above random images"
    )
    reference = rows[(rows["selection"] == "random") & (rows["method"] == method)]
    worth = labels_worth(reference, "random", labels, gain)
    if math.isnan(worth.labels):
        return f"{text}; how many labels that saves can't be told: {worth.how}."
    return (
        f"{text}, of which it takes {_labels(worth.labels)} ({_labels(worth.low)} to "
        f"{_labels(worth.high)}; {worth.how})."
    )


def _harm(rows: pd.DataFrame) -> str:
    """Where a method is surely worse than `pass`."""
    others = rows[rows["method"] != "pass"]
    found = _means(others, "to_pass", ["labeled_images", "config", "method"])
    harmful = [(key, gain) for key, gain in found if gain.sign < 0]
    if not harmful or len(found) == 1:  # that has been said
        return ""
    (labels, _, method), loss = min(harmful, key=lambda each: each[1].value)
    return f"With {labels:,} labels {method} is {as_points(loss.negative())} below pass."


def _certainty(rows: pd.DataFrame) -> str:
    """How sure it is, and what would make it surer."""
    n = int(rows.groupby(["config", "labeled_images", "method", "selection"]).size().max())
    if n == 1:
        return (
            "One seed can't tell what is chance: --seeds 0 1 2 3 4 gives each difference an interval."
        )
    more = seeds_for_half(n)
    return f"In brackets: 95 % intervals over {n} seeds, paired; {more} seeds would halve them."


# ---- figures ----


def _means(rows: pd.DataFrame, column: str, keys: list[str]) -> list[tuple[tuple[Any, ...], Mean]]:
    """The mean difference of each group that has one, fewest labels first."""
    groups = rows.groupby(keys, sort=True)
    found = [(key, Mean.of(group[column])) for key, group in groups]
    return [(cast(tuple[Any, ...], key), mean) for key, mean in found if mean.n]


def _best(found: list[tuple[tuple[Any, ...], Mean]]) -> tuple[tuple[Any, ...], Mean]:
    """The largest gain of those that surely are; else of those over several seeds; else of all."""
    sure = [each for each in found if each[1].sign > 0]
    several = [each for each in found if each[1].n > 1]
    return max(sure or several or found, key=lambda each: each[1].value)


# ---- words ----


def _digits(mean: Mean) -> int:
    """Digits of a figure in points: one, unless that would show a small one as 0.0."""
    shown = [abs(100 * value) for value in (mean.value, mean.low, mean.high) if not math.isnan(value)]
    return 1 if min(shown) >= 0.05 else 2


def signed_points(mean: Mean) -> str:
    """A difference in points with signs, and its interval, for brackets."""
    return f"{100 * mean.value:+.{_digits(mean)}f} points, {_range(mean)}"


def as_points(mean: Mean) -> str:
    """A difference in points, with its interval where there is one."""
    digits = _digits(mean)
    text = f"{100 * mean.value:.{digits}f} points"
    if math.isnan(mean.low):
        return text
    return f"{text} ({100 * mean.low:.{digits}f} to {100 * mean.high:.{digits}f})"


def _signed(mean: Mean) -> str:
    """The same with signs."""
    return f"{100 * mean.value:+.{_digits(mean)}f} points ({_range(mean)})"


def _range(mean: Mean) -> str:
    digits = _digits(mean)
    return f"{100 * mean.low:+.{digits}f} to {100 * mean.high:+.{digits}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _labels(count: float) -> str:
    """A number of labels, of three digits that count."""
    if math.isinf(count):
        return "more than were tried"
    scale = 10 ** max(0, math.floor(math.log10(count)) + 1 - _DIGITS)
    return f"{round(count / scale) * scale:,}"


def listed(parts: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
