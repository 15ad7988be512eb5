"""What does a sampler cost? Ours, torch's and one written by hand: time, speed and memory.

python -m experiments.benchmarks.sampler                        # everything: about 9 minutes
python -m experiments.benchmarks.sampler --sizes 6e4 --rounds 3 # a first look

Every measurement is a process of its own, and the samplers take turns; the figures are medians over
the rounds, and the ratios are medians of each round's own ratio to ours. `DistributedSampler` with
`BatchSampler` shuffles both kinds together, so its batches are not of one kind: it is there as the
usual choice. The one by hand is the shuffled homogeneous sampler that one would write: both pools
shuffled, cut into batches, and the batches shuffled. Each goes through the indices as lists of ints,
batch by batch, as a loader does.

- first batch: from making the sampler to its first batch, in a process where nothing ran before
  (`cold`), and of the next epoch (`next`), where nothing needs to be loaded or warmed up.
- indices/s: of that next epoch, from setting it to its end, with the first batch. Where an epoch is
  longer than 2·10⁷ indices, the time of those that were not walked is reckoned from those that were.
- peak memory: the process's, beyond what it had before it made the sampler.
"""

import argparse
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch.utils.data import BatchSampler, DistributedSampler, Sampler

from ssl_runner import HomogeneousBatchSampler

OURS, TORCH, BY_HAND = "ours", "DistributedSampler", "by hand"

LABELED_SHARE = 0.01  # of the unlabeled images, in addition
BATCH_SIZE = 64
WALKED = 2 * 10**7  # indices of an epoch that are walked at most

# An int, its place in a list and in a second list, and eight bytes in a tensor.
BYTES_PER_INDEX = 32 + 8 + 8 + 8


class Length:
    """A data set of which only the length matters."""

    def __init__(self, images: int) -> None:
        self.images = images

    def __len__(self) -> int:
        return self.images


class ByHand(Sampler[list[int]]):
    """Shuffle both pools, cut them into batches, shuffle the batches."""

    def __init__(self, labeled: range, unlabeled: range) -> None:
        self.pools = (labeled, unlabeled)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.epoch)
        batches = []
        for pool in self.pools:
            order = (pool.start + torch.randperm(len(pool), generator=generator)).tolist()
            batches += [order[i : i + BATCH_SIZE] for i in range(0, len(order), BATCH_SIZE)]
        random.Random(self.epoch).shuffle(batches)
        return iter(batches)


def pools(images: int) -> tuple[range, range]:
    labeled = int(images * LABELED_SHARE)
    return range(labeled), range(labeled, labeled + images)


def make(name: str, images: int) -> tuple[Any, Callable[[int], None]]:
    """A sampler over so many unlabeled images and the labeled ones, and what sets its epoch."""
    labeled, unlabeled = pools(images)
    if name == OURS:
        ours = HomogeneousBatchSampler(labeled, unlabeled, batch_size=BATCH_SIZE)
        return ours, ours.set_epoch
    if name == BY_HAND:
        by_hand = ByHand(labeled, unlabeled)
        return by_hand, by_hand.set_epoch
    shuffled: Any = DistributedSampler(Length(unlabeled.stop), num_replicas=1, rank=0)  # type: ignore[arg-type]
    return BatchSampler(shuffled, BATCH_SIZE, drop_last=False), shuffled.set_epoch


def walk(sampler: Any, indices: int, started: float) -> tuple[float, float]:
    """Seconds to the first batch, and to the end of the epoch of so many indices."""
    batches = iter(sampler)
    next(batches)
    first = time.perf_counter()
    walked = sum(map(len, itertools.islice(batches, WALKED // BATCH_SIZE)))
    seconds = time.perf_counter() - first
    return first - started, first - started + seconds * max(1, (indices - BATCH_SIZE) / walked)


def measure(name: str, images: int) -> dict[str, float]:
    """One measurement, in a process that does nothing else."""

    def peak() -> float:
        unit = 1024 if sys.platform == "linux" else 1024**2
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    torch.set_num_threads(1)
    before, started = peak(), time.perf_counter()
    sampler, set_epoch = make(name, images)
    indices = pools(images)[1].stop
    cold, _ = walk(sampler, indices, started)
    started = time.perf_counter()
    set_epoch(1)
    first, epoch = walk(sampler, indices, started)
    return {
        "cold ms": 1000 * cold,
        "next ms": 1000 * first,
        "million indices/s": indices / epoch / 1e6,
        "peak MB": peak() - before,
    }


def measured(name: str, images: int) -> dict[str, float]:
    """One measurement, from a fresh process."""
    command = [sys.executable, __file__, "--measure", name, "--sizes", str(images)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(printed)
    return figures


def compared(images: int, rounds: int) -> list[list[str]]:
    """The table's rows for one size."""
    needed = images * (1 + LABELED_SHARE) * BYTES_PER_INDEX / 1e9
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    names = [OURS] if needed > 0.7 * free else [OURS, TORCH, BY_HAND]
    turns = [{name: measured(name, images) for name in names} for _ in range(rounds)]
    rows = []
    for name in names:
        row = [f"{images:.0e}", name]
        for figure in turns[0][name]:
            median = statistics.median(turn[name][figure] for turn in turns)
            ratio = statistics.median(turn[name][figure] / turn[OURS][figure] for turn in turns)
            row.append(f"{median:,.1f}" if name == OURS else f"{median:,.1f} (×{ratio:.2f})")
        rows.append(row)
    return rows + [
        [f"{images:.0e}", name, *["does not fit"] * 3, f"about {1000 * needed:,.0f}"]
        for name in (TORCH, BY_HAND)
        if name not in names
    ]


def milliseconds_per_epoch(labeled: range, unlabeled: range, **arguments: Any) -> float:
    """Walking alone, of the epochs after the first; a median of twenty."""
    sampler = HomogeneousBatchSampler(labeled, unlabeled, batch_size=BATCH_SIZE, **arguments)
    seconds = []
    for epoch in range(21):
        started = time.perf_counter()
        sampler.set_epoch(epoch)
        for _ in sampler:
            pass
        seconds.append(time.perf_counter() - started)
    return 1000 * statistics.median(seconds[1:])


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="What does a sampler cost?")
    parser.add_argument("--sizes", type=float, nargs="+", default=[6e4, 1e6, 1e8, 1e9])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--epoch-seconds", type=float, help="what an epoch takes, as training.py measures"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes]
    if options.measure:
        print(json.dumps(measure(options.measure, sizes[0])))
        return
    console = Console(width=130)
    table = Table(box=MARKDOWN)
    for heading in ("unlabeled", "sampler", "first batch, cold, ms", "first batch, next, ms"):
        table.add_column(heading)
    for heading in ("million indices/s", "peak MB"):
        table.add_column(heading)
    for images in sizes:
        for row in compared(images, options.rounds):
            table.add_row(*row)
    console.print(f"Batches of {BATCH_SIZE}, 1 % labeled in addition, {options.rounds} rounds")
    console.print(table)
    console.print("Fashion-MNIST's size, the sampler alone:")
    for what, cost in {
        "60,000 labeled": milliseconds_per_epoch(range(60000), range(0)),
        "6,000 labeled and 54,000 unlabeled": milliseconds_per_epoch(range(6000), range(6000, 60000)),
        "the same, unlabeled batches skipped": milliseconds_per_epoch(
            range(6000), range(6000, 60000), skip_unlabeled=True
        ),
    }.items():
        share = f", {cost / 10 / options.epoch_seconds:.3f} % of it" if options.epoch_seconds else ""
        console.print(f"- {what}: {cost:.2f} ms an epoch{share}")


if __name__ == "__main__":
    main()
