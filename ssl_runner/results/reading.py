"""Many Parquet files read as one table."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ssl_runner.storage import is_local, read_whole

_AT_ONCE = 256
"""Tables that are joined at a time."""


class Pile:
    """Small tables that become one. They are joined as they come: with its many columns, a table of one
    row takes a quarter of a megabyte."""

    def __init__(self) -> None:
        self._joined: list[pa.Table] = []
        self._small: list[pa.Table] = []

    @property
    def is_empty(self) -> bool:
        return not self._joined and not self._small

    def add(self, table: pa.Table) -> None:
        """Put a table on top; its schema is that of the others."""
        self._small.append(table)
        if len(self._small) == _AT_ONCE:
            self._join()

    def whole(self) -> pa.Table:
        """All of them, at least one, in the order in which they came."""
        self._join()
        return pa.concat_tables(self._joined)

    def _join(self) -> None:
        if self._small:
            self._joined.append(pa.concat_tables(self._small).combine_chunks())
        self._small = []


def read_files(
    filesystem: fs.FileSystem, folder: str, names: Sequence[str], schema: pa.Schema
) -> pa.Table:
    """The rows of a folder's files, file by file in the order of their names.

    Args:
        names: The files' names, at least one.
        schema: The table's; columns that a file lacks are null.

    Raises:
        pyarrow.ArrowException, OSError, ValueError: If one of them can't be read with it.
    """
    fields = list(schema)

    def read(name: str) -> pa.Table:
        path = f"{folder}/{name}"
        if not is_local(filesystem):  # whole: by parts a small file takes more requests
            content = pa.BufferReader(read_whole(filesystem, path))
            table = pq.ParquetFile(content).read(use_threads=False)
            if table.schema.equals(schema):
                return table
            return pq.read_table(content, schema=schema)
        # Takes a third of the time of a data set of them, which plans each file's columns anew.
        table = pq.ParquetFile(path, filesystem=filesystem).read(use_threads=False)
        present, later = fields[: len(table.schema)], fields[len(table.schema) :]
        if table.schema.equals(pa.schema(present)):  # what comes last may be lacking
            for field in later:
                table = table.append_column(field, pa.nulls(len(table), field.type))
            return table
        # An older version's, or not ours.
        return pq.read_table(path, schema=schema, filesystem=filesystem)

    pile = Pile()
    with ThreadPoolExecutor() as pool:
        for table in pool.map(read, names):
            pile.add(table)
    return pile.whole()
