"""Images in files of a folder, as the tests of decoding list them."""

import hashlib
import io
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ssl_runner.datasets.listing.listing import Listing
from ssl_runner.datasets.listing.parts import Parts


@dataclass(frozen=True)
class Folder:
    """All files of a folder in the order of their names, a few at a time.

    Attributes:
        path: The folder.
        at_once: Files of a chunk; a data set of one chunk is read by one process.
        dies_at: The process that reads this file is killed.
        pause: Seconds before each file.
    """

    path: Path
    at_once: int = 100
    dies_at: str = ""
    pause: float = 0.0

    @property
    def files(self) -> list[Path]:
        return sorted(self.path.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def signature(self) -> str:
        states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in self.files]
        return hashlib.sha256(repr(states).encode()).hexdigest()

    def chunks(self) -> Sequence[range]:
        firsts = range(0, len(self), self.at_once)
        return [range(first, min(first + self.at_once, len(self))) for first in firsts]

    def read(self, chunk: range) -> Iterator[bytes]:
        for path in self.files[chunk.start : chunk.stop]:
            if path.name == self.dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(self.pause)
            yield path.read_bytes()

    def name_of(self, index: int) -> str:
        return self.files[index].name


def encoded_as(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The content of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Random uint8 pixels, (H, W, C), or (H, W) for one channel."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return pixels[:, :, 0] if channels == 1 else pixels


def fill(folder: Path, count: int = 12, size: tuple[int, int] = (5, 4), channels: int = 3) -> Folder:
    """A folder with PNG files of noise, each different."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        image = Image.fromarray(noise(*size, seed, channels))
        (folder / f"{seed:03d}.png").write_bytes(encoded_as(image, "PNG"))
    return Folder(folder)


def listing_of(encoded: Folder, name: str = "mine") -> Listing:
    """What a folder's files are, of the classes `even` and `odd` by turns."""
    labels = [("even", "odd")[index % 2] for index in range(len(encoded))]
    return Listing(name, encoded, labels, None, {})


def parts_of(encoded: Folder, validation: bool = False) -> Parts:
    """Every third image is for the test, and of the rest every fifth for validation if there is any."""
    places = np.arange(len(encoded))
    test, rest = places[::3], np.setdiff1d(places, places[::3])
    held = rest[::5] if validation else None
    return Parts(
        class_names=("even", "odd"),
        labels=places % 2,
        train=rest if held is None else np.setdiff1d(rest, held),
        validation=held,
        test=test,
        left_out={},
        test_fraction=None,
        notes=(),
    )
