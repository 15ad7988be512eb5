"""Answers as a table, written block by block; the file is there once it is whole."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ssl_runner.errors import InputError
from ssl_runner.labels import UNLABELED
from ssl_runner.predict.answers import Answers
from ssl_runner.storage import written_whole

# b = images of a block, K = classes

SUFFIXES = (".parquet", ".csv")

_REAL = pa.float32()
"""Of every figure: seven digits are more than a model's answers mean."""


def check_suffix(output: Path) -> None:
    """Refuse a file of another kind.

    Raises:
        InputError: If it is none of `SUFFIXES`.
    """
    if output.suffix not in SUFFIXES:
        raise InputError(
            f"--output must end in {' or '.join(SUFFIXES)}, got {str(output)!r}. Try "
            f"{output.stem or 'predictions'}.parquet."
        )


class Layout:
    """The columns of the answers.

    Args:
        column: What tells the images apart: `path` (text) or `index` (int64).
        class_names: K names.
        several: Whether there are several models, whose disagreement is a column.
        labeled: Whether any image has a label: the column `label`, null where there is none.
        said: What the Parquet file's own metadata say, at `ssl_runner`.
    """

    def __init__(
        self,
        column: str,
        class_names: Sequence[str],
        *,
        several: bool,
        labeled: bool,
        said: Mapping[str, Any],
    ) -> None:
        self.names = np.array(class_names, object)
        fields = [(column, pa.string() if column == "path" else pa.int64())]
        fields += [("label", pa.string())] if labeled else []
        fields += [("class", pa.string())]
        figures = ("confidence", "margin", "entropy", *(["disagreement"] if several else []))
        fields += [(name, _REAL) for name in (*figures, *(f"p_{name}" for name in class_names))]
        self.schema = pa.schema(fields, metadata={"ssl_runner": json.dumps(dict(said))})
        self._labeled, self._several = labeled, several

    def table(self, identities: pa.Array, labels_b: np.ndarray, answers: Answers) -> pa.Table:
        """A block of answers as rows."""
        columns: list[Any] = [identities]
        if self._labeled:
            columns.append(pa.array(self.names[labels_b], pa.string(), mask=labels_b == UNLABELED))
        columns.append(pa.array(self.names[answers.predicted], pa.string()))
        columns += [answers.confidence, answers.margin, answers.entropy]
        columns += [answers.disagreement] if self._several else []
        columns += list(answers.probabilities.T)
        arrays = [
            pa.array(column.astype(np.float32)) if isinstance(column, np.ndarray) else column
            for column in columns
        ]
        return pa.table(arrays, schema=self.schema)


class Writer:
    """Writes tables of one schema into a file of the kind that its name says."""

    def __init__(self, output: Path, file: pq.ParquetWriter | pyarrow.csv.CSVWriter) -> None:
        self._output, self._file = output, file

    def write(self, table: pa.Table) -> None:
        """Append rows.

        Raises:
            InputError: If they can't be written, as on a full disk.
        """
        with _blaming(self._output):
            self._file.write_table(table)


@contextlib.contextmanager
def writing(output: Path, schema: pa.Schema) -> Iterator[Writer]:
    """Write answers into a draft, which takes the output's place in the end, and is gone on an error.

    Raises:
        InputError: If it can't be written.
    """
    with contextlib.ExitStack() as stack:
        with _blaming(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            draft = stack.enter_context(written_whole(output))
            kind = pq.ParquetWriter if output.suffix == ".parquet" else pyarrow.csv.CSVWriter
            file = stack.enter_context(kind(str(draft), schema))
        yield Writer(output, file)
        with _blaming(output):
            stack.pop_all().close()


@contextlib.contextmanager
def _blaming(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise InputError(
            f"--output must be a writable path, got {str(output)!r} ({reason}). Choose another."
        ) from None
