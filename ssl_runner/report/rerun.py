"""The command that runs a sweep or a trial again, read off its rows."""

import functools
import itertools
import json
import math
import shlex
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ssl_runner.config import (
    AXES,
    DETERMINING,
    FIELDS,
    NEVER_AN_AXIS,
    OF_ROUNDS,
    SEARCH_KEYS,
    SweepConfig,
    TrialConfig,
)
from ssl_runner.datasets.settings import SELECTIONS
from ssl_runner.pools.settings import OF_OTHERS
from ssl_runner.report.words import value_text
from ssl_runner.results.matching import config_of
from ssl_runner.settings import Whole, rule_of, without_none


def command_of(rows: pd.DataFrame) -> str:
    """The command that runs the trials of a sweep, read off its rows."""
    if len(standing := rows[rows["role"] != "former"]):
        rows = standing
    arguments = ["--name", str(rows["sweep"].iloc[0])]
    for question in rows["question"].dropna().head(1):
        arguments += ["--question", str(question)]
    search = _search(rows)
    arguments += [
        "--configs",
        *(name for name in ("full", "partial") if (rows["config"] == name).any()),
    ]
    partial = rows[rows["config"] == "partial"]
    rounds = max(rows["label_budgets"].dropna(), key=len, default="").split()
    if rounds:
        partial = rows[rows["selection"].notna()]
        selections = sorted(partial["selection"].unique(), key=SELECTIONS.index)
        arguments += ["--selections", *selections, "--rounds", *rounds]
    for axis, single in AXES.items():
        if axis in OF_ROUNDS or (rounds and axis == "label_fractions"):
            continue
        among = partial if single in ("label_fraction", "method") and len(partial) else rows
        values = list(dict.fromkeys(among[single].sort_values().tolist()))
        default = [*(getattr(SweepConfig(), axis) or ())]
        if axis in ("seeds", "split_seeds") and search:  # a search's rows are under its own seed
            values = search.get(axis, default)
        elif axis == "split_seeds" and (rows["seed"] == rows["split_seed"]).all():
            continue
        if values != default and not (single == "label_fraction" and partial.empty):
            arguments += [f"--{axis.replace('_', '-')}", *(value_text(value) for value in values)]
    full_methods = list(dict.fromkeys(rows[rows["config"] == "full"]["method"].sort_values()))
    if full_methods not in ([], ["pass"]):
        arguments += ["--full-methods", *full_methods]
    chosen = search.get("search", {})
    as_they_stand = rows[rows["role"] == "default"] if chosen else rows
    grids = [] if search else _grids(rows)
    for field in FIELDS.values():
        if field.name in AXES.values():
            continue
        among = as_they_stand if field.name in chosen else rows
        values = _values(among, field.name)
        if field.name in NEVER_AN_AXIS and len(values) > 1:
            continue
        if any(field.name in grid for grid in grids):
            values = [base for base in [_base(rows, field.name)] if base is not None]
        if values not in ([], [field.default]):
            arguments += [f"--{field.name.replace('_', '-')}", *map(value_text, values)]
    if grids:
        arguments += ["--grids", *(json.dumps(grid, ensure_ascii=False) for grid in grids)]
    for name in SEARCH_KEYS:
        if name in search:
            value = search[name]
            text = json.dumps(value) if isinstance(value, dict) else value_text(value)
            arguments += [f"--{name.replace('_', '-')}", text]
    return "python -m ssl_runner.tune " + shlex.join(arguments)


def command_of_trial(row: Mapping[Any, Any]) -> str:
    """The command that runs one trial again: the same trial id, where the data and the person's own
    code are the same. Without Ray, unless the trial takes several workers, or is a round of buying
    labels: that runs those before it too.

    Args:
        row: As in `results/trials`.

    Raises:
        InputError: If this version does not accept its settings.
    """
    config = config_of(
        {
            name: int(row[name]) if without_none(field.type) == Whole else row[name]
            for name, field in FIELDS.items()
            if not pd.isna(row[name])
        }
    ).resolved()
    settings = config.flat()
    given = {name: settings[name] for name in _CHOSEN}
    if given["method"] != "pass":
        del given["order"]  # always paired
    own = TrialConfig.of(**given).resolved().flat()
    own["split_seed"] = settings["seed"]  # as it is where none is named
    # The order of the flags is that of --help.
    named = {name for name, value in given.items() if value != FIELDS[name].default}
    named |= {name for name, value in settings.items() if value != own[name]}
    singles = {single: axis for axis, single in AXES.items()}
    with_ray = config.compute.num_workers > 1 or config.data.selection is not None
    arguments = []
    if with_ray:
        arguments += ["--configs", config.config, "--name", f"{row['sweep']}-again"]
        arguments += ["--full-methods", settings["method"]]  # or data decide them, and the order
    for name in FIELDS:
        if name in named:
            flag = singles[name] if with_ray and name in singles else name
            value = value_text(settings[name])
            values = value.split() if name == "label_budgets" else [value]
            arguments += [f"--{flag.replace('_', '-')}", *values]
    return f"python -m ssl_runner.{'tune' if with_ray else 'train'} {shlex.join(arguments)}".rstrip()


_OWNED = {name for names in DETERMINING.values() for name in names}


def _grids(rows: pd.DataFrame) -> list[dict[str, list[Any]]]:
    """The grids, one after another, that give the combinations of the rows' settings; none where every
    combination is there."""
    varying = [
        name
        for name in FIELDS
        if name not in (*AXES.values(), *NEVER_AN_AXIS, *_CHOSEN, *_OWNED)
        and rows[name].nunique(dropna=False) > 1
    ]
    columns = {name: [_plain(name, value) for value in rows[name]] for name in varying}
    free = [columns[name] for name in varying if name not in OF_OTHERS]
    if len(set(zip(*free, strict=True))) == math.prod(len(set(values)) for values in free) or not free:
        return []
    base = {name: _base(rows, name) for name in varying}
    found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in dict.fromkeys(zip(*columns.values(), strict=True)):
        values = zip(varying, row, strict=True)
        changed = {name: value for name, value in values if value != base[name]}
        found.setdefault(tuple(changed), []).append(changed)
    grids = []
    for names, combinations in found.items():
        lists = {
            name: sorted(
                {each[name] for each in combinations}, key=lambda value: (value is None, value)
            )
            for name in names
        }
        if math.prod(map(len, lists.values())) == len(combinations):
            grids.append(lists)
        else:
            grids += [{name: [value] for name, value in each.items()} for each in combinations]
    return grids


def _base(rows: pd.DataFrame, name: str) -> Any:
    """The value of a setting around which the others vary: its default if some row has that, else the
    most frequent one."""
    values = [_plain(name, value) for value in rows[name]]
    return (
        FIELDS[name].default if FIELDS[name].default in values else Counter(values).most_common(1)[0][0]
    )


def _plain(name: str, value: Any) -> Any:
    """A value of a frame as a setting has it; a row may be older than the setting."""
    if pd.isna(value):
        return rule_of(FIELDS[name]).neutral
    return int(value) if without_none(FIELDS[name].type) == Whole else value


def _search(rows: pd.DataFrame) -> dict[str, Any]:
    """The search of the trial that ended last, as the rows have it; empty without one."""
    of_search = rows[rows["search"].notna()].sort_values("ended_at", na_position="first")
    return {} if of_search.empty else dict(json.loads(of_search["search"].iloc[-1]))


def _values(rows: pd.DataFrame, name: str) -> list[Any]:
    """The values that a setting was given, without the defaults of models, methods and optimizers;
    with them where it is an axis: where trials differ that would have the same one."""
    given: list[Any] = []
    by_chosen: dict[tuple[Any, ...], list[Any]] = {}
    chosen = zip(*(rows[each] for each in _CHOSEN), strict=True)
    for each, value in zip(chosen, rows[name], strict=True):
        if pd.isna(value) or (name == "order" and each[_CHOSEN.index("method")] != "pass"):
            continue
        if name in _CHOSEN:
            each = tuple(part for part, own in zip(each, _CHOSEN, strict=True) if own != name)
            given.append(value)
        elif FIELDS[name].default is not None or value != _own(*each)[name]:
            given.append(value)
        by_chosen.setdefault(each, []).append(value)
    several = [values for values in by_chosen.values() if len(set(values)) > 1]
    return sorted(set(itertools.chain(*several) if several else given))


_CHOSEN = (*DETERMINING, "schedule", "order")


@functools.cache
def _own(*chosen: str) -> dict[str, Any]:
    """A trial's settings where only these are given."""
    return TrialConfig.of(**dict(zip(_CHOSEN, chosen, strict=True))).resolved().flat()
