"""Wrong labels: how many, which, and what they say instead."""

import numpy as np

from ssl_runner.datasets.decoded.mapped import was_read
from ssl_runner.keyed_random import generator

# n = labeled images, N = images, C, H, W as ever, K = classes

# One stream of random numbers per purpose (`split` and `rounds` have 0 to 4 under the same seed).
_WHICH, _WHERE = 5, 6

_OF_A_CLASS = 1000
"""So many images make a class's mean: enough for its looks, and few to read from a large file."""


def flip_labels(
    labels_n: np.ndarray,
    classes: int,
    share: float,
    split_seed: int,
    nearest_K: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Flip a share of the labels, over all classes together.

    Under the same seed and labels, what a smaller share flips, a larger one flips too, to the same
    class.

    Args:
        labels_n: Classes, in [0, K), (n,).
        classes: K, at least 2.
        share: In [0, 1), rounded to whole labels. It is the share that is wrong afterwards; where a
            paper draws the new label among all K classes, its own among them, a K-th of its rate isn't.
        split_seed: Fixes the choice.
        nearest_K: Where each class's flipped labels go (`confusion`); None: to any other class with
            the same probability (`symmetric`). Both as in Patrini et al. 2017, section 5, there with
            confusions chosen by hand.

    Returns:
        The labels as given, and the places of those that were flipped, rising.
    """
    count = int(np.floor(share * len(labels_n) + 0.5))
    flipped = generator((split_seed, _WHICH)).permutation(len(labels_n))[:count]
    shift_n = generator((split_seed, _WHERE)).integers(1, classes, len(labels_n))
    given_n = labels_n.copy()
    if nearest_K is None:
        given_n[flipped] = (labels_n[flipped] + shift_n[flipped]) % classes
    else:
        given_n[flipped] = nearest_K[labels_n[flipped]]
    return given_n, np.sort(flipped)


def nearest_classes(images_NCHW: np.ndarray, labels_N: np.ndarray, classes: int) -> np.ndarray:
    """The class that each class is likeliest taken for: that of the nearest mean image, by the
    Euclidean distance of the pixels.

    It takes no model, so it is the same for every method and seed. Its limit: what people, or models,
    confuse may look unlike in the mean. Of Fashion-MNIST it finds shirt and pullover, sandal and
    sneaker; but an ankle boot it takes for a bag.

    Args:
        images_NCHW: uint8; they may be a map of a file.
        labels_N: Their true classes, in [0, K), any other number where they do not count; the first
            thousand images of each class do.
        classes: K, at least 2; each has an image.

    Returns:
        For each class another one, the lower number of equally near ones, (K,).
    """
    means = []
    for k in range(classes):
        places = np.flatnonzero(labels_N == k)[:_OF_A_CLASS]
        # Whole sums: the same on every machine.
        total = images_NCHW[places].sum(axis=0, dtype=np.int64)
        was_read(images_NCHW, len(places), scattered=True)
        means.append(total.ravel() / len(places))
    means_KD = np.stack(means)
    distance_KK = np.stack([((means_KD - mean_D) ** 2).sum(axis=1) for mean_D in means_KD])
    np.fill_diagonal(distance_KK, np.inf)
    return np.asarray(distance_KK.argmin(axis=1))
