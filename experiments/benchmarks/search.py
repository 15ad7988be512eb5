"""What does a search cost beside its trials? The real command with the random searcher.

python -m experiments.benchmarks.search                 # 300 samples of about a second
python -m experiments.benchmarks.search --small 5000    # the smallest trials, so many; Linux

A sample's own seconds are from its first start in its process to its row. What is beyond them, for each
sample: the seconds of all cores from the first start of a sample to the last end, less those; and the
same from Enter to the end, with Ray's start, the finals and the page.

The smallest trial is one step on sixteen 8×8 images. The controller is the command's own process: its
resident memory is read all the while, and shown after each tenth of the samples with their seconds.
"""

import argparse
import os
import tempfile
import time
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
    *(
        "--dataset",
        "digits",
        "--subset",
        "60",
        "--holdout",
        "20",
        "--configs",
        "full",
        "--max-steps",
        "1",
    ),
    *("--batch-size", "16", "--patience", "0", "--search", "{lr: {log_uniform: [0.0001, 0.01]}}"),
)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="What does a search cost beside its trials?")
    parser.add_argument("--samples", type=int, default=300, help="samples of about a second")
    parser.add_argument("--small", type=int, help="only: so many of the smallest trials")
    options = parser.parse_args()
    console = Console(width=104)
    count, study = (options.small, SMALLEST) if options.small else (options.samples, SECOND)
    memory: list[tuple[float, float]] = []

    def watch(pid: int) -> None:
        memory.append((time.time(), resident(pid)))
        time.sleep(0.2)

    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--samples", str(count), "--save", "none", "--log", *study)
        wall, rows = our_sweep(Path(folder), *arguments, watch=watch)
    samples = rows[rows["role"] == "search"].sort_values("ended_at")
    assert len(samples) == count
    began, ended = samples["started_at"].min(), samples["ended_at"].max()
    own = samples["seconds"].sum()
    between = (ended - began).total_seconds()
    load = os.getloadavg()
    console.print(
        f"{count} samples of {own / count:.2f} s; beyond that, of each: "
        f"{(between * CORES - own) / count:.3f} s from the first to the last, "
        f"{(wall * CORES - own) / count:.3f} s from Enter to the end ({wall:.0f} s on {CORES} cores; "
        f"load {load[0]:.1f}, {load[2]:.1f} over fifteen minutes)"
    )
    if options.small:
        console.print(by_tenths(samples, memory))


def resident(pid: int) -> float:
    """Megabytes of a process that are in memory; NaN if it has just ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def by_tenths(samples: pd.DataFrame, memory: list[tuple[float, float]]) -> Table:
    """Seconds of a sample, and the controller's memory, over each tenth of them."""
    table = Table(box=MARKDOWN)
    for heading in ("samples", "seconds between two of them", "controller, MB"):
        table.add_column(heading, justify="right")
    ends = [moment.timestamp() for moment in samples["ended_at"]]
    tenth = max(1, len(ends) // 10)
    known = [(moment, size) for moment, size in memory if size == size]
    for first in range(0, len(ends) - tenth + 1, tenth):
        last = first + tenth - 1
        seconds = (ends[last] - ends[first]) / max(1, last - first)
        sizes = [size for moment, size in known if moment <= ends[last]]
        table.add_row(f"{last + 1:,}", f"{seconds:.3f}", f"{sizes[-1]:.0f}" if sizes else "–")
    return table


if __name__ == "__main__":
    main()
