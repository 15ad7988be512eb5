"""How a command grows with the trials that it runs: what the benchmarks of many trials share."""

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from rich.box import MARKDOWN
from rich.table import Table

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

SMALLEST = (
    *("--dataset", "digits", "--subset", "60", "--configs", "full"),
    *("--max-steps", "1", "--batch-size", "16", "--patience", "0"),
)
"""The smallest trial: one step on sixteen 8×8 images."""


@dataclass
class Memory:
    """What the controller, the command's own process, has in memory over time.

    Attributes:
        seen: Moments, in seconds since 1970, and megabytes; NaN where it had just ended.
    """

    seen: list[tuple[float, float]] = field(default_factory=list)

    def watch(self, pid: int) -> None:
        """Look once, and wait a moment."""
        self.seen.append((time.time(), resident(pid)))
        time.sleep(0.2)

    def at(self, moment: float) -> float | None:
        """Megabytes when last looked at before a moment; None if it was not."""
        sizes = [size for seen, size in self.seen if seen <= moment and size == size]
        return sizes[-1] if sizes else None


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


def by_tenths(trials: pd.DataFrame, memory: Memory, name: str = "samples") -> Table:
    """Seconds of a trial, and the controller's memory, over each tenth of them.

    Args:
        trials: Their rows, the first to end first.
        name: What they are called.
    """
    table = Table(box=MARKDOWN)
    headings = (name, "seconds between two", "÷ the first", "own seconds (10 % – 90 %)", "MB")
    for heading in headings:
        table.add_column(heading, justify="right")
    at_first = 0.0
    ends = [moment.timestamp() for moment in trials["ended_at"]]
    tenth = max(1, len(ends) // 10)
    for first in range(0, len(ends) - tenth + 1, tenth):
        last = first + tenth - 1
        seconds = (ends[last] - ends[first]) / max(1, last - first)
        at_first = at_first or seconds
        low, middle, high = trials["seconds"].iloc[first : last + 1].quantile([0.1, 0.5, 0.9])
        size = memory.at(ends[last])
        table.add_row(
            f"{last + 1:,}",
            f"{seconds:.3f}",
            f"{seconds / at_first:.2f}" if at_first else "–",
            f"{middle:.3f} ({low:.3f} – {high:.3f})",
            "–" if size is None else f"{size:.0f}",
        )
    return table
