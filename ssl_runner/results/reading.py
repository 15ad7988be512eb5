"""Many Parquet files read as one table."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from ssl_runner.storage import is_local, read_whole


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

    with ThreadPoolExecutor() as pool:
        return pa.concat_tables(pool.map(read, names))
