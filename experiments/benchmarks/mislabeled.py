"""How many labels that were flipped on purpose does `label_next --suspect` find, and how many others?

python -m experiments.benchmarks.mislabeled                 # about 5 minutes on two cores
python -m experiments.benchmarks.mislabeled --labels 1000   # a first look

Fashion-MNIST with some of its labels, balanced over the classes; of these a share is flipped, each to
any of the nine other classes alike. Five models (the default settings) are trained on four fifths of
the labels each and judge the other fifth, as the command does. Their epoch is chosen by 2,000 of the
test images, which keep their labels.

- suspects: labels that are reported; precision: the share of them that was flipped; recall: the share
  of the flipped ones that is reported.
- first 100: precision among the 100 most contradicted.
- suggested: of the flipped ones that are reported, how many get their old label suggested.

What was not flipped counts as right; Fashion-MNIST's own mistakes are so counted against precision.
"""

import argparse
import time

import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageArrays, ImageDataset, load_dataset
from ssl_runner.label_next.suspecting import out_of_fold
from ssl_runner.selection import suspects
from ssl_runner.split import stratified_sample

# n = labeled images

CLASSES = 10


def flipped(labels_n: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Labels, a share of them changed to another class, any of them alike."""
    rng = np.random.default_rng(seed)
    wrong = rng.choice(len(labels_n), round(share * len(labels_n)), replace=False)
    noisy_n = labels_n.copy()
    noisy_n[wrong] = (labels_n[wrong] + rng.integers(1, CLASSES, len(wrong))) % CLASSES
    return noisy_n


def _some_test(dataset: ImageDataset) -> ImageArrays:
    test = dataset.test
    some = stratified_sample(test.labels, 2000, 0)
    return ImageArrays(np.ascontiguousarray(test.images[some]), test.labels[some], test.class_names)


def measure(dataset: ImageDataset, labels: int, share: float, seed: int, folds: int) -> list[str]:
    """A row of the table."""
    train = dataset.train
    chosen = stratified_sample(train.labels, labels, seed)
    true_n = train.labels[chosen]
    noisy_n = flipped(true_n, share, seed)
    images = np.ascontiguousarray(train.images[chosen])
    noisy = ImageDataset("noisy", ImageArrays(images, noisy_n, train.class_names), _some_test(dataset))
    started = time.perf_counter()
    _, probabilities_nK = out_of_fold(TrialConfig.of(seed=seed), noisy, folds, print)
    seconds = time.perf_counter() - started
    found = suspects(noisy_n, probabilities_nK).indices
    is_wrong_n = noisy_n != true_n
    right = found[is_wrong_n[found]]
    suggested = (probabilities_nK[right].argmax(axis=1) == true_n[right]).mean()
    return [
        f"{share:.0%}",
        f"{is_wrong_n.sum():,}",
        f"{len(found):,}",
        f"{len(right) / len(found):.1%}",
        f"{len(right) / is_wrong_n.sum():.1%}",
        f"{is_wrong_n[found[:100]].mean():.0%}",
        f"{suggested:.1%}",
        f"{seconds:.0f}",
    ]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="How many flipped labels are found?")
    parser.add_argument("--labels", type=int, default=6000)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.05, 0.2])
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dataset = load_dataset("fashion_mnist")
    table = Table(box=MARKDOWN)
    headings = ("noise", "flipped", "suspects", "precision", "recall", "first 100", "suggested")
    for heading in (*headings, "seconds"):
        table.add_column(heading, justify="right")
    for share in options.noise:
        table.add_row(*measure(dataset, options.labels, share, options.seed, options.folds))
    console = Console(width=104)
    console.print(f"{options.labels:,} labels, {options.folds} folds, seed {options.seed}")
    console.print(table)


if __name__ == "__main__":
    main()
