"""What one trial trains, validates and tests on: indices into arrays that all trials share."""

from dataclasses import dataclass

import numpy as np

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.labels import UNLABELED
from ssl_runner.split import digest, first_labels, split_labels, stratified_sample

# N = images of an array, C = channels, H and W = height and width, K = classes

# The subset is the same for every seed: it is a smaller data set, not another sample.
_SUBSET_SEED = 0


@dataclass(frozen=True)
class TrialData:
    """What one trial sees: whole arrays, shared and read-only, and indices into them.

    Attributes:
        images_NCHW: All training images, uint8.
        targets_N: Their classes, `UNLABELED` for every image that is not in the labeled pool.
        hidden_N: The classes of all training images, `UNLABELED` where unknown, used only for the
            table's diagnostics.
        labeled, unlabeled: The two pools, disjoint and sorted.
        validation, test: Pairs of images (uint8) and classes to evaluate on; `test` is None where
            the test images validate.
        test_places: Where each test image stands in the data set's own test images.
        classes: Names of the classes, (K,).
        split_digest: Digest of the choice of labeled images.
    """

    images_NCHW: np.ndarray
    targets_N: np.ndarray
    hidden_N: np.ndarray
    labeled: np.ndarray
    unlabeled: np.ndarray
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray] | None
    test_places: np.ndarray
    classes: tuple[str, ...]
    split_digest: str


def prepare(config: TrialConfig, dataset: ImageDataset, labeled: np.ndarray | None = None) -> TrialData:
    """Choose the images a trial trains, validates and tests on.

    `label_fraction` is a share of the images that have a label; those that have none are always in
    the unlabeled pool.

    Args:
        config: The trial's settings.
        dataset: The data set.
        labeled: Of a round: the images whose labels it has, in any order. No other label enters the
            training. None: the trial is no round.

    Raises:
        InputError: If the data set is too small for the subset, the holdout or the label fraction.
    """
    assert (labeled is None) == (config.data.label_budgets is None)
    train, test = dataset.train, dataset.test
    pool, held_out = training_pool(config, dataset)
    test_places = np.arange(len(test.labels))
    if config.data.subset is not None:
        share_of_test = max(1, round(len(test.labels) * config.data.subset / len(train.labels)))
        test_places = stratified_sample(test.labels, share_of_test, _SUBSET_SEED)
    is_whole = len(test_places) == len(test.labels)  # then no copy is made
    chosen = slice(None) if is_whole else test_places
    test_pair = (test.images[chosen], test.labels[chosen])
    validation, final_test = test_pair, None
    if held_out is not None:
        validation, final_test = (train.images[held_out], train.labels[held_out]), test_pair
    elif dataset.validation is not None:
        validation, final_test = (dataset.validation.images, dataset.validation.labels), test_pair
    if labeled is not None:
        labeled = np.sort(labeled).astype(np.int64)
    elif config.config == "full":
        labeled = pool[train.labels[pool] != UNLABELED]
    else:
        labeled = pool[
            split_labels(train.labels[pool], config.data.label_fraction, config.data.split_seed)
        ]
    if config.batches.last_batch == "drop" and len(labeled) < config.batches.batch_size:
        raise InputError(
            f"last_batch must not drop all there is, got drop with {len(labeled)} labeled images and "
            f"batch_size {config.batches.batch_size}. Try last_batch partial, or a smaller batch_size."
        )
    # The labels of the other images do not enter the training at all.
    targets_N = np.full(len(train.labels), UNLABELED, dtype=np.int64)
    targets_N[labeled] = train.labels[labeled]
    return TrialData(
        images_NCHW=train.images,
        targets_N=targets_N,
        hidden_N=train.labels,
        labeled=labeled,
        unlabeled=np.setdiff1d(pool, labeled, assume_unique=True),
        validation=validation,
        test=final_test,
        test_places=test_places,
        classes=train.class_names,
        split_digest=digest(labeled),
    )


def with_label(config: TrialConfig, dataset: ImageDataset) -> np.ndarray:
    """The training images of a trial that have a label in the data, sorted indices.

    Raises:
        InputError: As `training_pool` does.
    """
    pool, _ = training_pool(config, dataset)
    has_label: np.ndarray = pool[dataset.train.labels[pool] != UNLABELED]
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
    has_label = pool[labels_N[pool] != UNLABELED]
    if holdout >= len(has_label):
        what = "training images" if len(has_label) == len(pool) else "labeled training images"
        raise InputError(f"holdout must be less than the {len(has_label)} {what}, got {holdout}.")
    held_out = has_label[stratified_sample(labels_N[has_label], holdout, config.data.split_seed)]
    return np.setdiff1d(pool, held_out, assume_unique=True), held_out
