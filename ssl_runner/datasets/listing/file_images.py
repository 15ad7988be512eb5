"""Images in files of their own, below one folder."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_runner.errors import DataError, shown

CHUNK = 256
"""Files that are read at once: few enough to share them out, many enough that sharing costs nothing."""


class FileImages:
    """Encoded images in files (see `Encoded`), named relative to their folder.

    The names are kept in one piece of memory: a million of them take tens of megabytes, not hundreds.

    Args:
        root: The folder.
        names: The files, relative to it, with `/` between folders.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root = root.absolute()
        # Each name ends with a zero byte, the one that none can have in it.
        self._set_names(os.fsencode("".join(f"{name}\0" for name in names)))

    def _set_names(self, names: bytes) -> None:
        self._names = names
        self._ends = np.flatnonzero(np.frombuffer(names, np.uint8) == 0)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "names": self._names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.root = state["root"]
        self._set_names(state["names"])

    def __len__(self) -> int:
        return len(self._ends)

    def signature(self) -> str:
        """A hash of all names with each file's size, modification and change time."""
        stats = np.full((len(self), 3), -1, np.int64)
        folder = os.fsencode(self.root) + b"/"
        for index, name in enumerate(self._names.split(b"\0")[:-1]):
            try:
                found = os.stat(folder + name)  # noqa: PTH116 - a million `Path`s take seconds
            except OSError:
                continue  # it stays at -1, and `read` gives nothing for it
            stats[index] = found.st_size, found.st_mtime_ns, found.st_ctime_ns
        return hashlib.sha256(self._names + stats.astype("<i8").tobytes()).hexdigest()

    def chunks(self) -> Sequence[range]:
        """Ranges of `CHUNK` files."""
        return [range(first, min(first + CHUNK, len(self))) for first in range(0, len(self), CHUNK)]

    def read(self, chunk: range) -> Iterator[bytes]:
        """The content of each file; empty where it can't be read."""
        for index in chunk:
            try:
                yield (self.root / self.name_of(index)).read_bytes()
            except OSError:
                yield b""

    def name_of(self, index: int) -> str:
        """The file, relative to the folder."""
        first = self._ends[index - 1] + 1 if index else 0
        return os.fsdecode(self._names[first : self._ends[index]])


class Inside:
    """Makes sure that what is named below a folder lies there, as a symlink may lead elsewhere.

    Args:
        root: The folder; it may be a symlink itself.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real = root.resolve()

    def real(self, name: str) -> Path:
        """The path behind a name relative to the folder, without symlinks.

        Raises:
            DataError: If it is outside of the folder.
        """
        try:
            real = (self.root / name).resolve()
        except (OSError, RuntimeError, ValueError):  # a symlink to itself, too long, a zero byte
            return self._real / name  # nothing can be read there
        if not real.is_relative_to(self._real):
            raise DataError(
                f"{self.root}: images must lie in this folder, got {shown(name)}, a symlink to "
                f"{real}. Copy that into the folder, or name a folder that holds both."
            )
        return real


def files_in(folder: Path) -> dict[str, bool]:
    """The names of the files directly in a folder, and whether each is a symlink to a file.

    One call for a whole folder: to ask for each file takes several times as long.
    """
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}
    except (OSError, ValueError):
        return {}
