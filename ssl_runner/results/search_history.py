"""The samples of each search: what they reached, the best so far, and what they took."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd

from ssl_runner.config import SweepConfig
from ssl_runner.methods.settings import METHODS
from ssl_runner.metrics import is_share

KEYS = ("sweep", "search_group", "model", "config", "label_fraction", "method")
"""What a search is known by. Its group names it within its sweep."""


@dataclass(frozen=True)
class Search:
    """One search: what was tried of one method at one label fraction with one model.

    Attributes:
        name: Its group's, and the data's digest where the sweep has another search of that name.
        keys: What it is known by: the columns `KEYS`.
        record: The search as its rows have it: `search`, each setting's domain, and those of a study's
            other keys for it that differ from their default.
        settings: The searched settings that its trials take.
        samples: Its rows as in `results/trials`, by sample number.
    """

    name: str
    keys: Mapping[str, Any]
    record: Mapping[str, Any]
    settings: tuple[str, ...]
    samples: pd.DataFrame

    @property
    def objective(self) -> str:
        """The column of the figure that it is for: of the validation images, never of the test's."""
        return f"validation_{self.record.get('objective', SweepConfig.objective)}"

    @property
    def values(self) -> pd.Series:
        """The objective of each sample; NaN where it failed or was stopped: after fewer steps than the
        others it can't be chosen."""
        values = pd.to_numeric(self.samples[self.objective])
        return values.where((self.samples["status"] == "finished") & np.isfinite(values))

    def is_log(self, setting: str) -> bool:
        """Whether a setting was searched in the logarithm."""
        return any(kind.startswith("log") for kind in self.record["search"][setting])

    def is_choice(self, setting: str) -> bool:
        """Whether a setting was chosen from a list of values."""
        return "choice" in self.record["search"][setting]


def searches(trials: pd.DataFrame) -> list[Search]:
    """The searches among trials, sweep by sweep, most labels first; none without samples.

    Args:
        trials: Rows as in `results/trials`.
    """
    samples = trials[trials["role"] == "search"].sort_values("ended_at", kind="stable")
    found = []
    versions = samples.groupby(["sweep", "search_group"])[["data_digest", "sources"]]
    several = versions.nunique(dropna=False).max(axis=1) > 1
    by = ["sweep", "search_group", "data_digest", "sources"]
    for each, group in samples.groupby(by, dropna=False, sort=False):
        sweep, name, digest, sources = cast(tuple[Any, ...], each)
        record = json.loads(group["search"].iloc[-1])
        rows = group.sort_values("sample", kind="stable").reset_index(drop=True)
        settings = tuple(name for name in record["search"] if rows[name].notna().any())
        keys = {name: rows[name].iloc[0] for name in KEYS}
        parts = [each for each in (digest, sources) if isinstance(each, str) and each]
        version = f" ({'; '.join(parts)})" if several.loc[(sweep, name)] else ""
        found.append(Search(f"{name}{version}", keys, record, settings, rows))
    return sorted(found, key=_order)


def _order(one: Search) -> tuple[Any, ...]:
    """As a comparison has its rows: most labels first, methods as they are listed."""
    keys, methods = one.keys, list(METHODS)
    method = methods.index(keys["method"]) if keys["method"] in methods else len(methods)
    return keys["sweep"], keys["model"], -keys["label_fraction"], method, keys["search_group"]


def search_history(trials: pd.DataFrame) -> pd.DataFrame:
    """The best so far of each search, sample by sample.

    Args:
        trials: Rows as in `results/trials`.

    Returns:
        A row per sample, ordered within its search: `KEYS`, `sample`, `status`, `objective` (the
        figure's column), its `value` (NaN where the sample failed or was stopped), the `best` value so
        far (NaN before the first), `is_new_best`; and what the samples so far have taken: `samples`
        (their count), `steps` and `seconds`.
    """
    frames = [history_of(one) for one in searches(trials)]
    columns = [*KEYS, "sample", "status", "objective", "value", "best", "is_new_best"]
    empty = pd.DataFrame(columns=[*columns, "samples", "steps", "seconds"])
    return pd.concat(frames, ignore_index=True) if frames else empty


def history_of(search: Search) -> pd.DataFrame:
    """The rows of `search_history` of one search."""
    values, samples = search.values, search.samples
    best = (values.cummax() if is_share(search.objective) else values.cummin()).ffill()
    return pd.DataFrame(
        dict(search.keys)
        | {
            "sample": samples["sample"].astype(int),
            "status": samples["status"],
            "objective": search.objective,
            "value": values,
            "best": best,
            "is_new_best": values.notna() & (best != best.shift()),
            "samples": np.arange(1, len(values) + 1),
            "steps": pd.to_numeric(samples["steps"]).fillna(0).astype(int).cumsum(),
            "seconds": pd.to_numeric(samples["seconds"]).fillna(0.0).cumsum(),
        }
    )


def search_cost(trials: pd.DataFrame) -> pd.DataFrame:
    """What the choice of each search's settings took.

    Args:
        trials: Rows as in `results/trials`.

    Returns:
        A row per search: `KEYS`; its numbers of samples, `samples`, and of those that were `stopped`
        or `failed`; the `steps` and `seconds` of all of them; the `holdout_labels` that judged them,
        and the `labeled_images` that each was trained on (0 where no sample came so far).
    """
    rows = []
    for one in searches(trials):
        samples = one.samples
        known = {name: samples[name].dropna() for name in ("holdout_labels", "labeled_images")}
        rows.append(
            dict(one.keys)
            | {
                "samples": len(samples),
                "stopped": int((samples["status"] == "stopped").sum()),
                "failed": int((samples["status"] == "failed").sum()),
                "steps": int(pd.to_numeric(samples["steps"]).fillna(0).sum()),
                "seconds": float(pd.to_numeric(samples["seconds"]).fillna(0).sum()),
            }
            | {name: int(each.iloc[0]) if len(each) else 0 for name, each in known.items()}
        )
    return pd.DataFrame(rows)


def is_numeric(values: pd.Series) -> bool:
    """Whether a column's known values are numbers, neither texts nor true or false."""
    known = values.dropna()
    return len(known) > 0 and all(
        isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        for value in known
    )
