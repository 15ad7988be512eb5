"""The samples of each search: which settings were searched, and the best so far."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from ssl_runner.metrics import is_share
from ssl_runner.results.compare import _ALWAYS as KEYS
from ssl_runner.results.compare import _SEEDS as SEEDS
from ssl_runner.results.compare import _VERSION as VERSION
from ssl_runner.results.compare import _sort_key as sort_key
from ssl_runner.results.schema import SETTING_COLUMNS

OBJECTIVE = "validation_accuracy"
"""What a search maximizes where it does not say: on its holdout, never on the test images."""

_MOST_AXES = 3  # of a grid beside a search


@dataclass(frozen=True)
class Search:
    """One search: a method at one label fraction with one model, and one value of each other setting
    that varies without being searched.

    Attributes:
        sweep: Name of its sweep.
        keys: What tells it from the sweep's other searches, by column: model, config, label fraction,
            method, and any other setting that varies among them and is not searched.
        settings: The searched settings, in the order of the columns.
        samples: Its rows as in `results/trials`, by sample number.
    """

    sweep: str
    keys: Mapping[str, Any]
    settings: tuple[str, ...]
    samples: pd.DataFrame

    def values(self, objective: str = OBJECTIVE) -> pd.Series:
        """The objective of each sample; NaN where it failed or was stopped, since fewer steps are
        another experiment."""
        values = pd.to_numeric(self.samples[objective])
        return values.where((self.samples["status"] == "finished") & np.isfinite(values))

    def is_log(self, setting: str) -> bool:
        """Whether a searched setting belongs on a logarithmic axis: see `spans_magnitudes`."""
        return spans_magnitudes(self.samples[setting])


def searches(trials: pd.DataFrame) -> list[Search]:
    """The searches among trials, sweep by sweep, most labels first; none without search trials.

    Args:
        trials: Rows as in `results/trials`.
    """
    if "role" not in trials or trials.empty:
        return []
    rows = trials[trials["role"] == "search"]
    groups = rows.groupby(["sweep", *KEYS], dropna=False, sort=False)
    found: list[tuple[str, dict[str, Any], tuple[str, ...], pd.DataFrame]] = []
    for each, of_one in groups:
        sweep, *always = cast(tuple[Any, ...], each)
        varying = _varying(of_one)
        axes = _axes(of_one, varying)
        settings = tuple(name for name in varying if name not in (*axes, *VERSION))
        parts = of_one.groupby(list(axes), dropna=False, sort=True) if axes else [((), of_one)]
        for values, part in parts:
            at = (*always, *cast(tuple[Any, ...], values))
            keys = dict(zip((*KEYS, *axes), at, strict=True))
            found.append((sweep, keys, settings, part.sort_values("sample", kind="stable")))
    # What differs among a sweep's searches names them: an axis that only some have is null for others.
    made = []
    for sweep, keys, settings, part in found:
        others = dict.fromkeys(
            name for of, each, _, _ in found if of == sweep for name in each if name not in keys
        )
        common = {name: part[name].iloc[0] for name in others if name not in settings}
        made.append(Search(sweep, keys | common, settings, part.reset_index(drop=True)))
    order = pd.DataFrame([{"sweep": one.sweep, **one.keys} for one in made])
    if order.empty:
        return []
    by = ["sweep", "model", "label_fraction", "method"]
    return [made[place] for place in order.sort_values(by, key=sort_key, kind="stable").index]


def _varying(rows: pd.DataFrame) -> list[str]:
    """The settings, data and sources that vary, without the seeds."""
    names = [*VERSION, *(name for name in SETTING_COLUMNS if name not in (*KEYS, *SEEDS))]
    return [name for name in names if rows[name].nunique(dropna=False) > 1]


def _axes(rows: pd.DataFrame, varying: Sequence[str]) -> tuple[str, ...]:
    """The settings that vary without being searched: a grid's, each value of which has the same sample
    numbers. Of all choices that leave each number once, the one of the fewest groups."""
    if not rows["sample"].duplicated().any():
        return ()
    best: tuple[int, tuple[str, ...]] | None = None
    for count in range(1, _MOST_AXES + 1):
        for names in itertools.combinations(varying, count):
            if rows.duplicated([*names, "sample"]).any():
                continue
            groups = len(rows.drop_duplicates(list(names)))
            if best is None or groups < best[0]:
                best = groups, names
        if best is not None:  # more axes make no fewer groups
            return best[1]
    return ()


def searched_settings(trials: pd.DataFrame) -> tuple[str, ...]:
    """The settings that were searched: those that vary among the samples of some search.

    Args:
        trials: Rows as in `results/trials`.

    Returns:
        Their names in the order of the columns; empty: there is no search.
    """
    found = {name for one in searches(trials) for name in one.settings}
    return tuple(name for name in SETTING_COLUMNS if name in found)


def search_history(trials: pd.DataFrame, objective: str = OBJECTIVE) -> pd.DataFrame:
    """The best objective so far of each search, sample by sample.

    Args:
        trials: Rows as in `results/trials`.
        objective: The holdout's figure that the search is for, such as `validation_loss`.

    Returns:
        A row per sample: `sweep`, what tells its search from others, `sample`, `status`; the
        sample's own `objective` (NaN where it failed or was stopped); `best`, the best of it and those
        before (NaN before the first); `is_new_best`; and what all samples so far have taken: `samples`
        (their count), `steps` and `seconds`.
    """
    frames = []
    for one in searches(trials):
        values = one.values(objective)
        best = values.cummax() if is_share(objective) else values.cummin()
        best = best.ffill()
        frames.append(
            pd.DataFrame(
                {"sweep": one.sweep}
                | dict(one.keys)
                | {
                    "sample": one.samples["sample"],
                    "status": one.samples["status"],
                    "objective": values,
                    "best": best,
                    "is_new_best": values.notna() & (best != best.shift()),
                    "samples": np.arange(1, len(values) + 1),
                    "steps": one.samples["steps"].fillna(0).cumsum(),
                    "seconds": one.samples["seconds"].fillna(0.0).cumsum(),
                }
            )
        )
    if not frames:
        columns = ("sweep", *KEYS, "sample", "status", "objective", "best", "is_new_best")
        return pd.DataFrame(columns=[*columns, "samples", "steps", "seconds"])
    # An axis that only one sweep has is null for the others.
    return pd.concat([frame.astype(object) for frame in frames], ignore_index=True).infer_objects()


def spans_magnitudes(values: pd.Series) -> bool:
    """Whether numbers belong on a logarithmic axis: positive, over a factor of ten or more, and with
    their mean nearer the middle of the range in the logarithm than as they are."""
    if not is_numeric(values):
        return False
    known = values.dropna().to_numpy(dtype=float)
    if len(known) == 0 or known.min() <= 0 or known.max() < 10 * known.min():
        return False

    def off_middle(numbers: np.ndarray) -> float:
        low, high = numbers.min(), numbers.max()
        return abs(float((numbers.mean() - low) / (high - low)) - 0.5)

    return off_middle(np.log(known)) < off_middle(known)


def is_numeric(values: pd.Series) -> bool:
    """Whether a column's known values are numbers, neither texts nor true or false."""
    known = values.dropna()
    return len(known) > 0 and all(
        isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        for value in known
    )
