"""How fast is the loop? Ours and the notebook's, alternating in one run: medians and ratios.

python -m experiments.benchmarks.training              # everything: about 8 minutes on two cores
python -m experiments.benchmarks.training --rounds 1   # a first look
python -m experiments.benchmarks.training --loops-only --steps 300   # ours beside the notebook's alone
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \\
    python -m experiments.benchmarks.training                       # as a CPU without AVX512 computes

Each figure is a median over the rounds, for one epoch at batch 64, each epoch in a process of its own,
in wall time and in CPU time, which other work on the machine disturbs less: the notebook's loop,
written out below as a user would have it; ours in fp32 and with precision auto, and without keeping
freed memory; ours at 10 % labels with `pass` against training on as many images alone; an evaluation,
ours and a plain loop at batch 64; a step of each method for the unlabeled batch (one labeled and one
unlabeled batch of 64) against one of `pass`; what each part of a step costs, with the share of it that
is not forward, backward or optimizer step; and what the augmentations cost beside it. The kind of CPU
that PyTorch computes for stands in the tables' titles.
"""

import argparse
import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor
from torchvision.transforms.functional import to_pil_image

from ssl_runner.augment import STRONG_NUMBERS, WEAK_NUMBERS, draw, strong, weak
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.loader import PartiallyLabeledDataset, make_loader
from ssl_runner.methods.settings import METHODS
from ssl_runner.models import CNN
from ssl_runner.sampler import HomogeneousBatchSampler
from ssl_runner.train import fit, prepare
from ssl_runner.train.device import (
    autocast,
    keep_freed_memory,
    resolve_precision,
    to_model_input,
)
from ssl_runner.train.evaluation import evaluate
from ssl_runner.train.values import Progress

CPU = torch.device("cpu")

Times = dict[str, list[tuple[float, float]]]
"""Wall and CPU seconds of each round, by name."""


class NotebookDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images one by one, through PIL and ToTensor, as torchvision's data sets give them."""

    def __init__(self, dataset: ImageDataset, part: str = "train") -> None:
        arrays = getattr(dataset, part)
        self.images = torch.tensor(arrays.images)
        self.labels = arrays.labels
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(to_pil_image(self.images[index])), int(self.labels[index])


class NotebookCNN(nn.Module):
    """The notebook's model with its pool in use, ReLU before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(3136, 128)
        self.fc2 = nn.Linear(128, 10)
        self.dropout = nn.Dropout(0.25)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        logits: torch.Tensor = self.fc2(x)
        return logits


def notebook_epoch(steps: int | None = None) -> tuple[float, float]:
    """Wall and CPU seconds of one epoch of the notebook's loop, or of its first steps."""
    dataset = load_dataset("fashion_mnist")
    torch.manual_seed(0)
    loader = DataLoader(NotebookDataset(dataset), batch_size=64, shuffle=True)
    model, loss_function = NotebookCNN(), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    loss_sum, correct = 0.0, 0
    started, cpu_started = time.perf_counter(), time.process_time()
    for images, labels in islice(loader, steps):
        optimizer.zero_grad()
        logits = model(images)
        loss = loss_function(logits, labels)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += int((logits.argmax(1) == labels).sum().item())
    return time.perf_counter() - started, time.process_time() - cpu_started


def our_epoch(config: TrialConfig, keep: bool = True) -> tuple[float, float]:
    """Wall and CPU seconds of one epoch of our loop, as its row would say."""
    if keep:
        keep_freed_memory()
    progress = trained(config)
    return progress.train_seconds, progress.cpu_seconds


def trained(config: TrialConfig) -> Progress:
    """The progress of a training with almost no evaluation."""
    data = prepare(config, load_dataset("fashion_mnist"))
    images, labels = data.validation
    small = replace(data, validation=(images[:100], labels[:100]))
    return fit(config, small, device=CPU, report=lambda metrics, state: None).progress


def notebook_evaluation() -> tuple[float, float]:
    """Wall and CPU seconds of the notebook's evaluation of the test images, its model untrained."""
    dataset = load_dataset("fashion_mnist")
    torch.manual_seed(0)
    loader = DataLoader(NotebookDataset(dataset, "test"), batch_size=64)
    model, loss_function = NotebookCNN().eval(), nn.CrossEntropyLoss()
    loss_sum, correct = 0.0, 0
    for warm in (True, False):
        started, cpu_started = time.perf_counter(), time.process_time()
        with torch.no_grad():
            for images, labels in islice(loader, 10 if warm else None):
                logits = model(images)
                loss_sum += loss_function(logits, labels).item() * len(labels)
                correct += int((logits.argmax(1) == labels).sum().item())
    return time.perf_counter() - started, time.process_time() - cpu_started


def our_evaluation(precision: str) -> tuple[float, float]:
    """Wall and CPU seconds of our evaluation of the test images, the model untrained."""
    keep_freed_memory()
    test = load_dataset("fashion_mnist").test
    torch.manual_seed(0)
    model = CNN(1, (28, 28), 10, 0.25)
    model.to(memory_format=torch.channels_last)
    for count in (1000, len(test.labels)):  # the first one warms up
        images, labels = test.images[:count], test.labels[:count]
        started, cpu_started = time.perf_counter(), time.process_time()
        evaluate(model, images, labels, 10, device=CPU, precision=precision)
    return time.perf_counter() - started, time.process_time() - cpu_started


def step_parts(threads: int, precision: str, steps: int) -> tuple[dict[str, float], float]:
    """Milliseconds of each part of a step of ours, taken apart; and page faults of a step."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    dataset = load_dataset("fashion_mnist")
    data = prepare(TrialConfig(), dataset)
    sampler = HomogeneousBatchSampler(data.labeled, batch_size=64)
    loader = iter(make_loader(PartiallyLabeledDataset(data.images_NCHW, data.targets_N), sampler))
    torch.manual_seed(0)
    model = CNN(1, (28, 28), 10, 0.25)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
    loss_sum = torch.zeros((), dtype=torch.float64)
    correct = torch.zeros((), dtype=torch.int64)
    parts: dict[str, float] = {}

    def timed(part: str, work: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        made = work(*arguments)
        parts[part] = parts.get(part, 0.0) + time.perf_counter() - started
        return made

    def forward(images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with autocast(precision, CPU):
            logits = model(images)
        return logits, F.cross_entropy(logits.float(), targets)

    def add(loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
        loss_sum.add_(loss.detach() * len(targets))
        correct.add_((logits.argmax(1) == targets).sum())

    for count in (50, steps):  # the first ones warm up
        parts.clear()
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(count):
            batch = timed("fetch", next, loader)
            images = timed("cast", to_model_input, batch.images, CPU)
            optimizer.zero_grad(set_to_none=True)
            logits, loss = timed("forward", forward, images, batch.targets)
            timed("backward", loss.backward)
            timed("step", optimizer.step)
            timed("sums", add, loss, logits, batch.targets)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    return {part: 1000 * seconds / steps for part, seconds in parts.items()}, faults / steps


def method_step(config: TrialConfig) -> float:
    """Milliseconds of a method's step, over a short run."""
    keep_freed_memory()
    progress = trained(config)
    return 1000 * progress.train_seconds / progress.steps


def augmentation_parts(repeats: int) -> dict[str, float]:
    """Milliseconds of the two kinds of views of a batch of 64."""
    keep_freed_memory()
    images = torch.tensor(load_dataset("fashion_mnist").train.images[:64])
    parts = {}
    for name, view, numbers in (("weak", weak, WEAK_NUMBERS), ("strong", strong, STRONG_NUMBERS)):
        for count in (20, repeats):
            started = time.perf_counter()
            for step in range(count):
                view(images, draw((0, step), 64, 0, 64, numbers), True)
            parts[name] = 1000 * (time.perf_counter() - started) / count
    return parts


def in_new_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a new process, free of earlier side effects."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(work, *arguments).result()


def on_threads(threads: int, work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns on so many threads."""
    torch.set_num_threads(threads)
    return work(*arguments)


def show_methods(ours: TrialConfig, threads: int, rounds: int, console: Console) -> None:
    """Measure a step of each method, and the augmentations, beside a step of `pass`."""
    learning = ours.replace(
        label_fraction=0.1, order="paired", augment="weak", max_steps=300, holdout=0, ema=0.99
    )
    steps: dict[str, list[float]] = {method: [] for method in METHODS}
    views: dict[str, list[float]] = {"weak": [], "strong": []}
    for _ in range(rounds):
        for method in METHODS:
            config = learning.replace(method=method)
            steps[method].append(in_new_process(on_threads, threads, method_step, config))
        for name, cost in in_new_process(on_threads, threads, augmentation_parts, 300).items():
            views[name].append(cost)

    def to_pass(values: list[float]) -> float:
        return statistics.median(a / b for a, b in zip(values, steps["pass"], strict=True))

    table = Table(title="A step of each method, precision auto: 64 labeled and 64 unlabeled images")
    for heading in ("method", "median ms", "least – most", "times a step of pass"):
        table.add_column(heading)
    for method, values in steps.items():
        table.add_row(
            method,
            f"{statistics.median(values):.2f}",
            f"{min(values):.2f} – {max(values):.2f}",
            f"{to_pass(values):.2f}",
        )
    console.print(table)
    for name, values in views.items():
        console.print(
            f"{name} views of 64 images: {statistics.median(values):.2f} ms, {to_pass(values):.0%} of "
            "a step of pass (median of the rounds)"
        )


def show_times(title: str, first: str, unit: float, times: Times, console: Console) -> None:
    """A table of wall and CPU times, and of the first row's against each, round by round."""
    table = Table(title=f"{title}, {torch.backends.cpu.get_cpu_capability()}")
    for heading in (first, "median", "least – most", "× (each round)", "CPU", "× (each round)"):
        table.add_column(heading)
    baseline = next(iter(times.values()))
    for name, values in times.items():
        cells = []
        for kind in (0, 1):  # wall and CPU
            own = [unit * value[kind] for value in values]
            ratios = [a[kind] / b[kind] for a, b in zip(baseline, values, strict=True)]
            cells.append(f"{statistics.median(own):.2f}")
            if kind == 0:
                cells.append(f"{min(own):.2f} – {max(own):.2f}")
            spread = f"{min(ratios):.2f} – {max(ratios):.2f}"
            cells.append(f"{statistics.median(ratios):.2f} ({spread})")
        table.add_row(name, *cells)
    console.print(table)


def show_loops(
    ours: TrialConfig, threads: int, rounds: int, steps: int | None, console: Console
) -> None:
    """Measure an epoch of the notebook's loop and of ours, or the first steps of each."""
    partial, few = "10 % with pass", "6,000 images alone"
    auto = resolve_precision("auto", CPU)
    ours = ours.replace(max_steps=steps)
    runs: dict[str, tuple[Any, ...]] = {
        "notebook": (notebook_epoch, steps),
        "ours, fp32": (our_epoch, ours.replace(precision="fp32")),
    }
    if auto != "fp32":
        runs[f"ours, {auto}"] = (our_epoch, ours)
    if steps is None:
        runs |= {
            "ours, freed memory given back": (our_epoch, ours, False),
            partial: (our_epoch, ours.replace(label_fraction=0.1)),
            few: (our_epoch, ours.replace(subset=6000)),
        }
    times: Times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(in_new_process(on_threads, threads, *run))
    what = "One epoch" if steps is None else f"{steps} steps"
    title = f"{what} at batch 64: {threads} threads, {rounds} rounds"
    show_times(title, "loop, seconds", 1, times, console)
    if steps is None:
        each = [a[0] / b[0] for a, b in zip(times[partial], times[few], strict=True)]
        console.print(
            f"{partial} / {few}: {statistics.median(each):.3f} "
            f"(round by round: {', '.join(f'{ratio:.3f}' for ratio in each)})"
        )


def show_evaluation(threads: int, rounds: int, console: Console) -> None:
    """Measure an evaluation of 10,000 images, the notebook's and ours."""
    runs: dict[str, tuple[Any, ...]] = {"notebook": (notebook_evaluation,)}
    for precision in dict.fromkeys(("fp32", resolve_precision("auto", CPU))):
        runs[f"ours, {precision}"] = (our_evaluation, precision)
    times: Times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(in_new_process(on_threads, threads, *run))
    title = f"Evaluation of 10,000 images: {threads} threads, {rounds} rounds"
    show_times(title, "loop, ms for 1,000 images", 100, times, console)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="How fast is the loop?")
    parser.add_argument("--methods-only", action="store_true", help="only the steps of each method")
    parser.add_argument("--loops-only", action="store_true", help="only epochs and evaluations")
    parser.add_argument("--steps", type=int, help="of an epoch only so many optimizer steps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    ours = TrialConfig.of(epochs=1, patience=0)
    console = Console(width=104)
    if options.methods_only:
        show_methods(ours, options.threads, options.rounds, console)
        return
    show_loops(ours, options.threads, options.rounds, options.steps, console)
    show_evaluation(options.threads, options.rounds, console)
    if options.loops_only:
        return
    show_methods(ours, options.threads, options.rounds, console)
    for precision in ("fp32", resolve_precision("auto", CPU)):
        parts, faults = in_new_process(step_parts, options.threads, precision, 300)
        whole = sum(parts.values())
        table = Table(title=f"A step of 64 images in {precision}, taken apart")
        for heading in ("part", "ms", "share"):
            table.add_column(heading)
        for part, cost in parts.items():
            table.add_row(part, f"{cost:.3f}", f"{cost / whole:.1%}")
        console.print(table)
        computing = parts["forward"] + parts["backward"] + parts["step"]
        console.print(
            f"outside forward, backward and step: {1 - computing / whole:.1%}; "
            f"page faults of a step: {faults:.1f}"
        )


if __name__ == "__main__":
    main()
