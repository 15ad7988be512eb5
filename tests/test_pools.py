"""What the pools hold: nested, exact in counts, beside slow versions; what can't be is refused."""

import dataclasses
import itertools
import shlex
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_runner.command import parse
from ssl_runner.config import SweepConfig, TrialConfig
from ssl_runner.datasets import ImageArrays, ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.identity import identify
from ssl_runner.labels import UNLABELED
from ssl_runner.loader import PartiallyLabeledDataset
from ssl_runner.pools.classes import class_numbers
from ssl_runner.pools.foreign import load_foreign, replace_some, resized, with_foreign
from ssl_runner.pools.noise import flip_labels, nearest_classes
from ssl_runner.predict.__main__ import main as predict
from ssl_runner.report.rerun import command_of
from ssl_runner.results import load_trials
from ssl_runner.split import long_tail, split_labels, thin_out
from ssl_runner.study import sweep_from_settings
from ssl_runner.suited import suited
from ssl_runner.testing.processes import Runs
from ssl_runner.train import FitResult, TrialData, fit, prepare
from ssl_runner.tune.__main__ import main
from tests.builders import frame_of, trial_row
from tests.conftest import Answer
from tests.ranks import group, over_ranks

# N = training images, n = some of them, K = classes

examples = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**40)

NAMES = ("cat", "dog", "horse", "car", "ship")


def made(sizes: tuple[int, ...] = (40,) * 5, without: int = 0) -> ImageDataset:
    """Images of 4×4 that tell their class by their brightness, and some without a label."""
    rng = np.random.default_rng(1)
    labels_N = rng.permutation(np.repeat([*range(len(sizes)), UNLABELED], [*sizes, without]))
    parts: list[ImageArrays] = []
    for labels in (labels_N, np.arange(25) % len(sizes)):
        images = rng.integers(0, 40, (len(labels), 1, 4, 4)) + 40 * labels[:, None, None, None] + 40
        parts.append(ImageArrays(images.astype(np.uint8), labels.astype(np.int64), NAMES[: len(sizes)]))
    return ImageDataset("made", parts[0], parts[1])


DATA = made()


def prepared(dataset: ImageDataset = DATA, **changes: Any) -> TrialData:
    config = TrialConfig.of(**{"label_fraction": 0.5} | changes)
    dataset = with_foreign(dataset, [config.pools.resolved().foreign_images], lambda line: None)
    return prepare(config, dataset)


# ---- long tails ----


@examples
@given(st.lists(st.integers(1, 500), min_size=2, max_size=7), st.integers(1, 300))
def test_a_long_tail_is_the_formula_rounded_down(sizes: list[int], gamma: int) -> None:
    kept_K, last = long_tail(np.array(sizes), gamma), len(sizes) - 1
    for k, (size, kept) in enumerate(zip(sizes, kept_K.tolist(), strict=True)):
        # In whole numbers: kept ≤ n_k γ^(−k/(K−1)) < kept + 1, k from 0 on.
        assert kept**last * gamma**k <= size**last < (kept + 1) ** last * gamma**k


def test_the_papers_counts() -> None:
    # Kim et al. 2020: N_1 = 1500, γ = 100, ten classes.
    assert long_tail(np.full(10, 1500), 100).tolist() == [
        *(1500, 899, 539, 323, 193, 116, 69, 41, 25, 15)
    ]
    assert long_tail(np.array([5]), 10).tolist() == [5]  # one class has no tail


def test_the_tails_of_both_pools_are_apart() -> None:
    plain, tailed = prepared(), prepared(labeled_imbalance=20)
    assert [(tailed.targets_N == k).sum() for k in range(5)] == long_tail(np.full(5, 20), 20).tolist()
    assert set(tailed.labeled) < set(plain.labeled)
    assert np.array_equal(tailed.unlabeled, plain.unlabeled)  # who lost its label is in neither pool
    both = prepared(labeled_imbalance=20, unlabeled_imbalance=5)
    assert np.array_equal(both.labeled, tailed.labeled)
    counts = np.bincount(DATA.train.labels[both.unlabeled]).tolist()
    assert counts == long_tail(np.full(5, 20), 5).tolist()
    assert np.array_equal(both.validation[1], plain.validation[1])  # evaluated as ever


# ---- shares of the unlabeled pool ----


@examples
@given(st.lists(st.integers(-1, 3), min_size=1, max_size=60), seeds)
def test_smaller_shares_and_longer_tails_are_nested(labels: list[int], seed: int) -> None:
    labels_N, held = np.array(labels), {}
    for fraction, imbalance in itertools.product((0.0, 0.3, 0.5, 1.0), (1.0, 1.5)):
        try:
            places = thin_out(labels_N, fraction, seed, imbalance)
        except InputError:  # a class of one image has no tail
            continue
        assert (np.diff(places) > 0).all()
        assert np.array_equal(places, thin_out(labels_N, fraction, seed, imbalance))
        held[fraction, imbalance] = set(places.tolist())
        sizes = {k: labels.count(k) for k in sorted(set(labels) - {UNLABELED})}
        tail = dict(zip(sizes, long_tail(np.array([*sizes.values()]), imbalance), strict=True))
        for k in set(labels):
            most = tail.get(k, labels.count(k))
            assert (labels_N[places] == k).sum() == np.floor(fraction * most + 0.5)
    for (f, g), (more, less) in itertools.product(held, held):
        if f <= more and g >= less:
            assert held[f, g] <= held[more, less]
    assert held[1.0, 1.0] == set(range(len(labels)))


def test_without_unlabeled_images_every_method_learns_from_labels_alone() -> None:
    assert len(prepared(unlabeled_fraction=0).unlabeled) == 0
    assert prepared(unlabeled_fraction=0).class_mismatch is None
    of: dict[str, Any] = {"unlabeled_fraction": 0, "order": "paired", "ema": 0.9}
    weights = [trained(method=method, **of).weights for method in ("pass", "fixmatch")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


# ---- other classes ----


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("dog, cat", (0, 1)),
        ("3", (3,)),
        ("0-2, ship", (0, 1, 2, 4)),
        (" 4 ,0-1", (0, 1, 4)),
    ],
)
def test_classes_are_named_by_name_number_and_range(text: str, numbers: tuple[int, ...]) -> None:
    assert class_numbers("labeled_classes", text, NAMES) == numbers


def test_what_is_a_name_is_one() -> None:
    names = ("1", "0", "2-3", "0-1")
    assert class_numbers("labeled_classes", "1, 0-1", names) == (0, 3)


@pytest.mark.parametrize(
    ("unlabeled", "mismatch"),
    [("0-1", 0.0), ("1, ship", 0.5), ("car, ship", 1.0), ("1-4", 0.5), (None, 0.4)],
)
def test_a_model_knows_the_labeled_classes_alone(unlabeled: str | None, mismatch: float) -> None:
    data = prepared(labeled_classes="0-1, horse", unlabeled_classes=unlabeled, holdout=30)
    assert data.classes == ("cat", "dog", "horse")
    assert data.class_mismatch == mismatch
    assert len(data.labeled) == (120 - 30) // 2
    assert set(data.targets_N[data.labeled]) == {0, 1, 2}
    own = {0, 1, 2, 3, 4} if unlabeled is None else set(class_numbers("", unlabeled, NAMES))
    assert set(DATA.train.labels[data.unlabeled]) == own
    # Whoever is of no class of the model is 3 to the table's diagnostics: no pseudo-label is right.
    assert np.array_equal(data.hidden_N, np.minimum(DATA.train.labels, 3))
    assert len(data.validation[1]) == 30  # all of the holdout is of its classes
    assert data.test is not None
    assert data.test_left_out == 10
    assert np.array_equal(DATA.test.labels[data.test_places], data.test[1])
    assert np.array_equal(DATA.test.images[data.test_places], data.test[0])


def test_classes_are_numbered_anew() -> None:
    data = prepared(labeled_classes="dog, ship")
    assert data.classes == ("dog", "ship")
    true_n = DATA.train.labels[data.labeled]
    assert np.array_equal(data.targets_N[data.labeled], np.where(true_n == 1, 0, 1))
    assert set(data.validation[1]) == {0, 1}
    assert np.array_equal(DATA.test.labels[data.test_places] == 4, data.validation[1] == 1)


def test_the_labels_do_not_depend_on_the_other_classes() -> None:
    few = prepared(labeled_classes="1, 4")
    of_them = np.isin(DATA.train.labels[prepared().labeled], (1, 4))
    assert np.array_equal(few.labeled, prepared().labeled[of_them])


# ---- wrong labels ----


@examples
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), seeds)
def test_as_many_labels_are_flipped_as_asked_for(labels: list[int], seed: int) -> None:
    labels_n, before = np.array(labels), (labels, set[int]())
    for share in (0.0, 0.1, 0.25, 0.7, 0.99):
        given_n, flipped = flip_labels(labels_n, 5, share, seed)
        assert len(flipped) == int(share * len(labels) + 0.5)
        wrong = {place for place, label in enumerate(labels) if given_n[place] != label}
        assert wrong == set(flipped.tolist()) >= before[1]
        assert all(given_n[place] == before[0][place] for place in before[1])
        assert ((given_n >= 0) & (given_n < 5)).all()
        before = given_n.tolist(), wrong


def test_symmetric_noise_is_even_over_the_other_classes() -> None:
    given_n, _ = flip_labels(np.full(9000, 2), 4, 0.5, 7)
    counts = Counter(given_n.tolist())
    assert counts[2] == 4500
    assert all(abs(counts[k] - 1500) < 4 * 1500**0.5 for k in (0, 1, 3))


def test_a_confusion_is_the_nearest_mean_image() -> None:
    train = DATA.train
    means = [train.images[train.labels == k].mean(axis=0) for k in range(5)]
    slow = [
        min((np.square(means[j] - means[k]).sum(), j) for j in range(5) if j != k)[1] for k in range(5)
    ]
    nearest_K = nearest_classes(train.images, train.labels, 5)
    assert nearest_K.tolist() == slow
    data = prepared(label_noise=0.3, noise_kind="confusion")
    true_n, given_n = train.labels[data.labeled], data.targets_N[data.labeled]
    wrong = true_n != given_n
    assert data.flipped == wrong.sum() == 30
    assert np.array_equal(given_n[wrong], nearest_K[true_n[wrong]])


def test_noise_reaches_the_given_labels_alone() -> None:
    clean, noisy = prepared(holdout=20), prepared(holdout=20, label_noise=0.4)
    assert np.array_equal(clean.labeled, noisy.labeled)
    assert np.array_equal(clean.unlabeled, noisy.unlabeled)
    assert np.array_equal(clean.hidden_N, noisy.hidden_N)
    assert np.array_equal(clean.validation[1], noisy.validation[1])
    assert clean.split_digest == noisy.split_digest
    assert clean.pools_digest != noisy.pools_digest


# ---- foreign images ----


@examples
@given(st.integers(0, 50), st.integers(1, 20), seeds)
def test_foreign_images_replace_some_of_the_pool(size: int, count: int, seed: int) -> None:
    unlabeled, own, foreign = np.arange(size) * 2, set(range(0, 2 * size, 2)), Counter[int]()
    for share in (0.0, 0.25, 0.6, 1.0):
        pool, number = replace_some(unlabeled, share, 1000, count, seed)
        assert number == int(share * size + 0.5)
        assert len(pool) == size
        assert (np.diff(pool) >= 0).all()
        kept, taken = set(pool[pool < 1000].tolist()), Counter(pool[pool >= 1000].tolist())
        assert len(kept) == size - number
        assert kept <= own
        assert taken.total() == number
        assert taken >= foreign  # with repetition
        assert max(taken.values(), default=0) <= -(-number // count)
        assert max(taken, default=1000) < 1000 + count
        own, foreign = kept, taken


def test_a_batch_has_images_of_both_sets() -> None:
    more = np.arange(3 * 16, dtype=np.uint8).reshape(3, 1, 4, 4)
    targets = np.full(203, UNLABELED)
    rows = PartiallyLabeledDataset(DATA.train.images, targets, more)
    joined = torch.from_numpy(np.concatenate([DATA.train.images, more]))
    for indices in ([0, 202, 5, 200, 200], [7, 3], [201]):
        assert torch.equal(rows._images(indices), joined[indices])
    assert torch.equal(rows[202][0], joined[202])


def test_foreign_images_take_the_data_s_shape() -> None:
    noise = load_foreign("noise", DATA)
    assert noise.shape[1:] == (1, 4, 4)
    assert np.array_equal(noise, load_foreign("noise", DATA))
    assert abs(noise.mean() - 127.5) < 1
    gray = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8)
    assert np.array_equal(resized(gray, (1, 8, 8)), gray)
    small = resized(gray, (3, 4, 6))
    assert small.shape == (2, 3, 4, 6)
    assert np.array_equal(small[:, 0], small[:, 2])
    pytest.importorskip("sklearn")
    said: list[str] = []
    digits = load_foreign("digits", DATA, said.append)
    assert digits.shape == (1497, 1, 4, 4)
    assert said


def test_a_set_of_another_shape_is_refused() -> None:
    message = r"of the data set's own shape \(1, 4, 4\), got fashion_mnist's \(1, 28, 28\)\. noise and"
    with pytest.raises(InputError, match=message):
        load_foreign("fashion_mnist", DATA, lambda line: None)


def test_the_foreign_images_are_part_of_a_trial_s_identity() -> None:
    config = TrialConfig.of(foreign=0.5)
    dataset = with_foreign(DATA, ["noise"])
    (trial,) = identify([config], dataset.digest, dataset.foreign_digests)
    assert trial.sources == (f"foreign_images {dataset.foreign_digests['noise']}",)
    other = identify([config], dataset.digest, {"noise": "0"})[0]
    assert trial.settings_id == other.settings_id
    assert trial.trial_id != other.trial_id
    assert dataset.digest == DATA.digest
    assert with_foreign(dataset, ["noise", None]) is dataset


# ---- training ----


def trained(is_blind: bool = False, **changes: Any) -> FitResult:
    """A trial's result; blind: nobody knows the hidden labels."""
    of: dict[str, Any] = {
        "model": "tests.models:Linear",
        "batch_size": 16,
        "max_steps": 6,
        "precision": "fp32",
    }
    data = prepared(**of | {"method": "fixmatch"} | changes)
    if is_blind:
        data = dataclasses.replace(data, hidden_N=np.full_like(data.hidden_N, UNLABELED))
    config = TrialConfig.of(**{"label_fraction": 0.5, "method": "fixmatch"} | of | changes)
    return fit(
        config, data, device=torch.device("cpu"), report=lambda metrics, state: None, group=group()
    )


OF_ALL: dict[str, Any] = {
    "labeled_classes": "0-2",
    "unlabeled_classes": "1-4",
    "label_noise": 0.2,
    "foreign": 0.3,
    "labeled_imbalance": 2,
    "threshold": 0.0,
}
"""Some of each of these settings."""


def on_a_rank(rank: int, world_size: int) -> dict[str, np.ndarray]:
    weights = trained(**OF_ALL, precision="fp64").weights
    return {name: weight.numpy() for name, weight in weights.items()}


@pytest.mark.slow
def test_more_workers_do_not_change_the_pools(tmp_path: Path) -> None:
    alone = on_a_rank(0, 1)
    for weights in over_ranks(3, tmp_path, on_a_rank):
        for name, weight in weights.items():
            # Sums of 16 images in another order.
            np.testing.assert_allclose(weight, alone[name], rtol=0, atol=1e-12)


def test_no_hidden_label_reaches_the_training() -> None:
    seen, blind = trained(**OF_ALL), trained(is_blind=True, **OF_ALL)
    assert all(torch.equal(seen.weights[name], blind.weights[name]) for name in seen.weights)
    (one,), (other,) = seen.history, blind.history
    assert one["accepted_share"] == other["accepted_share"] == 1
    assert other["pseudo_accuracy"] is None
    # Two in four of the unlabeled classes, and three in ten images, can't be labeled rightly.
    assert 0 < one["pseudo_accuracy"] < 0.5
    assert len(seen.test.confusion) == 3
    assert sum(map(sum, seen.test.confusion)) == 15


# ---- settings ----


def test_settings_that_mean_nothing_are_no_part_of_a_trial() -> None:
    plain = TrialConfig()
    for changes in ({"noise_kind": "confusion"}, {"foreign_images": "digits"}):
        assert TrialConfig.of(**changes).settings_id == plain.settings_id
    assert TrialConfig.of(label_noise=0.1, noise_kind="symmetric").settings_id == (
        TrialConfig.of(label_noise=0.1).settings_id
    )
    assert TrialConfig.of(foreign=0.1).resolved().pools.foreign_images == "noise"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"unlabeled_fraction": 10},
            r"unlabeled_fraction must be in \[0, 1\], got 10\. 10 % is 0\.1\.",
        ),
        ({"label_noise": 1.0}, r"label_noise must be in \[0, 1\), got 1\.0\. 20 % is 0\.2\."),
        ({"labeled_imbalance": 0.5}, r"labeled_imbalance must be in \[1, inf\), got 0\.5\. 1 leaves"),
        ({"foreign": 2.0}, r"foreign must be in \[0, 1\], got 2\.0\. 25 % is 0\.25\."),
        ({"noise_kind": "pair", "label_noise": 0.1}, "noise_kind must be one of symmetric, confusion"),
        ({"foreign_images": "noize"}, r"got 'noize'\. Did you mean noise\?"),
        ({"foreign_images": "fashion_mnist"}, "another set than the data set itself"),
        ({"labeled_classes": "0,,1"}, "classes with a comma between them, got '0,,1'"),
        ({"labeled_classes": "6-2"}, r"of ranges that rise, got '6-2'\. Try '2-6'\."),
        ({"foreign": 0.1, "unlabeled_fraction": 0}, "foreign must be 0 with unlabeled_fraction 0"),
        (
            {"label_noise": 0.1, "selection": "margin", "label_budgets": "10 20"},
            r"label_noise must be left out with rounds, got 0\.1\.",
        ),
    ],
)
def test_what_can_not_be_is_refused_at_once(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrialConfig.of(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labeled_classes": "cat, dgo"}, r"got 'dgo'\. Did you mean dog\?"),
        ({"labeled_classes": "0-7"}, r"numbers in \[0, 4\], got '0-7'\. The last class is 4, ship\."),
        ({"labeled_classes": "0-2, dog"}, r"without repetition, .* Name dog \(1\) once\."),
        ({"labeled_classes": "cat"}, "labeled_classes must be at least two, got 'cat'"),
        ({"unlabeled_classes": "zebra"}, r"unlabeled_classes must be names of classes, or numbers"),
        ({"labeled_imbalance": 40}, r"class 5 of 5 would keep 0\.5 of its 20\. Try 20 or less\."),
        ({"unlabeled_imbalance": 21}, r"unlabeled_imbalance must leave every class an image, got 21"),
        ({"unlabeled_fraction": 0.01}, "enough for an unlabeled image, got 0.01"),
    ],
)
def test_what_the_data_can_not_give_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        prepared(**changes)
    assert "\n" not in str(refused.value)


def test_the_largest_imbalance_that_is_named_is_possible() -> None:
    assert len(prepared(labeled_imbalance=20).labeled) == long_tail(np.full(5, 20), 20).sum()
    uneven = np.repeat([0, 1, 2], [50, 3, 40])
    with pytest.raises(InputError, match=r"class 2 of 3 would keep 0\.95 .* Try 9 or less"):
        split_labels(uneven, 1.0, 0, imbalance=10)
    assert len(split_labels(uneven, 1.0, 0, imbalance=9)) == 50 + 1 + 4


def test_images_without_a_label_have_no_class_to_be_sorted_by() -> None:
    data = made(without=30)
    assert len(prepared(data, unlabeled_fraction=0.5).unlabeled) == (100 + 30) // 2
    assert prepared(data, foreign=0.5).foreign == 65
    assert prepared(data).class_mismatch is None
    for changes in ({"unlabeled_classes": "0-1"}, {"unlabeled_imbalance": 2}):
        with pytest.raises(InputError, match="left out for data with images without a label"):
            prepared(data, **changes)


def test_classes_without_a_label_or_a_test_image_are_refused() -> None:
    labels = np.where(DATA.train.labels == 2, UNLABELED, DATA.train.labels)
    lacking = dataclasses.replace(DATA, train=dataclasses.replace(DATA.train, labels=labels), digest="")
    with pytest.raises(InputError, match=r"classes with labeled training images, got \['horse'\]"):
        prepared(lacking, labeled_classes="1-3")
    assert prepared(lacking, labeled_classes="0, 1, 3").classes == ("cat", "dog", "car")
    test = ImageArrays(DATA.test.images[:1], np.array([4]), NAMES)
    with pytest.raises(InputError, match="must be of classes with test images, got none for cat, dog"):
        prepared(dataclasses.replace(DATA, test=test, digest=""), labeled_classes="0-1")


def test_full_has_all_labels_of_its_classes() -> None:
    full = prepared(label_fraction=1.0, labeled_classes="0-1", unlabeled_classes="0-1")
    assert (len(full.labeled), len(full.unlabeled)) == (80, 0)
    others = prepared(label_fraction=1.0, labeled_classes="0-1")
    assert (len(others.unlabeled), others.class_mismatch) == (120, 1.0)


def test_a_sweep_is_suited_to_the_classes_it_labels() -> None:
    sizes = (2, 40, 40, 40, 40)
    (sweep, lines), (of_many, none) = (
        suited(SweepConfig(trial=TrialConfig.of(labeled_classes=text)), made(sizes))
        for text in (None, "1-4")
    )
    assert "classes with fewer than 10 labeled training images: cat (2)" in lines
    assert sweep.label_fractions == (0.25, 0.5)
    assert of_many.label_fractions == (0.05, 0.1, 0.25, 0.5)
    assert not any("cat" in line for line in none)


# ---- grids one after another ----

STUDY: dict[str, Any] = {
    "name": "s",
    "configs": ["partial"],
    "label_fractions": [0.1],
    "methods": ["pass", "fixmatch"],
    "labeled_imbalance": 2,
    "grids": [
        {"unlabeled_fraction": [0.1, 1]},
        {"label_noise": [0, 0.2], "noise_kind": ["symmetric", "confusion"]},
        {"labeled_imbalance": [1]},
        {},
    ],
}


def test_grids_stand_one_after_another_around_a_base() -> None:
    sweep = sweep_from_settings(STUDY)
    found = [
        (pools.unlabeled_fraction, pools.label_noise, pools.noise_kind, pools.labeled_imbalance)
        for pools in (trial.pools for trial in sweep.trials())
    ][::2]
    assert found == [  # the base comes once
        (0.1, 0, None, 2),
        (1, 0, None, 2),
        (1, 0.2, "symmetric", 2),
        (1, 0.2, "confusion", 2),
        (1, 0, None, 1),
    ]
    assert sweep.size == 2 * (2 + 4 + 1 + 1)
    assert sweep.varying == ("unlabeled_fraction", "label_noise", "noise_kind", "labeled_imbalance")
    assert sweep.foreign_sets == set()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": {"foreign": [0.5]}}, "grids must be a list of grids, got"),
        ({"grids": [{"foreign": 0.5}]}, r"grids: foreign must be a list, got 0\.5"),
        ({"grids": [{"forein": [0.5]}]}, r"grids: unknown setting 'forein'\. Did you mean foreign\?"),
        ({"grids": [{"foreign": [2]}]}, r"foreign must be in \[0, 1\], got 2"),
        ({"grids": [{"methods": ["pass"]}]}, "grids: methods is a list of its own"),
        (
            {"grids": [{"foreign": [0.5]}], "grid": {"foreign": [0.1]}},
            "grids must be without an entry in grid, got 'foreign'",
        ),
        ({"grids": None, "noise_kind": "symmetric"}, "noise_kind must be left out without label_noise"),
        (
            {
                "grids": [{"foreign": [0.5]}],
                "search": {"lr": {"uniform": [0.1, 0.2]}},
                "samples": 2,
                "holdout": 5,
            },
            "grids must be left out with a search",
        ),
    ],
)
def test_grids_that_can_not_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep_from_settings(STUDY | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grids": [{"foreign": [0.5]}, {}], "labeled_imbalance": 1},
        {"grids": [{"labeled_classes": ["0-2, 4"], "unlabeled_classes": ["0-1", "5-6"]}, {}]},
        {"grids": None, "grid": {"label_noise": [0, 0.1], "noise_kind": ["symmetric", "confusion"]}},
    ],
)
def test_the_command_that_runs_grids_again_is_read_off_their_rows(changes: dict[str, Any]) -> None:
    sweep = sweep_from_settings(STUDY | changes)
    rows = frame_of(*(trial_row(trial, sweep=sweep.name) for trial in sweep.trials()))
    again = parse("tune", "", shlex.split(command_of(rows))[3:]).sweep
    ids = [{trial.settings_id for trial in one.trials()} for one in (sweep, again)]
    assert ids[0] == ids[1]


def test_a_flag_takes_its_setting_out_of_the_grids(tmp_path: Path) -> None:
    study = tmp_path / "s.yaml"
    study.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    sweep = parse("tune", "", [str(study), "--unlabeled-fraction", "0.5"]).sweep
    assert {trial.pools.unlabeled_fraction for trial in sweep.trials()} == {0.5}
    assert len(sweep.trials()) == 2 * 4


# ---- the real commands ----

SWEEP = (
    *("--dataset", "digits", "--name", "p", "--configs", "partial", "--label-fractions", "0.2"),
    *("--methods", "pass", "fixmatch", "--max-steps", "4", "--patience", "0", "--batch-size", "16"),
    *("--log", "--max-concurrent", "1", "--order", "paired", "--precision", "fp32"),
    *("--grids", "{}", "{foreign: [0.5]}"),
    "{labeled_classes: ['1-4'], unlabeled_classes: ['1-2', '8, 9'], label_noise: [0.25]}",
)


@pytest.mark.slow
def test_a_sweep_over_what_the_pools_hold(
    runs: Runs, tmp_path: Path, call: Callable[..., Answer]
) -> None:
    pytest.importorskip("sklearn")
    results = ("--results", str(tmp_path))
    runs.start("ssl_runner.tune", *SWEEP, *results).succeed()
    rows = load_trials(str(tmp_path))
    assert set(rows["status"]) == {"finished"}
    found = {
        tuple(None if value != value else value for value in row)
        for row in rows[
            ["method", "foreign_unlabeled_images", "class_mismatch", "flipped_labels"]
        ].itertuples(index=False, name=None)
    }
    noisy = round(0.25 * rows["labeled_images"].min())
    pool = rows["unlabeled_images"].max()
    points = [(0, 0.0, 0), (round(pool / 2), 0.0, 0), (0, 0.0, noisy), (0, 1.0, noisy)]
    assert found == {(method, *point) for method in ("pass", "fixmatch") for point in points}
    assert rows.groupby(rows["labeled_classes"].notna())["pools_digest"].nunique().tolist() == [2, 2]
    few = rows[rows["labeled_classes"].notna()]
    assert all(list(names) == ["1", "2", "3", "4"] for names in few["class_names"])
    assert (few["test_images"] + few["test_images_left_out"] == 300).all()
    assert [len(row["confusion"]) for row in few.to_dict("records")] == [4] * len(few)
    assert "8 of 8 trials are in" in call(main, *SWEEP, *results).stdout
    # A model of four classes answers with those.
    (model, *_) = [name for name in few["weights"].dropna()]
    asked = (str(tmp_path / model), "digits", "--output", str(tmp_path / "answers.parquet"))
    answer = call(predict, *asked, "--part", "validation")
    assert answer.returncode == 0, answer.stderr
    refused = call(predict, *asked, "--force")
    assert refused.returncode == 2
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--labeled-classes", "0-3, nein"), "error: labeled_classes must be names of classes, or"),
        (("--foreign", "0.5", "--foreign-images", "fashion_mnist"), "error: foreign_images must be of"),
        (("--labeled-imbalance", "500"), "error: labeled_imbalance must leave every class an image"),
    ],
)
def test_the_command_refuses_in_one_line(
    call: Callable[..., Answer], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    pytest.importorskip("sklearn")
    answer = call(main, "--dataset", "digits", *arguments, "--results", str(tmp_path))
    assert answer.returncode == 2
    assert answer.stderr.startswith(message)
    assert answer.stderr.count("\n") == 1
