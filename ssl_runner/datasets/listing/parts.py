"""Which image of a listing goes into which part, and its class as a number."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

import numpy as np
import numpy.typing as npt

from ssl_runner.datasets.listing.listing import Listing, Part
from ssl_runner.datasets.listing.natural import natural_order
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError, shown
from ssl_runner.labels import UNLABELED
from ssl_runner.split import draw_test

# n = listed images, K = classes

Indices = npt.NDArray[np.int64]

FEW = 10
"""A class with fewer labeled training images is named before anything trains."""


@dataclass(frozen=True, eq=False)
class Parts:
    """The parts of a listing, as sorted indices into it.

    Attributes:
        class_names: K names; a class's number is its position.
        labels: The class of each listed image, int64, shape (n,); UNLABELED: it has none.
        train: The training images, with or without a label.
        validation: The images of a validation part, all labeled; None: the data name none.
        test: The test images, all labeled.
        left_out: Images in no part, by the reason, with counts: the listing's own and those added here.
        test_fraction: The share of the labeled images drawn as test images; None: the data name them.
        notes: Lines for the user: what was drawn or left out, and which classes have few images.
    """

    class_names: tuple[str, ...]
    labels: Indices
    train: Indices
    validation: Indices | None
    test: Indices
    left_out: dict[str, int]
    test_fraction: float | None
    notes: tuple[str, ...]


def assign(listing: Listing, files: FileSettings) -> Parts:
    """Number the classes, and share out the images: as the data name the parts, or else drawn.

    Where the data name no part, or `train` alone, every class gives the share `test_fraction` of its
    labeled images to the test, and keeps and gives at least one. All images without a label are
    training images then.

    Raises:
        DataError: If that is no classification problem: no label, one class, a class of one image, a
            part without images, or a class that training never sees.
    """
    class_names = _class_names(listing)
    number: dict[str | None, int] = {name: k for k, name in enumerate(class_names)}
    number[None] = UNLABELED
    labels = np.fromiter((number[label] for label in listing.labels), np.int64, len(listing.labels))
    images_K = _count(labels, len(class_names))
    _refuse_too_few(listing.name, class_names, images_K)

    train, validation, test = _named_parts(listing.parts, len(labels))
    left_out, notes = dict(listing.left_out), []
    drawn = not len(test) and not len(validation)
    if drawn:
        labeled = np.flatnonzero(labels != UNLABELED)
        test = labeled[draw_test(labels[labeled], files.test_fraction, files.test_seed)]
        train = np.setdiff1d(train, test, assume_unique=True)
        notes.append(
            f"{listing.name}: {len(test):,} of its {len(labeled):,} labeled images drawn as test "
            f"images (a share of {files.test_fraction:.4g} of each class, seed {files.test_seed})"
        )
    for name, part in (("validation", validation), ("test", test)):
        if without := int((labels[part] == UNLABELED).sum()):
            left_out[f"without a label in the {name} part"] = without
            notes.append(f"{listing.name}: {without:,} {name} images without a label are left out")
    validation, test = (part[labels[part] != UNLABELED] for part in (validation, test))
    if not len(test):
        raise DataError(
            f"{listing.name}: must have a labeled test image, got none. Name some of its images test, "
            "or name no parts, to have test images drawn."
        )
    seen_K = _count(labels[train], len(class_names))
    if not seen_K.any():
        raise DataError(
            f"{listing.name}: must have a labeled training image, got none. Name some of its images "
            "train, or name no parts, to have test images drawn."
        )
    _refuse_unseen(
        listing.name, class_names, seen_K, {"validation": labels[validation], "test": labels[test]}
    )
    if few := _few(class_names, seen_K):
        notes.append(f"{listing.name}: classes with fewer than {FEW} labeled training images: {few}")
    return Parts(
        class_names=class_names,
        labels=labels,
        train=train,
        validation=validation if len(validation) else None,
        test=test,
        left_out=left_out,
        test_fraction=files.test_fraction if drawn else None,
        notes=tuple(notes),
    )


def _class_names(listing: Listing) -> tuple[str, ...]:
    names = listing.class_names
    if names is None:
        names = tuple(natural_order({label for label in listing.labels if label is not None}))
    for name in names:
        if any("\ud800" <= sign <= "\udfff" for sign in name):
            raise DataError(
                f"{listing.name}: names of classes must be text that can be written as UTF-8, got "
                f"{shown(name)}. Rename that class."
            )
    return names


def _count(labels: Indices, classes: int) -> Indices:
    """The labeled images of each class, shape (K,)."""
    return np.bincount(labels[labels != UNLABELED], minlength=classes).astype(np.int64)


def _named_parts(parts: Sequence[Part] | None, images: int) -> tuple[Indices, Indices, Indices]:
    """The indices of train, validation and test. Where no parts are named, all are train."""
    if parts is None:
        nothing = np.empty(0, np.int64)
        return np.arange(images), nothing, nothing
    number: dict[Part, int] = {"train": 0, "validation": 1, "test": 2}
    part_of = np.fromiter((number[part] for part in parts), np.int8, images)
    train, validation, test = (np.flatnonzero(part_of == k) for k in range(3))
    return train, validation, test


def _refuse_too_few(name: str, class_names: Sequence[str], images_K: Indices) -> None:
    """Refuse what can't be shared out: no label, one class, a class with one image."""
    occurring = list(compress(class_names, images_K))
    if not occurring:
        raise DataError(
            f"{name}: must have labeled images, got none. Is this the right column of labels, or "
            "folder?"
        )
    if len(occurring) == 1:
        raise DataError(
            f"{name}: must have labels of two classes or more, got only {shown(occurring[0])}. "
            "Is this the right column of labels, or folder?"
        )
    single = list(compress(class_names, images_K == 1))
    if single:
        raise DataError(
            f"{name}: every class must have two labeled images or more, got one of {_listed(single)}. "
            "Label another one, or leave the class out."
        )


def _refuse_unseen(
    name: str, class_names: Sequence[str], seen_K: Indices, parts: dict[str, Indices]
) -> None:
    for part, labels in parts.items():
        images_K = _count(labels, len(class_names))
        unseen = (images_K > 0) & (seen_K == 0)
        if unseen.any():
            what = _with_counts(class_names, images_K, unseen)
            raise DataError(
                f"{name}: labels of the {part} part must occur in the training part, got {what}. "
                "Spelled otherwise there? Else leave those images out, or move some to the "
                "training part."
            )


def _few(class_names: Sequence[str], seen_K: Indices) -> str:
    return _with_counts(class_names, seen_K, seen_K < FEW)


def _with_counts(class_names: Sequence[str], images_K: Indices, chosen_K: npt.NDArray[np.bool_]) -> str:
    counts = [f" ({count:,})" for count in images_K[chosen_K]]
    return _listed(list(compress(class_names, chosen_K)), counts)


def _listed(names: Sequence[str], after: Sequence[str] = (), most: int = 10) -> str:
    """Names in a line, each with what comes after it, and how many are not shown."""
    texts = [shown(name) + text for name, text in zip(names, after or [""] * len(names), strict=True)]
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(texts[:most]) + more
