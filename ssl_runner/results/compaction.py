"""Many small files of rows become a few large ones, and rows in large files are found and changed."""

import io
import os
import uuid
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from ssl_runner.results.reading import Pile
from ssl_runner.results.schema import SCHEMA_VERSION
from ssl_runner.storage import list_files, replaced_whole, write_whole

_PREFIX = "compacted-"

LARGEST = 128 * 2**20
"""Bytes of rows, in memory, after which a file is full."""

_GROUP = 5_000
"""Rows that are read to find one: a group of them, in each large file."""


def is_compacted(name: str) -> bool:
    """Whether a file holds the rows of many trials. A trial's own file has `--` in its name."""
    return name.startswith(_PREFIX) and "--" not in name


def working_folder(root: str, folder: str) -> Path:
    """Where a compaction prepares its files; only a killed one leaves it behind."""
    return Path(root, f".{folder}-compacting")


@dataclass(frozen=True)
class Compacted:
    """What a compaction did to a data set.

    Attributes:
        before, after: How many files there were, and how many there are.
        stay: The small files that stay as they are.
    """

    before: int
    after: int
    stay: frozenset[str]


def compact_folder(root: str, folder: str, schema: pa.Schema, stay: Container[str] = ()) -> Compacted:
    """Compact a local data set, in one step for its readers.

    The files of other versions of the schema stay as they are, and so do those of rounds, which are
    replaced when a round buys more labels.

    Args:
        root: Folder of the results.
        folder: Name of the data set in it. No process may be writing into it.
        schema: Its schema.
        stay: Names of files that stay as they are in any case.

    Raises:
        OSError: If the folder can't be replaced; nothing has changed then.
        pyarrow.ArrowException, ValueError: If a file can't be read; nothing has changed then.
    """
    filesystem, path = fs.LocalFileSystem(), Path(root, folder)
    names = list_files(filesystem, str(path), ".parquet")
    linked, gathered = [], _Gathered(schema)
    with replaced_whole(path, working_folder(root, folder)) as work:
        for name in names:
            file = pq.ParquetFile(path / name)
            is_full = is_compacted(name) and _is_full(file.metadata)
            if is_full or name in stay or not _fits(table := file.read(use_threads=False), schema):
                linked.append(name)
            else:
                gathered.add(table, work)
        gathered.flush(work)
        for name in linked:
            os.link(path / name, work / name)
        after = len(list(work.iterdir()))
        # A process of another machine, whose locks are not seen here, may have written meanwhile.
        for name in set(list_files(filesystem, str(path), ".parquet")) - set(names):
            os.link(path / name, work / name)
    return Compacted(len(names), after, frozenset(linked))


class _Gathered:
    """Rows on their way into large files, each of which is written when it is full."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.pile = Pile()
        self.size = 0

    def add(self, table: pa.Table, folder: Path) -> None:
        self.pile.add(table)
        self.size += table.nbytes
        if self.size >= LARGEST:
            self.flush(folder)

    def flush(self, folder: Path) -> None:
        if not self.pile.is_empty:
            table = sorted_rows(self.pile.whole())
            name = f"{_PREFIX}{uuid.uuid4().hex[:16]}.parquet"
            write_whole(fs.LocalFileSystem(), str(folder / name), _content(table))
        self.pile, self.size = Pile(), 0


def sorted_rows(table: pa.Table) -> pa.Table:
    """Rows of trials or epochs in their order."""
    names = [name for name in ("sweep", "trial_id", "epoch") if name in table.schema.names]
    return table.sort_by([(name, "ascending") for name in names])


def _content(table: pa.Table) -> bytes:
    """A large file. Its groups of rows are small enough to find one row quickly."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=_GROUP, compression="zstd")
    return buffer.getvalue()


def _is_full(metadata: pq.FileMetaData) -> bool:
    """Whether a large file is not worth writing anew with more rows in it."""
    sizes = [metadata.row_group(k).total_byte_size for k in range(metadata.num_row_groups)]
    return bool(sum(sizes) >= LARGEST / 4)


def _fits(table: pa.Table, schema: pa.Schema) -> bool:
    """Whether a file's rows can be in a large file."""
    if not table.schema.equals(schema):
        return False
    of_rounds = "round" in schema.names and table["round"].null_count < len(table)
    return set(table["schema_version"].to_pylist()) <= {SCHEMA_VERSION} and not of_rounds


def find_rows(
    filesystem: fs.FileSystem,
    folder: str,
    schema: pa.Schema,
    columns: Sequence[str],
    where: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Some columns of those rows in large files that have these values."""
    names = [name for name in list_files(filesystem, folder, ".parquet") if is_compacted(name)]
    if not names:
        return []
    rows: list[dict[str, Any]] = pq.read_table(
        [f"{folder}/{name}" for name in names],
        columns=list(columns),
        filters=[(name, "==", value) for name, value in where.items()],
        schema=schema,
        filesystem=filesystem,
        use_threads=False,
    ).to_pylist()
    return rows


def drop_rows(filesystem: fs.FileSystem, folder: str, sweep: str, trial_ids: Collection[str]) -> None:
    """Delete the rows of these trials of a sweep from large files, each file in one step."""
    for path, table, at in _of(filesystem, folder, sweep, trial_ids):
        left = table.filter(pc.invert(at))
        if len(left):
            write_whole(filesystem, path, _content(left))
        else:
            filesystem.delete_file(path)


def change_rows(
    filesystem: fs.FileSystem, folder: str, sweep: str, values: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Write other values into some columns of rows in large files, each file in one step.

    Args:
        values: The values by column, by trial.

    Returns:
        The ids of the trials that were found.
    """
    found = set()
    for path, table, at in _of(filesystem, folder, sweep, values):
        places = pc.indices_nonzero(at).to_pylist()
        ids = table["trial_id"].take(places).to_pylist()
        for name in sorted({name for of_trial in values.values() for name in of_trial}):
            column = table[name].to_pylist()
            for place, trial_id in zip(places, ids, strict=True):
                if name in values[trial_id]:
                    column[place] = values[trial_id][name]
            field = table.schema.field(name)
            index = table.schema.get_field_index(name)
            table = table.set_column(index, field, pa.array(column, field.type))
        write_whole(filesystem, path, _content(table))
        found.update(ids)
    return found


def _of(
    filesystem: fs.FileSystem, folder: str, sweep: str, trial_ids: Collection[str]
) -> Iterator[tuple[str, pa.Table, pa.ChunkedArray]]:
    """The large files with rows of these trials: path, rows, and whether each is one of theirs."""
    for name in list_files(filesystem, folder, ".parquet"):
        if not is_compacted(name):
            continue
        path = f"{folder}/{name}"
        file = pq.ParquetFile(path, filesystem=filesystem)
        if not _has_any(file.read(["sweep", "trial_id"], use_threads=False), sweep, trial_ids):
            continue
        table = file.read(use_threads=False)
        yield path, table, _is_any(table, sweep, trial_ids)


def _has_any(table: pa.Table, sweep: str, trial_ids: Collection[str]) -> bool:
    return bool(pc.any(_is_any(table, sweep, trial_ids)).as_py())


def _is_any(table: pa.Table, sweep: str, trial_ids: Collection[str]) -> pa.ChunkedArray:
    theirs = pc.is_in(table["trial_id"], pa.array(list(trial_ids), pa.string()))
    return pc.and_(pc.equal(table["sweep"], sweep), theirs)
