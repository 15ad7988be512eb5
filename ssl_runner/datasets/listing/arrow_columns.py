"""Columns of a Parquet file as text, and what their whole numbers mean."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssl_runner.datasets.listing.columns import Texts
from ssl_runner.errors import DataError, shown


def open_parquet(path: Path) -> Any:
    """A `pyarrow.parquet.ParquetFile`, its content still unread.

    Raises:
        DataError: If it can't be read, or is none.
    """
    try:
        # A row group is read page by page, as its rows are asked for, and never all at once.
        return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(
            f"{path}: must be a whole Parquet file ({reason}). Cut short or damaged: copy it again."
        ) from None


def read_column(path: Path, file: Any, name: str) -> Any:
    """One column alone, as a `pyarrow.ChunkedArray`.

    Raises:
        DataError: If its content is damaged.
    """
    try:
        return file.read(columns=[name]).column(name)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DataError(
            f"{path}: column {shown(name)} can't be read ({reason}). Damaged: copy the file again."
        ) from None


def column_texts(path: Path, file: Any, name: str, class_names: tuple[str, ...] | None = None) -> Texts:
    """One column as texts: a whole number as its digits, 3.0 too; None where it is null or NaN.

    Args:
        path: The file, for messages.
        file: It, opened.
        name: The column's name.
        class_names: What its whole numbers mean; -1 then means that there is none.

    Raises:
        DataError: If the column holds neither texts nor numbers, or a number has no name.
    """
    column = read_column(path, file, name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if class_names is not None:
        return _named(path, name, column.to_pylist(), class_names)
    if pa.types.is_floating(column.type):
        return [_number(value) for value in column.to_pylist()]
    try:
        texts: Texts = column.cast(pa.large_string()).to_pylist()
    except pa.ArrowException:
        raise DataError(
            f"{path}: column {shown(name)} must hold texts or numbers, got the type {column.type}. "
            "Name another column."
        ) from None
    return texts


def _number(value: float | None) -> str | None:
    if value is None or value != value:
        return None
    return str(int(value)) if value.is_integer() else str(value)


def _named(path: Path, name: str, numbers: list[Any], class_names: tuple[str, ...]) -> Texts:
    meaning: dict[Any, str | None] = {**dict(enumerate(class_names)), -1: None, None: None}
    wrong = next((number for number in set(numbers) if number not in meaning), None)
    if wrong is not None:
        raise DataError(
            f"{path}: column {shown(name)} must hold numbers in [0, {len(class_names)}), one for each "
            f"class that the file names, or -1, got {wrong}. Is a name missing?"
        )
    return [meaning[number] for number in numbers]


def class_names_of(path: Path, schema: Any, name: str) -> tuple[str, ...] | None:
    """The names of a column's whole numbers; None: the file has none.

    They stand as Hugging Face's `datasets` writes them (the features in the schema's metadata), or as
    a JSON list under `class_names` or `names` in the metadata of the column or of the schema.

    Args:
        path: The file, for messages.
        schema: Its `pyarrow.Schema`.
        name: The column's name.

    Raises:
        DataError: If a name comes twice.
    """
    field = schema.field(name)
    if not pa.types.is_integer(field.type):
        return None
    names = _hugging_face_names(schema.metadata or {}, name)
    for metadata in (field.metadata or {}, schema.metadata or {}):
        for key in (b"class_names", b"names"):
            names = names or _json_names(metadata.get(key))
    if names is not None and len(set(names)) < len(names):
        twice = next(one for at, one in enumerate(names) if one in names[:at])
        raise DataError(
            f"{path}: the names of classes in its metadata must differ, got {shown(twice)} twice. "
            "Write the file with the right names."
        )
    return names


def _hugging_face_names(metadata: dict[bytes, bytes], name: str) -> tuple[str, ...] | None:
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][name]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return _checked_names(names)


def _json_names(text: bytes | None) -> tuple[str, ...] | None:
    try:
        return _checked_names(json.loads(text or b""))
    except ValueError:
        return None


def _checked_names(names: object) -> tuple[str, ...] | None:
    is_list = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list and isinstance(names, list) else None


def is_image_type(kind: Any) -> bool:
    """Whether a column's type may hold encoded images: bytes, or Hugging Face's {bytes, path}."""
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        # All null, where only the paths were written: said when the column is looked at.
        return at >= 0 and (is_image_type(kind.field(at).type) or pa.types.is_null(kind.field(at).type))
    return any(
        matches(kind)
        for matches in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_fixed_size_binary,
        )
    )


def image_bytes(column: Any) -> list[bytes | None]:
    """The encoded images of a part of such a column."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    images: list[bytes | None] = column.to_pylist()
    return images
