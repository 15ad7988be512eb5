"""What does a trial need in memory? And are the arrays there once, however many trials there are?

python -m experiments.benchmarks.memory    # about 2 minutes on two cores; Linux; needs psutil
python -m experiments.benchmarks.memory --own-images 100000 --trials 2    # files of 64×64×3

Our command with one, two and four trials at a time. Its processes are looked at several times a
second, by what the kernel says of them (`smaps`). Peaks, in MB: what a trial's process holds for
itself; what it shares with others (libraries, and of the object store the pages that it has read);
the object store's pages in use, which hold the arrays; and the fair share of all processes of the
sweep added up (each shared page counted once), Ray's own included.
"""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.command import our_sweep
from experiments.benchmarks.own_data import write_images
from ssl_runner.datasets import load_dataset

MB = 1e6
TRIAL = "ray::ImplicitFunc"
"""How Ray names the process of a trial while it trains."""


@dataclass
class Peaks:
    """The most that was seen, in bytes.

    Attributes:
        own: Of one trial's process, what no other process has.
        shared: Of one trial's process, what others have too.
        store: Pages of the object store in use.
        all: All processes, each shared page once.
        trials: Trials' processes at a time.
    """

    own: int = 0
    shared: int = 0
    store: int = 0
    all: int = 0
    trials: int = 0

    def look(self, pid: int) -> None:
        """Look at a command's processes, and at their object store."""
        everything = trials = 0
        try:
            family = psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return
        for process in family:
            try:
                memory = process.memory_full_info()
                everything += memory.pss
                if process.name().startswith("raylet"):
                    self.store = max(self.store, store_in_use(process.pid))
                elif any(TRIAL in word for word in process.cmdline()):
                    trials += 1
                    self.own = max(self.own, memory.uss)
                    self.shared = max(self.shared, memory.rss - memory.uss)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self.all = max(self.all, everything)
        self.trials = max(self.trials, trials)
        time.sleep(0.2)


def store_in_use(raylet: int) -> int:
    """Bytes of the object store's memory file that are in use; it is open, and has no name."""
    files = Path(f"/proc/{raylet}/fd").iterdir()
    return sum(file.stat().st_blocks * 512 for file in files if "plasma" in str(file.readlink()))


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="What does a trial need in memory?")
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 2, 4], help="at a time")
    parser.add_argument("--own-images", type=int, help="made-up image files in place of Fashion-MNIST")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        name = "fashion_mnist"
        if options.own_images:
            os.environ["SSL_RUNNER_CACHE"] = f"{scratch}/cache"
            name = f"{scratch}/images"
            write_images(Path(name), options.own_images, (64, 64), ".png")
        measure(name, options.trials)


def measure(name: str, counts: list[int]) -> None:
    """Run the sweeps, and print the table."""
    bytes_of_arrays = load_dataset(name).nbytes
    table = Table(title=f"Peak memory in MB; the arrays are {bytes_of_arrays / MB:.1f} MB")
    for heading in ("trials at a time", "a trial's own", "it shares", "object store", "all processes"):
        table.add_column(heading, justify="right")
    for count in counts:
        peaks = Peaks()
        with tempfile.TemporaryDirectory() as folder:
            our_sweep(
                Path(folder),
                *("--configs", "partial", "--label-fractions", "0.5", "--epochs", "1"),
                *("--cpus-per-trial", "0.5", "--max-concurrent", str(count)),
                *("--seeds", *map(str, range(2 * count)), "--dataset", name),
                watch=peaks.look,
            )
        figures = (peaks.own, peaks.shared, peaks.store, peaks.all)
        table.add_row(str(peaks.trials), *(f"{figure / MB:.0f}" for figure in figures))
    Console(width=104).print(table)


if __name__ == "__main__":
    main()
