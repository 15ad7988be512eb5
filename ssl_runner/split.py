"""Which images keep their label, validate or test: seeded, by class, equal in every process."""

import hashlib

import numpy as np

from ssl_runner.errors import InputError
from ssl_runner.keyed_random import generator
from ssl_runner.labels import UNLABELED

# N = images, K = classes

# One stream of random numbers per purpose, so that none of them shifts another.
_LABELS, _SAMPLE, _TEST = 0, 1, 2

# Its key must not be negative. No class has such a number.
_KEY_OF_UNLABELED = (1 << 32) - 1


def _shuffled_classes(labels_N: np.ndarray, seed: int, stream: int) -> list[np.ndarray]:
    """The indices of every class that occurs, each class shuffled on its own; the images without a
    label are like one more class."""
    return [
        generator((seed, stream, _KEY_OF_UNLABELED if k == UNLABELED else int(k))).permutation(
            np.flatnonzero(labels_N == k)
        )
        for k in np.unique(labels_N)
    ]


def split_labels(labels_N: np.ndarray, label_fraction: float, split_seed: int) -> np.ndarray:
    """Choose which of the labeled training images keep their label, balanced over the classes.

    Smaller fractions are nested in larger ones under the same seed, so that a curve over
    fractions adds labels and never swaps them.

    Args:
        labels_N: Class of every training image, shape (N,), `UNLABELED` where it has none.
        label_fraction: Share of each class that is kept, in (0, 1], rounded to whole images.
        split_seed: Fixes the choice; equal seeds give equal choices in every process.

    Returns:
        Sorted indices of the labeled images, int64.

    Raises:
        InputError: If a class would keep no image.
    """
    has_label = np.flatnonzero(labels_N != UNLABELED)
    kept = []
    for members in _shuffled_classes(labels_N[has_label], split_seed, _LABELS):
        count = int(np.floor(label_fraction * len(members) + 0.5))
        if count == 0:
            raise InputError(
                f"label_fraction must leave every class a labeled image, got {label_fraction:g}: "
                f"a class of {len(members)} images keeps none. Try {1 / len(members):.2g} or more."
            )
        kept.append(members[:count])
    chosen: np.ndarray = has_label[np.sort(np.concatenate(kept))].astype(np.int64)
    return chosen


def first_labels(labels_N: np.ndarray, count: int, split_seed: int) -> np.ndarray:
    """Choose exactly `count` of the labeled training images, balanced over the classes as by
    `split_labels`: where its shares are whole images, the choice is the same.

    Args:
        labels_N: Class of every training image, shape (N,), `UNLABELED` where it has none.
        count: Images to choose; at least one of each class is.
        split_seed: Fixes the choice; equal seeds give equal choices in every process.

    Returns:
        Sorted indices, int64, shape (count,).

    Raises:
        InputError: If `count` is less than the number of classes, or more than there are labels.
    """
    has_label = np.flatnonzero(labels_N != UNLABELED)
    classes = _shuffled_classes(labels_N[has_label], split_seed, _LABELS)
    if not len(classes) <= count <= len(has_label):
        raise InputError(
            f"the first of rounds must be in [{len(classes)}, {len(has_label)}], a label of each class "
            f"and no more than there are, got {count}. Try {min(10 * len(classes), len(has_label))}."
        )
    take_K = _apportioned(np.array([len(members) for members in classes]), count, least=1)
    chosen = [members[:n] for members, n in zip(classes, take_K, strict=True)]
    first: np.ndarray = has_label[np.sort(np.concatenate(chosen))].astype(np.int64)
    return first


def _apportioned(sizes_K: np.ndarray, count: int, least: int = 0) -> np.ndarray:
    """`count` images shared out in proportion to the classes' sizes (largest remainder), each class
    getting at least so many; of equal remainders the first class's counts."""
    exact_K = count * sizes_K / sizes_K.sum()
    take_K: np.ndarray = np.maximum(np.floor(exact_K).astype(int), least)
    while take_K.sum() > count:  # small classes got more than their share
        take_K[np.where(take_K > least, take_K - exact_K, -np.inf).argmax()] -= 1
    largest_remainders = np.argsort(-(exact_K - take_K), kind="stable")[: count - take_K.sum()]
    take_K[largest_remainders] += 1
    return take_K


def stratified_sample(labels_N: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose exactly `count` images in the classes' own proportions (largest remainder).

    Args:
        labels_N: Class of every image, shape (N,); images without a label count as one more class.
        count: Images to choose, in [1, N].
        seed: Fixes the choice.

    Returns:
        Sorted indices, int64, shape (count,).

    Raises:
        InputError: If `count` is not in [1, N].
    """
    if not 1 <= count <= len(labels_N):
        raise InputError(
            f"the number of images to choose must be in [1, {len(labels_N)}], got {count}. "
            "Choose fewer, or leave it out for all."
        )
    classes = _shuffled_classes(labels_N, seed, _SAMPLE)
    take_K = _apportioned(np.array([len(members) for members in classes]), count)
    chosen = [members[:n] for members, n in zip(classes, take_K, strict=True)]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def draw_test(labels_N: np.ndarray, test_fraction: float, test_seed: int) -> np.ndarray:
    """Choose the test images of a data set that names none, balanced over the classes.

    Args:
        labels_N: Class of every labeled image, shape (N,); two images or more of each class.
        test_fraction: Share of each class, in (0, 1), rounded to whole images; at least one of each
            class is chosen, and one is not.
        test_seed: Fixes the choice.

    Returns:
        Sorted indices of the test images, int64.
    """
    chosen = []
    for members in _shuffled_classes(labels_N, test_seed, _TEST):
        assert len(members) >= 2
        count = int(np.floor(test_fraction * len(members) + 0.5))
        chosen.append(members[: min(max(count, 1), len(members) - 1)])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def digest(indices: np.ndarray) -> str:
    """Sixteen hex digits that identify a choice of images."""
    return hashlib.sha256(np.ascontiguousarray(indices, dtype="<i8").tobytes()).hexdigest()[:16]
