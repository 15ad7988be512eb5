"""A model by name or by import path."""

from torch import nn

from ssl_runner.errors import InputError
from ssl_runner.imports import import_by_path
from ssl_runner.models.settings import MODELS
from ssl_runner.settings import require_known


def build_model(
    name: str, channels: int, size: tuple[int, int], classes: int, dropout: float
) -> nn.Module:
    """A fresh model, its weights drawn from torch's global generator.

    Args:
        name: A key of `MODELS`, or an import path `package.module:Class` of the user's own, called
            with the same four arguments.

    Raises:
        InputError: If there is no such model, or such images are too small for it.
    """
    require_known("model", name, MODELS)
    make = import_by_path(MODELS.get(name, name), "model")
    model = make(channels, size, classes, dropout) if callable(make) else make
    if not isinstance(model, nn.Module):
        raise InputError(f"model {name!r} must make a torch.nn.Module, got {type(model).__name__}.")
    return model
