"""How does a sweep scale with its trials? The real command, controller and results writer.

python -m experiments.benchmarks.scale                        # 1,000, 3,000 and 10,000 trials; Linux
python -m experiments.benchmarks.scale --trials 1000          # so many, in a few minutes

The smallest trial is one step on sixteen 8×8 images; the sweep's trials differ in the seed. The
controller is the command's own process: its resident memory is read all the while. For each sweep:

- trials a second, from the first start of a trial to the last end, and from Enter to the end;
- seconds of a core beyond a trial's own, from its first start in its process to its row;
- the controller's megabytes at the end of the first tenth of the trials and of the last, and kilobytes
  a trial between them;
- the same command again, which has nothing to run: its seconds.

Then each tenth of the largest sweep.
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
from experiments.benchmarks.growth import CORES, SMALLEST, Memory, by_tenths, load


@dataclass(frozen=True)
class Swept:
    """One sweep.

    Attributes:
        trials: Their rows, the first to end first.
        wall: Seconds from Enter to the end.
        again: Seconds of the same command when all is done.
        memory: The controller's.
    """

    trials: pd.DataFrame
    wall: float
    again: float
    memory: Memory

    @property
    def seconds(self) -> float:
        """From the first start of a trial to the last end."""
        began, ended = self.trials["started_at"].min(), self.trials["ended_at"].max()
        return float((ended - began).total_seconds())

    @property
    def beyond(self) -> float:
        """Seconds of a core beyond a trial's own."""
        return self.seconds * CORES / len(self.trials) - float(self.trials["seconds"].mean())

    def megabytes(self, share: float) -> float:
        """The controller's, when a share of the trials had ended."""
        place = max(0, int(share * len(self.trials)) - 1)
        return self.memory.at(self.trials["ended_at"].iloc[place].timestamp()) or float("nan")


def swept(count: int) -> Swept:
    """Run our command with so many trials, and once more."""
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder:
        seeds = [str(seed) for seed in range(count)]
        arguments = (*SMALLEST, "--save", "none", "--log", "--seeds", *seeds)
        wall, rows = our_sweep(Path(folder), *arguments, watch=memory.watch)
        again, _ = our_sweep(Path(folder), *arguments)
    assert len(rows) == count
    return Swept(rows.sort_values("ended_at"), wall, again, memory)


def table_of(found: Sequence[Swept]) -> Table:
    """A row for each sweep."""
    table = Table(box=MARKDOWN)
    for heading in (
        *("trials", "a second", "with start and end", "beyond a trial's own, s"),
        *("MB, first tenth", "MB, end", "KB a trial", "again, s"),
    ):
        table.add_column(heading, justify="right")
    for each in found:
        count = len(each.trials)
        first, last = each.megabytes(0.1), each.megabytes(1)
        table.add_row(
            f"{count:,}",
            f"{count / each.seconds:.1f}",
            f"{count / each.wall:.1f}",
            f"{each.beyond:.3f}",
            f"{first:.0f}",
            f"{last:.0f}",
            f"{1000 * (last - first) / (0.9 * count):.1f}",
            f"{each.again:.1f}",
        )
    return table


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="How does a sweep scale with its trials?")
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 3000, 10000])
    options = parser.parse_args()
    console, found = Console(width=104), []
    for count in sorted(options.trials):
        found.append(swept(count))
        print(f"{count:,} trials: {found[-1].wall:.0f} s, {load()}", flush=True)
    console.print(f"the smallest trials on {CORES} cores, each sweep once")
    console.print(table_of(found))
    console.print(by_tenths(found[-1].trials, found[-1].memory, "trials"))


if __name__ == "__main__":
    main()
