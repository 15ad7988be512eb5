"""Two workers with a thread each, or one worker with two threads? The same trial, images per second.

python -m experiments.benchmarks.workers    # about 6 minutes on two cores

Both are our command, alternating: medians over the rounds of the row's images per second, which is
time in the loop only (what a Ray Train group costs before that is in start.py), and the ratio.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.command import our_sweep

WAYS = {
    "one worker, two threads": ("--cpus-per-trial", "2"),
    "two workers, a thread each": ("--num-workers", "2"),
}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Two workers, or one with two threads?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 256])
    options = parser.parse_args()
    table = Table(title=f"Images per second, full, {options.rounds} rounds of {options.epochs} epochs")
    for heading in ("batch", *WAYS, "ratio of the medians", "ratio, round by round"):
        table.add_column(heading)
    for batch_size in options.batch_sizes:
        rates: dict[str, list[float]] = {name: [] for name in WAYS}
        for _ in range(options.rounds):
            for name, flags in WAYS.items():
                with tempfile.TemporaryDirectory() as folder:
                    _, rows = our_sweep(
                        Path(folder),
                        *("--configs", "full", "--patience", "0"),
                        *("--epochs", str(options.epochs), "--batch-size", str(batch_size)),
                        *flags,
                    )
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
