"""The command that runs a sweep again, read off its rows."""

import shlex
from typing import Any

import pandas as pd

from ssl_runner.config import AXES, FIELDS, SweepConfig
from ssl_runner.methods.settings import HYPERPARAMETERS, defaults


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
    """The values that a setting was given, without the methods' defaults."""
    values = []
    for method, value in zip(rows["method"], rows[name], strict=True):
        if pd.isna(value):
            continue
        own = defaults(method).get(name, 1 if name == "mu" else None)
        if name in HYPERPARAMETERS and value == own:
            continue
        if name == "order" and method != "pass":
            continue
        values.append(value)
    return values


def value_text(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)
