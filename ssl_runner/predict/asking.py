"""Models asked about images, a bounded number at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ssl_runner.asking import logits_of
from ssl_runner.datasets.decoded.pool import shown_progress
from ssl_runner.errors import InputError, shown
from ssl_runner.predict.images import Images, Wish, quiet_pillow
from ssl_runner.saved_model import SavedModel
from ssl_runner.train.evaluation import EVALUATION_BATCH

# M = models, b = images of a block, K = classes

_BATCHES, _BYTES = 64, 64 << 20
"""A block is of so many batches of an evaluation at most, and of about so many bytes of pixels."""


@dataclass(frozen=True)
class Asked:
    """What models said of a block of images.

    Attributes:
        rows_b: The images' places in their source.
        labels_b: Their classes, UNLABELED where unknown.
        logits_MbK: Each model's logits, float64.
    """

    rows_b: np.ndarray
    labels_b: np.ndarray
    logits_MbK: list[np.ndarray]


def block_size(shape: tuple[int, int, int], device: torch.device) -> int:
    """Images of a block: whole batches, which are then those of the training's own evaluation, so that
    the answers are the same to the bit."""
    batch = EVALUATION_BATCH[device.type]
    channels, height, width = shape
    return batch * int(np.clip(_BYTES // (batch * channels * height * width), 1, _BATCHES))


def check_alike(models: Sequence[SavedModel], names: Sequence[str]) -> None:
    """Refuse models that can't answer together.

    Raises:
        InputError: If they have other classes, or take images of another shape; names one.
    """
    first = models[0].card
    for saved, name in zip(models, names, strict=True):
        card = saved.card
        for what, one, two in (
            ("class names", card.class_names, first.class_names),
            ("image shape", card.image_shape, first.image_shape),
        ):
            if one != two:
                raise InputError(
                    f"models must have the same {what} to answer together, got {shown(one)} of {name} "
                    f"and {shown(two)} of {names[0]}. Ask them one by one."
                )


def ask(
    models: Sequence[SavedModel],
    images: Images,
    wish: Wish,
    device: torch.device,
    say: Callable[[str], None],
) -> Iterator[Asked]:
    """Ask models about images, block by block, showing how far it is on a terminal.

    Args:
        models: On the device.
        wish: How the images are wanted.
        device: Where the models are.
        say: Called in the end with each line for the user: what was converted or left out.

    Raises:
        InputError: If an image is refused, or too many can't be decoded.
    """
    size = block_size(wish.shape, device)
    with quiet_pillow(), shown_progress(f"{images.name}: asking", len(images.places_n)) as advance:
        for rows_b, pixels in images.read(wish, size):
            logits_MbK = [logits_of(saved, pixels, device) for saved in models]
            yield Asked(rows_b, images.labels_n[rows_b], logits_MbK)
            advance(len(rows_b))
    for line in images.notes(wish):
        say(line)
