"""What one trial trains, validates and tests on: indices into arrays that all trials share."""

from dataclasses import dataclass

import numpy as np

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageArrays, ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.labels import UNLABELED
from ssl_runner.pools.choose import choose_pools
from ssl_runner.pools.classes import Known, known_classes
from ssl_runner.split import digest, first_labels, stratified_sample

# N = images of an array, C = channels, H and W = height and width, K = classes

# The subset is the same for every seed: it is a smaller data set, not another sample.
_SUBSET_SEED = 0


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """What one trial sees: whole arrays, shared and read-only, and indices into them.

    Attributes:
        images_NCHW: All training images, uint8.
        foreign_MCHW: Images of another set, which have the indices from N on; None: there are none.
        targets_N: The classes given to them, `UNLABELED` for every image that is not in the labeled
            pool; M longer where there are foreign images.
        hidden_N: The true classes of all of them, `UNLABELED` where unknown, K where it is none of the
            model's classes; used only for the table's diagnostics.
        labeled, unlabeled: The two pools, disjoint and rising. A foreign image may be there twice.
        validation, test: Pairs of images (uint8) and classes to evaluate on; `test` is None where
            the test images validate.
        test_places: Where each test image stands in the data set's own test images.
        classes: Names of the classes that are labeled, (K,).
        split_digest: Digest of the choice of labeled images.
        pools_digest: Digest of both pools and of the labels as given.
        flipped: How many labels were flipped.
        foreign: How many images of the unlabeled pool are foreign.
        class_mismatch: Share of the unlabeled pool's classes that are not labeled; None: there is no
            such pool, or images without a label are in it.
        test_left_out: Test images of classes that are not labeled.
    """

    images_NCHW: np.ndarray
    foreign_MCHW: np.ndarray | None = None
    targets_N: np.ndarray
    hidden_N: np.ndarray
    labeled: np.ndarray
    unlabeled: np.ndarray
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray] | None
    test_places: np.ndarray
    classes: tuple[str, ...]
    split_digest: str
    pools_digest: str
    flipped: int = 0
    foreign: int = 0
    class_mismatch: float | None = None
    test_left_out: int = 0


def prepare(config: TrialConfig, dataset: ImageDataset, labeled: np.ndarray | None = None) -> TrialData:
    """Choose the images a trial trains, validates and tests on.

    `label_fraction` is a share of the images that have a label; those that have none are always in
    the unlabeled pool. Of classes that are not labeled no image is evaluated on.

    Args:
        config: The trial's settings.
        dataset: The data set, with the foreign images that the trial uses.
        labeled: Of a round: the images whose labels it has, in any order. No other label enters the
            training. None: the trial is no round.

    Raises:
        InputError: If the data set is too small for the subset, the holdout or the label fraction, or
            the pools can't be as the settings want them.
    """
    assert (labeled is None) == (config.data.label_budgets is None)
    train, test, known = dataset.train, dataset.test, known_of(config, dataset)
    pool, held_out = training_pool(config, dataset)
    test_places = np.arange(len(test.labels))
    if config.data.subset is not None:
        share_of_test = max(1, round(len(test.labels) * config.data.subset / len(train.labels)))
        test_places = stratified_sample(test.labels, share_of_test, _SUBSET_SEED)
    is_known = known.is_one(test.labels[test_places])
    test_left_out, test_places = int((~is_known).sum()), test_places[is_known]
    test_pair = _evaluated(test, test_places, known, "test")
    validation, final_test = test_pair, None
    if held_out is not None:
        validation, final_test = _evaluated(train, held_out, known, "holdout"), test_pair
    elif dataset.validation is not None:
        of_its_own = np.flatnonzero(known.is_one(dataset.validation.labels))
        validation = _evaluated(dataset.validation, of_its_own, known, "validation")
        final_test = test_pair
    pools = choose_pools(config, dataset, pool, known, labeled)
    if config.batches.last_batch == "drop" and len(pools.labeled) < config.batches.batch_size:
        raise InputError(
            f"last_batch must not drop all there is, got drop with {len(pools.labeled)} labeled images "
            f"and batch_size {config.batches.batch_size}. Try last_batch partial, or a smaller "
            "batch_size."
        )
    foreign, hidden_N = pools.foreign_MCHW, known.numbered(train.labels)
    if foreign is not None:
        hidden_N = np.concatenate([hidden_N, np.full(len(foreign), len(known.names))])
    # The labels of the other images do not enter the training at all.
    targets_N = np.full(len(hidden_N), UNLABELED, dtype=np.int64)
    targets_N[pools.labeled] = pools.given_n
    return TrialData(
        images_NCHW=train.images,
        foreign_MCHW=foreign,
        targets_N=targets_N,
        hidden_N=hidden_N,
        labeled=pools.labeled,
        unlabeled=pools.unlabeled,
        validation=validation,
        test=final_test,
        test_places=test_places,
        classes=known.names,
        split_digest=digest(pools.labeled),
        pools_digest=digest(np.concatenate([pools.labeled, pools.given_n, pools.unlabeled])),
        flipped=pools.flipped,
        foreign=pools.foreign,
        class_mismatch=pools.class_mismatch,
        test_left_out=test_left_out,
    )


def known_of(config: TrialConfig, dataset: ImageDataset) -> Known:
    """The classes that a trial labels, and so its model knows.

    Raises:
        InputError: If one is unknown or named twice, or there are fewer than two.
    """
    return known_classes(config.pools.labeled_classes, dataset.train.class_names)


def _evaluated(
    arrays: ImageArrays, places: np.ndarray, known: Known, part: str
) -> tuple[np.ndarray, np.ndarray]:
    """Images to evaluate on, and their classes as the model numbers them.

    Raises:
        InputError: If there is none.
    """
    if not len(places):
        raise InputError(
            f"labeled_classes must be of classes with {part} images, got none for "
            f"{', '.join(known.names)}. Name others."
        )
    is_whole = len(places) == len(arrays)  # then no copy is made
    chosen = slice(None) if is_whole else places
    return arrays.images[chosen], known.numbered(arrays.labels[chosen])


def with_label(config: TrialConfig, dataset: ImageDataset) -> np.ndarray:
    """The training images of a trial that have a label in the data, sorted indices.

    Raises:
        InputError: As `training_pool` does.
    """
    pool, _ = training_pool(config, dataset)
    return with_label_in(config, dataset, pool)


def with_label_in(config: TrialConfig, dataset: ImageDataset, pool: np.ndarray) -> np.ndarray:
    """Those of some training images that have a label of a class that is labeled."""
    has_label: np.ndarray = pool[known_of(config, dataset).is_one(dataset.train.labels[pool])]
    return has_label


def first_labeled(config: TrialConfig, dataset: ImageDataset) -> np.ndarray:
    """The images whose labels the first of a trial's rounds has, sorted indices.

    Raises:
        InputError: If the budgets do not suit the data.
    """
    has_label = with_label(config, dataset)
    budgets = config.data.budgets
    if budgets[-1] > len(has_label):
        raise InputError(
            f"rounds must not take more labels than the {len(has_label)} that there are, got "
            f"{budgets[-1]}. Leave it out."
        )
    first = first_labels(dataset.train.labels[has_label], budgets[0], config.data.split_seed)
    chosen: np.ndarray = has_label[first]
    return chosen


def training_pool(config: TrialConfig, dataset: ImageDataset) -> tuple[np.ndarray, np.ndarray | None]:
    """The training images that a trial uses, with and without a label, and its holdout.

    Returns:
        Sorted indices of both; the second is None without a holdout.

    Raises:
        InputError: If the data set is too small for the subset or the holdout, or has a validation
            part of its own beside a holdout.
    """
    labels_N, holdout = dataset.train.labels, config.data.holdout
    pool = np.arange(len(labels_N))
    if config.data.subset is not None:
        pool = stratified_sample(labels_N, config.data.subset, _SUBSET_SEED)
    if not holdout:
        return pool, None
    if dataset.validation is not None:
        raise InputError(
            "holdout must be 0 for data with a validation part of their own, got "
            f"{holdout}. Leave it out."
        )
    has_label = with_label_in(config, dataset, pool)
    if holdout >= len(has_label):
        what = "training images" if len(has_label) == len(pool) else "labeled training images"
        raise InputError(f"holdout must be less than the {len(has_label)} {what}, got {holdout}.")
    held_out = has_label[stratified_sample(labels_N[has_label], holdout, config.data.split_seed)]
    return np.setdiff1d(pool, held_out, assume_unique=True), held_out
