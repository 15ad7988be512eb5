"""What a data set is: images, labels and class names, checked once."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_runner.datasets.decoded.mapped import was_read
from ssl_runner.errors import Described, require
from ssl_runner.labels import UNLABELED

_HASHED_AT_ONCE = 4096
"""Rows of an array."""

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
    labels: npt.NDArray[np.int64]  # (N,), in [0, K), UNLABELED where it is unknown
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
        strays = np.flatnonzero((labels < UNLABELED) | (labels >= classes))
        require(
            len(strays) == 0,
            "labels",
            f"in [0, {classes}), one for each of class_names, or {UNLABELED} where unknown",
            Described(f"{labels[strays[0]]} for image {strays[0]}" if len(strays) else ""),
            "Is a class name missing, or do the labels start at 1?",
        )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """The parts of a data set. Equal data have equal digests on every machine.

    Attributes:
        name: What it is called in the table: without a folder, so that it is the same everywhere.
        train: The training images; some or most of them may have no label.
        test: The test images, each with its label.
        validation: A validation part of its own, each image with its label; None: it has none.
        digest: Identifies the content; worked out from the arrays when it is left out.
        left_out: Images that are in its files and in no part.
        left_out_why: The reasons with their counts, in a line; empty: none is left out.
        test_fraction: Share of the labeled images drawn for the test; None: it has its own test part.
        foreign: Training images of other sets by name, uint8, of the same shape: what its unlabeled
            pools may be mixed with.

    Raises:
        InputError: If the parts have different classes, or images of different shapes; or if an image
            of the test or validation part has no label.
    """

    name: str
    train: ImageArrays
    test: ImageArrays
    digest: str = ""
    validation: ImageArrays | None = None
    left_out: int = 0
    left_out_why: str = ""
    test_fraction: float | None = None
    foreign: Mapping[str, npt.NDArray[np.uint8]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        train = self.train
        for name, part in (("test", self.test), ("validation", self.validation)):
            if part is None:
                continue
            require(
                train.class_names == part.class_names,
                f"class_names of {name}",
                f"those of train {train.class_names}",
                part.class_names,
                "Give all parts the same ones.",
            )
            require(
                train.images.shape[1:] == part.images.shape[1:],
                f"images of {name}",
                f"shaped as those of train {train.images.shape[1:]}",
                part.images.shape[1:],
                "Resize one of them.",
            )
            without = np.flatnonzero(part.labels == UNLABELED)
            require(
                len(without) == 0,
                f"labels of {name}",
                "known for every image",
                Described(f"none for {len(without):,} of {len(part):,}"),
                "Leave those images out, or put them among the training images.",
            )
        if not self.digest:
            object.__setattr__(self, "digest", digest_of(train, self.test, self.validation))

    @property
    def has_unlabeled(self) -> bool:
        """Whether some of the training images have no label."""
        return bool((self.train.labels == UNLABELED).any())

    def columns(self) -> dict[str, Any]:
        """What a trial's row says of the data set, beside its name and digest."""
        said = {
            "images_left_out": self.left_out,
            "left_out_why": self.left_out_why,
            "test_fraction": self.test_fraction,
        }
        # Else the settings say which: the test images, or a holdout of the training images.
        return said if self.validation is None else said | {"validation": "own"}

    @property
    def nbytes(self) -> int:
        """Bytes of all images but the foreign ones."""
        parts = (self.train, self.test, self.validation)
        return sum(part.images.nbytes for part in parts if part is not None)

    @property
    def foreign_nbytes(self) -> int:
        """Bytes of the foreign images."""
        return sum(images.nbytes for images in self.foreign.values())

    @property
    def foreign_digests(self) -> dict[str, str]:
        """What identifies the foreign images of each set."""
        found = {}
        for name, images in self.foreign.items():
            sha256 = hashlib.sha256(str(images.shape).encode())
            _hash_rows(sha256, images)
            found[name] = sha256.hexdigest()[:16]
        return found


def digest_of(train: ImageArrays, test: ImageArrays, validation: ImageArrays | None = None) -> str:
    """Sixteen hex digits of SHA-256 over class names, shapes and every byte of the arrays."""
    parts = (train, test) if validation is None else (train, test, validation)
    sha256 = hashlib.sha256(json.dumps([part.class_names for part in parts]).encode())
    for array in (array for part in parts for array in (part.images, part.labels)):
        sha256.update(f"{array.dtype.str} {array.shape}".encode())
        _hash_rows(sha256, array)
    return sha256.hexdigest()[:16]


def _hash_rows(sha256: Any, array: npt.NDArray[np.generic]) -> None:
    """Update a hash by every byte of an array."""
    for first in range(0, len(array), _HASHED_AT_ONCE):
        rows = array[first : first + _HASHED_AT_ONCE]
        sha256.update(np.ascontiguousarray(rows).data)
        was_read(array, len(rows), scattered=False)
