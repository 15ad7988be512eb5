"""A model by name or by import path."""

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_runner.errors import InputError, require
from ssl_runner.imports import import_by_path
from ssl_runner.models.settings import MODELS, ModelSettings
from ssl_runner.settings import is_torchvision


def build_model(
    settings: ModelSettings, channels: int, size: tuple[int, int], classes: int
) -> nn.Module:
    """A fresh model, its weights drawn from torch's global generator.

    Args:
        settings: Its name: a key of `MODELS`, `torchvision:NAME`, or an import path
            `package.module:Class` of the user's own, called with channels, size, classes and dropout;
            and what else it takes.
        channels: Channels of an image.
        size: Height and width of an image.
        classes: Number of classes.

    Raises:
        InputError: If there is no such model, or such images are too small for it.
    """
    settings, name = settings.resolved(), settings.model
    if is_torchvision(name):
        from ssl_runner.models.vision import build_vision_model  # torchvision takes a second

        return build_vision_model(settings, channels, size, classes)
    make = import_by_path(MODELS.get(name, name), "model")
    model = make(channels, size, classes, settings.dropout) if callable(make) else make
    if not isinstance(model, nn.Module):
        raise InputError(f"model {name!r} must make a torch.nn.Module, got {type(model).__name__}.")
    return model


def check_models(
    all_settings: Iterable[ModelSettings], channels: int, size: tuple[int, int], classes: int
) -> list[str]:
    """Check that models can be built for such images, before any is trained.

    Returns:
        A line for each model of which some layers do not start from its file of weights.

    Raises:
        InputError: If there is no such model, or it does not suit such images or its settings.
    """
    lines: list[str] = []
    for settings in dict.fromkeys(each.resolved() for each in all_settings):
        if is_torchvision(settings.model):
            from ssl_runner.models.vision import try_vision_model  # torchvision takes a second

            model, said = try_vision_model(settings, channels, size, classes)
            lines += said
        else:
            model = build_model(settings, channels, size, classes)
        has_norm = any(isinstance(module, _BatchNorm) for module in model.modules())
        rule = f"false for {settings.model}, which has no batch normalization"
        fix = "Leave it out."
        require(has_norm or not settings.sync_batch_norm, "sync_batch_norm", rule, True, fix)
    return lines
