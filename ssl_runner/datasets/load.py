"""A data set by name or by import path."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ssl_runner.datasets.arrays import ImageDataset
from ssl_runner.datasets.digits import load_digits
from ssl_runner.datasets.fashion_mnist import load_fashion_mnist
from ssl_runner.datasets.torchvision_sets import SETS, load_torchvision
from ssl_runner.errors import DataError as DataError
from ssl_runner.errors import InputError, did_you_mean
from ssl_runner.imports import import_by_path

_LOADERS: dict[str, Callable[[Path | None, Callable[[str], None], bool], ImageDataset]] = {
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
) -> ImageDataset:
    """A data set by name, or the user's own by import path.

    Args:
        name: `fashion_mnist`, `digits` or one of torchvision's names; or `package.module:function`, a
            function without arguments that returns an `ImageDataset`.
        data_dir: The folder with a named data set's files. None: the folder in SSL_RUNNER_DATA, or
            else wherever it can be found or fetched.
        say: Called with each line for the user: where the data came from.
        fetch: Whether a named data set that is not on this machine may be downloaded.

    Raises:
        InputError: If there is no such data set.
        DataError: If its data can't be loaded: what was wrong, and what helps.
    """
    if ":" in name:
        if data_dir is not None:
            raise InputError(
                f"data_dir must be left out for {name!r}, which reads its own data, got {data_dir}."
            )
        return _own_dataset(name)
    if name not in _LOADERS:
        raise InputError(
            "the data set must be a known name or an import path package.module:function, "
            f"got {name!r}. {did_you_mean(name, tuple(_LOADERS))}"
        )
    return _LOADERS[name](data_dir, say, fetch)


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
