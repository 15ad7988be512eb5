"""A user's own model, method or data set, named by its import path."""

from importlib import import_module
from typing import Any


def import_by_path(path: str, what: str) -> Any:
    """The object behind `package.module:name`.

    Args:
        path: The import path.
        what: What it is for, for the error: "model", "method", "data set".

    Raises:
        ValueError: If the path is not of that form, or nothing is there.
    """
    module, _, name = path.partition(":")
    if not module or module.startswith(".") or not name:
        raise ValueError(f"{what} must be named as package.module:name, got {path!r}.")
    try:
        home = import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{what} {path!r}: no module {error.name!r}. Is it installed, or in this folder?"
        ) from None
    try:
        return getattr(home, name)
    except AttributeError:
        raise ValueError(f"{what} {path!r}: {module} has no {name!r}. Is the name right?") from None
