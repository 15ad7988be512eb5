"""What does a table of many small files cost to read, and after it was compacted?

python -m experiments.benchmarks.compacting                  # 10,000 trials of 100 epochs
python -m experiments.benchmarks.compacting --trials 1000    # fewer

The rows are a real trial's, with other ids, and other figures of full precision. A first read is that
of a new process, its files in the page cache: `load_trials` and `load_epochs`, and plain pandas. The
seconds and the peak memory are medians of the rounds.
"""

import argparse
import hashlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from ssl_runner.results import ResultsFolder

READERS = {
    "load_trials": "from ssl_runner.results import load_trials as read",
    "load_epochs": "from ssl_runner.results import load_epochs as read",
    "pandas, trials": "import pandas; read = lambda p: pandas.read_parquet(p + '/trials')",
    "pandas, epochs": "import pandas; read = lambda p: pandas.read_parquet(p + '/epochs')",
}
TIMED = """
import sys, time, resource
{reader}
began = time.perf_counter()
rows = len(read(sys.argv[1]))
print(time.perf_counter() - began, rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="What does a table of many files cost to read?")
    parser.add_argument("--trials", type=int, default=10_000, help="number of trials")
    parser.add_argument("--epochs", type=int, default=100, help="epochs of each")
    parser.add_argument("--rounds", type=int, default=3, help="of reading, in turn")
    options = parser.parse_args()
    console = Console(width=104)
    with tempfile.TemporaryDirectory() as folder:
        results = ResultsFolder(folder)
        _write(results, options.trials, options.epochs)
        before = _read(folder, options.rounds)
        began = time.perf_counter()
        done = results.compact()
        seconds = time.perf_counter() - began
        after = _read(folder, options.rounds)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    files = [sum(getattr(one, when) for one in done.values()) for when in ("before", "after")]
    table = Table(box=MARKDOWN)
    for heading in ("first read by", f"{files[0]:,} files", f"compacted: {files[1]}", "memory"):
        table.add_column(heading, justify="left" if heading == "first read by" else "right")
    for name in READERS:
        table.add_row(
            name,
            f"{before[name][0]:.2f} s",
            f"{after[name][0]:.2f} s",
            f"{before[name][1]:,.0f} and {after[name][1]:,.0f} MB",
        )
    console.print(table)
    console.print(
        f"{options.trials:,} trials of {options.epochs} epochs, {size / 1e6:,.0f} MB compacted in "
        f"{seconds:.1f} s; medians of {options.rounds}"
    )


def _write(results: ResultsFolder, trials: int, epochs: int) -> None:
    """Write the rows of so many trials: a real one's, each with an id and a seed of its own."""
    command = ("-m", "ssl_runner.train", "--subset", "500", "--epochs", "1", "--precision", "fp32")
    with tempfile.TemporaryDirectory() as folder:
        arguments = ("--name", "many", "--save", "none", "--results", folder)
        subprocess.run([sys.executable, *command, *arguments], capture_output=True, check=True)
        (row,) = pq.read_table(f"{folder}/trials").to_pylist()
        (epoch,) = pq.read_table(f"{folder}/epochs").to_pylist()
    figures = random.Random(0)

    def other(values: dict[str, Any]) -> dict[str, Any]:
        """The same with other figures, which don't compress away."""
        return {
            name: value * figures.random() if isinstance(value, float) else value
            for name, value in values.items()
        }

    for seed in range(trials):
        own = {"trial_id": hashlib.sha256(str(seed).encode()).hexdigest()[:10], "seed": seed}
        epoch_rows = [other(epoch) | own | {"epoch": number + 1} for number in range(epochs)]
        results.write(other(row) | own, epoch_rows)


def _read(folder: str, rounds: int) -> dict[str, tuple[float, float]]:
    """Seconds and peak MB of a new process for each reader."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in READERS}
    for _ in range(rounds):
        for name, reader in READERS.items():
            code = TIMED.format(reader=reader)
            done = subprocess.run(
                [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
            )
            took, _, peak = done.stdout.split()
            seconds[name].append((float(took), float(peak)))
    return {
        name: (statistics.median(took for took, _ in of), statistics.median(peak for _, peak in of))
        for name, of in seconds.items()
    }


if __name__ == "__main__":
    main()
