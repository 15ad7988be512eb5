"""What does it cost to choose which images to label next, beside plain numpy and scikit-learn?

python -m experiments.benchmarks.selection                  # about 2 minutes on two cores
python -m experiments.benchmarks.selection --rounds 1       # a first look

500 of 54,000 images by features of 128 numbers, with 600 labeled ones: float32, at or above zero as
after a ReLU, around 40 centres. Every measurement is a process of its own, and the ways take turns;
figures are medians over the rounds.

- seconds: of the choice alone; libraries are loaded before. CPU seconds: of all threads together,
  which other work on the machine changes less.
- peak memory: the process's, beyond what it had with the features in memory.
- same images: how many of its images ours chose too.

The plain core-set subtracts each new centre from all features. The plain TypiClust is scikit-learn's
`MiniBatchKMeans` and `NearestNeighbors` with all threads, as the authors' code has them, from the
same random numbers; it takes one image of each cluster at most, so that it chooses fewer.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from ssl_runner.keyed_random import seed_of
from ssl_runner.selection import choose

# N = images, D = features

IMAGES, FEATURES, LABELED, NUMBER = 54_000, 128, 600, 500


def some_features() -> np.ndarray:
    """Features of all images, float32, shape (N, D)."""
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(40, FEATURES))
    features_ND = np.empty((IMAGES, FEATURES), np.float32)
    for block in np.split(features_ND, 54):  # making them must not be the peak
        around = centres[rng.integers(40, size=len(block))]
        block[:] = np.maximum(around + rng.normal(size=block.shape), 0)
    return features_ND


def ours(strategy: str) -> Callable[[np.ndarray], np.ndarray]:
    """Our choice by a strategy; the first images are the labeled ones."""
    return lambda features_ND: (
        choose(strategy, NUMBER, features=features_ND, labeled=range(LABELED)).indices
    )


def plain_coreset(features_ND: np.ndarray) -> np.ndarray:
    """k-centre greedy as one would write it."""

    def distances_to(image: int) -> np.ndarray:
        distance_N: np.ndarray = np.linalg.norm(features_ND - features_ND[image], axis=1)
        return distance_N

    distance_N = distances_to(0)
    for image in range(1, LABELED):
        distance_N = np.minimum(distance_N, distances_to(image))
    chosen = []
    for _ in range(NUMBER):
        chosen.append(int(distance_N.argmax()))
        distance_N = np.minimum(distance_N, distances_to(chosen[-1]))
    return np.array(chosen)


def plain_typiclust(features_ND: np.ndarray) -> np.ndarray:
    """TypiClust by scikit-learn, cluster after cluster."""
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.neighbors import NearestNeighbors

    estimator = MiniBatchKMeans(500, batch_size=5000, n_init=1, random_state=seed_of((0,)) % 2**32)
    cluster_N = estimator.fit_predict(features_ND)
    covered_K = np.bincount(cluster_N[:LABELED], minlength=500)
    size_K = np.bincount(cluster_N, minlength=500)
    chosen: list[int] = []
    for k in np.lexsort((-size_K, covered_K)):
        members = np.flatnonzero(cluster_N == k)
        if size_K[k] < 5 or members[-1] < LABELED:
            continue
        neighbours = NearestNeighbors(n_neighbors=min(20, len(members) - 1)).fit(features_ND[members])
        distances, _ = neighbours.kneighbors()
        distances[members < LABELED] = np.inf
        chosen.append(int(members[distances.mean(axis=1).argmin()]))
    return np.array(chosen[:NUMBER])


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "coreset": ours("coreset"),
    "coreset, plain numpy": plain_coreset,
    "typiclust": ours("typiclust"),
    "typiclust, plain scikit-learn": plain_typiclust,
}


def peak() -> float:
    """The process's peak memory, in MB."""
    unit = 1000 if sys.platform == "linux" else 1000**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def measure(way: str) -> dict[str, list[float]]:
    """One measurement, in a process that does nothing else."""
    features_ND = some_features()
    WAYS[way](features_ND[: 2 * (LABELED + NUMBER)].copy())  # libraries are loaded, threads begun
    before, started, cpu_started = peak(), time.perf_counter(), time.process_time()
    indices = WAYS[way](features_ND)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return {"seconds": [seconds], "CPU": [cpu], "MB": [peak() - before], "indices": indices.tolist()}


def measured(way: str) -> dict[str, list[float]]:
    """One measurement, from a fresh process."""
    command = [sys.executable, "-m", "experiments.benchmarks.selection", "--measure", way]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, list[float]] = json.loads(printed)
    return figures


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="What does it cost to choose images?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    rounds = [{way: measured(way) for way in WAYS} for _ in range(options.rounds)]
    table = Table(box=MARKDOWN)
    for heading in ("strategy", "seconds", "CPU seconds", "peak MB", "same images"):
        table.add_column(heading, justify="left" if heading == "strategy" else "right")
    for way in WAYS:
        seconds, cpu, memory = (
            statistics.median(turn[way][figure][0] for turn in rounds)
            for figure in ("seconds", "CPU", "MB")
        )
        own = rounds[0][way.partition(",")[0]]["indices"]
        same = len(set(own) & set(rounds[0][way]["indices"]))
        table.add_row(way, f"{seconds:.1f}", f"{cpu:.1f}", f"{memory:,.0f}", str(same))
    console = Console(width=104)
    console.print(f"{NUMBER} of {IMAGES:,} × {FEATURES}, {LABELED} labeled, {options.rounds} rounds")
    console.print(table)


if __name__ == "__main__":
    main()
