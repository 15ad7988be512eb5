"""The two pools of a trial: who is labeled, with what, and who is not."""

from dataclasses import dataclass

import numpy as np

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import require
from ssl_runner.labels import UNLABELED
from ssl_runner.pools.classes import Known, class_numbers
from ssl_runner.pools.foreign import replace_some
from ssl_runner.pools.noise import flip_labels, nearest_classes
from ssl_runner.split import split_labels, thin_out

# N = training images, n = labeled ones, M = foreign ones, C, H, W as ever


@dataclass(frozen=True)
class Pools:
    """What a trial trains on.

    Attributes:
        labeled: Training images with a label, rising, (n,).
        given_n: The labels given to them, as the model numbers its classes.
        unlabeled: Training images without one, rising; from N on they are foreign.
        foreign_MCHW: The foreign images; None: there are none.
        flipped: How many of the labels are wrong on purpose.
        foreign: How many of the unlabeled images are foreign.
        class_mismatch: Share of the unlabeled images' own classes that are not labeled; None: it has
            no image, or some whose class nobody knows.
    """

    labeled: np.ndarray
    given_n: np.ndarray
    unlabeled: np.ndarray
    foreign_MCHW: np.ndarray | None
    flipped: int
    foreign: int
    class_mismatch: float | None


def choose_pools(
    config: TrialConfig,
    dataset: ImageDataset,
    pool: np.ndarray,
    known: Known,
    labeled: np.ndarray | None = None,
) -> Pools:
    """Choose both pools.

    In this order: who keeps a label, of the classes that are labeled; the long tail of these; wrong
    labels. Then the others: those of the unlabeled classes, their long tail, a share of that, and last
    foreign images in place of some. An image that a long tail leaves out is in neither pool, so that no
    setting of the one pool changes the other.

    Args:
        config: The trial's settings.
        dataset: The data set, with the foreign images that the trial uses.
        pool: Training images to choose from, rising.
        known: The classes that are labeled.
        labeled: Of a round: the images whose labels it has; None: the trial is no round.

    Raises:
        InputError: If the data can't give what the settings want.
    """
    settings, seed = config.pools.resolved(), config.data.split_seed
    train = dataset.train
    can_have = pool[known.is_one(train.labels[pool])]
    if labeled is None:
        _require_labels(known, train.labels[can_have])
        first = can_have
        if config.config != "full":
            first = can_have[split_labels(train.labels[can_have], config.data.label_fraction, seed)]
    else:
        first = np.unique(labeled)
    labeled = first
    if settings.labeled_imbalance > 1:
        of = train.labels[can_have], config.data.label_fraction, seed, settings.labeled_imbalance
        labeled = can_have[split_labels(*of)]
    given_n, flipped = known.numbered(train.labels[labeled]), 0
    if settings.label_noise:
        nearest = None
        if settings.noise_kind == "confusion":
            true_N = np.full(len(train.labels), UNLABELED, dtype=np.int64)
            true_N[can_have] = known.numbered(train.labels[can_have])
            nearest = nearest_classes(train.images, true_N, len(known.names))
        given_n, places = flip_labels(given_n, len(known.names), settings.label_noise, seed, nearest)
        flipped = len(places)
    others = np.setdiff1d(pool, first, assume_unique=True)
    _require_known(config, train.labels[others])
    if settings.unlabeled_classes is not None:
        others = _of_classes(settings.unlabeled_classes, others, config, dataset)
    of = train.labels[others], settings.unlabeled_fraction, seed, settings.unlabeled_imbalance
    unlabeled = others[thin_out(*of)]
    rule, fix = "enough for an unlabeled image", "Raise it, or 0 for none on purpose."
    is_left = len(unlabeled) > 0 or not len(others) or settings.unlabeled_fraction == 0
    require(is_left, "unlabeled_fraction", rule, settings.unlabeled_fraction, fix)
    classes, mismatch = np.unique(train.labels[others]), None
    if len(unlabeled) and classes[0] != UNLABELED:
        mismatch = float((~known.is_one(classes)).mean())
    count, images_MCHW = 0, None
    if settings.foreign_images is not None and len(unlabeled):
        images_MCHW = dataset.foreign[settings.foreign_images]
        unlabeled, count = replace_some(
            unlabeled, settings.foreign, len(train.labels), len(images_MCHW), seed
        )
    return Pools(labeled, given_n, unlabeled, images_MCHW, flipped, count, mismatch)


def _require_labels(known: Known, labels_n: np.ndarray) -> None:
    """Refuse a labeled class without any label.

    Raises:
        InputError: If there is one.
    """
    if known.numbers is None:
        return
    lacking = np.setdiff1d(known.numbers, labels_n)
    names = [known.names[known.numbers.index(int(number))] for number in lacking]
    fix = "Leave them out."
    require(not names, "labeled_classes", "classes with labeled training images", names, fix)


def _of_classes(
    text: str, others: np.ndarray, config: TrialConfig, dataset: ImageDataset
) -> np.ndarray:
    """Those of some training images that are of certain classes.

    Raises:
        InputError: If a class is unknown or named twice, or if none of its images is left.
    """
    train = dataset.train
    numbers = class_numbers("unlabeled_classes", text, train.class_names)
    chosen = others[np.isin(train.labels[others], numbers)]
    lacking = np.setdiff1d(numbers, train.labels[chosen])
    names = [train.class_names[number] for number in lacking]
    # With all labels no image of a labeled class is left for the unlabeled pool, and none is missed.
    is_there = not names or config.config == "full"
    fix = "Name others, or lower label_fraction."
    require(is_there, "unlabeled_classes", "classes that have images without a label", names, fix)
    return chosen


def _require_known(config: TrialConfig, labels_n: np.ndarray) -> None:
    """Refuse to sort images by their classes where nobody knows these.

    Raises:
        InputError: If a setting needs the classes of unlabeled images, and the data lack some.
    """
    for name in ("unlabeled_classes", "unlabeled_imbalance"):
        value = config.pools.changed.get(name)
        is_known = value is None or not (labels_n == UNLABELED).any()
        fix = "Nobody knows their classes. unlabeled_fraction and foreign suit them."
        require(is_known, name, "left out for data with images without a label", value, fix)
