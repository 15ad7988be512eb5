"""All images of a data set read by parallel processes: digests, headers, pixels into one file."""

import hashlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import numpy.typing as npt

from ssl_runner.datasets.decoded.decode import Bad, Decoded, Header, decode, header
from ssl_runner.datasets.listing.listing import Encoded
from ssl_runner.datasets.settings import Fit
from ssl_runner.errors import DataError

# n = listed images, C = channels, H and W = height and width

DIGEST_BYTES = 16

_Work = tuple[range, npt.NDArray[np.int64]]
"""A chunk, and the rows of its images."""

_AHEAD = 4
"""Chunks given out per process: enough that none waits for its next one."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be done with each image. Its digest is always taken.

    Attributes:
        what: Only its digest; its header too; or its pixels too, which go into the file.
        max_pixels: As in `FileSettings`.
        size, channels, fit: Those of the pixels.
        path: The file of the pixels. Image `i` is its row `rows[i]`, uint8, (C, H, W).
    """

    what: Literal["digests", "headers", "pixels"]
    max_pixels: int
    size: tuple[int, int] = (1, 1)
    channels: int = 1
    fit: Fit = "crop"
    path: Path = Path()

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's pixels."""
        return self.channels * self.size[0] * self.size[1]


@dataclass
class Found:
    """What was found in some images.

    Attributes:
        digests: Of each image, by its place in the listing: BLAKE2b of the encoded bytes.
        sizes: How many have each height and width.
        gray, colours: How many are gray, and how many are not.
        converted: How many were converted, by what they are (see `decode.CONVERTED`).
        bad: The images that can't be used, by their place in the listing, and why.
    """

    digests: dict[int, bytes] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    gray: int = 0
    colours: int = 0
    converted: Counter[str] = field(default_factory=Counter)
    bad: dict[int, str] = field(default_factory=dict)

    def add(self, other: "Found") -> None:
        """Add what was found in other images."""
        self.digests.update(other.digests)
        self.sizes.update(other.sizes)
        self.gray += other.gray
        self.colours += other.colours
        self.converted.update(other.converted)
        self.bad.update(other.bad)

    def count(self, head: Header) -> None:
        """Count an image."""
        self.sizes[head.height, head.width] += 1
        self.gray += head.gray
        self.colours += not head.gray
        self.converted.update(head.converted)

    @property
    def commonest_size(self) -> tuple[int, int]:
        """The commonest height and width; of equally common ones, the one of more pixels."""
        return max(
            self.sizes, key=lambda size: (self.sizes[size], size[0] * size[1], size), default=(1, 1)
        )


class Reader:
    """Does a task for chunks of images, in whichever process."""

    def __init__(self, encoded: Encoded, task: Task) -> None:
        self.encoded, self.task = encoded, task
        self.file = os.open(task.path, os.O_WRONLY) if task.what == "pixels" else None

    def close(self) -> None:
        """Close the file of the pixels."""
        if self.file is not None:
            os.close(self.file)

    def read(self, chunk: range, rows: npt.NDArray[np.int64]) -> Found:
        """Do the task for a chunk; an image whose row is negative is in no part, and passed over."""
        found = Found()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on files that it reads nevertheless
            images = zip(chunk, rows.tolist(), self.encoded.read(chunk), strict=True)
            for index, row, data in images:
                if row >= 0:
                    found.digests[index] = hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
                    outcome = self._look(data, row)
                    if isinstance(outcome, Bad):
                        found.bad[index] = outcome.why
                    elif outcome is not None:
                        found.count(outcome)
        return found

    def _look(self, data: bytes, row: int) -> Header | Bad | None:
        task = self.task
        if task.what == "digests":
            return None
        if self.file is None:
            return header(data, task.max_pixels)
        decoded = decode(data, task.size, task.fit, task.channels, task.max_pixels)
        if isinstance(decoded, Decoded):
            write_at(self.file, decoded.pixels_CHW.tobytes(), row * task.row_bytes)
            return decoded.header
        return decoded


def write_at(file: int, content: bytes, offset: int) -> None:
    """Write all bytes at a place of a file. Not through a map of it: when the disk is full, that is an
    error, where a map would be the end of the process."""
    written = 0
    while written < len(content):
        written += os.pwrite(file, content[written:] if written else content, offset + written)


_reader: Reader | None = None
"""That of a process of the pool."""


def _begin(encoded: Encoded, task: Task) -> None:
    """The beginning of a process of the pool."""
    global _reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it ends it
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _reader = Reader(encoded, task)


def _end_with(parent: BaseProcess) -> None:
    """End this process once the one that started it has ended, however that was."""
    parent.join()
    os._exit(1)


def _read(chunk: range, rows: npt.NDArray[np.int64]) -> Found:
    assert _reader is not None
    return _reader.read(chunk, rows)


def usable_cpus() -> int:
    """CPUs that this process may use; all of the machine's where the system does not say (macOS)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_all(
    encoded: Encoded, rows: npt.NDArray[np.int64], task: Task, title: str, processes: int | None = None
) -> Found:
    """Do a task for all images, each chunk in one of several processes, showing how far it is.

    Args:
        rows: Each image's row in the file of the pixels, shape (n,); negative: passed over.
        title: What is being done, beside the progress bar.
        processes: How many; None: as many as there are cores. 1, or one chunk only: this process.

    Raises:
        DataError: If one of the processes died.
        OSError: If the pixels can't be written.
    """
    chunks = [chunk for chunk in encoded.chunks() if (rows[chunk.start : chunk.stop] >= 0).any()]
    processes = min(processes or usable_cpus(), len(chunks))
    work = ((chunk, rows[chunk.start : chunk.stop]) for chunk in chunks)
    total = Found()
    if processes <= 1:
        parts = _from_here(encoded, task, work)
    else:
        parts = _from_processes(encoded, task, work, processes)
    with closing(parts), shown_progress(title, int((rows >= 0).sum())) as advance:
        for part in parts:
            total.add(part)
            advance(len(part.digests))
    return total


def _from_here(encoded: Encoded, task: Task, work: Iterable[_Work]) -> Generator[Found]:
    """What each chunk gave, read in this process."""
    reader = Reader(encoded, task)
    try:
        for chunk, rows in work:
            yield reader.read(chunk, rows)
    finally:
        reader.close()


def _from_processes(
    encoded: Encoded, task: Task, work: Iterable[_Work], processes: int
) -> Generator[Found]:
    """What each chunk gave, as they come. The processes are new ones: a fork would copy locks that
    PyTorch's threads hold."""
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(encoded, task),
    )
    waiting: set[Future[Found]] = set()
    work = iter(work)
    try:
        while True:
            with _without_main():  # a process is started when there is work for it
                for chunk, rows in itertools.islice(work, processes * _AHEAD - len(waiting)):
                    waiting.add(pool.submit(_read, chunk, rows))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise DataError(
            "a process that decodes images must not die, but one did: killed, perhaps for want of "
            "memory. Try again; or with a smaller --max-pixels, if some images are very large."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that don't run this one's main module: it may import PyTorch, which takes
    seconds, or be a script that would start all over."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def shown_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """On a terminal, show how many images are done: a bar that the yielded function moves on."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
