"""How fast are a saved model's answers beside the training's own evaluation, and do they need memory?

python -m experiments.benchmarks.predicting                       # about 4 minutes on two cores; Linux
python -m experiments.benchmarks.predicting --images 100000       # a first look

Speed: `evaluate`, as the training calls it, and `write_answers`, as the command calls it, with
probabilities and a Parquet file, over Fashion-MNIST's test images, with `CNN`, untrained, in fp32; by
turns in one process, the order changing, medians over the rounds.

Memory: made-up images of 28×28, a process for each measurement; the most that it holds beyond what it
held with the model loaded, a linear one, so that it takes less time. Once from a mapped file, as
decoded images in the cache are, and once from
encoded ones, PNGs of noise given again and again, each with its own name.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn

from experiments.benchmarks.own_data import cpu_name
from ssl_runner.datasets import load_dataset
from ssl_runner.datasets.decoded.store import map_images
from ssl_runner.labels import UNLABELED
from ssl_runner.models import build_model
from ssl_runner.models.settings import ModelSettings
from ssl_runner.predict.answering import write_answers
from ssl_runner.predict.images import ArrayImages, EncodedImages, Images, Wish
from ssl_runner.saved_model import ModelCard, SavedModel
from ssl_runner.train import evaluate
from ssl_runner.train.device import keep_freed_memory

CPU = torch.device("cpu")
SHAPE = (1, 28, 28)
CHUNK = 1000
WISH = Wish(SHAPE)


def a_model(linear: bool = False) -> SavedModel:
    """`CNN`, or a linear model, with random weights."""
    torch.manual_seed(0)
    settings = ModelSettings()
    module = build_model(settings, 1, (28, 28), 10).to(memory_format=torch.channels_last).eval()
    if linear:
        module = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), 10))
    names = tuple(map(str, range(10)))
    texts = dict.fromkeys(("sweep", "trial_id", "dataset", "data_digest", "sources"), "")
    card = ModelCard(
        network=vars(settings),
        image_shape=SHAPE,
        class_names=names,
        scale=255.0,
        precision="fp32",
        versions={},
        **texts,
    )
    return SavedModel(module, card)


class MadeUp:
    """Encoded images that are made from few (see `Encoded`).

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        generator = np.random.default_rng(0)
        self.content = []
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            for _ in range(CHUNK):
                Image.fromarray(generator.integers(0, 256, (28, 28), np.uint8)).save(file.name)
                self.content.append(Path(file.name).read_bytes())

    def __len__(self) -> int:
        return self.count

    def signature(self) -> str:
        return ""

    def chunks(self) -> Sequence[range]:
        return [range(first, min(first + CHUNK, self.count)) for first in range(0, self.count, CHUNK)]

    def read(self, chunk: range) -> Iterator[bytes]:
        yield from self.content[: len(chunk)]

    def name_of(self, index: int) -> str:
        return f"{index:07d}.png"


def speed(rounds: int, threads: int, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Images per second of both ways, round by round: of wall and of CPU time. Other work on the
    machine changes the latter less."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    test, saved = load_dataset("fashion_mnist").test, a_model()
    images = ArrayImages("test", test.images, np.arange(len(test)), test.labels)

    def ours() -> None:
        write_answers([saved], images, WISH, folder / "answers.parquet", CPU, print)

    def theirs() -> None:
        evaluate(saved.module, test.images, test.labels, 10, device=CPU, precision="fp32")

    ways: dict[str, Callable[[], None]] = {"evaluate": theirs, "write_answers": ours}
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name in sorted(ways, reverse=turn % 2 == 0):
            started, cpu_started = time.perf_counter(), time.process_time()
            ways[name]()
            took, cpu = time.perf_counter() - started, time.process_time() - cpu_started
            if turn:  # the first one warms up
                rates[name].append((len(test) / took, len(test) / cpu))
    return rates


def resident(what: str) -> int:
    """Bytes of this process: `VmRSS` now, or `VmHWM` at most so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) * 1024
    raise AssertionError(what)


def memory(kind: str, count: int, threads: int, folder: Path) -> Any:
    """Bytes beyond the model at most, and images per second."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    saved, labels = a_model(linear=True), np.full(count, UNLABELED, np.int64)
    labels[::2] = 0
    images: Images
    if kind == "mapped":
        path = folder / f"{count}"
        write_noise(path, count)
        with path.open("rb") as file:
            mapped = map_images(file.fileno(), path, (count, *SHAPE))
        images = ArrayImages("made up", mapped, np.arange(count), labels)
    else:
        images = EncodedImages("made up", MadeUp(count), np.arange(count), labels)
    with torch.inference_mode():
        saved.module(torch.zeros(2, *SHAPE))
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is what is held now
    before, started = resident("VmRSS"), time.perf_counter()
    written = write_answers([saved], images, WISH, folder / "answers.parquet", CPU, print)
    assert written.images == count
    return resident("VmHWM") - before, count / (time.perf_counter() - started)


def write_noise(path: Path, count: int) -> None:
    """Random pixels, a part at a time."""
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        for first in range(0, count, 10_000):
            file.write(generator.bytes(min(10_000, count - first) * int(np.prod(SHAPE))))


def in_new_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="How fast are a saved model's answers?")
    parser.add_argument("--images", type=int, default=1_000_000, help="made-up images, for memory")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    console = Console(width=104)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rates = in_new_process(speed, options.rounds, options.threads, folder)
        title = f"10,000 test images, {options.threads} threads, {options.rounds} rounds; {cpu_name()}"
        table = Table(title=title)
        for heading in ("way", "images/s", "least – most", "images per CPU second"):
            table.add_column(heading)
        for way, each in rates.items():
            wall, cpu = zip(*each, strict=True)
            medians = [f"{statistics.median(kind):,.0f}" for kind in (wall, cpu)]
            table.add_row(way, medians[0], f"{min(wall):,.0f} – {max(wall):,.0f}", medians[1])
        console.print(table)
        for position, what in enumerate(("wall", "CPU")):
            pairs = zip(rates["write_answers"], rates["evaluate"], strict=True)
            ratios = [one[position] / other[position] for one, other in pairs]
            console.print(
                f"write_answers / evaluate by {what} time: {statistics.median(ratios):.3f}, round by "
                f"round {min(ratios):.3f} – {max(ratios):.3f}"
            )
        table = Table(title=f"Memory beyond the model at most; {cpu_name()}")
        for heading in ("images of 28×28", "from", "MB", "images/s"):
            table.add_column(heading, justify="right")
        for kind in ("mapped", "encoded"):
            for count in (options.images // 10, options.images):
                most, rate = in_new_process(memory, kind, count, options.threads, folder)
                table.add_row(f"{count:,}", kind, f"{most / 1e6:,.0f}", f"{rate:,.0f}")
        console.print(table)


if __name__ == "__main__":
    main()
