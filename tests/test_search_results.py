"""A search in the table: what was searched, the best so far, and what each setting decides."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_runner.config import TrialConfig
from ssl_runner.results import importance as measured
from ssl_runner.results.importance import FEWEST, importance
from ssl_runner.results.search_history import (
    search_history,
    searched_settings,
    searches,
    spans_magnitudes,
)
from tests.builders import failed_row, search_frame, trial_row

LR = (0.0001, 0.03, 0.001, 0.01, 0.003)
REACHED = (0.5, 0.75, 0.75, 0.625, 0.875)


def samples(
    values: list[dict[str, Any]],
    reached: list[float],
    sweep: str = "s",
    **settings: Any,
) -> list[dict[str, Any]]:
    """A search's rows: a sample for each of `values`, and what it reaches on the holdout."""
    rows = []
    for sample, (searched, accuracy) in enumerate(zip(values, reached, strict=True)):
        config = TrialConfig.of(**{"label_fraction": 0.01, "holdout": 600} | settings | searched)
        known = {"validation_accuracy": accuracy, "role": "search", "sample": sample}
        rows.append(trial_row(config.resolved(), sweep, **known, holdout_labels=600))
    return rows


def of_lr(**settings: Any) -> list[dict[str, Any]]:
    return samples([{"lr": lr} for lr in LR], list(REACHED), **settings)


# ---- which settings, which searches ----


def test_what_varies_among_the_samples_of_one_search_was_searched() -> None:
    rows = of_lr() + of_lr(method="fixmatch") + of_lr(method="fixmatch", label_fraction=0.1)
    frame = search_frame(*rows, trial_row(TrialConfig.of(dropout=0.5)))
    assert searched_settings(frame) == ("lr",)  # not the method, nor its own defaults
    found = searches(frame)
    assert [(one.keys["label_fraction"], one.keys["method"]) for one in found] == [
        (0.1, "fixmatch"),
        (0.01, "pass"),
        (0.01, "fixmatch"),
    ]
    for one in found:
        assert one.settings == ("lr",)
        assert one.samples["lr"].tolist() == list(LR)
        assert one.samples["sample"].tolist() == [0, 1, 2, 3, 4]


def test_a_setting_that_only_some_methods_take_is_searched_for_those() -> None:
    weights = [{"lr": lr, "unlabeled_weight": 100 * lr} for lr in LR]
    frame = search_frame(*of_lr(), *samples(weights, list(REACHED), method="fixmatch"))
    assert searched_settings(frame) == ("lr", "unlabeled_weight")
    assert [one.settings for one in searches(frame)] == [("lr",), ("lr", "unlabeled_weight")]


@pytest.mark.parametrize("own_draws", [False, True])
def test_an_axis_of_a_grid_is_not_searched(own_draws: bool) -> None:
    """Whether each of the grid's values gets the same samples or draws of its own."""
    rows = []
    for batch_size in (32, 64, 128):
        scale = batch_size if own_draws else 1
        values = [{"lr": lr / scale, "dropout": 0.1 * (n % 2)} for n, lr in enumerate(LR)]
        rows += samples(values, list(REACHED), batch_size=batch_size)
    found = searches(search_frame(*rows))
    assert [one.keys["batch_size"] for one in found] == [32, 64, 128]
    assert {one.settings for one in found} == {("dropout", "lr")}
    assert {len(one.samples) for one in found} == {5}


def test_two_axes_of_a_grid_beside_a_searched_choice() -> None:
    values = [{"threshold": (0.8, 0.9, 0.95)[n % 3]} for n in range(6)]
    rows = []
    for batch_size in (32, 64):
        for augment in ("none", "weak"):
            rows += samples(
                values, [0.5] * 6, batch_size=batch_size, augment=augment, method="fixmatch"
            )
    found = searches(search_frame(*rows))
    assert len(found) == 4
    assert {one.settings for one in found} == {("threshold",)}
    assert {tuple(sorted(one.keys)) for one in found} == {
        ("augment", "batch_size", "config", "label_fraction", "method", "model")
    }


def test_without_a_search_there_is_nothing() -> None:
    for frame in (search_frame(trial_row(TrialConfig())), pd.DataFrame(), search_frame()):
        assert searches(frame) == []
        assert searched_settings(frame) == ()
        assert search_history(frame).empty
        assert importance(frame).empty


# ---- the best so far ----


def test_the_history_has_the_best_so_far_and_what_it_took() -> None:
    rows = of_lr()
    rows[1] |= {"status": "stopped", "steps": 40, "seconds": 5.0}  # 0.75, but at fewer steps
    rows[3] = failed_row(TrialConfig.of(lr=LR[3], label_fraction=0.01, holdout=600)) | {
        "role": "search",
        "sample": 3,
    }
    history = search_history(search_frame(*reversed(rows)))
    assert history["sample"].tolist() == [0, 1, 2, 3, 4]
    assert history["best"].tolist() == [0.5, 0.5, 0.75, 0.75, 0.875]
    assert history["is_new_best"].tolist() == [True, False, True, False, True]
    assert history["steps"].tolist() == [94, 134, 228, 228, 322]
    assert history["seconds"].tolist() == [12.0, 17.0, 29.0, 29.0, 41.0]
    assert [math.isnan(value) for value in history["objective"]] == [False, True, False, True, False]


def test_the_best_loss_is_the_lowest() -> None:
    rows = [
        row | {"validation_loss": loss}
        for row, loss in zip(of_lr(), (0.5, 0.7, 0.4, 0.4, 0.1), strict=True)
    ]
    history = search_history(search_frame(*rows), "validation_loss")
    assert history["best"].tolist() == [0.5, 0.5, 0.4, 0.4, 0.1]
    assert history["is_new_best"].tolist() == [True, False, True, False, True]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_best_so_far_is_the_highest_of_those_before_in_any_order(
    reached: list[float], random: Any
) -> None:
    values = [{"lr": 0.001 * (1 + n)} for n in range(len(reached))]
    rows = samples(values, reached)
    random.shuffle(rows)
    best = search_history(search_frame(*rows))["best"].tolist()
    assert best == [max(reached[: n + 1]) for n in range(len(reached))]


# ---- importance ----


def table(n: int, objective: Callable[..., float], seed: int = 0) -> pd.DataFrame:
    """A search of three settings: one over magnitudes, one uniform, one a choice of texts."""
    generator = np.random.default_rng(seed)
    values, reached = [], []
    for _ in range(n):
        lr = float(10 ** generator.uniform(-4, -1))
        dropout = float(generator.uniform(0, 0.5))
        augment = str(generator.choice(["none", "weak"]))
        values.append({"lr": lr, "dropout": dropout, "augment": augment})
        reached.append(objective(lr, dropout, augment, generator.normal()))
    return search_frame(*samples(values, reached))


BOTH = pytest.mark.parametrize("optuna", [True, False], ids=["fANOVA", "shuffled"])


@pytest.fixture
def without_optuna(monkeypatch: pytest.MonkeyPatch, optuna: bool) -> None:
    if not optuna:
        monkeypatch.setattr(measured, "_version", lambda package: "")


@BOTH
@pytest.mark.usefixtures("without_optuna")
@pytest.mark.parametrize(
    ("decides", "objective"),
    [
        ("lr", lambda lr, dropout, augment, noise: 0.5 + 0.1 * math.log10(lr) + 0.01 * noise),
        ("lr", lambda lr, dropout, augment, noise: 0.8 - 0.2 * abs(math.log10(lr) + 2.5) ** 2),
        ("dropout", lambda lr, dropout, augment, noise: 0.5 + dropout + 0.01 * noise),
        ("augment", lambda lr, dropout, augment, noise: 0.5 + 0.2 * (augment == "weak")),
    ],
)
def test_the_setting_that_decides_everything_is_found(
    decides: str, objective: Callable[..., float], optuna: bool
) -> None:
    found = importance(table(30, objective))
    assert set(found["n"]) == {30}
    assert set(found["refused"]) == {""}
    assert ("fANOVA" in found["measure"].iloc[0]) == optuna
    shares = dict(zip(found["setting"], found["importance"], strict=True))
    assert shares.pop(decides) > 0.75
    assert all(0 <= share < 0.15 for share in shares.values())
    assert found["importance"].sum() <= 1 + 1e-9
    assert found["explained"].iloc[0] > 0.6


@BOTH
@pytest.mark.usefixtures("without_optuna")
def test_two_that_decide_alike_share_it(optuna: bool) -> None:
    frame = table(120, lambda lr, dropout, augment, noise: math.log10(lr) / 6 + dropout)
    found = importance(frame).set_index("setting")["importance"]
    assert found["lr"] == pytest.approx(0.5, abs=0.15)
    assert found["dropout"] == pytest.approx(0.5, abs=0.15)
    assert found["augment"] < 0.05


@BOTH
@pytest.mark.usefixtures("without_optuna")
def test_where_none_decides_none_is_named(optuna: bool) -> None:
    refused = 0
    for seed in range(10):
        frame = table(40, lambda lr, dropout, augment, noise: 0.7 + 0.01 * noise, seed)
        found = importance(frame)
        if (found["refused"] != "").all():
            refused += 1
            assert found["importance"].isna().all()
            assert "which is not told from chance" in found["refused"].iloc[0]
    assert refused >= 9


def test_too_few_samples_are_refused_with_the_number_that_it_takes() -> None:
    found = importance(search_frame(*of_lr()))
    assert found["refused"].tolist() == [
        f"5 finished samples of 1 searched settings; it takes {FEWEST} to tell"
    ]
    frame = table(11, lambda lr, dropout, augment, noise: lr)
    assert set(importance(frame)["refused"]) == {
        "11 finished samples of 3 searched settings; it takes 12 to tell"
    }


def test_stopped_samples_do_not_count() -> None:
    frame = table(20, lambda lr, dropout, augment, noise: math.log10(lr))
    frame.loc[frame["sample"] >= 15, ["status", "validation_accuracy"]] = "stopped", 1.0
    found = importance(frame)
    assert set(found["n"]) == {15}
    assert found.set_index("setting")["importance"].idxmax() == "lr"


def test_equal_figures_decide_nothing() -> None:
    found = importance(table(20, lambda lr, dropout, augment, noise: 0.5))
    assert set(found["refused"]) == {"all samples reach the same"}


def test_the_closed_form_of_leaving_one_out_is_right() -> None:
    """Against leaving each sample out and predicting it by the least squares of the others, slowly."""
    generator = np.random.default_rng(3)
    n = 12
    columns = [generator.random((n, 1)), np.eye(2)[generator.integers(0, 2, n)]]
    y = np.sin(5 * columns[0][:, 0]) + 0.1 * generator.normal(size=n)
    centering = np.eye(n) - 1 / n
    kernels = [
        np.array([[math.exp(-8 * float(((a - b) ** 2).sum())) for b in each] for a in each])
        for each in columns
    ]
    whole = centering @ (sum(kernels) / 2) @ centering
    values, vectors = np.linalg.eigh(whole)
    features = np.c_[np.ones(n), vectors * np.sqrt(values.clip(0))]  # the first is not regularized
    errors = {}
    for ridge in np.geomspace(1e-3, 1e3, 31):
        penalty = ridge * np.diag([0.0] + [1.0] * n)
        residuals = []
        for i in range(n):
            others, known = np.delete(features, i, axis=0), np.delete(y, i)
            weights = np.linalg.solve(others.T @ others + penalty, others.T @ known)
            residuals.append(y[i] - features[i] @ weights)
        errors[float(ridge)] = float(np.mean(np.square(residuals)))
    of_means = float(np.mean([(y[i] - np.delete(y, i).mean()) ** 2 for i in range(n)]))
    explained, shares = measured._additive(columns, y)
    assert explained == pytest.approx(1 - min(errors.values()) / of_means, rel=1e-6)

    # And each share against shuffling the setting's values many times.
    ridge = min(errors, key=lambda ridge: errors[ridge])
    alpha = np.linalg.solve(whole + ridge * np.eye(n), y - y.mean())
    changes = []
    for kernel in kernels:
        part = centering @ kernel @ alpha
        shuffled = [part[generator.permutation(n)] - part for _ in range(4000)]
        changes.append(float(np.mean(np.square(shuffled))))
    assert shares == pytest.approx([change / sum(changes) for change in changes], abs=0.02)


# ---- axes ----


@pytest.mark.parametrize(
    ("values", "is_log"),
    [
        (10 ** np.linspace(-4, -1, 30), True),
        (np.linspace(0.0001, 0.1, 30), False),
        (np.linspace(0.5, 0.9, 30), False),
        (np.array([0.0, 0.001, 0.01, 0.1]), False),  # a logarithm of 0 there is none
        (np.array([32, 64, 128, 256, 512]), True),
        (np.array(["none", "weak"]), False),
        (np.array([True, False]), False),
        (np.array([np.nan, np.nan]), False),
        (np.array([0.001, np.nan, 0.01, 0.1]), True),
    ],
)
def test_values_over_magnitudes_get_a_logarithmic_axis(values: np.ndarray, is_log: bool) -> None:
    assert spans_magnitudes(pd.Series(values)) == is_log
