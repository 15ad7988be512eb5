"""Two workers with a thread each, or one worker with two threads? The same trial, images per second.

python -m experiments.benchmarks.workers            # about 6 minutes on two cores
python -m experiments.benchmarks.workers --hosts    # over two hosts; as root, Linux

Both are our command, alternating: medians over the rounds of the row's images per second, which is
time in the loop only (what a Ray Train group costs before that is in start.py), and the ratio. The
hosts are made of namespaces (ssl_runner/testing/hosts.py): each worker host has a core of this machine,
and a network of its own; what one worker computes on, the other has not.
"""

import argparse
import contextlib
import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.command import our_sweep
from ssl_runner.testing.hosts import SHARED, Hosts

WAYS = {
    "one worker, two threads": ("--cpus-per-trial", "2"),
    "two workers, a thread each": ("--num-workers", "2"),
}
OVER_HOSTS = {
    "one worker on a host": ("--cpus-per-trial", "1"),
    "two workers on two hosts": ("--num-workers", "2", "--cpus-per-trial", "2"),
}

Swept = Callable[..., pd.DataFrame]
"""Runs a sweep with these flags; its rows."""


def swept_here(*flags: str) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        _, rows = our_sweep(Path(folder), *flags)
    return rows


def swept_on(hosts: Hosts) -> Swept:
    """What runs sweeps on a cluster of hosts, from its head."""

    def swept(*flags: str) -> pd.DataFrame:
        line = f"python -m ssl_runner.tune {' '.join(flags)} --address auto --results {SHARED}/speed"
        hosts.head.run(f". ~/ray_env.sh && exec {line}")
        rows = pd.read_parquet(hosts.shared / "speed" / "trials")
        shutil.rmtree(hosts.shared / "speed")
        return rows

    return swept


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Two workers, or one with two threads?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--hosts", action="store_true", help="two workers over two hosts")
    options = parser.parse_args()
    ways = OVER_HOSTS if options.hosts else WAYS
    table = Table(title=f"Images per second, full, {options.rounds} rounds of {options.epochs} epochs")
    for heading in ("batch", *ways, "ratio of the medians", "ratio, round by round"):
        table.add_column(heading)
    with contextlib.ExitStack() as stack:
        swept: Swept = swept_here
        if options.hosts:
            hosts = stack.enter_context(Hosts())
            hosts.ray_up()
            swept = swept_on(hosts)
        for batch_size in options.batch_sizes:
            trial = ("--configs", "full", "--patience", "0", "--log", "--save", "none")
            sizes = ("--epochs", str(options.epochs), "--batch-size", str(batch_size))
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(options.rounds):
                for name, flags in ways.items():
                    rows = swept(*trial, *sizes, *flags)
                    rates[name].append(float(rows["images_per_second"].iloc[0]))
            one, two = (statistics.median(values) for values in rates.values())
            each = (b / a for a, b in zip(*rates.values(), strict=True))
            table.add_row(
                str(batch_size),
                f"{one:,.0f}",
                f"{two:,.0f}",
                f"{two / one:.2f}",
                ", ".join(f"{ratio:.2f}" for ratio in each),
            )
    Console(width=104).print(table)


if __name__ == "__main__":
    main()
