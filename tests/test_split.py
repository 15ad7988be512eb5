"""Who keeps a label: nested, balanced over the classes, seeded, and exact in its counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_runner.errors import InputError
from ssl_runner.labels import UNLABELED
from ssl_runner.split import digest, first_labels, split_labels, stratified_sample

# N = images, K = classes

examples = settings(max_examples=100, deadline=None, derandomize=True)

FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.999, 1.0)
BALANCED_N = np.arange(60000) % 10


@st.composite
def labels(draw: st.DrawFn) -> np.ndarray:
    """Classes of 1 to 60 images each, with gaps between their numbers, in any order."""
    sizes = draw(st.lists(st.integers(1, 60), min_size=1, max_size=6))
    names = draw(st.lists(st.integers(0, 100), min_size=6, max_size=6, unique=True))
    labels_N = np.repeat(names[: len(sizes)], sizes)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(labels_N)


def test_the_smallest_split_as_it_stands() -> None:
    # A table may hold trials of several releases: the same seed must mean the same labels.
    labels_N = np.array([0, 1] * 6)
    assert split_labels(labels_N, 0.34, split_seed=0).tolist() == [1, 4, 6, 11]
    assert split_labels(labels_N, 0.50, split_seed=0).tolist() == [0, 1, 4, 5, 6, 11]
    assert split_labels(labels_N, 0.34, split_seed=1).tolist() == [6, 8, 9, 11]
    assert stratified_sample(labels_N, 5, seed=0).tolist() == [0, 3, 6, 10, 11]
    assert digest(np.array([2, 4])) == "8576369844afdb7e"


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_each_class_keeps_exactly_its_share(fraction: float) -> None:
    kept = split_labels(BALANCED_N, fraction, split_seed=3)
    assert np.bincount(BALANCED_N[kept]).tolist() == [round(6000 * fraction)] * 10
    assert kept.dtype == np.int64
    assert (np.diff(kept) > 0).all()


@pytest.mark.parametrize(
    ("images", "fraction", "kept"),
    [
        (10, 0.05, 1),  # half an image is rounded up
        (10, 0.149, 1),
        (10, 0.15, 2),
        (10, 1.0, 10),
        (1, 0.5, 1),
        (3, 0.999, 3),
    ],
)
def test_shares_are_rounded_to_whole_images(images: int, fraction: float, kept: int) -> None:
    assert len(split_labels(np.zeros(images, dtype=np.int64), fraction, split_seed=0)) == kept


@examples
@given(labels(), st.integers(0, 2**40))
def test_smaller_fractions_are_nested_in_larger_ones(labels_N: np.ndarray, seed: int) -> None:
    smaller: set[int] = set()
    for fraction in (0.5, 0.6, 0.75, 0.9, 1.0):
        kept = set(split_labels(labels_N, fraction, seed).tolist())
        assert smaller <= kept
        smaller = kept
    assert smaller == set(range(len(labels_N)))


@examples
@given(labels(), st.floats(0.5, 1), st.integers(0, 2**40))
def test_every_class_is_within_half_an_image_of_its_share(
    labels_N: np.ndarray, fraction: float, seed: int
) -> None:
    kept = split_labels(labels_N, fraction, seed)
    assert len(np.unique(kept)) == len(kept)
    for k in np.unique(labels_N):
        share = fraction * (labels_N == k).sum()
        assert abs((labels_N[kept] == k).sum() - share) <= 0.5 + 1e-9


def test_the_seed_alone_decides() -> None:
    kept = [split_labels(BALANCED_N, 0.1, seed) for seed in (0, 0, 1)]
    assert np.array_equal(kept[0], kept[1])
    # Two seeds share a tenth of a tenth of the images, as independent choices do.
    assert 480 < len(np.intersect1d(kept[0], kept[2])) < 720


def test_each_class_has_an_order_of_its_own() -> None:
    blocks_N = np.repeat([0, 1], 1000)
    kept = split_labels(blocks_N, 0.1, split_seed=0)
    assert not np.array_equal(kept[:100], kept[100:] - 1000)


def test_a_class_does_not_depend_on_the_others() -> None:
    # Renaming or adding a class elsewhere moves no label within this one.
    one = split_labels(np.repeat([0, 1], 100), 0.3, split_seed=5)
    other = split_labels(np.repeat([0, 1, 2], [100, 100, 50]), 0.3, split_seed=5)
    assert np.array_equal(one, other[other < 200])


def test_a_class_without_a_label_is_an_error_that_says_what_would_do() -> None:
    labels_N = np.repeat([0, 1], [1000, 20])
    message = r"got 0\.01: a class of 20 images keeps none\. Try 0\.05 or more\."
    with pytest.raises(ValueError, match=message):
        split_labels(labels_N, 0.01, split_seed=0)
    assert len(split_labels(labels_N, 0.05, split_seed=0)) == 51  # as the message says


@examples
@given(st.data(), labels(), st.integers(0, 2**40))
def test_a_sample_has_the_classes_own_proportions(
    data: st.DataObject, labels_N: np.ndarray, seed: int
) -> None:
    count = data.draw(st.integers(1, len(labels_N)))
    chosen = stratified_sample(labels_N, count, seed)
    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    assert chosen.dtype == np.int64
    for k in np.unique(labels_N):
        exact = count * (labels_N == k).sum() / len(labels_N)
        assert np.floor(exact) <= (labels_N[chosen] == k).sum() <= np.ceil(exact)
    assert np.array_equal(chosen, stratified_sample(labels_N, count, seed))


def test_a_sample_of_balanced_classes_is_balanced() -> None:
    chosen = stratified_sample(BALANCED_N, 5000, seed=1)
    assert np.bincount(BALANCED_N[chosen]).tolist() == [500] * 10
    assert not np.array_equal(chosen, stratified_sample(BALANCED_N, 5000, seed=2))


def test_sample_and_split_of_one_seed_are_independent() -> None:
    # Both draw from the seed; the labels must not be the images that were held out, or the rest.
    sample, kept = stratified_sample(BALANCED_N, 6000, 4), split_labels(BALANCED_N, 0.1, 4)
    assert 480 < len(np.intersect1d(sample, kept)) < 720


@pytest.mark.parametrize("count", [-1, 0, 11])
def test_a_sample_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"must be in \[1, 10\], got {count}\. Choose fewer"):
        stratified_sample(np.zeros(10, dtype=np.int64), count, seed=0)


def test_the_digest_tells_choices_apart_and_knows_no_types() -> None:
    assert digest(np.array([1, 2, 3])) == digest(np.array([1, 2, 3], dtype=np.uint8))
    assert digest(np.arange(10)[::2]) == digest(np.array([0, 2, 4, 6, 8]))
    choices = [[], [0], [1], [0, 1], [1, 0], [256], [0, 0]]
    assert len({digest(np.array(choice, dtype=np.int64)) for choice in choices}) == len(choices)
    assert len(digest(np.array([], dtype=np.int64))) == 16


# ---- so many labels, in place of a share ----


@examples
@given(labels_N=labels(), data=st.data())
def test_the_first_labels_are_as_many_as_asked_for_and_balanced(
    labels_N: np.ndarray, data: st.DataObject
) -> None:
    without = data.draw(st.integers(0, 5))
    labels_N = np.concatenate([np.full(without, UNLABELED), labels_N])
    classes, sizes_K = np.unique(labels_N[without:], return_counts=True)
    count = data.draw(st.integers(len(classes), int(sizes_K.sum())))
    first = first_labels(labels_N, count, split_seed=5)
    assert len(first) == count
    assert (np.diff(first) > 0).all()
    taken_K = np.array([(labels_N[first] == name).sum() for name in classes])
    assert taken_K.sum() == count  # none without a label
    assert (taken_K >= 1).all()
    exact_K = count * sizes_K / sizes_K.sum()
    # A class that gets one image though its share is less takes it from the others.
    lacking = np.maximum(1 - exact_K, 0).sum()
    assert (taken_K < exact_K + 1).all() or (taken_K[taken_K >= exact_K + 1] == 1).all()
    assert (taken_K > exact_K - 1 - np.ceil(lacking)).all()
    np.testing.assert_array_equal(first, first_labels(labels_N, count, split_seed=5))


@pytest.mark.parametrize("fraction", [0.0005, 0.01, 0.1, 1.0])
def test_where_shares_are_whole_images_the_first_labels_are_those_of_a_fraction(
    fraction: float,
) -> None:
    first = first_labels(BALANCED_N, round(60000 * fraction), split_seed=3)
    np.testing.assert_array_equal(first, split_labels(BALANCED_N, fraction, split_seed=3))


@pytest.mark.parametrize("count", [0, 1, 2, 13])
def test_a_number_of_first_labels_that_does_not_suit_the_data_is_refused(count: int) -> None:
    labels_N = np.array([0, 1, 2] * 4 + [UNLABELED])
    with pytest.raises(
        InputError, match=rf"the first of rounds must be in \[3, 12\], a label .*, got {count}. Try 12."
    ):
        first_labels(labels_N, count, split_seed=0)
