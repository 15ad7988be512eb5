"""The images that models are asked about, from arrays or decoded as they are read, block by block."""

import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa

from ssl_runner.datasets.decoded.decode import Bad, Decoded, Header, decode, refit
from ssl_runner.datasets.decoded.make import conversions, list_bad, place_of_list
from ssl_runner.datasets.decoded.mapped import was_read
from ssl_runner.datasets.decoded.pool import Found, Task, usable_cpus
from ssl_runner.datasets.listing.listing import Encoded
from ssl_runner.datasets.settings import Fit
from ssl_runner.errors import DataError, InputError, shown
from ssl_runner.labels import UNLABELED

# n = images of a source, b = images of a block, C = channels, H and W = height and width

_BLOCK, _BLOCK_BYTES = 64, 16 << 20
"""Encoded images that a thread decodes at once, at most: so many, of so many bytes."""

Block = tuple[np.ndarray, np.ndarray]
"""Places of images in their source, (b,), and their pixels, uint8 (b, C, H, W)."""


@dataclass(frozen=True)
class Wish:
    """How images are wanted.

    Attributes:
        shape: As the models take them, (C, H, W).
        fit: As in `FileSettings`.
        max_pixels: As in `FileSettings`.
        max_bad: Images that can't be decoded and are left out, at most.
        strict: Whether an image of another size, or coloured where gray is wanted, is refused.
    """

    shape: tuple[int, int, int]
    fit: Fit = "crop"
    max_pixels: int = 89_478_485
    max_bad: int = 0
    strict: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.shape[1], self.shape[2]

    def check(self, head: Header, name: str) -> None:
        """Raise an InputError if an image is refused."""
        if self.strict and (
            (head.height, head.width) != self.size or head.gray != (self.shape[0] == 1)
        ):
            height, width = self.size
            raise InputError(
                f"with --strict, images must be {height}×{width} and {_kind(self.shape[0] == 1)}, as "
                f"the model takes them, got {head.height}×{head.width} and {_kind(head.gray)}: {name}. "
                "Without it they are converted."
            )


def _kind(gray: bool) -> str:
    return "gray" if gray else "coloured"


class Images(Protocol):
    """Images in an order of their own, n of them.

    Attributes:
        name: What to call them in a message.
        labels_n: Their classes, as the models number them; UNLABELED where unknown.
        places_n: Where each stands in what it was chosen from: the listing, or a data set's part.
        column: What tells them apart in a table: `path`, or `index`.
    """

    name: str
    labels_n: np.ndarray
    places_n: np.ndarray
    column: str

    def identities(self, rows_b: np.ndarray) -> pa.Array:
        """That column's values for some of them."""

    def read(self, wish: Wish, at_once: int) -> Iterator[Block]:
        """All of them in blocks of `at_once` images (the last may be smaller). The pixels are valid
        until the next block.

        Raises:
            InputError: If one is refused.
        """

    def notes(self, wish: Wish) -> list[str]:
        """Lines for the user, after all were read: what was converted or left out.

        Raises:
            DataError: If too many could not be decoded.
        """


@dataclass(eq=False)
class ArrayImages:
    """Images of an array, such as a part of a named data set (see `Images`).

    Attributes:
        images_NCHW: The array, uint8.
        places_n: Which of them.
    """

    name: str
    images_NCHW: np.ndarray
    places_n: np.ndarray
    labels_n: np.ndarray
    column: str = "index"
    _found: Found = field(default_factory=Found)

    def identities(self, rows_b: np.ndarray) -> pa.Array:
        """Their indices in the array."""
        return pa.array(self.places_n[rows_b], pa.int64())

    def read(self, wish: Wish, at_once: int) -> Iterator[Block]:
        """See `Images`."""
        shape = self.images_NCHW.shape[1:]
        if shape[0] not in (1, 3) and shape != wish.shape:
            raise DataError(
                f"{self.name}: images must have the shape {wish.shape}, as the model takes them, or "
                f"1 or 3 channels, to be converted, got {shape}."
            )
        head = Header(shape[1], shape[2], shape[0] == 1, ())
        for first in range(0, len(self.places_n), at_once):
            places_b = self.places_n[first : first + at_once]
            pixels = self.images_NCHW[places_b]
            was_read(self.images_NCHW, len(pixels), scattered=True)
            if shape != wish.shape:
                wish.check(head, f"all of {self.name}")
                pixels = np.stack(
                    [refit(image, wish.size, wish.fit, wish.shape[0]) for image in pixels]
                )
                self._found.sizes[head.height, head.width] += len(pixels)
                self._found.gray += len(pixels) * head.gray
                self._found.colours += len(pixels) * (not head.gray)
            yield np.arange(first, first + len(places_b)), pixels

    def notes(self, wish: Wish) -> list[str]:
        """See `Images`."""
        return conversions(self.name, self._found, _task(wish))


@dataclass(eq=False)
class EncodedImages:
    """Encoded images, decoded as they are read by one thread per core (see `Images`).

    Attributes:
        encoded: All that are listed.
        places_n: Which of them, ascending.
    """

    name: str
    encoded: Encoded
    places_n: np.ndarray
    labels_n: np.ndarray
    column: str = "path"
    _found: Found = field(default_factory=Found)

    def identities(self, rows_b: np.ndarray) -> pa.Array:
        """Their files; for images in Parquet files, file and row."""
        names = [self.encoded.name_of(int(place)) for place in self.places_n[rows_b]]
        # A file's name may be no text at all: such bytes are shown, as in \xff.
        plain = [
            name.encode(errors="surrogateescape").decode(errors="backslashreplace") for name in names
        ]
        return pa.array(plain, pa.string())

    def read(self, wish: Wish, at_once: int) -> Iterator[Block]:
        """See `Images`. Once too many are bad, the others are still looked at, for the list of the bad
        ones, but not yielded."""
        rows_b = np.empty(at_once, np.int64)
        pixels_b = np.empty((at_once, *wish.shape), np.uint8)
        filled = 0
        for row, outcome in self._decoded(wish):
            place = int(self.places_n[row])
            if isinstance(outcome, Bad):
                self._found.bad[place] = outcome.why
                continue
            if len(self._found.bad) > wish.max_bad:
                continue
            wish.check(outcome.header, self.encoded.name_of(place))
            self._found.count(outcome.header)
            rows_b[filled], pixels_b[filled] = row, outcome.pixels_CHW
            filled += 1
            if filled == at_once:
                yield rows_b.copy(), pixels_b
                filled = 0
        if filled and len(self._found.bad) <= wish.max_bad:
            yield rows_b[:filled], pixels_b[:filled]

    def _decoded(self, wish: Wish) -> Iterator[tuple[int, Decoded | Bad]]:
        """Each image's row and what became of it, in order. Few are in memory at a time: some blocks
        for each thread. Pillow decodes while other threads compute."""
        threads = usable_cpus()
        waiting: deque[Future[list[tuple[int, Decoded | Bad]]]] = deque()

        def work(block: list[tuple[int, bytes]]) -> list[tuple[int, Decoded | Bad]]:
            channels = wish.shape[0]
            return [
                (row, decode(data, wish.size, wish.fit, channels, wish.max_pixels))
                for row, data in block
            ]

        with ThreadPoolExecutor(threads) as pool:
            for block in self._encoded_blocks():
                waiting.append(pool.submit(work, block))
                if len(waiting) > 2 * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()

    def _encoded_blocks(self) -> Iterator[list[tuple[int, bytes]]]:
        """The images of this source with their rows, a few at a time."""
        row_of = np.full(len(self.encoded), -1, np.int64)
        row_of[self.places_n] = np.arange(len(self.places_n))
        block: list[tuple[int, bytes]] = []
        size = 0
        for chunk in self.encoded.chunks():
            rows = row_of[chunk.start : chunk.stop]
            if not (rows >= 0).any():
                continue
            for row, data in zip(rows.tolist(), self.encoded.read(chunk), strict=True):
                if row < 0:
                    continue
                block.append((row, data))
                size += len(data)
                if len(block) == _BLOCK or size > _BLOCK_BYTES:
                    yield block
                    block, size = [], 0
        if block:
            yield block

    def notes(self, wish: Wish) -> list[str]:
        """See `Images`."""
        bad, lines = self._found.bad, []
        if bad:
            path = place_of_list(self.name, self.encoded.signature())
            list_bad(self.name, self.encoded, bad, path, wish.max_bad)
            lines.append(f"{self.name}: {len(bad):,} images that can't be decoded are left out: {path}")
        return conversions(self.name, self._found, _task(wish)) + lines


def _task(wish: Wish) -> Task:
    channels, height, width = wish.shape
    return Task(
        what="pixels",
        max_pixels=wish.max_pixels,
        size=(height, width),
        channels=channels,
        fit=wish.fit,
    )


def numbered(
    name: str, labels: Sequence[str | None], class_names: Sequence[str], ignore: bool = False
) -> np.ndarray:
    """Labels as the models number their classes, int64; UNLABELED where there is none.

    Args:
        name: Where they are from, for messages.
        labels: Names of classes.
        class_names: The models'.
        ignore: Whether they are all taken as unknown.

    Raises:
        InputError: If one is no class of the models.
    """
    if ignore:
        return np.full(len(labels), UNLABELED, np.int64)
    number: Mapping[str | None, int] = {None: UNLABELED} | {
        known: k for k, known in enumerate(class_names)
    }
    unknown = sorted({label for label in labels if label not in number}, key=str)
    if unknown:
        some, known = (
            ", ".join(map(shown, words[:3])) + (", …" if len(words) > 3 else "")
            for words in (unknown, class_names)
        )
        raise InputError(
            f"{name}: labels must be classes of the model ({known}), got {some}. Rename them, or take "
            "the images as unlabeled: --ignore-labels."
        )
    return np.fromiter((number[label] for label in labels), np.int64, len(labels))


def quiet_pillow() -> "warnings.catch_warnings":
    """Pillow warns of files that it reads nevertheless."""
    return warnings.catch_warnings(action="ignore")
