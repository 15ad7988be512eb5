"""The comparison on a terminal, over a pipe, and as CSV or Markdown."""

import math
import time
from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from rich.box import MARKDOWN, SIMPLE_HEAD, Box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

# pandas takes half a second to import, which --help and a refused flag can do without.
if TYPE_CHECKING:
    import pandas as pd

    from ssl_runner.results import ResultsFolder


def _cell(mean: float, spread: float, percent: bool) -> str:
    """A mean, with its spread where there is one."""
    if math.isnan(mean):
        return "–"
    scale, digits = (100, 2) if percent else (1, 3)
    text = f"{mean * scale:.{digits}f}"
    return text if math.isnan(spread) else f"{text} ± {spread * scale:.{digits}f}"


def _difference(row: Mapping[Hashable, Any], name: str) -> str:
    """A mean difference in points, with its confidence interval where there is one."""
    mean, low, high = (row[f"{name}_{part}"] for part in ("mean", "low", "high"))
    is_reference = row["config"] == "full" if name == "to_full" else row["method"] == "pass"
    if math.isnan(mean) or is_reference:
        return "–"
    text = f"{100 * mean:+.2f}"
    return text if math.isnan(low) else f"{text} ({100 * low:+.2f} to {100 * high:+.2f})"


def _key(value: object) -> Text:
    """What a row is of; a name that looks like rich's markup stays as it is."""
    if isinstance(value, float):
        return Text("–" if math.isnan(value) else f"{value:.10g}")
    return Text(str(value))


def _star(compared: "pd.DataFrame", row: Mapping[Hashable, Any], name: str) -> str:
    """A mark for the best of several rows: the lowest loss, the highest accuracy."""
    means = compared[f"{name}_mean"]
    best = means.min() if name.endswith("loss") else means.max()
    return "*" if means.nunique() > 1 and row[f"{name}_mean"] == best else ""


def comparison_table(trials: "pd.DataFrame", box: Box = SIMPLE_HEAD) -> Table:
    """`results.compare` as a table for the terminal, the best of each column marked with a star.

    Args:
        trials: Rows as in `results/trials`.
        box: Its lines.
    """
    from ssl_runner.results import compare

    compared = compare(trials)
    validation = ", ".join(sorted(set(trials["validation"])))
    table = Table(
        title=Text(f"{', '.join(sorted(set(trials['sweep'])))}: how far do the labels go?"),
        caption=Text(
            f"Accuracies in %, losses in nats, mean ± standard deviation over n trials; differences in "
            f"points, paired by seed, with their 95 % interval. Validation on: {validation}."
        ),
        box=box,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    last_key = compared.columns.get_loc("labeled_images")
    assert isinstance(last_key, int)
    keys = list(compared.columns[:last_key])
    has_methods = (compared["method"] != "pass").any()
    differences = ["to_full", "to_pass"] if has_methods else ["to_full"]
    for name in keys:
        table.add_column(name.replace("_", "\n"), no_wrap=True, overflow="ignore")
    for heading in (
        *("labels", "train loss", "train acc", "val loss", "val acc", "test acc"),
        *(name.replace("_", " ") for name in differences),
        *("steps", "seconds", "n"),
    ):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in compared.to_dict("records"):
        figures = [
            _cell(row[f"{name}_mean"], row[f"{name}_spread"], percent) + _star(compared, row, name)
            for name, percent in (
                ("train_loss", False),
                ("train_accuracy", True),
                ("validation_loss", False),
                ("validation_accuracy", True),
                ("test_accuracy", True),
            )
        ]
        figures += [_difference(row, name) for name in differences]
        table.add_row(
            *(_key(row[name]) for name in keys),
            f"{row['labeled_images']:,.0f}",
            *figures,
            f"{row['steps']:,.0f}",
            f"{row['seconds']:.1f}",
            str(row["n"]),
        )
    return table


def print_as(form: str, trials: "pd.DataFrame", console: Console) -> None:
    """Print the comparison as a `table`, as `markdown`, or as `csv` with every figure unrounded."""
    if form == "csv":
        from ssl_runner.results import compare

        console.file.write(compare(trials).to_csv(index=False))
    elif form == "markdown":
        table = comparison_table(trials, MARKDOWN)
        table.title = table.caption = None
        for column in table.columns:  # a line break would end the row
            column.header = str(column.header).replace("\n", " ")
        _print_whole(table, console)
    else:
        print_comparison(trials, console)


def print_comparison(trials: "pd.DataFrame", console: Console) -> None:
    """Print the comparison, and each failed trial with its reason."""
    if (trials["status"] == "finished").any():
        _print_whole(comparison_table(trials), console)
    for row in trials[trials["status"] == "failed"].to_dict("records"):
        console.print(
            f"failed: {row['trial_id']} ({row['model']} {row['config']} {row['label_fraction']:g} "
            f"seed {row['seed']}): {row['error']}",
            style="red",
            markup=False,
            emoji=False,
            soft_wrap=True,
        )


def print_extrapolation(
    trials: "pd.DataFrame", method: str, target: float | None, labels: int | None, console: Console
) -> None:
    """Print what the label curve says of a target accuracy, or of a number of labels.

    Raises:
        ValueError: If the trials cannot carry it.
    """
    from ssl_runner.results import LabelCurve

    if labels is not None and labels < 1:
        raise ValueError(f"--labels must be at least 1, got {labels}. Try 10000.")
    curve = LabelCurve.fit(trials, method)
    a, b, c = curve.best
    lines = [
        f"extrapolation, fitted on {curve.labels[0]:,} to {curve.labels[-1]:,} labels: "
        f"accuracy = {a:.4f} - {b:.4f} * (labels / 1000) ** -{c:.3f}"
    ]
    if labels is not None:
        found = curve.accuracy(labels)
        interval = f"{found.low:.2%} to {found.high:.2%}"
        lines.append(f"at {labels:,} labels: {found.value:.2%} (95 % interval {interval})")
    if target is not None:
        found = curve.labels_needed(target)
        interval = f"{found.low:,.0f} to {found.high:,.0f}"
        lines.append(f"for {target:.2%}: {found.value:,.0f} labels (95 % interval {interval})")
    for line in lines[:1] + [f"{line}: an extrapolation, not a measurement" for line in lines[1:]]:
        console.print(line, highlight=False, soft_wrap=True)


def watch(results: "ResultsFolder", sweep: str | None, console: Console, seconds: float = 1.0) -> None:
    """Follow a sweep that another process runs, until it ends: a live table, or a line for each trial
    where the output is no terminal."""
    with Live(console=console, transient=True, refresh_per_second=2) as live:
        seen: set[str] = set()
        while results.is_running(sweep):
            trials = results.trials(sweep)
            for row in trials[~trials["trial_id"].isin(seen)].to_dict("records"):
                seen.add(row["trial_id"])
                if not console.is_terminal:
                    console.print(f"{row['trial_id']}: {row['status']}", highlight=False)
            lines = [
                f"{trial_id}: under way, {epochs} epochs and {steps:,} steps at its last checkpoint"
                for trial_id, (epochs, steps) in results.under_way(sweep).items()
            ]
            table = [comparison_table(trials)] if (trials["status"] == "finished").any() else []
            live.update(Group(*table, Text("\n".join(lines))))
            time.sleep(seconds)


def _print_whole(table: Table, console: Console) -> None:
    """Print a table with all its figures; a terminal that is too narrow folds the lines itself."""
    width = console.width
    needed = console.measure(table, options=console.options.update(width=10_000)).maximum
    console.width = max(width, needed)
    try:
        console.print(table)
    finally:
        console.width = width


def wide_console(*, record: bool = False) -> Console:
    """A console that does not fold a table when its output goes to a file or a pipe."""
    console = Console(record=record)
    return console if console.is_terminal else Console(record=record, width=145)
