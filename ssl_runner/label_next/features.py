"""What a model sees in images before its last layer, and what it answers, a part at a time."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from ssl_runner.datasets.decoded.mapped import was_read
from ssl_runner.errors import InputError
from ssl_runner.predict.answers import logits_of
from ssl_runner.saved_model import SavedModel
from ssl_runner.train.evaluation import EVALUATION_BATCH

# N = images, n = chosen images, C = channels, H and W = height and width, K = classes, D = features

_AT_ONCE = 64 * 2**20
"""Bytes of images that are gathered at a time."""

Advance = Callable[[int], None]
"""Called with the number of images that were done."""


def parts_of(images_NCHW: np.ndarray, places_n: np.ndarray) -> Iterator[np.ndarray]:
    """Chosen images, some at a time, so that not all of them are in memory."""
    batch = EVALUATION_BATCH["cpu"]  # whole batches: no image is in another one than without parts
    size = batch * max(1, _AT_ONCE // max(1, batch * images_NCHW[:1].nbytes))
    for start in range(0, len(places_n), size):
        places = places_n[start : start + size]
        yield images_NCHW[places]
        was_read(images_NCHW, len(places), scattered=True)


def answers_to(
    saved: SavedModel, images_NCHW: np.ndarray, places_n: np.ndarray, advance: Advance
) -> np.ndarray:
    """A model's logits for chosen images, float64, (n, K)."""
    logits = [np.empty((0, len(saved.class_names)))]
    for images in parts_of(images_NCHW, places_n):
        logits.append(logits_of(saved, images))
        advance(len(images))
    return np.concatenate(logits)


def features_of(
    saved: SavedModel, images_NCHW: np.ndarray, places_n: np.ndarray, advance: Advance
) -> np.ndarray:
    """What the last linear layer of a model is given for chosen images, float32, (n, D).

    Raises:
        InputError: If the model has no such layer.
    """
    layers = [layer for layer in saved.module.modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise InputError(
            "a strategy by features must have a model with a linear layer, whose input they are, got "
            f"{saved.card.network['model']!r}. Choose margin."
        )
    seen: list[np.ndarray] = []

    def keep(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(inputs[0].flatten(1).float().cpu().numpy().copy())

    hook = layers[-1].register_forward_pre_hook(keep)
    try:
        answers_to(saved, images_NCHW, places_n, advance)
    finally:
        hook.remove()
    return np.concatenate(seen)


def of_length_one(features_ND: np.ndarray) -> np.ndarray:
    """Features divided by their length (L2), as TypiClust takes them; zeros stay zeros."""
    length_N = np.linalg.norm(features_ND, axis=1, keepdims=True)
    divided: np.ndarray = features_ND / np.where(length_N > 0, length_N, 1)
    return divided
