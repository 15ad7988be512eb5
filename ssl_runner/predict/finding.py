"""From what the user names to images: a file, a folder, a table, or a part of a data set."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_runner.datasets import ImageArrays, ImageDataset, load_dataset
from ssl_runner.datasets.listing.file_images import FileImages
from ssl_runner.datasets.listing.folders import IMAGES
from ssl_runner.datasets.listing.listing import Listing
from ssl_runner.datasets.listing.named_path import list_images
from ssl_runner.datasets.listing.parts import assign
from ssl_runner.datasets.load import path_named
from ssl_runner.datasets.settings import FileSettings, is_path
from ssl_runner.errors import InputError
from ssl_runner.labels import UNLABELED
from ssl_runner.predict.images import ArrayImages, EncodedImages, Images, numbered
from ssl_runner.results.folder import MODEL
from ssl_runner.train import TrialData

# n = images of a listing, N = those of an array

PartName = Literal["train", "validation", "test", "labeled", "unlabeled"]

PARTS: tuple[PartName, ...] = ("train", "validation", "test", "labeled", "unlabeled")

Say = Callable[[str], None]
Trials = Callable[[ImageDataset], Sequence[TrialData] | None]
"""Given a data set, what each model's trial used of it; None: they were trained on other data."""


def find_images(
    name: str,
    part: PartName | None,
    class_names: Sequence[str],
    files: FileSettings,
    *,
    trials: Trials,
    say: Say,
    data_dir: Path | None = None,
    ignore_labels: bool = False,
) -> Images:
    """The images that a name stands for.

    Args:
        name: An image file, a folder, a table, Parquet files, or a data set by name or import path.
        part: Which of them; None: all, and of a data set by name its test images. Of files, `labeled`
            and `unlabeled` are those with and without a label. Of a data set that the models were
            trained on, they are the images that any, and that none, of the trials saw labeled.
        class_names: The models'.
        files: How files are read.
        trials: What the models' trials used.
        say: Called with each line for the user.
        data_dir: Folder of a named data set's files.
        ignore_labels: Whether all labels are taken as unknown.

    Raises:
        InputError: If there are none, or a label is no class of the models: in a line.
    """
    found: Images
    if is_path(name):
        found = _of_files(path_named(name), part, class_names, files, say, ignore_labels)
    else:
        dataset = load_dataset(name, data_dir, say, files=files)
        found = _of_dataset(dataset, part or "test", class_names, trials, ignore_labels)
    if not len(found.places_n):
        what = f"of the part {part}" if part else "in all"
        raise InputError(
            f"{found.name}: there must be an image to answer, got none {what}. Is --part right?"
        )
    return found


def _of_files(
    path: Path,
    part: PartName | None,
    class_names: Sequence[str],
    files: FileSettings,
    say: Say,
    ignore_labels: bool,
) -> EncodedImages:
    if path.suffix == MODEL:
        raise InputError(f"the images must come last, after all models, got {str(path)!r}.")
    if path.suffix.lower() in IMAGES and path.is_file():
        listing = Listing(path.name, FileImages(path.parent, [path.name]), [None], None, {})
    else:
        listing = list_images(path, files, say, need_labels=False)
    has_label_n = np.fromiter((label is not None for label in listing.labels), bool)
    if part is None:
        places_n = np.arange(len(has_label_n))
    elif part in ("labeled", "unlabeled"):
        places_n = np.flatnonzero(has_label_n == (part == "labeled"))
    else:
        parts = assign(listing, files)
        for line in parts.notes:
            say(line)
        of_part = {"train": parts.train, "validation": parts.validation, "test": parts.test}[part]
        places_n = np.empty(0, np.int64) if of_part is None else of_part
    labels = [listing.labels[place] for place in places_n.tolist()]
    labels_n = numbered(listing.name, labels, class_names, ignore_labels)
    return EncodedImages(listing.name, listing.encoded, places_n, labels_n)


def _of_dataset(
    dataset: ImageDataset,
    part: PartName,
    class_names: Sequence[str],
    trials: Trials,
    ignore_labels: bool,
) -> ArrayImages:
    arrays, places_N = dataset.train, np.arange(len(dataset.train))
    name = f"{dataset.name}, {part}"
    if part == "test" or (part == "validation" and dataset.validation is not None):
        arrays = dataset.test if part == "test" or dataset.validation is None else dataset.validation
        places_N = np.arange(len(arrays))
    elif part != "train":
        known = trials(dataset)
        if part == "validation":
            return _validation(dataset, known, name, class_names, ignore_labels)
        if known is None:
            labeled = np.flatnonzero(dataset.train.labels != UNLABELED)
        else:
            labeled = np.unique(np.concatenate([trial.labeled for trial in known]))
            places_N = np.unique(np.concatenate([trial.unlabeled for trial in known]))
            places_N = places_N[places_N < len(dataset.train)]  # the others are foreign
        places_N = labeled if part == "labeled" else np.setdiff1d(places_N, labeled)
    return _chosen(name, arrays, places_N, class_names, ignore_labels)


def _validation(
    dataset: ImageDataset,
    known: Sequence[TrialData] | None,
    name: str,
    class_names: Sequence[str],
    ignore_labels: bool,
) -> ArrayImages:
    """The validation images of the trials, where the data have none of their own."""
    if known is None:
        raise InputError(
            f"{dataset.name}: has no validation part, and the models were trained on other data. Name "
            "another --part."
        )
    classes = known[0].classes  # as its validation images are numbered
    first, *others = (trial.validation for trial in known)
    if any(not np.array_equal(first[0], images) for images, _ in others):
        raise InputError(
            f"{dataset.name}: the models must have the same validation images for --part validation, "
            f"got {len(known)} models with different ones. Ask them one by one."
        )
    arrays = ImageArrays(np.ascontiguousarray(first[0]), first[1], classes)
    return _chosen(name, arrays, np.arange(len(arrays)), class_names, ignore_labels)


def _chosen(
    name: str,
    arrays: ImageArrays,
    places_N: np.ndarray,
    class_names: Sequence[str],
    ignore_labels: bool,
) -> ArrayImages:
    labels_n = arrays.labels[places_N]
    occurring = [arrays.class_names[k] for k in range(len(arrays.class_names)) if (labels_n == k).any()]
    numbered(name, occurring, class_names, ignore_labels)  # refuses unknown ones
    # UNLABELED, -1, is also the last place.
    number_of = [
        class_names.index(known) if known in class_names else UNLABELED for known in arrays.class_names
    ]
    labels_n = np.array([*number_of, UNLABELED], np.int64)[labels_n]
    if ignore_labels:
        labels_n = np.full(len(labels_n), UNLABELED, np.int64)
    return ArrayImages(name, arrays.images, places_N, labels_n)
