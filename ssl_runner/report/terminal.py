"""The comparison on a terminal, over a pipe, and as CSV or Markdown."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.bar import Bar
from rich.box import MARKDOWN, SIMPLE_HEAD, Box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ssl_runner.errors import InputError
from ssl_runner.report import words

# pandas takes half a second to import, which --help and a refused flag can do without.
if TYPE_CHECKING:
    import pandas as pd

    from ssl_runner.results import ResultsFolder
    from ssl_runner.results.standings import Standing


def _key(value: object) -> Text:
    """A row's key; a name that looks like rich's markup stays unchanged."""
    if words.is_missing(value):
        return Text("–")
    if isinstance(value, float):
        return Text(f"{value:.10g}")
    return Text(str(value))


def comparison_table(
    trials: "pd.DataFrame", box: Box = SIMPLE_HEAD, baseline: str | None = None
) -> Table:
    """`results.compare` as a table for the terminal, the best of each column marked with a star.

    Args:
        trials: Rows as in `results/trials`.
        box: Style of its lines.
        baseline: Reference of the differences; None: those of `results.compare`.
    """
    from ssl_runner.results import compare

    compared = compare(trials, (baseline,)) if baseline else compare(trials)
    table = Table(
        title=Text(words.heading(trials)),
        caption=Text(f"{words.caption(trials, compared)} *: the best of its column."),
        box=box,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    keys, references = words.keys_of(compared), words.differences(compared)
    metrics = words.metrics_of(compared)
    metrics.pop("test_loss")
    for name in keys:
        table.add_column(name.replace("_", "\n"), no_wrap=True, overflow="ignore")
    for heading in (
        *("labels", *metrics.values()),
        *(f"to {name}" for name in references),
        *("steps", "seconds", "n"),
    ):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in compared.to_dict("records"):
        table.add_row(
            *(_key(row[name]) for name in keys),
            f"{row['labeled_images']:,.0f}",
            *(
                words.with_spread(row, name) + ("*" if words.is_best(compared, row, name) else "")
                for name in metrics
            ),
            *(words.difference(row, name) for name in references),
            f"{row['steps']:,.0f}",
            f"{row['seconds']:.1f}",
            str(row["n"]),
        )
    return table


_MOST_BARS, _BAR_WIDTH = 40, 50


def label_bars(trials: "pd.DataFrame") -> Table | None:
    """The label curve as bars; None where it has one point or too many."""
    from ssl_runner.results import label_curve

    curve = label_curve(trials)
    if curve["labeled_images"].nunique() < 2 or len(curve) > _MOST_BARS:
        return None
    # From a round figure below the lowest, so that the differences show.
    low = math.floor(curve["test_accuracy_mean"].min() * 20 - 0.5) / 20
    high = curve["test_accuracy_mean"].max()
    table = Table(
        title=Text(f"test accuracy by labeled images; the bars begin at {low:.0%}"),
        box=None,
        show_header=False,
        pad_edge=False,
    )
    names = [name for name in words.keys_of(curve) if curve[name].nunique(dropna=False) > 1]
    for justify in (*("left" for _ in names), "right", "left", "right"):
        table.add_column(justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in curve.to_dict("records"):
        share = (row["test_accuracy_mean"] - low) / (high - low)
        table.add_row(
            *(_key(row[name]) for name in names),
            f"{row['labeled_images']:,.0f}",
            Bar(1, 0, share, width=_BAR_WIDTH),
            words.with_spread(row, "test_accuracy"),
        )
    return table


def print_as(form: str, trials: "pd.DataFrame", console: Console, baseline: str | None = None) -> None:
    """Print the comparison as a `table`, as `markdown`, or as `csv` with every figure unrounded."""
    if form == "csv":
        from ssl_runner.results import compare

        compared = compare(trials, (baseline,)) if baseline else compare(trials)
        console.file.write(compared.to_csv(index=False))
    elif form == "markdown":
        table = comparison_table(trials, MARKDOWN, baseline)
        table.title = table.caption = None
        for column in table.columns:  # a line break would end the row
            column.header = str(column.header).replace("\n", " ")
        _print_whole(table, console)
    else:
        print_comparison(trials, console, baseline)
        _print_without_finals(trials, console)


def print_comparison(trials: "pd.DataFrame", console: Console, baseline: str | None = None) -> None:
    """Print what the table says, the comparison, the label curve, and each failed trial with its
    reason."""
    from ssl_runner.results import compared_rows
    from ssl_runner.results.conclude import conclude

    if sentences := conclude(trials):
        for sentence in sentences:
            # A file or a pipe gets a line for each.
            console.print(Text(sentence), soft_wrap=not console.is_terminal)
        console.print()
    if len(compared_rows(trials)):
        _print_whole(comparison_table(trials, baseline=baseline), console)
        if (bars := label_bars(trials)) is not None:
            console.print()
            _print_whole(bars, console)
        _print_along(trials, console)
        _print_tuning(trials, console)
        _print_holdouts(trials, console)
    failed = trials[trials["status"] == "failed"]
    if len(failed):
        console.print(f"{len(failed)} of {len(trials)} trials failed:", style="red", highlight=False)
    for row in failed.to_dict("records"):
        selection = "" if words.is_missing(row["selection"]) else f"{row['selection']} "
        console.print(
            f"failed: {row['trial_id']} ({row['model']} {row['config']} {row['label_fraction']:g} "
            f"{selection}seed {row['seed']}): {row['error']}",
            style="red",
            markup=False,
            emoji=False,
            soft_wrap=True,
        )


def print_best(form: str, trials: "pd.DataFrame", number: int, console: Console) -> None:
    """Print the best trials with what varies among them, and the command that runs each again.

    Args:
        form: `table`, `markdown`, or `csv` with every figure unrounded.
        trials: Rows as in `results/trials`.
        number: How many.

    Raises:
        InputError: If the number is below 1, or the trials can't be ranked.
    """
    from ssl_runner.report.rerun import command_of_trial
    from ssl_runner.results.ranking import KEYS, best_trials

    found = best_trials(trials, number)
    rows = found.rows.to_dict("records")
    commands = [command_of_trial(row) for row in rows]
    sweep = ("sweep",) if trials["sweep"].nunique() > 1 else ()
    columns = (*sweep, "trial_id", *KEYS, *found.settings)
    figures = ("validation_loss", "validation_accuracy", "steps", "seconds")
    if form == "csv":
        table = found.rows[[*columns, *figures]].assign(command=commands)
        console.file.write(table.to_csv(index=False))
        return
    is_markdown = form == "markdown"
    shown = Table(
        title=None if is_markdown else Text(words.heading(trials)),
        caption=None if is_markdown else Text(words.ranking(found)),
        box=MARKDOWN if is_markdown else SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    gap = " " if is_markdown else "\n"  # a line break would end Markdown's row
    shown.add_column("", justify="right")
    for name in columns:
        shown.add_column(name.replace("_", gap), no_wrap=True, overflow="ignore")
    for heading in ("val loss", "val acc", "steps", "seconds", *(["command"] if is_markdown else [])):
        shown.add_column(heading.replace(" ", gap), justify="right", no_wrap=True, overflow="ignore")
    for place, (row, command) in enumerate(zip(rows, commands, strict=True), start=1):
        shown.add_row(
            str(place),
            *(_key(row[name]) for name in columns),
            f"{row['validation_loss']:.3f}",
            f"{100 * row['validation_accuracy']:.2f}",
            f"{row['steps']:,.0f}",
            f"{row['seconds']:.1f}",
            *([Text(f"`{command}`")] if is_markdown else []),
        )
    _print_whole(shown, console)
    if not is_markdown:
        for place, command in enumerate(commands, start=1):
            console.print(f"{place}: {command}", highlight=False, markup=False, soft_wrap=True)
        for line in words.rerun_notes(found):
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _print_along(trials: "pd.DataFrame", console: Console) -> None:
    """Print what each method gains as the pools change, where they do: a sentence and a table for each
    axis."""
    from ssl_runner.results.along import conclusion_of, lines_along

    for line in lines_along(trials)[: words.MOST_LINES]:
        console.print()
        console.print(Text(conclusion_of(line)), soft_wrap=not console.is_terminal)
        table = Table(
            title=Text(line.title),
            caption=Text(words.gain_caption(line)),
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for place, heading in enumerate(words.gain_headings(line)):
            table.add_column(Text(heading), justify="right" if place else "left", no_wrap=True)
        for row in words.gain_rows(line):
            table.add_row(*map(Text, row))
        _print_whole(table, console)


def _print_tuning(trials: "pd.DataFrame", console: Console) -> None:
    """Print what tuning changed, where the settings as they stood were trained too."""
    from ssl_runner.results.winners import tuning_effect

    effect = tuning_effect(trials)
    if len(effect):
        console.print("what tuning changed in test accuracy, paired by seed, with 95 % interval:")
    for line in words.tuning(effect):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _print_holdouts(trials: "pd.DataFrame", console: Console) -> None:
    """Print how often smaller holdouts choose the same samples."""
    from ssl_runner.results.winners import holdout_sizes

    lines = words.holdouts(holdout_sizes(trials))
    if lines:
        console.print("how often fewer labels of the holdout choose the same sample, by accuracy:")
    for line in lines[:MOST_STANDINGS]:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    if len(lines) > MOST_STANDINGS:
        more = len(lines) - MOST_STANDINGS
        console.print(f"  and {more} more searches, on the page", highlight=False)


def _print_without_finals(trials: "pd.DataFrame", console: Console) -> None:
    """Print how far the searches are that have no finals to compare yet."""
    from ssl_runner.results import compared_rows
    from ssl_runner.results.standings import standings

    keys = ["sweep", "search_group"]
    with_finals = compared_rows(trials).set_index(keys).index
    found = standings(trials[~trials.set_index(keys).index.isin(with_finals)])
    if found:
        console.print("no finals to compare yet:")
    for one in found[:MOST_STANDINGS]:
        console.print(f"  {words.standing(one)}", highlight=False, markup=False, soft_wrap=True)
    if len(found) > MOST_STANDINGS:
        console.print(f"  and {len(found) - MOST_STANDINGS} more searches", highlight=False)


def needed_table(trials: "pd.DataFrame", target: float, box: Box = SIMPLE_HEAD) -> Table:
    """`results.labels_needed` as a table for the terminal.

    Raises:
        InputError: If the trials have no rounds, or the target is out of range.
    """
    from ssl_runner.results import labels_needed

    needed = labels_needed(trials, target)
    table = Table(
        title=Text(f"labels needed for a test accuracy of {100 * target:.4g} %"),
        caption=Text(words.needed_caption(needed)),
        box=box,
        show_edge=False,
        pad_edge=False,
    )
    keys = list(needed.columns[: needed.columns.get_loc("chains")])
    for name in keys:
        table.add_column(name.replace("_", " "), no_wrap=True)
    references = {"to_random": "saved, to random"}
    if (needed["method"] != "pass").any():
        references["to_pass_random"] = "saved, to pass and random"
    for heading in ("labels", *references.values(), "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in needed.to_dict("records"):
        table.add_row(
            *(_key(row[name]) for name in keys),
            words.labels_of(row),
            *(words.labels_saved(row, name) for name in references),
            str(row["chains"]),
        )
    return table


def print_needed(trials: "pd.DataFrame", target: float, console: Console) -> None:
    """Print the labels that a test accuracy takes by each selection."""
    console.print()
    _print_whole(needed_table(trials, target), console)


def print_extrapolation(
    trials: "pd.DataFrame", method: str, target: float | None, labels: int | None, console: Console
) -> None:
    """Print the label curve's estimate for a target accuracy, or for a number of labels.

    Raises:
        InputError: If the trials do not support it.
    """
    from ssl_runner.results import LabelCurve

    if labels is not None and labels < 1:
        raise InputError(f"--labels must be at least 1, got {labels}. Try 10000.")
    curve = LabelCurve.fit(trials, method)
    a, b, c = curve.best
    lines = [
        f"extrapolation, fitted on {curve.labels[0]:,} to {curve.labels[-1]:,} labels: "
        f"accuracy = {a:.4f} - {b:.4f} * (labels / 1000) ** -{c:.3f}"
    ]
    if labels is not None:
        found = curve.accuracy(labels)
        interval = f"{found.low:.2%} to {found.high:.2%}"
        lines.append(f"at {labels:,} labels: {found.value:.2%} (95 % interval of the fit {interval})")
    if target is not None:
        found = curve.labels_needed(target)
        interval = f"{found.low:,.0f} to {found.high:,.0f}"
        lines.append(
            f"for {target:.2%}: {found.value:,.0f} labels (95 % interval of the fit {interval})"
        )
    for line in lines[:1] + [f"{line}: an extrapolation, not a measurement" for line in lines[1:]]:
        console.print(line, highlight=False, soft_wrap=True)


MOST_STANDINGS = 20
"""At most so many searches are shown; while they run, those that are not done come first."""


def standings_table(found: "Sequence[Standing]") -> "list[Table | Text]":
    """How far searches are, as a table that fits a screen; empty without one."""
    if not found:
        return []
    table = Table(box=None, pad_edge=False)
    table.add_column("search")
    for heading in (f"best {words.objective(found[0].objective)}", "sample", "samples left"):
        table.add_column(heading, justify="right")
    ordered = sorted(found, key=lambda one: one.ended >= one.samples)
    for one in ordered[:MOST_STANDINGS]:
        figures = ("–", "–") if one.best is None else (words.figure(one), str(one.best_sample))
        table.add_row(
            Text(one.group), *figures, f"{max(0, one.samples - one.ended):,} of {one.samples:,}"
        )
    hidden = len(ordered) - MOST_STANDINGS
    return [Text(), table, *([Text(f"and {hidden} more searches")] if hidden > 0 else [])]


def watch(results: "ResultsFolder", sweep: str | None, console: Console, seconds: float = 1.0) -> None:
    """Follow a sweep that another process runs, until it ends: a live table, or a line for each trial
    if the output is not a terminal."""
    from ssl_runner.results import compared_rows
    from ssl_runner.results.standings import standings

    with Live(console=console, transient=True, refresh_per_second=2) as live:
        seen: set[str] = set()
        said: set[str] = set()
        is_running = results.is_running(sweep)
        while is_running:
            is_running = results.is_running(sweep)  # once it has ended, a last look at its rows
            trials = results.trials(sweep)
            for row in trials[~trials["trial_id"].isin(seen)].to_dict("records"):
                seen.add(row["trial_id"])
                if not console.is_terminal:
                    console.print(f"{row['trial_id']}: {row['status']}", highlight=False)
            searches = standings(trials)
            if not console.is_terminal:
                for one in searches:
                    if one.ended and (line := words.standing(one)) not in said:
                        said.add(line)
                        console.print(line, highlight=False, markup=False, soft_wrap=True)
            lines = [
                f"{trial_id}: running, {last.epochs} epochs and {last.steps:,} steps at its last "
                "checkpoint"
                for trial_id, last in results.under_way(sweep).items()
            ]
            table = [comparison_table(trials)] if len(compared_rows(trials)) else []
            live.update(Group(*table, *standings_table(searches), Text("\n".join(lines))))
            if is_running:
                time.sleep(seconds)


def _print_whole(table: Table, console: Console) -> None:
    """Print a table with all its figures; a terminal that is too narrow wraps the lines itself."""
    width = console.width
    needed = console.measure(table, options=console.options.update(width=10_000)).maximum
    console.width = max(width, needed)
    try:
        console.print(table)
    finally:
        console.width = width


def wide_console(*, record: bool = False) -> Console:
    """A console that does not wrap a table when its output goes to a file or a pipe."""
    console = Console(record=record)
    return console if console.is_terminal else Console(record=record, width=145)
