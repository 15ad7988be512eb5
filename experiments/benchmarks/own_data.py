"""What do one's own images cost: decoding them, starting again, and training from a mapped file?

python -m experiments.benchmarks.own_data                      # about a minute on two cores; Linux
python -m experiments.benchmarks.own_data --images 1000000     # the mapped file of 10⁶ images: 3 GB

Image files are written first: noise made smooth, as small PNGs and as JPEGs of a camera's shape. Then,
alternating, medians over the rounds: a plain loop with Pillow in one process, torchvision's
`ImageFolder` under a `DataLoader` with two workers (both bring images to the same size and read each
file once), and ours: a first start, which also takes digests and leaves the arrays in the cache, and a
second start. The files are in the system's page cache throughout.

Then made-up images of 32×32×3, from memory and from a mapped file, each in a process of its own:
batches gathered alone, and steps of `CNN` (forward, backward, Adam) on them; with the most that was
resident, anonymous and of files. `--cold` drops the file from the page cache before each round.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, PILToTensor, Resize

from ssl_runner.datasets.decoded.load_files import load_files
from ssl_runner.datasets.decoded.store import map_images
from ssl_runner.datasets.listing.named_path import list_images
from ssl_runner.datasets.listing.parts import assign
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.loader import PartiallyLabeledDataset, make_loader
from ssl_runner.models import CNN
from ssl_runner.sampler import HomogeneousBatchSampler
from ssl_runner.train.device import to_model_input

BATCH = 64


def write_images(root: Path, count: int, size: tuple[int, int], suffix: str) -> None:
    """Smooth noise in two folders of classes."""
    generator = np.random.default_rng(0)
    for name in ("even", "odd"):
        (root / name).mkdir(parents=True)
    for number in range(count):
        small = generator.integers(0, 256, (max(2, size[0] // 8), max(2, size[1] // 8), 3), np.uint8)
        image = Image.fromarray(small).resize((size[1], size[0]))
        image.save(root / ("even", "odd")[number % 2] / f"{number:07d}{suffix}")


def plain_loop(root: Path, size: int) -> None:
    """Pillow in one process."""
    paths = sorted(root.rglob("*.*"))
    images = np.empty((len(paths), 3, size, size), np.uint8)
    for place, path in enumerate(paths):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            images[place] = np.asarray(image).transpose(2, 0, 1)


def image_folder(root: Path, size: int) -> None:
    """What most people write, without the shuffling: two worker processes."""
    dataset = ImageFolder(str(root), Compose([Resize((size, size)), PILToTensor()]))
    for _ in DataLoader(dataset, batch_size=BATCH, num_workers=2):
        pass


def ours(root: Path, size: int) -> None:
    """A start; the first one decodes."""
    files = FileSettings(image_size=(size,), fit="stretch")
    listing = list_images(root, files, lambda line: None)
    load_files(listing, files, assign(listing, files), lambda line: None)


def seconds(work: Callable[[], None]) -> float:
    """Wall seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def decoding(console: Console, root: Path, options: argparse.Namespace) -> None:
    """Print images per second of each way to decode."""
    sets = (
        (f"PNG 32×32, {options.files:,}", options.files, (32, 32), ".png", 32),
        (f"JPEG 375×500 to 64×64, {options.files // 5:,}", options.files // 5, (375, 500), ".jpg", 64),
    )
    table = Table(title=f"Images per second, medians of {options.rounds} rounds; {cpu_name()}")
    for heading in ("files", "Pillow loop", "ImageFolder, 2 workers", "first start", "second start, s"):
        table.add_column(heading, justify="right")
    for number, (title, count, shape, suffix, size) in enumerate(sets):
        folder = root / str(number)
        write_images(folder, count, shape, suffix)
        rounds: dict[str, list[float]] = {}
        for turn in range(options.rounds):
            os.environ["SSL_RUNNER_CACHE"] = str(root / f"cache-{number}-{turn}")
            ways = {"loop": plain_loop, "folder": image_folder, "first": ours, "second": ours}
            for name, way in ways.items():
                rounds.setdefault(name, []).append(seconds(partial(way, folder, size)))
        medians = {name: statistics.median(values) for name, values in rounds.items()}
        rates = [f"{count / medians[name]:,.0f}" for name in ("loop", "folder", "first")]
        table.add_row(title, *rates, f"{medians['second']:.3f}")
    console.print(table)


def write_mapped(path: Path, images: int) -> None:
    """Random pixels, a part at a time."""
    generator = np.random.default_rng(0)
    with path.open("wb") as file:
        for first in range(0, images, 10_000):
            file.write(generator.bytes(min(10_000, images - first) * 3 * 32 * 32))


def resident() -> tuple[int, int]:
    """Bytes of this process that are resident: anonymous, and of files (those of libraries too)."""
    kinds = dict.fromkeys(("RssAnon", "RssFile"), 0)
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in kinds:
            kinds[name] = int(value.split()[0]) * 1024
    return kinds["RssAnon"], kinds["RssFile"]


def train(path: Path, images: int, steps: int, mapped: bool, with_steps: bool, cold: bool) -> Any:
    """Images per second of some batches, and the most that was resident in bytes."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    shape = (images, 3, 32, 32)
    with path.open("rb") as file:
        if cold:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if mapped:
            images_NCHW = map_images(file.fileno(), path, shape)
        else:
            images_NCHW = np.fromfile(file, np.uint8).reshape(shape)
    dataset = PartiallyLabeledDataset(images_NCHW, np.arange(images) % 10)
    sampler = HomogeneousBatchSampler(range(images), (), batch_size=BATCH, num_replicas=1, rank=0)
    model = CNN(3, (32, 32), 10, 0.25)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    loss_function, device = nn.CrossEntropyLoss(), torch.device("cpu")
    most = [0, 0]
    batches = iter(make_loader(dataset, sampler))
    next(batches)
    started = time.perf_counter()
    for step, batch in enumerate(islice(batches, steps)):
        if with_steps:
            optimizer.zero_grad()
            images_BCHW = to_model_input(batch.images, device, torch.float32)
            loss_function(model(images_BCHW), batch.targets).backward()
            optimizer.step()
        if step % 20 == 0:
            most = [max(pair) for pair in zip(most, resident(), strict=True)]
    return steps * BATCH / (time.perf_counter() - started), most


def training(console: Console, root: Path, options: argparse.Namespace) -> None:
    """Print the rates from memory and from a mapped file, and what is resident."""
    path = root / "images"
    write_mapped(path, options.images)
    table = Table(
        title=f"{options.images:,} images of 32×32×3 ({options.images * 3072 / 1e6:,.0f} MB), "
        f"batch {BATCH}, medians of {options.rounds} rounds; {cpu_name()}"
    )
    for heading in ("what", "images/s", "ratio", "anonymous, MB", "of files, MB"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    batches = {False: min(options.images // BATCH - 1, 10 * options.steps), True: options.steps}
    for with_steps, what in ((False, "gathered alone"), (True, "trained")):
        rounds: dict[bool, list[Any]] = {False: [], True: []}
        for _ in range(options.rounds):
            for mapped in (False, True):
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    arguments = (
                        path,
                        options.images,
                        batches[with_steps],
                        mapped,
                        with_steps,
                        options.cold,
                    )
                    rounds[mapped].append(pool.submit(train, *arguments).result())
        in_memory = statistics.median(rate for rate, _ in rounds[False])
        for mapped, where in ((False, "from memory"), (True, "mapped")):
            rate = statistics.median(rate for rate, _ in rounds[mapped])
            most = [
                max(sizes) / 1e6 for sizes in zip(*(most for _, most in rounds[mapped]), strict=True)
            ]
            figures = (f"{rate:,.0f}", f"{rate / in_memory:.3f}", *(f"{size:,.0f}" for size in most))
            table.add_row(f"{what}, {where}", *figures)
    console.print(table)


def cpu_name() -> str:
    """The CPU, and how many of its cores are ours."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.partition(': ')[2]}, {len(os.sched_getaffinity(0))} cores"
    return "CPU unknown"


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description="What do one's own images cost?")
    parser.add_argument("--files", type=int, default=5000, help="image files that are decoded")
    parser.add_argument("--images", type=int, default=50_000, help="made-up images that train")
    parser.add_argument("--steps", type=int, default=300, help="steps of a training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="drop the file from the page cache")
    parser.add_argument("--only", choices=("decoding", "training"), help="one of the two tables")
    options = parser.parse_args()
    console = Console(width=104)
    with tempfile.TemporaryDirectory() as folder:
        if options.only != "training":
            decoding(console, Path(folder), options)
        if options.only != "decoding":
            training(console, Path(folder), options)


if __name__ == "__main__":
    main()
