"""Which images keep their label, validate or test: seeded, by class, equal in every process."""

import hashlib

import numpy as np

from ssl_runner.errors import InputError
from ssl_runner.keyed_random import generator
from ssl_runner.labels import UNLABELED

# N = images, K = classes

# One stream of random numbers per purpose, so that none of them shifts another (`rounds` has 3, `pools`
# from 5 on).
_LABELS, _SAMPLE, _TEST, _UNLABELED = 0, 1, 2, 4

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


def long_tail(sizes_K: np.ndarray, imbalance: float) -> np.ndarray:
    """How many images of each class a long tail keeps: ⌊n_k · γ^(−(k−1)/(K−1))⌋, k from 1 on.

    The exponential profile of Cui et al. 2019 (section 5.1), as Kim et al. 2020 (DARP, section 4)
    and those after them use it for semi-supervised learning, there with n_k the same for all classes.

    Args:
        sizes_K: Images of each class, n_k, in class order, (K,): the first class is the head.
        imbalance: γ, at least 1.
    """
    last = max(len(sizes_K) - 1, 1)
    shares_K = imbalance ** (-np.arange(len(sizes_K)) / last)
    # A product that is whole must not fall below it by a rounding error.
    return np.asarray(np.floor(sizes_K * shares_K + 1e-9), dtype=np.int64)


def _with_tail(name: str, sizes: list[int], imbalance: float) -> np.ndarray:
    """`long_tail`, where every class keeps an image.

    Raises:
        InputError: If one would keep none.
    """
    kept_K = long_tail(np.array(sizes), imbalance)
    if imbalance > 1 and not kept_K.all():
        k, last = int((kept_K == 0).argmax()), len(sizes) - 1
        most = min(size ** (last / place) for place, size in enumerate(sizes) if place)
        raise InputError(
            f"{name} must leave every class an image, got {imbalance:g}: class {k + 1} of {len(sizes)} "
            f"would keep {sizes[k] * imbalance ** (-k / last):.2g} of its {sizes[k]}. "
            f"Try {np.floor(most + 1e-9):g} or less."
        )
    return kept_K


def split_labels(
    labels_N: np.ndarray, label_fraction: float, split_seed: int, imbalance: float = 1.0
) -> np.ndarray:
    """Choose which of the labeled training images keep their label, balanced over the classes.

    Smaller fractions are nested in larger ones under the same seed, so that a curve over
    fractions adds labels and never swaps them; and larger imbalances in smaller ones.

    Args:
        labels_N: Class of every training image, shape (N,), `UNLABELED` where it has none.
        label_fraction: Share of each class that is kept, in (0, 1], rounded to whole images.
        split_seed: Fixes the choice; equal seeds give equal choices in every process.
        imbalance: γ of the `long_tail` that is then kept of these; 1: all of them.

    Returns:
        Sorted indices of the labeled images, int64.

    Raises:
        InputError: If a class would keep no image.
    """
    has_label = np.flatnonzero(labels_N != UNLABELED)
    classes = _shuffled_classes(labels_N[has_label], split_seed, _LABELS)
    sizes = [int(np.floor(label_fraction * len(members) + 0.5)) for members in classes]
    for members, size in zip(classes, sizes, strict=True):
        if size == 0:
            raise InputError(
                f"label_fraction must leave every class a labeled image, got {label_fraction:g}: "
                f"a class of {len(members)} images keeps none. Try {1 / len(members):.2g} or more."
            )
    kept_K = _with_tail("labeled_imbalance", sizes, imbalance)
    kept = [members[:count] for members, count in zip(classes, kept_K, strict=True)]
    chosen: np.ndarray = has_label[np.sort(np.concatenate(kept))].astype(np.int64)
    return chosen


def thin_out(labels_N: np.ndarray, fraction: float, split_seed: int, imbalance: float) -> np.ndarray:
    """Choose which images stay in the unlabeled pool: of each class a share of its long tail.

    Smaller fractions are nested in larger ones under the same seed, and larger imbalances in smaller
    ones.

    Args:
        labels_N: Class of every image that could, shape (N,). Images without one are like one more
            class, which no tail can reach.
        fraction: Share of each class that is kept, in [0, 1], rounded to whole images.
        split_seed: Fixes the choice.
        imbalance: γ of the `long_tail`, at least 1.

    Returns:
        Places among these images, rising, int64.

    Raises:
        InputError: If the tail would leave a class no image.
    """
    if fraction == 1 and imbalance == 1:
        return np.arange(len(labels_N))
    classes = _shuffled_classes(labels_N, split_seed, _UNLABELED)
    kept_K = np.array([len(members) for members in classes])
    known = slice(int((labels_N == UNLABELED).any()), None)  # np.unique has them first
    if len(kept_K[known]):
        kept_K[known] = _with_tail("unlabeled_imbalance", kept_K[known].tolist(), imbalance)
    counts_K = np.floor(fraction * kept_K + 0.5).astype(int)
    kept = [members[:count] for members, count in zip(classes, counts_K, strict=True)]
    return np.sort(np.concatenate([np.empty(0, np.int64), *kept])).astype(np.int64)


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
