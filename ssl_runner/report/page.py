"""The comparison as one page that needs no network, and as picture files."""

import dataclasses
import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined

from ssl_runner.config import AXES, SweepConfig, TrialConfig
from ssl_runner.hyperparameters import HYPERPARAMETERS, defaults
from ssl_runner.report import charts
from ssl_runner.results import compare, label_curve

MOST_ROWS = 500
"""Rows of each of the page's tables, at the most."""

_COLUMNS = (
    ("labeled_images", "labels", "{:,.0f}", 1),
    ("train_loss", "train loss", "{:.3f}", 1),
    ("train_accuracy", "train acc", "{:.2f}", 100),
    ("validation_loss", "val loss", "{:.3f}", 1),
    ("validation_accuracy", "val acc", "{:.2f}", 100),
    ("test_accuracy", "test acc", "{:.2f}", 100),
)


def with_configuration(trials: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """The trials with a column `configuration`: a name for each row of the comparison."""
    keys = _keys(compared)
    return trials.assign(configuration=[_name(row, keys) for row in trials[keys].to_dict("records")])


def _keys(compared: pd.DataFrame) -> list[str]:
    end = compared.columns.get_loc("labeled_images")
    assert isinstance(end, int)
    return list(compared.columns[:end])


def _name(row: dict[Any, Any], keys: list[str]) -> str:
    """A configuration in words, such as `CNN partial 0.1 fixmatch, lr 0.01`."""
    fraction = "" if row["config"] == "full" else f" {row['label_fraction']:.4g}"
    method = "" if row["method"] == "pass" else f" {row['method']}"
    others = [f", {key.replace('_', ' ')} {row[key]}" for key in keys[4:] if not pd.isna(row[key])]
    return f"{row['model']} {row['config']}{fraction}{method}{''.join(others)}"


def make_charts(trials: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, charts.Spec]:
    """Every chart that the rows allow, by name; none without a finished trial."""
    compared = compare(trials)
    if compared.empty:
        return {}
    named = with_configuration(trials, compared)
    configurations = [_name(row, _keys(compared)) for row in compared.to_dict("records")]
    drawn = configurations[: charts.MOST_CURVES]
    done = named[named["status"] == "finished"]
    identity = named[["sweep", "trial_id", "configuration"]]
    full = done.loc[done["config"] == "full", "test_accuracy"]
    made = {
        "labels": charts.label_chart(label_curve(trials), None if full.empty else float(full.mean()))
    }
    made |= charts.learning_curves(epochs.merge(identity, on=["sweep", "trial_id"]), drawn)
    if done["data_digest"].nunique() == 1:  # classes of one data set
        best = done.sort_values("test_accuracy").iloc[-1]
        made["classes"] = charts.class_chart(done, drawn)
        made["confusion"] = charts.confusion_chart(best)
    return made


def render_page(trials: pd.DataFrame, epochs: pd.DataFrame, title: str) -> str:
    """The page as HTML, with everything it needs inside.

    Args:
        trials, epochs: Rows as in `results/trials` and `results/epochs`.
        title: The sweep's name.
    """
    compared = compare(trials)
    keys = _keys(compared)
    made = make_charts(trials, epochs)
    records = compared.to_dict("records")
    done = trials[trials["status"] == "finished"]
    environment = Environment(
        loader=PackageLoader("ssl_runner.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    configurations = [_name(row, keys) for row in records]
    differences = [name for name in ("to_full", "to_pass") if _says_something(compared, name)]
    return environment.get_template("page.html").render(
        title=title,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        script=_script(),
        charts=made,
        headings=_headings(differences),
        rows=[
            {"name": name, "cells": _cells(row, differences), "config": row["config"]}
            for name, row in list(zip(configurations, records, strict=True))[:MOST_ROWS]
        ],
        configurations=len(configurations),
        drawn=configurations[: charts.MOST_CURVES],
        colours=[charts.COLOURS[i % len(charts.COLOURS)] for i in range(len(configurations))],
        validation=", ".join(sorted(set(done["validation"]))),
        one_seed=bool((compared["n"] <= 1).all()),
        finished=len(done),
        failed=trials[trials["status"] == "failed"][
            ["trial_id", "model", "config", "label_fraction", "method", "seed", "error"]
        ].to_dict("records"),
        most=MOST_ROWS,
        trials=with_configuration(done, compared)
        .sort_values(["configuration", "seed", "split_seed"])
        .head(MOST_ROWS)
        .to_dict("records"),
        commands=[command_of(rows) for _, rows in trials.groupby("sweep")],
        facts=_facts(trials),
    )


@functools.cache
def _script() -> str:
    """Vega, Vega-Lite and vega-embed in one; no `</script` in it may end its element."""
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script")


def _says_something(compared: pd.DataFrame, name: str) -> bool:
    """Whether a difference is known of any configuration but its own reference."""
    column, reference = ("config", "full") if name == "to_full" else ("method", "pass")
    return bool(compared.loc[compared[column] != reference, f"{name}_mean"].notna().any())


def _headings(differences: Sequence[str]) -> list[str]:
    measured = [head for _, head, _, _ in _COLUMNS]
    against = [name.replace("_", " ") for name in differences]
    return ["configuration", *measured, *against, "steps", "seconds", "n"]


def _cells(row: Mapping[Any, Any], differences: Sequence[str]) -> list[tuple[float, str]]:
    """Each cell of a row: what it is sorted by, and its text."""
    cells = []
    for name, _, form, scale in _COLUMNS:
        mean = row.get(f"{name}_mean", row.get(name))
        spread: float = row.get(f"{name}_spread", float("nan"))
        text = form.format(mean * scale) + (
            "" if pd.isna(spread) else f" ± {form.format(spread * scale)}"
        )
        cells.append((float(mean), text))
    for name in differences:
        mean, low, high = (row[f"{name}_{part}"] for part in ("mean", "low", "high"))
        is_reference = row["config"] == "full" if name == "to_full" else row["method"] == "pass"
        text = "–" if pd.isna(mean) or is_reference else f"{100 * mean:+.2f}"
        if text != "–" and not pd.isna(low):
            text += f" ({100 * low:+.2f} to {100 * high:+.2f})"
        cells.append((-1e9 if text == "–" else float(mean), text))
    for name, form in (("steps", "{:,.0f}"), ("seconds", "{:.1f}"), ("n", "{}")):
        cells.append((float(row[name]), form.format(row[name])))
    return cells


def command_of(rows: pd.DataFrame) -> str:
    """The command that runs the trials of a sweep, read off its rows."""
    arguments = ["--name", str(rows["sweep"].iloc[0])]
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
            arguments += [f"--{axis.replace('_', '-')}", *(_text(value) for value in values)]
    for field in dataclasses.fields(TrialConfig):
        if field.name in AXES.values():
            continue
        taken = _taken(rows, field.name)
        if len(set(taken)) == 1 and taken[0] != field.default:
            arguments += [f"--{field.name.replace('_', '-')}", _text(taken[0])]
    return "python -m ssl_runner.tune " + shlex.join(arguments)


def _taken(rows: pd.DataFrame, name: str) -> list[Any]:
    """The values that a setting was given: not those that a method brings along."""
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


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _facts(trials: pd.DataFrame) -> dict[str, str]:
    """What else is needed to run it again, each with all its values."""
    facts = {
        "data set": "dataset",
        "data digest": "data_digest",
        "split digests": "split_digest",
        "device": "device",
        "precision": "precision_used",
        "workers": "num_workers",
        "threads of each": "threads",
        "ssl_runner": "version",
        "commit": "git_commit",
        "Python": "python_version",
        "PyTorch": "torch_version",
        "Ray": "ray_version",
    }
    found = {}
    for what, column in facts.items():
        values = [str(value) for value in trials[column].dropna().unique()]
        more = f" and {len(values) - 12} more" if len(values) > 12 else ""
        found[what] = ", ".join(values[:12]) + more or "–"
    return found


def save_figures(trials: pd.DataFrame, epochs: pd.DataFrame, folder: Path) -> list[Path]:
    """Every chart as an SVG and a PNG file (two pixels to a point), black on white.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, chart in make_charts(trials, epochs).items():
        spec = json.dumps(chart).replace("currentColor", "#000").replace("transparent", "#fff")
        for suffix, content in (
            ("svg", vl_convert.vegalite_to_svg(spec).encode()),
            ("png", vl_convert.vegalite_to_png(spec, scale=2)),
        ):
            path = folder / f"{name}.{suffix}"
            path.write_bytes(content)
            files.append(path)
    return files
