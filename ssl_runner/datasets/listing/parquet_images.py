"""Images in the rows of Parquet files."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ssl_runner.datasets.listing.arrow_columns import image_bytes, open_parquet
from ssl_runner.errors import DataError

BATCH = 32
"""Rows that are in memory at once."""

LEAST_ROWS, MOST_PIECES = 4096, 16
"""A row group is shared out in so many pieces at most, of so many rows at least. Each piece is read
from the start of its group, as Parquet has no other way: many pieces would read it too often."""


class ParquetImages:
    """Encoded images in the rows of Parquet files (see `Encoded`).

    Args:
        root: The folder of the files.
        names: The files, relative to it.
        column: The column of the images.
        group_rows: The number of rows of each file's row groups.
    """

    def __init__(
        self, root: Path, names: Sequence[str], column: str, group_rows: Sequence[Sequence[int]]
    ) -> None:
        self.root, self.names, self.column = root.absolute(), tuple(names), column
        self._file_ends = np.cumsum([sum(rows) for rows in group_rows])
        pieces = []
        for file, rows in enumerate(group_rows):
            for group, count in enumerate(rows):
                size = max(LEAST_ROWS, -(-count // MOST_PIECES))
                pieces += [
                    (file, group, skip, min(size, count - skip)) for skip in range(0, count, size)
                ]
        self._pieces = np.array(pieces, np.int64).reshape(
            -1, 4
        )  # file, group, rows before it, its rows
        self._piece_ends = np.cumsum(self._pieces[:, 3])

    def __len__(self) -> int:
        return int(self._file_ends[-1])

    def signature(self) -> str:
        """A hash of the column's name and of all files' names, sizes, modification and change times."""
        facts: list[object] = [self.column]
        for name in self.names:
            try:
                facts.append((name, *_state(self.root / name)))
            except OSError:
                facts.append((name, -1))
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def chunks(self) -> Sequence[range]:
        """The row groups, large ones in pieces."""
        ends = self._piece_ends.tolist()
        return [range(first, end) for first, end in zip([0, *ends[:-1]], ends, strict=True)]

    def read(self, chunk: range) -> Iterator[bytes]:
        """The images of one of `chunks()`, few in memory at once; empty where one can't be read."""
        piece = int(np.searchsorted(self._piece_ends, chunk.start, side="right"))
        file, group, skip, count = self._pieces[piece].tolist()
        assert len(chunk) == count
        given = 0
        try:
            path = self.root / self.names[file]
            opened = _opened(path, _state(path))
            batches = opened.iter_batches(
                batch_size=BATCH, row_groups=[group], columns=[self.column], use_threads=False
            )
            for batch in batches:
                images = image_bytes(batch.column(0)[skip : skip + count - given])
                skip = max(skip - len(batch), 0)
                for image in images:
                    given += 1
                    yield image or b""
                if given == count:
                    return
        except (OSError, pa.ArrowException, DataError):
            pass  # a damaged page: neither it nor what follows can be read
        yield from (b"" for _ in range(count - given))

    def name_of(self, index: int) -> str:
        """The file and the row in it, from 0."""
        file = int(np.searchsorted(self._file_ends, index, side="right"))
        row = index - (int(self._file_ends[file - 1]) if file else 0)
        return f"{self.names[file]}, row {row}"


def _state(path: Path) -> tuple[int, int, int]:
    """A file's size, modification and change time: others where it was replaced."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


@lru_cache(maxsize=1)
def _opened(path: Path, state: tuple[int, int, int]) -> Any:
    """The file that was read last stays open: there may be thousands of row groups in it."""
    return open_parquet(path)
