"""A table of files and labels, as a listing: which files, each there and inside the folder."""

import posixpath
from collections.abc import Callable
from pathlib import Path

from ssl_runner.datasets.listing.arrow_columns import class_names_of, column_texts, open_parquet
from ssl_runner.datasets.listing.columns import (
    Table,
    Texts,
    clean_labels,
    column_for,
    find_column,
    parts_of,
    position_of,
)
from ssl_runner.datasets.listing.file_images import FileImages, Inside, files_in
from ssl_runner.datasets.listing.listing import Listing, Part
from ssl_runner.datasets.listing.text_tables import read_text_table
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError, did_you_mean, shown

TWICE = "listed twice"

Say = Callable[[str], None]


def list_table(path: Path, files: FileSettings, say: Say, need_labels: bool = True) -> Listing:
    """The images that a table names, in its order.

    Args:
        path: The table: `.csv`, `.tsv`, `.jsonl` or `.parquet`.
        files: How it is read.
        say: Called with each line for the user.
        need_labels: Whether there must be a column of labels.

    Raises:
        InputError: If a setting does not fit.
        DataError: If it is no such table; if a file is missing or not in the image folder; or if a file
            comes twice with different labels or parts.
    """
    root = _image_folder(path, files.image_dir)
    table = _parquet_table(path) if path.suffix.lower() == ".parquet" else read_text_table(path, files)
    file_at = column_for(path, table.names, "file", files.file_column)
    assert file_at is not None, "it is needed"
    label_at = column_for(path, table.names, "label", files.label_column, need_labels)
    if files.split_column is None:
        split_at = find_column(path, table.names, "split")
    else:
        split_at = position_of(path, table.names, "split", files.split_column)

    names = _plain_names(table, table.texts(file_at))
    labels: Texts = [None] * len(names)
    if label_at is not None:
        labels = clean_labels(table.texts(label_at), files.unlabeled_marker)
    parts = None if split_at is None else parts_of(table, split_at)
    kept, left_out = _rows_to_keep(table, names, labels, parts), {}
    if len(kept) < len(names):
        left_out[TWICE] = len(names) - len(kept)
        names, labels = [names[row] for row in kept], [labels[row] for row in kept]
        parts = parts and [parts[row] for row in kept]
    _refuse_missing(table, root, names)

    labeled = len(labels) - labels.count(None)
    columns = [table.names[at] for at in (file_at, label_at, split_at) if at is not None]
    say(
        f"{path.name}: {len(names):,} images in {root}, {labeled:,} of them labeled "
        f"(columns {', '.join(shown(column) for column in columns)})"
    )
    return Listing(
        name=path.name,
        encoded=FileImages(root, names),
        labels=labels,
        parts=parts,
        left_out=left_out,
        class_names=None if label_at is None else table.class_names(label_at),
    )


def _image_folder(path: Path, image_dir: str | None) -> Path:
    root = path.parent if image_dir is None else Path(image_dir)
    if not _is(Path.is_dir, root):
        there = [entry.name for entry in root.parent.iterdir()] if root.parent.is_dir() else []
        hint = did_you_mean(root.name, there) if there else "Is the path right?"
        raise DataError(f"--image-dir must be a folder, got {shown(str(root))}. {hint}")
    return root


def _parquet_table(path: Path) -> Table:
    file = open_parquet(path)
    schema = file.schema_arrow
    names = tuple(schema.names)
    if not file.metadata.num_rows:
        raise DataError(f"{path}: must have a row for each image, got none. Is it the right file?")

    def class_names(column: int) -> tuple[str, ...] | None:
        return class_names_of(path, schema, names[column])

    return Table(
        path=path,
        names=names,
        texts=lambda column: column_texts(path, file, names[column], class_names(column)),
        place=lambda row: f"row {row}",
        class_names=class_names,
    )


def _plain_names(table: Table, texts: Texts) -> list[str]:
    """File names without `.`, `//` and the like, so that each file has one name.

    Raises:
        DataError: If one is blank or absolute, or has `..` in it.
    """
    names = []
    for row, text in enumerate(texts):
        if not text or text.isspace():
            raise DataError(
                f"{table.path}: every row must name a file, got none in {table.place(row)}. Add "
                "its name, or delete the row."
            )
        # Nearly all names are plain already: only the others are looked at closely.
        if "./" in text or "//" in text or text[0] == "/" or text[-1] in "./":
            if text[0] == "/":
                raise DataError(
                    f"{table.path}: files must be relative to the image folder, got {shown(text)} in "
                    f"{table.place(row)}. Cut the folder off, and name it: --image-dir."
                )
            if ".." in text.split("/"):
                raise DataError(
                    f"{table.path}: files must be in the image folder, without `..`, got "
                    f"{shown(text)} in {table.place(row)}. Name a folder that holds all of them: "
                    "--image-dir."
                )
            text = posixpath.normpath(text)
        names.append(text)
    return names


def _rows_to_keep(table: Table, names: list[str], labels: Texts, parts: list[Part] | None) -> list[int]:
    """The first row of each file.

    Raises:
        DataError: If a later row says otherwise.
    """
    first: dict[str, int] = {}
    for row, name in enumerate(names):
        at = first.setdefault(name, row)
        if at == row:
            continue
        for what, values in (("label", labels), ("part", parts)):
            if values is not None and values[at] != values[row]:
                one, two = (shown(values[place] or "") for place in (at, row))
                raise DataError(
                    f"{table.path}: a file must have one {what}, got {one} and {two} for "
                    f"{shown(name)} in {table.place(at)} and {table.place(row)}. Delete the wrong row."
                )
    return list(first.values())


def _refuse_missing(table: Table, root: Path, names: list[str]) -> None:
    """Raise a DataError unless every file is there and inside the folder."""
    inside = Inside(root)
    folders: dict[str, dict[str, bool]] = {}
    missing = []
    for name in names:
        folder, _, file = name.rpartition("/")
        there = folders.get(folder)
        if there is None:
            inside.real(folder)
            there = folders[folder] = files_in(root / folder)
        is_symlink = there.get(file)
        if is_symlink:
            inside.real(name)
        elif is_symlink is None:
            missing.append(name)
    if missing:
        first = ", ".join(shown(name) for name in missing[:3])
        raise DataError(
            f"{table.path}: its files must be in {root}, got {len(missing):,} of {len(names):,} "
            f"that are not there: {first}{', …' if len(missing) > 3 else ''}. "
            f"{_where_else(root, missing[0])}"
        )


def _where_else(root: Path, name: str) -> str:
    """The likely fix for a file that is not there."""
    if _is(Path.is_file, root / name.replace("\\", "/")):
        return "Write / between folders."
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if _is(Path.is_file, folder / name):
            return f"Try --image-dir {folder}."
    return "Name their folder: --image-dir."


def _is(kind: Callable[[Path], bool], path: Path) -> bool:
    """Whether a path is of a kind; no, if the system refuses such a path."""
    try:
        return kind(path)
    except (OSError, ValueError):
        return False
