"""Data in which some training images have no label: what full and a label fraction mean there."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from ssl_runner.command import parse
from ssl_runner.config import SweepConfig, TrialConfig
from ssl_runner.datasets import ImageArrays, ImageDataset
from ssl_runner.labels import UNLABELED
from ssl_runner.report import words
from ssl_runner.report.rerun import command_of
from ssl_runner.results import compare
from ssl_runner.results.compare import label_curve
from ssl_runner.split import split_labels, stratified_sample
from ssl_runner.suited import suited
from ssl_runner.train import fit, prepare
from ssl_runner.train.evaluation import Evaluation
from tests.builders import frame_of, trial_row

SECONDS = {"train_seconds", "evaluate_seconds", "images_per_second"}


@pytest.fixture(scope="module")
def known(fashion_mnist: ImageDataset) -> ImageDataset:
    """2,000 real training images, each with its label."""
    train, test = fashion_mnist.train, fashion_mnist.test
    first = ImageArrays(train.images[:2000], train.labels[:2000], train.class_names)
    return ImageDataset(
        "known", first, ImageArrays(test.images[:500], test.labels[:500], test.class_names)
    )


@pytest.fixture(scope="module")
def blanked(known: ImageDataset) -> ImageDataset:
    """The same with a label for the tenth that `label_fraction` 0.1 chooses."""
    labels = np.full(2000, UNLABELED)
    kept = split_labels(known.train.labels, 0.1, split_seed=0)
    labels[kept] = known.train.labels[kept]
    train = ImageArrays(known.train.images, labels, known.train.class_names)
    return dataclasses.replace(known, name="blanked", train=train, digest="")


@pytest.mark.parametrize("method", ["pass", "fixmatch"])
def test_blank_labels_give_the_run_of_hidden_ones_to_the_bit(
    known: ImageDataset, blanked: ImageDataset, method: str
) -> None:
    results = []
    for dataset, fraction in ((known, 0.1), (blanked, 1.0)):
        config = TrialConfig.of(label_fraction=fraction, method=method, epochs=2, threshold=0.3)
        data = prepare(config, dataset)
        results.append(
            fit(config, data, device=torch.device("cpu"), report=lambda metrics, state: None)
        )
    hidden, blank = results
    assert all(torch.equal(hidden.weights[name], blank.weights[name]) for name in hidden.weights)
    for one, other in zip(hidden.history, blank.history, strict=True):
        differing = {name for name in one if one[name] != other[name]} - SECONDS
        assert differing == (set() if method == "pass" else {"pseudo_accuracy"})
        assert other["pseudo_accuracy"] is None  # no label is known to judge them by


def test_full_means_every_label_there_is(known: ImageDataset, blanked: ImageDataset) -> None:
    data = prepare(TrialConfig(), blanked)
    assert np.array_equal(data.labeled, split_labels(known.train.labels, 0.1, 0))
    assert len(data.unlabeled) == 1799
    assert np.array_equal(data.targets_N, blanked.train.labels)


def test_a_fraction_is_of_the_labels_there_are(blanked: ImageDataset) -> None:
    labeled = np.flatnonzero(blanked.train.labels != UNLABELED)
    half = prepare(TrialConfig.of(label_fraction=0.5), blanked)
    assert set(half.labeled) < set(labeled)
    kept, had = (np.bincount(blanked.train.labels[some]) for some in (half.labeled, labeled))
    assert np.array_equal(kept, np.floor(had / 2 + 0.5))
    assert len(half.labeled) + len(half.unlabeled) == 2000


def test_a_holdout_is_taken_from_the_labels(blanked: ImageDataset) -> None:
    data = prepare(TrialConfig.of(holdout=50), blanked)
    assert len(data.validation[1]) == 50
    assert (data.validation[1] != UNLABELED).all()
    assert len(data.labeled) == 151
    assert len(data.unlabeled) == 1799
    with pytest.raises(ValueError, match="less than the 201 labeled training images, got 201"):
        prepare(TrialConfig.of(holdout=201), blanked)


def test_a_subset_keeps_the_share_of_images_without_a_label(blanked: ImageDataset) -> None:
    data = prepare(TrialConfig.of(subset=1000), blanked)
    assert len(data.labeled) + len(data.unlabeled) == 1000
    assert abs(len(data.labeled) - 100) <= 5


def test_images_without_a_label_are_drawn_apart_from_every_class() -> None:
    labels_N = np.array([0, 1] * 50)
    some = np.where(np.arange(100) < 50, labels_N, UNLABELED)
    chosen = stratified_sample(some, 20, seed=0)
    assert np.bincount(some[chosen] + 1).tolist() == [10, 5, 5]


def test_a_validation_part_of_its_own_validates(known: ImageDataset) -> None:
    part = ImageArrays(known.train.images[:100], known.train.labels[:100], known.train.class_names)
    dataset = dataclasses.replace(known, validation=part, digest="")
    data = prepare(TrialConfig(), dataset)
    assert np.array_equal(data.validation[1], part.labels)
    assert data.test is not None
    assert len(data.test[1]) == 500
    assert dataset.columns()["validation"] == "own"
    with pytest.raises(ValueError, match="holdout must be 0 for data with a validation part"):
        prepare(TrialConfig.of(holdout=10), dataset)


# ---- the default study ----


def described(trials: tuple[TrialConfig, ...]) -> list[str]:
    return [f"{trial.description.removesuffix(' seed 0')}, {trial.batches.order}" for trial in trials]


def test_the_default_study_asks_whether_the_others_are_worth_using() -> None:
    sweep = SweepConfig(label_fractions=(0.1, 0.5))
    assert described(sweep.trials()) == [
        "CNN full, interleave",
        "CNN partial 0.1, interleave",
        "CNN partial 0.5, interleave",
    ]
    # All in paired order: as many steps for `pass` as for fixmatch.
    assert described(sweep.trials(has_unlabeled=True)) == [
        "CNN full, paired",
        "CNN full fixmatch, paired",
        "CNN partial 0.1, paired",
        "CNN partial 0.5, paired",
    ]


@pytest.mark.parametrize(
    ("settings", "full"),
    [
        ({"methods": ("pass", "pi_model")}, ["CNN full, interleave", "CNN full pi_model, paired"]),
        ({"full_methods": ("pass",)}, ["CNN full, interleave"]),
        ({"methods": ("pi_model",), "full_methods": ("pass",)}, ["CNN full, interleave"]),
        ({"methods": ("fixmatch",)}, ["CNN full fixmatch, paired"]),
    ],
)
def test_methods_that_were_chosen_are_kept_to(settings: dict[str, Any], full: list[str]) -> None:
    sweep = SweepConfig(label_fractions=(0.1,), **settings)
    assert described(sweep.trials(has_unlabeled=True))[: len(full)] == full
    assert len(sweep.trials(has_unlabeled=True)) == len(full) + len(sweep.methods)
    assert described(sweep.trials())[0] == "CNN full, interleave"


def test_one_trial_on_all_labels_takes_the_method_that_is_named() -> None:
    sweep = parse("train", "", ["--method", "fixmatch", "--threshold", "0.5"], single=True).sweep
    (trial,) = sweep.trials(has_unlabeled=True)
    assert (trial.config, trial.unlabeled.method, trial.unlabeled.threshold) == (
        "full",
        "fixmatch",
        0.5,
    )
    (trial,) = sweep.trials()
    assert trial.unlabeled.method == "pass"


def test_what_is_missing_or_rare_is_said_before_anything_trains(blanked: ImageDataset) -> None:
    sweep, lines = suited(SweepConfig(), blanked)
    assert sweep.label_fractions == (0.05, 0.1, 0.25, 0.5)
    least = np.bincount(blanked.train.labels[blanked.train.labels != UNLABELED]).min()
    assert lines[0] == (
        "1,799 of 2,000 training images have no label: full means the 201 labels that there are"
    )
    assert lines[1].startswith(f"label fractions 0.01 are left out: of the {least} labeled images of ")
    prepare(sweep.trial.replace(label_fraction=0.05), blanked)
    with pytest.raises(ValueError, match="must leave every class a labeled image, got 0.01"):
        prepare(sweep.trial.replace(label_fraction=0.01), blanked)

    chosen = SweepConfig(label_fractions=(0.01, 0.5))
    assert suited(chosen, blanked)[0] == chosen  # it will be refused, not changed


def test_a_class_with_few_labels_is_named(known: ImageDataset) -> None:
    labels = known.train.labels.copy()
    labels[np.flatnonzero(labels == 3)[4:]] = UNLABELED
    train = ImageArrays(known.train.images, labels, known.train.class_names)
    _, lines = suited(SweepConfig(), dataclasses.replace(known, train=train, digest=""))
    assert "classes with fewer than 10 labeled training images: Dress (4)" in lines
    assert suited(SweepConfig(), known)[1] == []


# ---- the comparison ----


@pytest.fixture(scope="module")
def rows() -> Any:
    sweep = SweepConfig(label_fractions=(0.1,), seeds=(0, 1))
    gains = {"pass": 0.0, "fixmatch": 0.03}
    return frame_of(
        *(
            trial_row(
                trial,
                test_accuracy=0.6
                + 0.2 * (trial.config == "full")
                + 0.01 * trial.batches.seed
                + gains[trial.unlabeled.method],
                labeled_images=200 if trial.config == "full" else 20,
            )
            for trial in sweep.trials(has_unlabeled=True)
        )
    )


def test_full_with_a_method_is_compared_with_full_without(rows: Any) -> None:
    table = compare(rows).set_index(["config", "method"])
    assert table.loc[("full", "fixmatch"), "to_pass_mean"] == pytest.approx(0.03)
    assert table.loc[("full", "fixmatch"), "to_full_mean"] == pytest.approx(0.03)
    assert table.loc[("partial", "pass"), "to_full_mean"] == pytest.approx(-0.2)
    of_full = {
        (row["config"], row["method"]): words.difference(row, "full")
        for row in compare(rows).to_dict("records")
    }
    assert of_full[("full", "pass")] == "–"
    assert of_full[("full", "fixmatch")].startswith("+3.00")


def test_each_curve_ends_in_its_own_full(rows: Any) -> None:
    curve = label_curve(rows)
    points = {
        (row["method"], row["labeled_images"]): round(row["test_accuracy_mean"], 3)
        for row in curve.to_dict("records")
    }
    assert points == {("pass", 20): 0.605, ("pass", 200): 0.805, ("fixmatch", 200): 0.835}


def test_the_page_s_command_runs_the_same_trials(rows: Any) -> None:
    (_, _, _, *arguments) = command_of(rows).split()
    again = parse("tune", "", arguments).sweep
    ids = {trial.settings_id for trial in again.trials(has_unlabeled=True)}
    assert ids == set(rows["trial_id"])


def test_a_macro_average_counts_each_class_alike() -> None:
    evaluation = Evaluation(loss=1.0, accuracy=0.91, confusion=[[90, 0, 0], [9, 1, 0], [0, 0, 0]])
    assert evaluation.macro_accuracy == pytest.approx((1 + 0.1) / 2)  # the third class has no image


def test_the_macro_average_is_shown_where_it_says_something_else(rows: Any) -> None:
    assert "test_macro_accuracy" not in words.metrics_of(compare(rows))
    apart = rows.assign(test_macro_accuracy=rows["test_accuracy"] - 0.1)
    assert words.metrics_of(compare(apart))["test_macro_accuracy"] == "macro acc"
    older = rows.assign(test_macro_accuracy=np.nan)
    assert "test_macro_accuracy" not in words.metrics_of(compare(older))
