"""What does Ray cost? The default study by our command, by the notebook's loop, by Ray's documented
structure, one after another in one run: wall seconds, ratios, and Ray's tax.

python -m experiments.benchmarks.sweep --epochs 2     # a first look
python -m experiments.benchmarks.sweep --epochs 10    # the study itself
python -m experiments.benchmarks.sweep --many 300     # only: 300 trials of about a second each

Ray's tax is wall seconds × cores / CPU seconds that the trials spent in training and evaluation; 1
would be a machine on which every core trains from the first moment to the last.

The documented structure is a Tune function per trial around a TorchTrainer with one worker, whose loop
reads single images (a `DataLoader` over a torchvision-like data set, through `prepare_data_loader`).
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.command import our_sweep, timed

FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.01)
CORES = len(os.sched_getaffinity(0))

# The two others, as a user would write them; run with `epochs` and `fractions` filled in.
NOTEBOOK = """
import sys
sys.path.insert(0, {root!r})
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import ToTensor
from torchvision.transforms.functional import to_pil_image
from experiments.benchmarks.training import NotebookCNN
from ssl_runner.datasets import load_dataset
from ssl_runner.split import split_labels

class Images(torch.utils.data.Dataset):
    def __init__(self, arrays):
        self.images, self.labels = torch.tensor(arrays.images), arrays.labels
        self.transform = ToTensor()
    def __len__(self):
        return len(self.labels)
    def __getitem__(self, index):
        return self.transform(to_pil_image(self.images[index])), int(self.labels[index])

def train(fraction, epochs, report, prepare_model=lambda m: m, prepare_loader=lambda l: l):
    dataset = load_dataset("fashion_mnist", say=lambda line: None)
    labels = dataset.train.labels
    chosen = range(len(labels)) if fraction == 1 else split_labels(labels, fraction, 0).tolist()
    loader = prepare_loader(DataLoader(Subset(Images(dataset.train), chosen), 64, shuffle=True))
    test_loader = DataLoader(Images(dataset.test), 64)
    model = prepare_model(NotebookCNN())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    for epoch in range(epochs):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test_loader:
                correct += (model(images).argmax(1) == labels).sum().item()
        report(correct / 10000)
"""

ONE_AFTER_ANOTHER = """
for fraction in {fractions}:
    train(fraction, {epochs}, lambda accuracy: None)
"""

DOCUMENTED = """
import ray
from ray import train as ray_train, tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, prepare_data_loader, prepare_model

def worker(config):
    train(config["fraction"], {epochs}, lambda accuracy: ray_train.report({{"accuracy": accuracy}}),
          prepare_model, prepare_data_loader)

def trial(config):
    TorchTrainer(worker, train_loop_config=config, scaling_config=ScalingConfig(num_workers=1),
                 run_config=RunConfig(storage_path={storage!r}, name=str(config["fraction"]))).fit()

if __name__ == "__main__":
    ray.init(include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        tune.with_resources(trial, {{"CPU": 0.01}}),
        param_space={{"fraction": tune.grid_search({fractions})}},
        tune_config=tune.TuneConfig(max_concurrent_trials={concurrent}),
        run_config=tune.RunConfig(storage_path={storage!r}, name="documented", verbose=0),
    ).fit()
"""


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="What does Ray cost?")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--many", type=int, help="only: so many trials of about a second each")
    parser.add_argument("--only-ours", action="store_true", help="leave the two others out")
    options = parser.parse_args()
    console = Console(width=104)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.many:
            many(options.many, folder, console)
        else:
            compare(options.epochs, options.only_ours, folder, console)


def many(count: int, folder: Path, console: Console) -> None:
    """Overhead of each of many short trials."""
    seeds = [str(seed) for seed in range(count)]
    wall, rows = our_sweep(
        folder,
        *("--configs", "partial", "--label-fractions", "0.05", "--epochs", "1"),
        *("--seeds", *seeds),
    )
    assert len(rows) == count
    busy = (rows["train_seconds"] + rows["evaluate_seconds"]).sum()
    console.print(
        f"{count} trials: {wall:.1f} s; a trial trains and evaluates for {busy / count:.2f} s; "
        f"overhead of each, per core: {(wall * CORES - busy) / count:.3f} s, Ray's start included"
    )


def compare(epochs: int, only_ours: bool, folder: Path, console: Console) -> None:
    """The three ways, one after another."""
    wall, rows = our_sweep(folder / "ours", "--epochs", str(epochs), "--patience", "0")
    tax = wall * CORES / rows["cpu_seconds"].sum()
    measured = {"our command": wall}
    if not only_ours:
        values = {
            "root": str(Path(__file__).parents[2]),
            "fractions": json.dumps(FRACTIONS),
            "epochs": epochs,
            "storage": str(folder / "documented"),
            "concurrent": CORES - 1,
        }
        for name, source in (
            ("the notebook's loop, one after another", NOTEBOOK + ONE_AFTER_ANOTHER),
            ("Ray's documented structure", NOTEBOOK + DOCUMENTED),
        ):
            script = folder / f"{len(measured)}.py"
            script.write_text(source.format(**values))
            measured[name] = timed([sys.executable, str(script)])
    table = Table(title=f"Six configurations, {epochs} epochs each, {CORES} cores")
    for heading in ("", "wall s", "times ours"):
        table.add_column(heading)
    for name, seconds in measured.items():
        table.add_row(name, f"{seconds:.1f}", f"{seconds / wall:.2f}")
    console.print(table)
    console.print(f"Ray's tax on our command, its start included: {tax:.3f}")


if __name__ == "__main__":
    main()
