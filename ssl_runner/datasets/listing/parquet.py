"""Parquet files with the images inside, as a listing."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ssl_runner.datasets.listing.arrow_columns import (
    class_names_of,
    column_texts,
    is_image_type,
    open_parquet,
)
from ssl_runner.datasets.listing.columns import (
    PARTS,
    WITHOUT_LABELS,
    Table,
    Texts,
    clean_labels,
    column_for,
    find_column,
    missing_column,
    parts_of,
    position_of,
)
from ssl_runner.datasets.listing.listing import Listing, Part
from ssl_runner.datasets.listing.natural import natural_key
from ssl_runner.datasets.listing.parquet_images import ParquetImages
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError, shown

Say = Callable[[str], None]


def holds_images(path: Path, file_column: str | None) -> bool:
    """Whether a Parquet file has the images inside; otherwise it is a table of their files.

    Raises:
        DataError: If it is no Parquet file, or has no such column.
    """
    return _image_column(path, open_parquet(path).schema_arrow, file_column) is not None


def _image_column(path: Path, schema: Any, given: str | None) -> str | None:
    names: list[str] = schema.names
    if given is not None:
        name = names[position_of(path, names, "file", given)]
        return name if is_image_type(schema.field(name).type) else None
    found = [name for name in names if is_image_type(schema.field(name).type)]
    if len(found) > 1:
        position = find_column(path, found, "file")
        if position is None:
            raise missing_column(path, names, "file")
        return found[position]
    return found[0] if found else None


def list_parquet(
    root: Path, names: Sequence[str], files: FileSettings, say: Say, need_labels: bool = True
) -> Listing:
    """The images inside Parquet files, file after file in natural order.

    The part of a file's images is in a column, or is the first word of its name or the name of a folder
    that it is in; files named `unlabeled` are training images without labels. Labels are read alone.
    The files may be symlinks to elsewhere, as in Hugging Face's cache: nothing in them names a path.

    Args:
        root: The folder that the data set is named after, or its one file.
        names: The files, relative to it; none: it is a file itself.
        files: How they are read.
        say: Called with each line for the user.
        need_labels: Whether there must be a column of labels.

    Raises:
        DataError: If one is no Parquet file or lacks a column, or only some of them name a part.
    """
    folder = root if names else root.parent
    ordered = sorted(names, key=natural_key) or [root.name]
    words = [_word_of(name) for name in ordered]
    named_parts = _parts_by_word(root, ordered, words) if names else None

    labels: Texts = []
    parts: list[Part] = []
    with_parts: dict[bool, str] = {}
    group_rows: list[list[int]] = []
    image_columns: dict[str, None] = {}
    class_names: dict[tuple[str, ...] | None, str] = {}
    for name, word in zip(ordered, words, strict=True):
        path = folder / name
        file = open_parquet(path)
        image = _image_column(path, file.schema_arrow, files.file_column)
        if image is None:
            raise DataError(
                f"{path}: must have a column of bytes, or of {{bytes, path}}, with the images, got the "
                f"columns {', '.join(map(shown, file.schema_arrow.names))}. Name it: --file-column."
            )
        _refuse_paths_only(path, file, image)
        image_columns[image] = None
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        group_rows.append(rows)
        if word in WITHOUT_LABELS and names:
            labels += [None] * sum(rows)
        else:
            texts, known = _labels(path, file, files, need_labels)
            labels += clean_labels(texts, files.unlabeled_marker)
            class_names.setdefault(known, name)
        if named_parts is not None and files.split_column is None:
            own: list[Part] | None = [named_parts[name]] * sum(rows)
        else:
            own = _own_parts(path, file, files)
        parts += own or []
        with_parts.setdefault(own is not None, name)
    _refuse_different(root, image_columns, class_names, with_parts)
    if not labels:
        raise DataError(f"{root}: must have a row for each image, got none. Is it the right file?")
    labeled = len(labels) - labels.count(None)
    say(
        f"{root.name}: {len(labels):,} images in {len(ordered):,} Parquet files, {labeled:,} of "
        "them labeled"
    )
    return Listing(
        name=root.name,
        encoded=ParquetImages(folder, ordered, next(iter(image_columns)), group_rows),
        labels=labels,
        parts=parts if True in with_parts else None,
        left_out={},
        class_names=next(iter(class_names), None),
    )


def _labels(
    path: Path, file: Any, files: FileSettings, needed: bool
) -> tuple[Texts, tuple[str, ...] | None]:
    """The texts of the column of labels, and its class names."""
    schema = file.schema_arrow
    names: list[str] = schema.names
    if files.label_column is None and find_column(path, names, "label") is None:
        # As in CIFAR-100's `fine_label`: the one column whose numbers have names.
        named = [name for name in names if class_names_of(path, schema, name)]
        name = named[0] if len(named) == 1 else None
        if name is None and needed:
            raise missing_column(path, names, "label")
    else:
        position = column_for(path, names, "label", files.label_column)
        name = None if position is None else names[position]
    if name is None:
        return [None] * file.metadata.num_rows, None
    known = class_names_of(path, schema, name)
    return column_texts(path, file, name, known), known


def _own_parts(path: Path, file: Any, files: FileSettings) -> list[Part] | None:
    """The parts that a file's own column names; None: it has no such column."""
    names: list[str] = file.schema_arrow.names
    if files.split_column is None:
        position = find_column(path, names, "split")
    else:
        position = position_of(path, names, "split", files.split_column)
    if position is None:
        return None
    known = class_names_of(path, file.schema_arrow, names[position])
    table = Table(
        path=path,
        names=tuple(names),
        texts=lambda at: column_texts(path, file, names[at], known),
        place=lambda row: f"row {row}",
    )
    return parts_of(table, position)


def _word_of(name: str) -> str | None:
    """The part that a file's name begins with (`train-0001.parquet`), or else the nearest folder."""
    *folders, stem = Path(name.lower()).with_suffix("").parts
    first = stem
    for sign in "-_. 0123456789":
        first = first.partition(sign)[0]
    known = (*PARTS, *WITHOUT_LABELS)
    return next((word for word in (first, *reversed(folders)) if word in known), None)


def _parts_by_word(
    root: Path, names: Sequence[str], words: Sequence[str | None]
) -> dict[str, Part] | None:
    if not any(words):
        return None
    if None in words:
        raise DataError(
            f"{root}: if some of its Parquet files name a part, all must (train-, validation-, "
            f"test- or unlabeled-), got {shown(names[words.index(None)])}. Rename it, or take it out."
        )
    return {name: PARTS.get(word or "", "train") for name, word in zip(names, words, strict=True)}


def _refuse_paths_only(path: Path, file: Any, image: str) -> None:
    """Hugging Face's struct may hold paths alone, to files that are elsewhere."""
    if file.metadata.num_rows and not _has_bytes(file, image):
        raise DataError(
            f"{path}: column {shown(image)} must hold the images' bytes, got none in any row. Write it "
            "with the images embedded, or name a column of their files: --file-column."
        )


def _has_bytes(file: Any, image: str) -> bool:
    """Whether there is an image in any row, as far as the file's own statistics say."""
    kind = file.schema_arrow.field(image).type
    if pa.types.is_struct(kind) and pa.types.is_null(kind.field("bytes").type):
        return False
    groups = [file.metadata.row_group(at) for at in range(file.num_row_groups)]
    for column in (group.column(at) for group in groups for at in range(group.num_columns)):
        if column.path_in_schema in (image, f"{image}.bytes"):
            known = column.statistics
            if known is None or not known.has_null_count or known.null_count < column.num_values:
                return True
    return False


def _refuse_different(
    root: Path,
    image_columns: dict[str, None],
    class_names: dict[tuple[str, ...] | None, str],
    with_parts: dict[bool, str],
) -> None:
    if len(with_parts) > 1:
        raise DataError(
            f"{root}: of its Parquet files, all or none name parts in a column, got one in "
            f"{shown(with_parts[True])} and none in {shown(with_parts[False])}. Add the column, or "
            "take it out."
        )
    if len(image_columns) > 1:
        found = ", ".join(map(shown, image_columns))
        raise DataError(
            f"{root}: its Parquet files must have the images in the same column, got {found}. "
            "Rename them."
        )
    if len(class_names) > 1:
        one, two = list(class_names.values())[:2]
        raise DataError(
            f"{root}: its Parquet files must name the same classes, got other names in "
            f"{shown(two)} than in {shown(one)}. Write them with the same ones."
        )
