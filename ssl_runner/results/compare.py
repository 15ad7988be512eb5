"""Trials compared: averaged over their seeds, and each against its own reference."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ssl_runner.config import DETERMINING
from ssl_runner.errors import InputError
from ssl_runner.methods.settings import HYPERPARAMETERS, METHODS
from ssl_runner.metrics import COMPARED
from ssl_runner.pools.settings import OF_OTHERS, PoolSettings
from ssl_runner.results.schema import SETTING_COLUMNS

CONFIDENCE = 0.95
"""Of the intervals around the differences."""

_TOTALS = ("steps", "images", "train_seconds", "seconds")
_ALWAYS = ("model", "config", "label_fraction", "method")
_SEEDS = ("seed", "split_seed")
_VERSION = ("data_digest", "sources")
# What a model, a method or an optimizer determines: shown only where it varies among trials of the
# same one.
_BY = {name: by for by, names in DETERMINING.items() for name in names} | {
    "order": "method",
    "label_budgets": "label_fraction",  # those of the rounds before vary rarely
    **OF_OTHERS,
}
POOLS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(PoolSettings)}
"""The settings of what the pools hold, each with the value that changes nothing."""

_OF_METHOD = (*HYPERPARAMETERS, "order")
_OF_ROUNDS = ("selection", "label_budgets")


def baselines_of(trials: pd.DataFrame) -> tuple[str, ...]:
    """What trials are compared with by default: full, `pass`, and `random` among several selections."""
    selections = set(trials["selection"].dropna())
    return ("full", "pass", *(["random"] if "random" in selections and len(selections) > 1 else []))


def compared_rows(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials that may be compared: those that finished; of a search its finals alone, since
    validation chose among its samples.

    Args:
        trials: Rows as in `results/trials`.
    """
    done = trials[(trials["status"] == "finished") & is_compared(trials)]
    # Older rows lack what did not exist then: their pools held what they hold by default.
    return done.assign(
        **{name: done[name].fillna(value) for name, value in POOLS.items() if value is not None}
    )


def plain_rows(done: pd.DataFrame) -> pd.DataFrame:
    """Of trials that differ in what their pools hold, those around which the others vary: each such
    setting has its default, if some trial has that, else its most frequent value.

    Args:
        done: From `compared_rows`.
    """
    is_plain = pd.Series(True, index=done.index)
    for name, default in POOLS.items():
        values = done[name]
        is_default = values.isna() if default is None else values == default
        is_plain &= is_default if is_default.any() else values == values.mode().iloc[0]
    return done[is_plain]


def is_compared(trials: pd.DataFrame) -> pd.Series:
    """Of which trials the figures may be compared once they have finished."""
    return trials["role"].isna() | (trials["role"] == "final")


def searched_settings(trials: pd.DataFrame) -> list[str]:
    """The settings that any search among these rows chose."""
    records = map(json.loads, trials["search"].dropna().unique())
    return list(dict.fromkeys(name for record in records for name in record["search"]))


def compare(trials: pd.DataFrame, baselines: Sequence[str] | None = None) -> pd.DataFrame:
    """The table the notebook ends with: full against each fraction, averaged over the seeds.

    Args:
        trials: Rows as in `results/trials`, of which `compared_rows` are.
        baselines: What the others are compared with: `full`, or methods or selections of the partial
            trials; None: `baselines_of`.

    Returns:
        A row per configuration (model, config, label fraction, method, and any other setting that
        varies except the seeds), most labels first. For each of training, validation and test, loss
        and accuracy: `…_mean` and `…_spread` (standard deviation of a sample; NaN where n is 1).
        `to_full_…`: the test accuracy less that of full with the same seed and other settings, and
        `to_pass_…` (or another method, or a selection): less that of `pass` with the same seeds, label
        fraction and other settings:
        mean, spread, and `low` and `high`, the 95 % confidence interval of the mean difference by
        Student's t over the pairs (NaN where there are fewer than two, or there is none to compare
        with). Means of steps, images and seconds. `n`: the number of trials.

    Raises:
        InputError: If a baseline is neither full nor `pass` nor a method or selection of the trials.
    """
    baselines = baselines_of(trials) if baselines is None else baselines
    done = differences(trials, baselines)
    aggregates: dict[str, Any] = {"labeled_images": ("labeled_images", "first")}
    for name in (*COMPARED, *(f"to_{baseline}" for baseline in baselines)):
        aggregates[f"{name}_mean"] = (name, "mean")
        aggregates[f"{name}_spread"] = (name, "std")
        if name.startswith("to_"):
            aggregates[f"{name}_n"] = (name, "count")
    aggregates |= {name: (name, "mean") for name in _TOTALS}
    aggregates["n"] = ("trial_id", "count")
    varying = varying_settings(done)
    keys = [*_ALWAYS, *varying]
    table: pd.DataFrame = done.groupby(keys, dropna=False, sort=False).agg(**aggregates).reset_index()
    for name in baselines:
        add_interval(table, f"to_{name}")
    order = [*varying, "model", "label_fraction", "method"]
    return table.sort_values(order, key=_sort_key, ignore_index=True)


def differences(trials: pd.DataFrame, baselines: Sequence[str] | None = None) -> pd.DataFrame:
    """The trials that may be compared, each with its differences in test accuracy to the references.

    Args:
        trials: Rows as in `results/trials`, of which `compared_rows` are.
        baselines: As of `compare`.

    Returns:
        Those rows with a column `to_full`, `to_pass` and so on for each baseline: the test accuracy
        less that of the reference trial with the same seeds; NaN where there is none.

    Raises:
        InputError: As `compare`.
    """
    baselines = baselines_of(trials) if baselines is None else baselines
    selections = dict.fromkeys(trials["selection"].dropna())
    known = ["full", *dict.fromkeys(["pass", *trials["method"]]), *selections]
    for name in baselines:
        if name not in known:
            raise InputError(
                f"the baseline must be one of {', '.join(known)}, got {name!r}. "
                "It is full, or a method or a selection of these trials."
            )
    done = compared_rows(trials)
    varying = varying_settings(done)
    shared = [name for name in varying if name not in (*HYPERPARAMETERS, "sources")]
    searched = searched_settings(done)
    same_labels = ["model", "label_fraction", *_SEEDS]
    for name in baselines:
        if name == "full":
            # Where images without a label remain, full may be trained with other methods too.
            reference = (done["config"] == "full") & (done["method"] == "pass")
            keys = ["model", "seed", *(other for other in shared if other not in _OF_ROUNDS)]
        elif name in selections:
            reference = done["selection"] == name
            others = set(varying) - {"selection"}
            keys = [*same_labels, "method", *others]
        else:
            reference = done["method"] == name
            keys = [*same_labels, *(set(shared) - {"order"})]
        done = _paired(done, reference, keys, f"to_{name}", searched)
    return done


def varying_settings(done: pd.DataFrame) -> list[str]:
    """The settings that vary, except the seeds and those that every comparison names; and what
    tells rows of the same settings apart, where there are older versions of their data or code."""
    within = {by: done.groupby(by, dropna=False) for by in _BY.values()}
    versions = done.groupby(["sweep", "settings_id"])
    varying = [name for name in _VERSION if (versions[name].nunique(dropna=False) > 1).any()]
    return varying + [
        name
        for name in ("sweep", *SETTING_COLUMNS)
        if name not in (*_ALWAYS, *_SEEDS)
        and (
            # A share of the labels without rounds has no budgets: its selection, none, says so.
            within[_BY[name]][name].nunique(dropna=name == "label_budgets").max() > 1
            if name in _BY
            else done[name].nunique(dropna=False) > 1
        )
    ]


def _sort_key(column: pd.Series) -> pd.Series:
    """Most labels first, methods as they are listed; anything else ascending."""
    if column.name == "label_fraction":
        return -column
    if column.name == "method":
        known = list(METHODS)
        return column.map(lambda name: (known.index(name) if name in known else len(known), name))
    return column


def _paired(
    done: pd.DataFrame, is_reference: pd.Series, keys: list[str], name: str, searched: list[str]
) -> pd.DataFrame:
    """With one more column: the test accuracy less that of the reference trial of the same keys.

    Settings that a search chose are no keys: a tuned method is compared with a tuned reference.
    """
    keyed, records = done[keys].copy(), done["search"].fillna("")
    for setting in set(keys) & set(searched):
        is_chosen = {each: setting in json.loads(each)["search"] if each else False for each in records}
        keyed[setting] = [
            None if is_chosen[record] else value
            for record, value in zip(records, keyed[setting], strict=True)
        ]
    reference = keyed[is_reference].assign(reference=done["test_accuracy"]).drop_duplicates(keys)
    found = keyed.merge(reference, on=keys, how="left")["reference"]
    return done.assign(**{name: done["test_accuracy"].to_numpy() - found.to_numpy()})


def add_interval(table: pd.DataFrame, name: str) -> None:
    """Add the confidence interval of a mean difference, and drop its count."""
    half = half_interval(table[f"{name}_spread"], table.pop(f"{name}_n"))
    place = int(table.columns.get_loc(f"{name}_spread")) + 1  # type: ignore[arg-type]
    table.insert(place, f"{name}_low", table[f"{name}_mean"] - half)
    table.insert(place + 1, f"{name}_high", table[f"{name}_mean"] + half)


def half_interval(spread: pd.Series, pairs: pd.Series) -> pd.Series:
    """Half the width of the confidence interval of a mean by Student's t; NaN of fewer than two pairs.

    Args:
        spread: The sample's standard deviation.
        pairs: How many differences there are.
    """
    from scipy.special import stdtrit  # scipy.stats loads slowly, and a trial's process needs neither

    t = stdtrit((pairs - 1).clip(lower=1), (1 + CONFIDENCE) / 2)
    half: pd.Series = (t * spread / pairs.clip(lower=1) ** 0.5).where(pairs > 1)
    return half


def label_curve(trials: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy against the number of labeled images.

    Args:
        trials: Rows as in `results/trials`, of which `compared_rows` are.

    Returns:
        A row per model, method, any other setting that varies except seeds, and number of labeled
        images, ascending: `test_accuracy_mean`, `test_accuracy_spread` (NaN where n is 1) and `n`.
        Full is the last point of every method's and every selection's curve: trained with that method,
        or else with `pass`, as where no image without a label remains. Where trials differ in what
        their pools hold, those of `plain_rows` alone.
    """
    done = compared_rows(trials)
    plain = plain_rows(done)
    done = done if plain.empty else plain
    searched = searched_settings(done)  # chosen anew for each number of labels
    varying = [name for name in varying_settings(done) if name not in searched]
    full, partial = (done[done["config"] == config] for config in ("full", "partial"))
    # Where images without a label remain, full is trained with other methods too.
    own, full = full[full["method"] != "pass"], full[full["method"] == "pass"]
    shared = [name for name in varying if name not in (*_OF_METHOD, *_OF_ROUNDS)]
    keys = ["model", "method", *varying]
    of_method = [name for name in keys if name not in ("model", *shared)]
    curves = partial[keys].drop_duplicates()
    last = full.drop(columns=of_method).merge(curves, on=["model", *shared], how="left")
    last["method"] = last["method"].fillna("pass")
    last = last[~last["method"].isin(set(own["method"]))]
    of_rounds = [name for name in keys if name in _OF_ROUNDS]
    if of_rounds and len(own):
        same = [name for name in keys if name not in of_rounds]
        own = own.drop(columns=of_rounds).merge(curves, on=same, how="left")
    points = [part[[*keys, "labeled_images", "test_accuracy"]] for part in (partial, own, last)]
    curve: pd.DataFrame = (
        pd.concat([part for part in points if len(part)] or points, ignore_index=True)
        .groupby([*keys, "labeled_images"], dropna=False)["test_accuracy"]
        .agg(test_accuracy_mean="mean", test_accuracy_spread="std", n="count")
        .reset_index()
    )
    return curve
