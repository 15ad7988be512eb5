"""How long does it take to start? From Enter to the first step, and what a Train group costs.

python -m experiments.benchmarks.start    # about 5 minutes on two cores

Medians over the rounds, in seconds: the help, and a flag that is refused; our command to the moment
when its first trial begins (its data at hand, its next act the first step), for a trial in one
process and for one over two workers; and from the end of one two-worker trial to the beginning of the
next, which is what each further Ray Train group costs. The two-worker command is also run with the
settings that Ray comes with, which is the figure before `tune/environment.py`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.command import our_sweep

SMALL = ("--subset", "3000", "--configs", "partial", "--label-fractions", "0.5", "--epochs", "1")
TWO_WORKERS = ("--num-workers", "2")
# What ssl_runner.tune.environment changes, as Ray 2.60 comes.
RAYS_OWN = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "2", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1"}


def answer(*arguments: str) -> float:
    """Seconds until the command has printed its help or its refusal."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ssl_runner.tune", *arguments], capture_output=True, check=False
    )
    return time.perf_counter() - started


def starts(*arguments: str, **environment: str) -> tuple[float, float]:
    """Seconds from Enter to the first trial's beginning, and from its end to the next one's."""
    with tempfile.TemporaryDirectory() as folder:
        entered = datetime.now(UTC)
        _, rows = our_sweep(
            Path(folder),
            *SMALL,
            *("--seeds", "0", "1", "--max-concurrent", "1"),
            *arguments,
            environment=os.environ | environment,
        )
    first, second = rows.iloc[0], rows.iloc[1]
    return (
        (first["started_at"] - entered).total_seconds(),
        (second["started_at"] - first["ended_at"]).total_seconds(),
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="How long does it take to start?")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs = {
        "one process": ((), {}),
        "two workers": (TWO_WORKERS, {}),
        "two workers, Ray's own settings": (TWO_WORKERS, RAYS_OWN),
    }
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for name, arguments in (("--help", "--help"), ("a refused flag", "--epoch=1")):
            seconds.setdefault(name, []).append(answer(arguments))
        for name, (flags, environment) in runs.items():
            first, next_one = starts(*flags, **environment)
            seconds.setdefault(f"Enter to the first trial: {name}", []).append(first)
            seconds.setdefault(f"one trial to the next: {name}", []).append(next_one)
    table = Table(title=f"Seconds to start: {options.rounds} rounds")
    for heading in ("what", "median s", "least – most"):
        table.add_column(heading)
    for what, values in seconds.items():
        spread = f"{min(values):.2f} – {max(values):.2f}"
        table.add_row(what, f"{statistics.median(values):.2f}", spread)
    Console(width=104).print(table)


if __name__ == "__main__":
    main()
