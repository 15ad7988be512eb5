"""Labels that the model contradicts, by confident learning; and the folds that it needs."""

import numpy as np

from ssl_runner.errors import InputError, require
from ssl_runner.keyed_random import Permutation
from ssl_runner.selection.choice import Choice, check_probabilities, highest

# N = images, K = classes

# One stream of random numbers per purpose (see `strategies`).
_FOLDS = 1

_SLACK = 1e-12  # a mean of equal probabilities may round to a little more than each of them


def folds(labels_N: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Deal the images out to folds, balanced over the classes: sizes differ by one at most, in all and
    in each class.

    A model trained on the images of all folds but one gives the probabilities of that one's images.
    A class of a single image is never seen by the model that judges it.

    Args:
        labels_N: Class of every image, shape (N,).
        count: Folds, in [2, N].
        seed: Fixes the folds.

    Returns:
        The fold of each image, in [0, count), int64, shape (N,).

    Raises:
        InputError: If `count` is not in [2, N].
    """
    images = len(labels_N)
    require(2 <= count <= images, "folds", f"in [2, {images}], the number of images", count, "Try 5.")
    shuffled_N = Permutation(images, (seed, _FOLDS)).at(np.arange(images))
    # Class after class, each in random order, dealt out in turn.
    dealt_N = shuffled_N[np.argsort(labels_N[shuffled_N], kind="stable")]
    fold_N = np.empty(images, np.int64)
    fold_N[dealt_N] = np.arange(images) % count
    return fold_N


def confident_joint(labels_N: np.ndarray, probabilities_NK: np.ndarray) -> np.ndarray:
    """How many images of each label i are confidently of class j, shape (K, K).

    Northcutt, Jiang & Chuang 2021, section 3.1, equations 1 and 2: an image counts for the likeliest of
    the classes whose probability reaches the class's threshold, the mean probability of the class over
    the images with its label. An image that reaches no threshold is not counted.
    """
    classes = probabilities_NK.shape[1]
    threshold_K = np.full(classes, np.inf)  # of a class without a label nothing is known
    for k in np.unique(labels_N):
        threshold_K[k] = probabilities_NK[labels_N == k, k].mean() - _SLACK
    confident_NK = np.where(probabilities_NK >= threshold_K, probabilities_NK, -1)
    counted_N = confident_NK.max(axis=1) >= 0
    cells = labels_N[counted_N] * classes + confident_NK[counted_N].argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def suspects(labels_N: np.ndarray, probabilities_NK: np.ndarray) -> Choice:
    """Images whose label the model contradicts: likely mislabeled.

    Northcutt, Jiang & Chuang 2021, "Confident learning: estimating uncertainty in dataset labels"
    (JAIR 70), section 3: the confident joint, scaled to the number of labels of each class (equation
    3), says how many images of label i are of class j; as many are taken, those of the largest
    p(j) − p(i) ("prune by noise rate", section 3.2). An image that the model gives its own label is
    never a suspect.

    Args:
        labels_N: Label of each image, in [0, K), shape (N,).
        probabilities_NK: By models that were trained without the image (see `folds`), shape (N, K).

    Returns:
        The suspects, the most contradicted first; a score is how much likelier another class is than
        the label, in (0, 1].

    Raises:
        InputError: If the shapes, the labels or the probabilities are invalid.
    """
    probabilities_NK = np.asarray(probabilities_NK, np.float64)
    labels_N = np.asarray(labels_N)
    require(
        probabilities_NK.ndim == 2 and labels_N.shape == probabilities_NK.shape[:1],
        "labels and probabilities",
        "of shapes (N,) and (N, K)",
        (labels_N.shape, probabilities_NK.shape),
        "Give one label and one row for each image.",
    )
    images_N = np.arange(len(labels_N))
    check_probabilities(probabilities_NK, images_N)
    classes = probabilities_NK.shape[1]
    if len(labels_N) and not (np.issubdtype(labels_N.dtype, np.integer) and labels_N.min() >= 0):
        raise InputError(
            f"labels must be whole numbers from 0, got {labels_N.min()} among them. "
            "Leave out the images without a label."
        )
    require(
        not len(labels_N) or labels_N.max() < classes,
        "labels",
        f"below {classes}, the number of classes",
        int(labels_N.max(initial=0)),
        "Give the probabilities of all classes.",
    )
    labels_N = labels_N.astype(np.int64)
    joint_KK = confident_joint(labels_N, probabilities_NK)
    margin_NK = probabilities_NK - probabilities_NK[images_N, labels_N][:, None]
    contradicted_N = margin_NK.max(axis=1, initial=0.0) > 0
    suspected_N = np.zeros(len(labels_N), bool)
    for i in np.unique(labels_N):
        members = np.flatnonzero(labels_N == i)
        expected_K = np.rint(joint_KK[i] * (len(members) / joint_KK[i].sum())).astype(int)
        for j in np.flatnonzero(expected_K):
            if j != i:
                taken = highest(margin_NK[members, j], members, expected_K[j])
                suspected_N[taken.indices] = True
    found = np.flatnonzero(suspected_N & contradicted_N)
    return highest(margin_NK[found].max(axis=1, initial=0.0), found, len(found))
