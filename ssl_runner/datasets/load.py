"""A data set by name, from files or by import path."""

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_runner.datasets.arrays import ImageDataset
from ssl_runner.datasets.digits import load_digits
from ssl_runner.datasets.fashion_mnist import load_fashion_mnist
from ssl_runner.datasets.settings import DATASETS, FileSettings
from ssl_runner.datasets.torchvision_sets import SETS, load_torchvision
from ssl_runner.errors import DataError as DataError
from ssl_runner.errors import InputError, did_you_mean, shown
from ssl_runner.imports import import_by_path

if TYPE_CHECKING:
    from ssl_runner.datasets.listing.listing import Listing
    from ssl_runner.datasets.listing.parts import Parts

LOADERS: dict[str, Callable[[Path | None, Callable[[str], None], bool], ImageDataset]] = {
    "fashion_mnist": load_fashion_mnist,
    "digits": load_digits,
    **{name: partial(load_torchvision, name) for name in SETS},
}
"""By name: called with the given folder, `say` and whether it may download."""


def load_dataset(
    name: str,
    data_dir: Path | None = None,
    say: Callable[[str], None] = print,
    *,
    fetch: bool = True,
    files: FileSettings | None = None,
) -> ImageDataset:
    """A data set by name, from files, or from the user's own function.

    Args:
        name: `fashion_mnist`, `digits` or one of torchvision's names; or the path of a table of files,
            of Parquet files with images, or of a folder of images; or `package.module:function`, a
            function without arguments that returns an `ImageDataset`.
        data_dir: The folder with a named data set's files. None: the folder in SSL_RUNNER_DATA, or
            else wherever it can be found or fetched.
        say: Called with each line for the user: where the data came from, and what was left out.
        fetch: Whether a named data set that is not on this machine may be downloaded.
        files: How files are read, if it is a path; None: as by default.

    Raises:
        InputError: If there is no such data set, or a setting does not apply to it.
        DataError: If its data can't be loaded: what was wrong, and what helps.
    """
    files = files or FileSettings()
    if name not in LOADERS and ":" not in name:
        if data_dir is not None:
            raise InputError(
                f"data_dir must be left out for {name!r}, a path, got {data_dir}. --image-dir is the "
                "folder of the files that a table names."
            )
        return _from_files(name, files, say)
    for field in dataclasses.fields(files):
        value = getattr(files, field.name)
        if value != field.default and field.name != "labels_file":
            raise InputError(
                f"{field.name} must be left out for {name!r}, which is no table or folder, got "
                f"{shown(value)}."
            )
    if name in LOADERS:
        dataset = LOADERS[name](data_dir, say, fetch)
    elif data_dir is not None:
        raise InputError(
            f"data_dir must be left out for {name!r}, which reads its own data, got {data_dir}."
        )
    else:
        dataset = _own_dataset(name)
    if files.labels_file is None:
        return dataset
    from ssl_runner.datasets.given_labels import with_given_labels

    return with_given_labels(dataset, Path(files.labels_file))


def _from_files(name: str, files: FileSettings, say: Callable[[str], None]) -> ImageDataset:
    """The data set at a path, from the cache if it was decoded before."""
    from ssl_runner.datasets.decoded.load_files import load_files

    listing, parts = list_parts(name, files, say)
    return load_files(listing, files, parts, say)


def list_parts(name: str, files: FileSettings, say: Callable[[str], None]) -> tuple["Listing", "Parts"]:
    """What is at a path, before any image is decoded, and which image goes into which part.

    Raises:
        InputError: If there is no such data set, or a setting does not apply to it.
        DataError: If it can't be listed or shared out.
    """
    # With torch's processes and pandas, these take half a second that a named set can do without.
    from ssl_runner.datasets.listing.named_path import TABLES, list_images
    from ssl_runner.datasets.listing.parts import assign

    if files.labels_file is not None:
        raise InputError(
            f"labels_file must be left out for {name!r}, a path, got {files.labels_file!r}. "
            "Its labels are in the table or the folders."
        )
    path = path_named(name)
    listing = list_images(path, files, say)
    if path.suffix.lower() not in TABLES:  # a folder, which may be called what a known set is
        listing = dataclasses.replace(listing, name=f"{listing.name}/")
    parts = assign(listing, files)
    for line in parts.notes:
        say(line)
    return listing, parts


def path_named(name: str) -> Path:
    """The path that is no known data set's name.

    Raises:
        InputError: If it is rather a name that is spelled wrong.
    """
    path = Path(name)
    if not (path.exists() or "/" in name or path.suffix):
        raise InputError(
            "the data set must be a known name, a path, or an import path package.module:function, "
            f"got {name!r}. {did_you_mean(name, DATASETS)}"
        )
    return path


def _own_dataset(path: str) -> ImageDataset:
    """What the function at an import path returns. Errors raised inside it propagate."""
    try:
        function = import_by_path(path, "data set")
    except ImportError as error:  # one without a module's name, such as "cannot import name"
        raise DataError(f"data set {path!r} can't be imported: {error}.") from error
    except InputError as error:
        raise DataError(str(error)) from None
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise DataError(
            f"data set {path!r} must be a function that needs no arguments ({error})."
        ) from None
    dataset = function()
    if not isinstance(dataset, ImageDataset):
        raise DataError(
            f"data set {path!r} must return an ssl_runner.datasets.ImageDataset, "
            f"got {type(dataset).__name__}."
        )
    return dataset
