"""The comparison as one page that needs no network, and as picture files."""

import contextlib
import functools
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import vl_convert
from pyarrow import fs

from ssl_runner.cache import cache_folder
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.datasets.decoded.store import find_content
from ssl_runner.datasets.settings import is_path
from ssl_runner.errors import InputError
from ssl_runner.metrics import METRICS
from ssl_runner.report import charts, words
from ssl_runner.report.along_page import HEADING, AlongPart, along_parts
from ssl_runner.report.pictures import Picture, environment, picture, time_now
from ssl_runner.report.rerun import command_of
from ssl_runner.report.search_page import SearchPart, search_parts
from ssl_runner.results import compare, compared_rows, label_curve
from ssl_runner.results.compare import is_compared
from ssl_runner.results.conclude import conclude
from ssl_runner.results.schema import SETTING_COLUMNS
from ssl_runner.storage import write_whole

MOST_ROWS = 500
"""Each of the page's tables has at most so many rows."""

_IMAGES_OF_A_CLASS, _MOST_IMAGES = 2, 24


def with_configuration(trials: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """The trials with a column `configuration`: a name for each row of the comparison."""
    keys = words.keys_of(compared)
    return trials.assign(
        configuration=[words.configuration(row, keys) for row in trials[keys].to_dict("records")]
    )


def make_charts(
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    parts: Sequence[SearchPart] | None = None,
    along: Sequence[AlongPart] | None = None,
) -> dict[str, charts.Spec]:
    """Every chart that the rows allow, by name.

    Args:
        trials, epochs: Rows as in `results/trials` and `results/epochs`.
        parts, along: From `search_parts` and `along_parts`, if they are there already.
    """
    parts = search_parts(trials) if parts is None else parts
    along = along_parts(trials) if along is None else along
    drawn = [*(one for part in parts for one in part.charts), *(part.chart for part in along)]
    return _charts_of_comparison(trials, epochs) | {one.name: one.spec for one in drawn}


def _charts_of_comparison(trials: pd.DataFrame, epochs: pd.DataFrame) -> dict[str, charts.Spec]:
    """The charts beside the comparison; none without a finished trial."""
    compared = compare(trials)
    if compared.empty:
        return {}
    named = with_configuration(trials, compared)
    keys = words.keys_of(compared)
    configurations = [words.configuration(row, keys) for row in compared.to_dict("records")]
    drawn = configurations[: charts.MOST_CURVES]
    done = compared_rows(named)
    # A sample that was chosen has the same settings as its finals.
    identity = named.loc[is_compared(named), ["sweep", "trial_id", "configuration"]]
    full = compared.loc[compared["config"] == "full", "test_accuracy_mean"]
    line = float(full.iloc[0]) if len(full) == 1 else None  # with several, no line
    made = {"labels": charts.label_chart(label_curve(trials), line)}
    made |= charts.learning_curves(epochs.merge(identity, on=["sweep", "trial_id"]), drawn)
    if done["data_digest"].nunique() == 1:  # classes of one data set
        made["classes"] = charts.class_chart(done, drawn)
        best = _best(done)
        title = f"Confusions of {best['configuration']}, seed {best['seed']} (rows: true classes)"
        made["confusion"] = charts.confusion_chart(best["class_names"], best["confusion"], title)
    return made


def _best(done: pd.DataFrame) -> pd.Series:
    """The finished trial of the highest test accuracy."""
    best: pd.Series = done.sort_values("test_accuracy", kind="stable").iloc[-1]
    return best


def find_dataset(trials: pd.DataFrame) -> ImageDataset | None:
    """The data set that all these trials are of, if it is on this machine: a named one, or one whose
    files have been decoded here.

    One by import path is not loaded: a table must not decide which code is run.
    """
    names = set(trials["dataset"])
    if len(names) != 1 or ":" in (name := names.pop()):
        return None
    if is_path(name):
        digests = set(trials["data_digest"].dropna())
        return find_content(digests.pop(), name) if len(digests) == 1 else None
    try:
        return load_dataset(name, say=lambda line: None, fetch=False)
    except InputError:
        return None


def render_page(
    trials: pd.DataFrame,
    epochs: pd.DataFrame,
    dataset: ImageDataset | None = None,
    baseline: str | None = None,
) -> str:
    """The page as HTML, with everything it needs inside.

    Args:
        trials, epochs: Rows as in `results/trials` and `results/epochs`.
        dataset: Whose images it shows, if all trials are of it; None: no images.
        baseline: Reference of the differences; None: those of `results.compare`.
    """
    compared = compare(trials, (baseline,)) if baseline else compare(trials)
    keys = words.keys_of(compared)
    searches, along = search_parts(trials), along_parts(trials)
    made = make_charts(trials, epochs, searches, along)
    curves = [metric.name for metric in METRICS if metric.name in made]
    records = compared.to_dict("records")
    done = compared_rows(trials)
    configurations = [words.configuration(row, keys) for row in records]
    references = words.differences(compared)
    is_known = dataset is not None and set(trials["data_digest"].dropna()) == {dataset.digest}
    images, misclassified = _pictures(dataset, done) if dataset is not None and is_known else ([], [])
    return (
        environment()
        .get_template("page.html")
        .render(
            title=words.heading(trials),
            conclusion=conclude(trials),
            images=images,
            misclassified=misclassified,
            made=time_now(),
            script=vega_script(),
            charts=made,
            curves=curves,
            searches=searches,
            along=along,
            along_heading=HEADING,
            headings=[
                *("configuration", "labels", *words.metrics_of(compared).values()),
                *(f"to {name}" for name in references),
                *("steps", "seconds", "n"),
            ],
            rows=[
                {"name": name, "cells": _cells(compared, row, references)}
                for name, row in list(zip(configurations, records, strict=True))[:MOST_ROWS]
            ],
            configurations=len(configurations),
            drawn=configurations[: charts.MOST_CURVES],
            colors=[charts.COLORS[i % len(charts.COLORS)] for i in range(len(configurations))],
            caption=words.caption(trials, compared) if records else "",
            finished=len(done),
            all_finished=int((trials["status"] == "finished").sum()),
            stopped=int((trials["status"] == "stopped").sum()),
            failed=trials[trials["status"] == "failed"][
                ["trial_id", "model", "config", "label_fraction", "method", "seed", "error"]
            ].to_dict("records"),
            most=MOST_ROWS,
            trials=with_configuration(done, compared)
            .sort_values(["configuration", "seed", "split_seed"])
            .head(MOST_ROWS)
            .to_dict("records"),
            commands=[command_of(rows) for _, rows in trials.groupby("sweep")],
            settings=_settings(trials),
            facts=_facts(trials),
        )
    )


@functools.cache
def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed in one; no `</script` in it may end its element.

    They are bundled once per machine, which takes seconds, and cached.
    """
    kept = cache_folder("page") / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        return kept.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]
    script = bundle.replace("</script", "<\\/script")
    with contextlib.suppress(OSError):
        write_whole(fs.LocalFileSystem(), str(kept), script.encode())
    return script


def _cells(
    compared: pd.DataFrame, row: words.Row, references: Sequence[str]
) -> list[tuple[float, str, bool]]:
    """Each cell of a row: its sort key, its text, and whether it is the best of its column."""
    cells = [(float(row["labeled_images"]), f"{row['labeled_images']:,.0f}", False)]
    for name in words.metrics_of(compared):
        best = words.is_best(compared, row, name)
        cells.append((float(row[f"{name}_mean"]), words.with_spread(row, name), best))
    for name in references:
        text = words.difference(row, name)
        cells.append((-1e9 if text == "–" else float(row[f"to_{name}_mean"]), text, False))
    for name, form in (("steps", "{:,.0f}"), ("seconds", "{:.1f}"), ("n", "{}")):
        cells.append((float(row[name]), form.format(row[name]), False))
    return cells


def _pictures(dataset: ImageDataset, done: pd.DataFrame) -> tuple[list[Picture], list[Picture]]:
    """Some training images of each class, and test images that the best trial misclassified."""
    train, test = dataset.train, dataset.test
    names = train.class_names
    places = [
        place
        for k in range(len(names))
        for place in np.flatnonzero(train.labels == k)[:_IMAGES_OF_A_CLASS]
    ]
    images = [picture(train.images[n], names[train.labels[n]]) for n in places[:_MOST_IMAGES]]
    if done.empty:
        return images, []
    best = _best(done)
    answers = best["class_names"]  # those that it knows
    return images, [
        picture(test.images[n], f"{names[test.labels[n]]}, taken for {answers[taken]}")
        for n, taken in (() if best["misclassified"] is None else best["misclassified"])
    ]


def _settings(trials: pd.DataFrame) -> dict[str, str]:
    """The settings of the trials, varying ones first, each with its values, without nulls."""
    varied: dict[str, str] = {}
    constant: dict[str, str] = {}
    for name in SETTING_COLUMNS:
        values = trials[name].dropna().sort_values().unique()
        if len(values):
            is_varied = trials[name].nunique(dropna=False) > 1
            (varied if is_varied else constant)[name.replace("_", " ")] = _several(list(values))
    return varied | constant


def _several(values: Sequence[Any]) -> str:
    """Values in a line, at most twelve."""
    more = f" and {len(values) - 12} more" if len(values) > 12 else ""
    return ", ".join(words.value_text(value) for value in values[:12]) + more or "–"


def _facts(trials: pd.DataFrame) -> dict[str, str]:
    """What else is needed to reproduce it, each with all its values."""
    facts = {
        "data set": "dataset",
        "data digest": "data_digest",
        "images left out": "left_out_why",
        "share drawn for the test": "test_fraction",
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
    return {what: _several(list(trials[column].dropna().unique())) for what, column in facts.items()}


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
