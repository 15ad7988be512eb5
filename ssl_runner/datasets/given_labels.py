"""Labels that a person gave in a table of their own, and a data set with them in place of its own."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_runner.datasets.arrays import ImageDataset
from ssl_runner.datasets.listing.columns import Table, find_column, missing_column
from ssl_runner.datasets.listing.text_tables import read_text_table
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError, did_you_mean, shown
from ssl_runner.labels import UNLABELED

# N = training images

Key = Literal["file", "index"]
"""What a table names its images by: their file, or their position among the training images."""


def read_labels(
    path: Path, key: Key, place_of: Callable[[str], int | None], class_names: Sequence[str]
) -> dict[int, int]:
    """The classes of the images in a table, its rows without a label left out.

    Args:
        path: A `.csv`, `.tsv` or `.jsonl` file in UTF-8, with columns for the key and `label`.
        key: The column that names the images.
        place_of: The position of an image that the column names; None: there is no such image.
        class_names: Names of the classes, the only labels there may be.

    Returns:
        Class by position.

    Raises:
        DataError: If it is no such table, or names an image that is not there, a class that is not
            there, or two classes for one image.
    """
    table = read_text_table(path, FileSettings())
    keys, labels = table.texts(_column(table, key)), table.texts(_column(table, "label"))
    number = {name: k for k, name in enumerate(class_names)}
    classes: dict[int, int] = {}
    for row, (name, label) in enumerate(zip(keys, labels, strict=True)):
        if not (label := (label or "").strip()):
            continue
        if label not in number:
            raise DataError(
                f"{path}: labels must be classes of the data set, got {shown(label)} in "
                f"{table.place(row)}. {did_you_mean(label, class_names)}"
            )
        place = place_of(name or "")
        if place is None:
            raise DataError(
                f"{path}: each {key} must be that of a training image, got {shown(name or '')} in "
                f"{table.place(row)}. Is it the same data set?"
            )
        if classes.setdefault(place, number[label]) != number[label]:
            raise DataError(
                f"{path}: an image must have one label, got {shown(class_names[classes[place]])} and "
                f"{shown(label)} for {key} {name}, again in {table.place(row)}. Delete the wrong row."
            )
    return classes


def _column(table: Table, what: str) -> int:
    names = [name.strip().lower() for name in table.names]
    if what in names:
        return names.index(what)
    found = None if what == "index" else find_column(table.path, table.names, what)
    if found is None:
        if what == "index":
            raise DataError(
                f"{table.path}: must have a column index, the position of each image among the "
                f"training images, from 0, got columns {', '.join(map(shown, table.names[:10]))}."
            )
        raise missing_column(table.path, table.names, what)
    return found


def place_by_index(images: int) -> Callable[[str], int | None]:
    """What `read_labels` finds images by where they are counted from 0."""

    def place_of(text: str) -> int | None:
        text = text.strip()
        is_one = text.isascii() and text.isdigit() and len(text) < 19 and int(text) < images
        return int(text) if is_one else None

    return place_of


def with_given_labels(dataset: ImageDataset, path: Path) -> ImageDataset:
    """A data set whose training images have the labels of a table, `index,label`, and no others.

    Raises:
        DataError: If it is no such table, or has no label.
    """
    train = dataset.train
    classes = read_labels(path, "index", place_by_index(len(train)), train.class_names)
    if not classes:
        raise DataError(f"{path}: must have labels, got none. Fill in the column label.")
    labels_N = np.full(len(train), UNLABELED, np.int64)
    labels_N[list(classes)] = list(classes.values())
    relabeled = dataclasses.replace(train, labels=labels_N)
    return dataclasses.replace(dataset, train=relabeled, digest="")
