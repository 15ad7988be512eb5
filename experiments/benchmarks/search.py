"""What does a search cost beside its trials? The real command with the random searcher.

python -m experiments.benchmarks.search               # three times 300 samples of about a second
python -m experiments.benchmarks.search --small 1500  # the smallest trials, so many; Linux
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
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.command import our_sweep
from experiments.benchmarks.growth import CORES, SMALLEST, Memory, by_tenths, load, shown

SECOND = (
    *("--configs", "partial", "--label-fractions", "0.05", "--epochs", "1", "--holdout", "600"),
    *("--search", "{lr: {log_uniform: [0.0001, 0.01]}}"),
)
"""3,000 labels: 47 steps."""

SMALL = (
    *(*SMALLEST, "--holdout", "20", "--search"),
    "{lr: {log_uniform: [0.0001, 0.01]}, dropout: {uniform: [0, 0.5]}}",  # of one, some meet twice
)


@dataclass(frozen=True)
class Searched:
    """One search.

    Attributes:
        samples: The rows of its samples, the first to end first.
        wall: Seconds from Enter to the end.
        memory: The controller's.
    """

    samples: pd.DataFrame
    wall: float
    memory: Memory

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
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--samples", str(count), "--save", "none", "--log", *study)
        wall, rows = our_sweep(Path(folder), *arguments, watch=memory.watch)
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
        of_the_smallest(searched(options.small or 100, SMALL))


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


if __name__ == "__main__":
    main()
