"""A method by name or by import path."""

import torch

from ssl_runner.errors import InputError
from ssl_runner.imports import import_by_path
from ssl_runner.methods.base import Method
from ssl_runner.methods.settings import METHODS, MethodSettings


def build_method(settings: MethodSettings, shares_K: torch.Tensor) -> Method:
    """The method of a trial: a built-in one, or the user's own by import path `package.module:Class`.

    Args:
        settings: Its hyperparameters, resolved.
        shares_K: Share of each class in the labeled pool.

    Raises:
        InputError: If there is none, or it is not a `Method`.
    """
    name = settings.method
    make = import_by_path(METHODS[name].home if name in METHODS else name, "method")
    if not (isinstance(make, type) and issubclass(make, Method)):
        raise InputError(
            f"method {name!r} must be a subclass of ssl_runner.methods.Method, got {make!r}."
        )
    return make(settings, shares_K)
