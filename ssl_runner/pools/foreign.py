"""Images of another set, mixed into an unlabeled pool."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.errors import Described, require
from ssl_runner.keyed_random import generator
from ssl_runner.pools.settings import MADE_UP

# M = foreign images, n = images of the unlabeled pool, N = training images, C, H, W as ever

# One stream of random numbers per purpose (`noise` has 5 and 6 under the same seed).
_REPLACED, _TAKEN = 7, 8

_MADE = 4096
"""Different images that are made up: some megabytes; a larger pool has each several times."""


def with_foreign(
    dataset: ImageDataset, names: Iterable[str | None], say: Callable[[str], None] = print
) -> ImageDataset:
    """A data set with foreign images of these sets beside its own, once for all trials; None names
    none.

    Raises:
        InputError: If they are of another shape, or the data set's own.
        DataError: If they can't be loaded.
    """
    missing = sorted({name for name in names if name is not None} - dataset.foreign.keys())
    if not missing:
        return dataset
    loaded = {name: load_foreign(name, dataset, say) for name in missing}
    return dataclasses.replace(dataset, foreign=dict(dataset.foreign) | loaded)


def load_foreign(name: str, dataset: ImageDataset, say: Callable[[str], None] = print) -> np.ndarray:
    """Images of a set in the shape of a data set's, uint8, (M, C, H, W).

    Args:
        name: `noise`: pixels that are independent and uniform over 0 to 255, the same at every call.
            `digits`: scikit-learn's, resized (bilinear) and repeated over the channels. Else a data
            set's name. Of either, the training images.
        dataset: Whose unlabeled pool they are for.
        say: Called with each line for the user.

    Raises:
        InputError: If they are of another shape, or the data set's own.
        DataError: If they can't be loaded.
    """
    shape = dataset.train.images.shape[1:]
    if name == MADE_UP:
        return generator((0, _TAKEN)).integers(0, 256, (_MADE, *shape), dtype=np.uint8)
    is_own = name == dataset.name
    fix = f"Try {MADE_UP}, which suits every data set."
    require(not is_own, "foreign_images", "another set than the data set itself", name, fix)
    train = load_dataset(name, say=say).train
    images_MCHW: np.ndarray = train.images
    if name == "digits":
        return resized(images_MCHW, shape)
    fits = images_MCHW.shape[1:] == shape
    described = Described(f"{name}'s {images_MCHW.shape[1:]}")
    fix = f"{MADE_UP} and digits suit every shape."
    require(fits, "foreign_images", f"of the data set's own shape {tuple(shape)}", described, fix)
    return images_MCHW


def resized(images_M1HW: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Gray images in another shape (C, H, W)."""
    _, height, width = shape
    made = np.stack(
        [
            np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
            for image in images_M1HW[:, 0]
        ]
    )
    return np.ascontiguousarray(np.broadcast_to(made[:, None], (len(made), *shape)))


def replace_some(
    unlabeled: np.ndarray, share: float, training_images: int, foreign_images: int, split_seed: int
) -> tuple[np.ndarray, int]:
    """Replace a share of an unlabeled pool by foreign images, so that its size stays what it is.

    Under the same seed and pool, what a smaller share replaces, a larger one replaces too, by the same
    images. Where there are fewer foreign images than that takes, each comes about equally often.

    Args:
        unlabeled: Indices of the pool, (n,), rising.
        share: In [0, 1], rounded to whole images.
        training_images: N: the foreign images have the indices from here on.
        foreign_images: M.
        split_seed: Fixes the choice.

    Returns:
        The pool, rising, with its foreign images last; and how many those are.
    """
    count = int(np.floor(share * len(unlabeled) + 0.5))
    kept = generator((split_seed, _REPLACED)).permutation(len(unlabeled))[count:]
    order_M = generator((split_seed, _TAKEN)).permutation(foreign_images)
    taken = training_images + order_M[np.arange(count) % foreign_images]
    return np.concatenate([unlabeled[np.sort(kept)], np.sort(taken)]).astype(np.int64), count
