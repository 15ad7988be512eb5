"""A search in the table: what was searched, the best so far, and what each setting decides."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_runner.config import FIELDS, TrialConfig
from ssl_runner.results.importance import FEWEST, importance
from ssl_runner.results.matching import newest
from ssl_runner.results.search_history import search_cost, search_history, searches
from tests.builders import frame_of, trial_row

measured = import_module("ssl_runner.results.importance")  # the package has its function

LR = (0.0001, 0.03, 0.001, 0.01, 0.003)
REACHED = (0.5, 0.75, 0.75, 0.625, 0.875)
OF_LR: dict[str, Any] = {"lr": {"log_uniform": [0.0001, 0.1]}}


def samples(
    values: Sequence[Mapping[str, Any]],
    reached: Sequence[float],
    domains: Mapping[str, Any],
    *,
    sweep: str = "s",
    record: Mapping[str, Any] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A search's rows: a sample for each of `values`, and the accuracy that it reaches."""
    search = {"search": domains, "objective": "accuracy", "samples": len(values)} | dict(record or {})
    group = TrialConfig.of(**{"label_fraction": 0.01} | settings)
    rows = []
    for sample, (searched, accuracy) in enumerate(zip(values, reached, strict=True)):
        config = group.replace(holdout=600, **searched).resolved()
        place = {
            "role": "search",
            "search_group": group.description.partition(" seed ")[0],
            "search": json.dumps(search),
            "sample": sample,
            "holdout_labels": 600,
        }
        rows.append(trial_row(config, sweep, validation_accuracy=accuracy) | place)
    return rows


def of_lr(**settings: Any) -> list[dict[str, Any]]:
    return samples([{"lr": lr} for lr in LR], REACHED, OF_LR, **settings)


# ---- which searches ----


def test_each_method_and_label_fraction_is_a_search_of_its_own() -> None:
    rows = of_lr() + of_lr(method="fixmatch") + of_lr(method="fixmatch", label_fraction=0.1)
    found = searches(frame_of(*rows, trial_row(TrialConfig.of(dropout=0.5))))
    assert [one.name for one in found] == [
        "CNN partial 0.1 fixmatch",
        "CNN partial 0.01",
        "CNN partial 0.01 fixmatch",
    ]
    for one in found:
        assert one.settings == ("lr",)
        assert one.is_log("lr")
        assert one.samples["lr"].tolist() == list(LR)
        assert one.samples["sample"].tolist() == [0, 1, 2, 3, 4]


def test_a_setting_that_only_some_methods_take_is_searched_for_those() -> None:
    weights = [{"lr": lr, "unlabeled_weight": 100 * lr} for lr in LR]
    domains = OF_LR | {"unlabeled_weight": {"uniform": [0, 10]}}
    rows = samples([{"lr": lr} for lr in LR], REACHED, domains)
    found = searches(frame_of(*rows, *samples(weights, REACHED, domains, method="fixmatch")))
    assert [one.settings for one in found] == [("lr",), ("lr", "unlabeled_weight")]
    assert not found[1].is_log("unlabeled_weight")


def test_searches_of_older_data_are_told_apart() -> None:
    older = [row | {"data_digest": "old"} for row in of_lr()]
    names = [one.name for one in searches(frame_of(*older, *of_lr()))]
    assert sorted(names) == ["CNN partial 0.01 (da)", "CNN partial 0.01 (old)"]


def test_of_older_data_no_row_of_a_search_counts_whatever_it_had_chosen() -> None:
    place = {"role": "final", "search_group": "CNN partial 0.01", "search": of_lr()[0]["search"]}
    old, new = of_lr(), of_lr()[:3]  # the new one has just begun
    old += [trial_row(TrialConfig.of(label_fraction=0.01, lr=0.5)) | place]
    other = [*of_lr(method="fixmatch"), trial_row(TrialConfig(), "plain")]
    before = datetime(2023, 1, 1, tzinfo=UTC)
    rows = [row | {"data_digest": "old", "ended_at": before} for row in (*old, *other)] + new
    kept = newest(frame_of(*rows))
    assert len(kept) == 3 + len(other)
    assert set(kept["data_digest"][kept["search_group"] == "CNN partial 0.01"]) == {"da"}
    assert "final" not in set(kept["role"])


def test_without_a_search_there_is_nothing() -> None:
    for frame in (frame_of(trial_row(TrialConfig())), frame_of()):
        assert searches(frame) == []
        assert search_history(frame).empty
        assert search_cost(frame).empty
        assert importance(frame).empty


def test_the_cost_counts_every_sample() -> None:
    rows = of_lr() + [row | {"holdout_labels": 1200} for row in of_lr(method="fixmatch")]
    rows[1] |= {"status": "stopped", "steps": 40, "seconds": 5.0}
    rows[2] |= {"status": "failed", "steps": None, "seconds": None, "labeled_images": None}
    cost = search_cost(frame_of(*rows))
    assert cost["samples"].tolist() == [5, 5]
    assert cost[["stopped", "failed"]].to_numpy().tolist() == [[1, 1], [0, 0]]
    assert cost["steps"].tolist() == [3 * 94 + 40, 5 * 94]
    assert cost["seconds"].tolist() == [3 * 12 + 5, 5 * 12]
    assert cost["holdout_labels"].tolist() == [600, 1200]
    assert cost["labeled_images"].tolist() == [600, 600]


# ---- the best so far ----


def test_the_history_has_the_best_so_far_and_what_it_took() -> None:
    rows = of_lr()
    rows[1] |= {"status": "stopped", "steps": 40, "seconds": 5.0}  # 0.75, but at fewer steps
    failed = (
        *FIELDS,
        "sweep",
        "config",
        "role",
        "search_group",
        "search",
        "sample",
        "data_digest",
        "sources",
    )
    rows[3] = {name: rows[3][name] for name in failed} | {"status": "failed", "error": "it broke"}
    history = search_history(frame_of(*reversed(rows)))
    assert history["sample"].tolist() == [0, 1, 2, 3, 4]
    assert history["best"].tolist() == [0.5, 0.5, 0.75, 0.75, 0.875]
    assert history["is_new_best"].tolist() == [True, False, True, False, True]
    assert history["steps"].tolist() == [94, 134, 228, 228, 322]
    assert history["seconds"].tolist() == [12.0, 17.0, 29.0, 29.0, 41.0]
    assert history["value"].isna().tolist() == [False, True, False, True, False]


def test_the_best_loss_is_the_lowest() -> None:
    rows = [
        row | {"validation_loss": loss, "search": json.dumps({"search": OF_LR})}  # the default
        for row, loss in zip(of_lr(), (0.5, 0.7, 0.4, 0.4, 0.1), strict=True)
    ]
    history = search_history(frame_of(*rows))
    assert set(history["objective"]) == {"validation_loss"}
    assert history["best"].tolist() == [0.5, 0.5, 0.4, 0.4, 0.1]
    assert history["is_new_best"].tolist() == [True, False, True, False, True]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_best_so_far_is_the_highest_of_those_before_in_any_order(
    reached: list[float], random: Any
) -> None:
    values = [{"lr": 0.001 * (1 + n)} for n in range(len(reached))]
    rows = samples(values, reached, OF_LR)
    random.shuffle(rows)
    best = search_history(frame_of(*rows))["best"].tolist()
    assert best == [max(reached[: n + 1]) for n in range(len(reached))]


# ---- importance ----


DOMAINS: dict[str, Any] = {
    "lr": {"log_uniform": [0.0001, 0.1]},
    "dropout": {"uniform": [0, 0.5]},
    "augment": {"choice": ["none", "weak"]},
}


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
    return frame_of(*samples(values, reached, DOMAINS))


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
    found = importance(frame_of(*of_lr()))
    assert found["refused"].tolist() == [
        f"5 finished samples of one searched setting; it takes {FEWEST} to tell"
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
