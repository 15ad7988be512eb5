"""What does a search cost beside its trials? The real command with the random searcher.

python -m experiments.benchmarks.search               # three times 300 samples of about a second
python -m experiments.benchmarks.search --small 5000  # the smallest trials, so many; Linux
python -m experiments.benchmarks.search --short       # a first look: 20 samples, and 100 small ones

A sample's own seconds are from its first start in its process to its row. What is beyond them, for each
sample: the seconds of all cores from the first start of a sample to the last end, less those; and the
same from Enter to the end, with Ray's start, the finals and the page.

The smallest trial is one step on sixteen 8×8 images. The controller is the command's own process: its
resident memory is read all the while, and shown after each tenth of the samples. Beside it: the seconds
between the ends of two samples in that tenth, and how many times those of the first they are; and of
the samples' own seconds the median, and what nine in ten are above and below.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.command import our_sweep

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

SECOND = (
    *("--configs", "partial", "--label-fractions", "0.05", "--epochs", "1", "--holdout", "600"),
    *("--search", "{lr: {log_uniform: [0.0001, 0.01]}}"),
)
"""3,000 labels: 47 steps."""

SMALLEST = (
    *("--dataset", "digits", "--subset", "60", "--holdout", "20", "--configs", "full"),
    *("--max-steps", "1", "--batch-size", "16", "--patience", "0"),
    *("--search", "{lr: {log_uniform: [0.0001, 0.01]}}"),
)


@dataclass(frozen=True)
class Searched:
    """One search.

    Attributes:
        samples: The rows of its samples, the first to end first.
        wall: Seconds from Enter to the end.
        memory: Moments, in seconds since 1970, and the controller's megabytes.
    """

    samples: pd.DataFrame
    wall: float
    memory: Sequence[tuple[float, float]]

    @property
    def own(self) -> float:
        """Mean seconds of a sample."""
        return float(self.samples["seconds"].mean())

    @property
    def beyond(self) -> tuple[float, float]:
        """Seconds of a core beyond those, of each sample: from the first to the last, and from Enter to
        the end."""
        began, ended = self.samples["started_at"].min(), self.samples["ended_at"].max()
        both = (ended - began).total_seconds(), self.wall
        between, whole = (seconds * CORES / len(self.samples) - self.own for seconds in both)
        return between, whole


def searched(count: int, study: Sequence[str]) -> Searched:
    """Run our command with so many samples."""
    memory: list[tuple[float, float]] = []

    def watch(pid: int) -> None:
        memory.append((time.time(), resident(pid)))
        time.sleep(0.2)

    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--samples", str(count), "--save", "none", "--log", *study)
        wall, rows = our_sweep(Path(folder), *arguments, watch=watch)
    samples = rows[rows["role"] == "search"].sort_values("ended_at")
    assert len(samples) == count
    return Searched(samples, wall, memory)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="What does a search cost beside its trials?")
    parser.add_argument("--samples", type=int, default=300, help="samples of about a second")
    parser.add_argument("--rounds", type=int, default=3, help="searches of these")
    parser.add_argument("--small", type=int, help="only: so many of the smallest trials, once")
    parser.add_argument("--short", action="store_true", help="once 20 samples, and 100 small ones")
    options = parser.parse_args()
    if options.short:
        options.samples, options.rounds = 20, 1
    if options.short or not options.small:
        of_a_second([searched(options.samples, SECOND) for _ in range(options.rounds)])
    if options.short or options.small:
        of_the_smallest(searched(options.small or 100, SMALLEST))


def of_a_second(found: Sequence[Searched]) -> None:
    """Print what searches cost beside their samples, which are alike."""
    table = Table(box=MARKDOWN)
    for heading in ("", "seconds, median (least – most)", "÷ a sample's own"):
        table.add_column(heading, justify="right" if heading else "left")
    own = [each.own for each in found]
    table.add_row("a sample's own", shown(own), "")
    names = "beyond, from the first to the last", "beyond, from Enter to the end"
    for place, name in enumerate(names):
        beyond = [each.beyond[place] for each in found]
        ratios = [one / of for one, of in zip(beyond, own, strict=True)]
        table.add_row(name, shown(beyond), shown(ratios))
    table.add_row("all, from Enter to the end", shown([each.wall for each in found], 0), "")
    count = len(found[0].samples)
    console = Console(width=104)
    console.print(f"{count:,} samples on {CORES} cores, n = {len(found)} searches; {load()}")
    console.print(table)


def of_the_smallest(found: Searched) -> None:
    """Print how a search's controller grows."""
    console = Console(width=104)
    console.print(
        f"{len(found.samples):,} of the smallest samples on {CORES} cores, one search: "
        f"{found.wall:.0f} s from Enter to the end; beyond a sample's own {found.own:.3f} s: "
        f"{found.beyond[0]:.3f} s from the first to the last, {found.beyond[1]:.3f} s from Enter to "
        f"the end; {load()}"
    )
    console.print(by_tenths(found.samples, found.memory))


def shown(values: Sequence[float], digits: int = 3) -> str:
    """The median, and the least and the most."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} – {high:,.{digits}f})"


def load() -> str:
    """How busy the machine is."""
    last, _, quarter = os.getloadavg()
    return f"load {last:.1f}, {quarter:.1f} over fifteen minutes"


def resident(pid: int) -> float:
    """Megabytes of a process that are in memory; NaN if it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def by_tenths(samples: pd.DataFrame, memory: Sequence[tuple[float, float]]) -> Table:
    """Seconds of a sample, and the controller's memory, over each tenth of them."""
    table = Table(box=MARKDOWN)
    headings = ("samples", "seconds between two", "÷ the first", "own seconds (10 % – 90 %)", "MB")
    for heading in headings:
        table.add_column(heading, justify="right")
    at_first = 0.0
    ends = [moment.timestamp() for moment in samples["ended_at"]]
    tenth = max(1, len(ends) // 10)
    known = [(moment, size) for moment, size in memory if size == size]
    for first in range(0, len(ends) - tenth + 1, tenth):
        last = first + tenth - 1
        seconds = (ends[last] - ends[first]) / max(1, last - first)
        at_first = at_first or seconds
        low, middle, high = samples["seconds"].iloc[first : last + 1].quantile([0.1, 0.5, 0.9])
        sizes = [size for moment, size in known if moment <= ends[last]]
        table.add_row(
            f"{last + 1:,}",
            f"{seconds:.3f}",
            f"{seconds / at_first:.2f}" if at_first else "–",
            f"{middle:.3f} ({low:.3f} – {high:.3f})",
            f"{sizes[-1]:.0f}" if sizes else "–",
        )
    return table


if __name__ == "__main__":
    main()
