"""What does each method gain over `pass`, what does it cost a step, and what does a point cost?

python -m experiments.benchmarks.methods            # about 25 minutes on one core
python -m experiments.benchmarks.methods --short    # a first look: one round of 60 steps, half a minute

Fashion-MNIST, the small CNN, one thread, as in `experiments/methods.yaml`: the same labeled batches,
weak views and averaged weights for all, `pass` too. Each round is a seed and a split of its own, in
which the methods take turns, in the opposite order in every other round. `pass` is also trained with
two, four and eight times the labels, which is the round's label curve.

- accuracy: of the test images, with the last weights. Median over the rounds, least and most.
- gain: points above `pass` in the same round.
- ms a step: CPU time of the training loop, which other work on the machine changes less than wall
  time; and how many times that of `pass`.
- s a point: the seconds that the whole training takes beyond those of `pass`, for each point gained.
- labels: how many `pass` takes for the same accuracy, on the round's curve (linear in the logarithm);
  > where its most labels do not reach it. Labels a point: those beyond the method's own, for each
  point gained: what the method spares.

A point costs nothing that can be named where nothing is gained: –.
"""

import argparse
import os
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.methods.settings import METHODS
from ssl_runner.results.labels_needed import labels_at
from ssl_runner.train import fit, prepare
from ssl_runner.train.device import keep_freed_memory

TIMES = (1, 2, 4, 8)
"""The label curve of `pass`: its numbers of labels, as multiples."""

HEADINGS = (
    *("method", "accuracy, %", "gain, points", "ms a step", "× pass", "s a point", "labels"),
    "labels a point",
)


@dataclass(frozen=True)
class Trained:
    """One training.

    Attributes:
        accuracy: Of the test images.
        seconds: CPU seconds of its training loop.
        steps: Optimizer steps.
    """

    accuracy: float
    seconds: float
    steps: int


@dataclass(frozen=True)
class Beside:
    """A training beside that of `pass` in the same round.

    Attributes:
        own, of_pass: The two.
        labels: The labels of both.
        worth: The labels that `pass` takes for the same accuracy; ∞ where its most do not reach it, and
            NaN where fewer labels than there are would have been enough.
    """

    own: Trained
    of_pass: Trained
    labels: int
    worth: float

    @property
    def gain(self) -> float:
        """Points above `pass`."""
        return 100 * (self.own.accuracy - self.of_pass.accuracy)

    @property
    def seconds_a_point(self) -> float:
        """CPU seconds beyond those of `pass` for each point; NaN where nothing is gained."""
        more = self.own.seconds - self.of_pass.seconds
        return more / self.gain if self.gain > 0 else float("nan")

    @property
    def labels_a_point(self) -> float:
        """Labels beyond its own that `pass` takes for each point; NaN where nothing is gained."""
        return (self.worth - self.labels) / self.gain if self.gain > 0 else float("nan")


def train(dataset: ImageDataset, method: str, labels: int, seed: int, steps: int) -> Trained:
    """Train as `experiments/methods.yaml` does."""
    config = TrialConfig.of(
        method=method,
        label_fraction=labels / len(dataset.train),
        seed=seed,
        split_seed=seed,
        order="paired",
        augment="weak",
        ema=0.99,
        keep="last",
        flip=False,
        batch_size=32,
        max_steps=steps,
        patience=0,
    ).resolved()
    data = prepare(config, dataset)
    done = fit(config, data, device=torch.device("cpu"), report=lambda metrics, state: None)
    progress = done.progress
    share = progress.train_seconds / (progress.train_seconds + progress.evaluate_seconds)
    return Trained(done.test.accuracy, progress.cpu_seconds * share, progress.steps)


def measure(
    dataset: ImageDataset, methods: list[str], labels: int, turn: int, steps: int
) -> list[Beside]:
    """A round at one number of labels: each method beside `pass`."""
    curve = {times: train(dataset, "pass", times * labels, turn, steps) for times in TIMES}
    numbers = np.array([times * labels for times in TIMES], dtype=float)
    accuracies = np.array([trained.accuracy for trained in curve.values()])
    order = methods if turn % 2 == 0 else methods[::-1]
    found = {
        method: curve[1] if method == "pass" else train(dataset, method, labels, turn, steps)
        for method in order
    }
    return [
        Beside(own, curve[1], labels, labels_at(numbers, accuracies, own.accuracy))
        for own in (found[method] for method in methods)
    ]


def shown(values: Iterable[float], digits: int) -> str:
    """The median, and the least and the most; – without a value."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return "–"
    low, middle, high = min(known), statistics.median(known), max(known)
    if np.isinf(middle):
        return ">"
    if len(known) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({low:,.{digits}f} – {high:,.{digits}f})".replace("inf", ">")


def row(method: str, turns: list[Beside]) -> list[str]:
    """A method's line."""
    step = [1000 * turn.own.seconds / turn.own.steps for turn in turns]
    of_pass = [1000 * turn.of_pass.seconds / turn.of_pass.steps for turn in turns]
    ratios = [own / reference for own, reference in zip(step, of_pass, strict=True)]
    cells = [method, shown([100 * turn.own.accuracy for turn in turns], 2)]
    if method == "pass":
        return [*cells, "", shown(step, 1), "1", "", f"{turns[0].labels:,}", ""]
    return [
        *cells,
        shown([turn.gain for turn in turns], 2),
        shown(step, 1),
        shown(ratios, 2),
        shown([turn.seconds_a_point for turn in turns], 1),
        shown([turn.worth for turn in turns], 0),
        shown([turn.labels_a_point for turn in turns], 0),
    ]


def main() -> None:
    """Measure in turns, and print a table for each number of labels."""
    parser = argparse.ArgumentParser(description="What does each method gain, and what does it cost?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--labels", type=int, nargs="+", default=[100, 600])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--short", action="store_true", help="one round of 60 steps at 100 labels")
    options = parser.parse_args()
    if options.short:
        options.rounds, options.steps, options.labels = 1, 60, [100]
    methods = list(dict.fromkeys(["pass", *options.methods]))
    torch.set_num_threads(1)
    keep_freed_memory()
    dataset = load_dataset("fashion_mnist")
    most = len(dataset.train) // TIMES[-1]
    if not all(0 < labels <= most for labels in options.labels):
        parser.error(f"--labels must be in [10, {most:,}], got {options.labels}. Try 100 600.")
    train(dataset, "pass", 100, 0, 20)  # what is loaded at the first use
    rounds: list[dict[int, list[Beside]]] = []
    for turn in range(options.rounds):
        rounds.append(
            {
                labels: measure(dataset, methods, labels, turn, options.steps)
                for labels in options.labels
            }
        )
        print(f"round {turn + 1}: load {os.getloadavg()[0]:.1f}", flush=True)
    console = Console(width=150)
    for labels in options.labels:
        table = Table(box=MARKDOWN)
        for heading in HEADINGS:
            table.add_column(heading, justify="left" if heading == "method" else "right")
        for place, method in enumerate(methods):
            table.add_row(*row(method, [turn[labels][place] for turn in rounds]))
        console.print(f"{labels:,} labels, {options.steps:,} steps, {options.rounds} rounds")
        console.print(table)


if __name__ == "__main__":
    main()
