"""The command that runs a sweep again, read off its rows."""

import functools
import shlex
from typing import Any

import pandas as pd

from ssl_runner.config import AXES, DETERMINING, FIELDS, SweepConfig, TrialConfig


def command_of(rows: pd.DataFrame) -> str:
    """The command that runs the trials of a sweep, read off its rows."""
    arguments = ["--name", str(rows["sweep"].iloc[0])]
    for question in rows["question"].dropna().head(1):
        arguments += ["--question", str(question)]
    arguments += [
        "--configs",
        *(name for name in ("full", "partial") if (rows["config"] == name).any()),
    ]
    partial = rows[rows["config"] == "partial"]
    for axis, single in AXES.items():
        among = partial if single in ("label_fraction", "method") and len(partial) else rows
        values = list(dict.fromkeys(among[single].sort_values().tolist()))
        default = [*(getattr(SweepConfig(), axis) or ())]
        if axis == "split_seeds" and (rows["seed"] == rows["split_seed"]).all():
            continue
        if values != default and not (single == "label_fraction" and partial.empty):
            arguments += [f"--{axis.replace('_', '-')}", *(value_text(value) for value in values)]
    full_methods = list(dict.fromkeys(rows[rows["config"] == "full"]["method"].sort_values()))
    if full_methods not in ([], ["pass"]):
        arguments += ["--full-methods", *full_methods]
    for field in FIELDS.values():
        if field.name in AXES.values():
            continue
        taken = _taken(rows, field.name)
        if len(set(taken)) == 1 and taken[0] != field.default:
            arguments += [f"--{field.name.replace('_', '-')}", value_text(taken[0])]
    return "python -m ssl_runner.tune " + shlex.join(arguments)


def _taken(rows: pd.DataFrame, name: str) -> list[Any]:
    """The values that a setting was given, without the defaults of models, methods and optimizers."""
    values = []
    chosen = zip(*(rows[each] for each in _CHOSEN), strict=True)
    for each, value in zip(chosen, rows[name], strict=True):
        if pd.isna(value) or (FIELDS[name].default is None and value == _own(*each)[name]):
            continue
        if name == "order" and each[_CHOSEN.index("method")] != "pass":
            continue
        values.append(value)
    return values


_CHOSEN = (*DETERMINING, "schedule", "order")


@functools.cache
def _own(*chosen: str) -> dict[str, Any]:
    """A trial's settings where only these are given."""
    return TrialConfig.of(**dict(zip(_CHOSEN, chosen, strict=True))).resolved().flat()


def value_text(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
