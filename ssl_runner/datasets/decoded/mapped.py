"""Images mapped from a file: shared by all processes, read-only, and not kept resident."""

import mmap
from pathlib import Path

import numpy as np
import numpy.typing as npt

_GIVEN_BACK_AFTER = 128 * 2**20
"""Bytes of pages that a process touches before it gives them all back."""

_AROUND = 2 * 2**20
"""Linux makes up to so much resident around one byte that is touched, where its page cache holds large
folios."""


class ImageMap(mmap.mmap):
    """A file mapped read-only, whose pages count as resident only for a while.

    A page that was given back is still in the system's page cache while that has room, and is mapped
    again in less than a microsecond when it is touched next; its bytes are the same.

    Attributes:
        path: The file.
    """

    path: Path
    _touched: int = 0

    def touch(self, size: int) -> None:
        """Some bytes were read: give all pages back after every `_GIVEN_BACK_AFTER` of them."""
        self._touched += size
        if self._touched >= _GIVEN_BACK_AFTER and hasattr(mmap, "MADV_DONTNEED"):
            self._touched = 0
            self.madvise(mmap.MADV_DONTNEED)


def map_of(array: npt.NDArray[np.generic]) -> ImageMap | None:
    """The map that an array is a view of, or None."""
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, ImageMap) else None


def was_read(rows: npt.NDArray[np.generic], count: int, *, scattered: bool) -> None:
    """Say that rows of an array were read, so that the resident pages of a mapped one stay bounded.

    Args:
        rows: The array; nothing happens unless it is mapped.
        count: How many of its rows were read.
        scattered: They stand here and there, rather than one after the other.
    """
    owner = map_of(rows)
    if owner is not None:
        owner.touch(count * max(rows[:1].nbytes, _AROUND if scattered else 0))
