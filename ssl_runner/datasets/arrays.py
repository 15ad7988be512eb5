"""What a data set is: images, labels and class names, checked once."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssl_runner.errors import Described, require

# N = images, C = channels, H and W = height and width, K = classes


def _described(array: npt.NDArray[np.generic]) -> Described:
    # The user's own data may be of any type, so nothing is assumed here.
    dtype, shape = getattr(array, "dtype", "unknown"), tuple(getattr(array, "shape", ()))
    return Described(f"{type(array).__name__} of {dtype}, shape {shape}")


def _is_array(array: npt.NDArray[np.generic], dtype: type[np.generic], dimensions: int) -> bool:
    return isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == dimensions


@dataclass(frozen=True, eq=False)
class ImageArrays:
    """Images with their labels.

    Raises:
        InputError: If types, shapes and lengths don't match, or a label is not a class.
    """

    images: npt.NDArray[np.uint8]  # (N, C, H, W), C-contiguous, 0 to 255
    labels: npt.NDArray[np.int64]  # (N,), in [0, K)
    class_names: tuple[str, ...]  # K names

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        require(
            _is_array(images, np.uint8, 4),
            "images",
            "a uint8 array of shape (N, C, H, W)",
            _described(images),
            "Gray images need a channel too: images[:, None].",
        )
        require(
            images.flags.c_contiguous,
            "images",
            "C-contiguous",
            Described(f"strides {images.strides}"),
            "Pass them through np.ascontiguousarray.",
        )
        require(
            _is_array(labels, np.int64, 1),
            "labels",
            "an int64 array of shape (N,)",
            _described(labels),
            "Convert them with labels.astype(np.int64).",
        )
        require(
            len(images) == len(labels),
            "labels",
            f"as many as the {len(images)} images",
            len(labels),
            "Were both read from the same part of the data?",
        )
        classes = len(self.class_names)
        strays = np.flatnonzero((labels < 0) | (labels >= classes))
        require(
            len(strays) == 0,
            "labels",
            f"in [0, {classes}), one for each of class_names",
            Described(f"{labels[strays[0]]} for image {strays[0]}" if len(strays) else ""),
            "Is a class name missing, or do the labels start at 1?",
        )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """The two parts of a data set. Equal data have equal digests on every machine.

    Raises:
        InputError: If the two parts have different classes, or images of different shapes.
    """

    name: str
    train: ImageArrays
    test: ImageArrays
    digest: str = ""  # computed from the arrays when it is left out

    def __post_init__(self) -> None:
        train, test = self.train, self.test
        require(
            train.class_names == test.class_names,
            "class_names of test",
            f"those of train {train.class_names}",
            test.class_names,
            "Give both parts the same ones.",
        )
        require(
            train.images.shape[1:] == test.images.shape[1:],
            "images of test",
            f"shaped as those of train {train.images.shape[1:]}",
            test.images.shape[1:],
            "Resize one of them.",
        )
        if not self.digest:
            object.__setattr__(self, "digest", digest_of(train, test))


def digest_of(train: ImageArrays, test: ImageArrays) -> str:
    """Sixteen hex digits of SHA-256 over class names, shapes and every byte of the arrays."""
    sha256 = hashlib.sha256(json.dumps([train.class_names, test.class_names]).encode())
    for array in (train.images, train.labels, test.images, test.labels):
        sha256.update(f"{array.dtype.str} {array.shape}".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()[:16]
