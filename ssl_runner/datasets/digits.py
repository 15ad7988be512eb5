"""scikit-learn's handwritten digits (Alpaydin and Kaynak 1998), which come with its package."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ssl_runner.datasets.arrays import ImageArrays, ImageDataset
from ssl_runner.errors import DataError, InputError
from ssl_runner.split import stratified_sample

TEST_FRACTION = 1 / 6
_TEST_SEED = 0
_BRIGHTEST = 16


def load_digits(data_dir: Path | None, say: Callable[[str], None], fetch: bool = True) -> ImageDataset:
    """1,797 images of 8×8, values 0 to 16 scaled to 0 to 255 (v · 255 / 16, rounded).

    They have no test part of their own: a sixth is drawn, by class.

    Raises:
        InputError: If a folder is given: the images come with scikit-learn.
        DataError: If scikit-learn is not installed.
    """
    if data_dir is not None:
        raise InputError(
            f"data_dir must be left out for digits, which come with scikit-learn, got {data_dir}."
        )
    try:
        from sklearn.datasets import load_digits as sklearn_digits
    except ImportError:
        raise DataError(
            "the digits come with scikit-learn, which is not installed. "
            "Install it: pip install 'ssl_runner[digits]' (or scikit-learn)."
        ) from None
    found = sklearn_digits()
    images = np.rint(found.images * (255 / _BRIGHTEST)).astype(np.uint8)[:, None]
    labels = found.target.astype(np.int64)
    names = tuple(str(name) for name in found.target_names)
    drawn = stratified_sample(labels, round(len(labels) * TEST_FRACTION), _TEST_SEED)
    rest = np.setdiff1d(np.arange(len(labels)), drawn)
    train, test = (ImageArrays(images[chosen], labels[chosen], names) for chosen in (rest, drawn))
    say(f"digits: from scikit-learn, {len(drawn)} of {len(labels):,} drawn as test images")
    return ImageDataset("digits", train, test, test_fraction=TEST_FRACTION)
