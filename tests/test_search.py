"""Any setting as an axis, and searches: domains, samples, groups, finals."""

import math
import shlex
from collections import Counter
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_runner.command import parse
from ssl_runner.config import SweepConfig, TrialConfig
from ssl_runner.errors import InputError
from ssl_runner.report.rerun import command_of
from ssl_runner.results import compare, compared_rows, label_curve, searched_settings
from ssl_runner.results.best import best_models
from ssl_runner.search.domains import KINDS, Domain
from ssl_runner.search.sampling import place_of, sample_of
from ssl_runner.study import sweep_from_settings
from ssl_runner.tune.__main__ import print_plan
from tests.builders import frame_of, sweep_settings, trial_row

PARTIAL: dict[str, Any] = {"configs": ["partial"], "label_fractions": [0.01]}


def of(**settings: Any) -> SweepConfig:
    return sweep_from_settings({"name": "s", **settings})


def values_of(sweep: SweepConfig, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(trial.flat()[name] for name in names) for trial in sweep.trials()]


# ---- the grid ----


def test_any_setting_is_an_axis() -> None:
    sweep = of(grid={"lr": ["1e-3", 0.003], "batch_size": [32, 64]}, seeds=[0, 1], **PARTIAL)
    assert values_of(sweep, "lr", "batch_size", "seed") == [
        *[(0.001, 32, 0), (0.001, 32, 1), (0.001, 64, 0), (0.001, 64, 1)],
        *[(0.003, 32, 0), (0.003, 32, 1), (0.003, 64, 0), (0.003, 64, 1)],
    ]
    assert sweep.size == 8
    # The same trials as without a grid: no id moves.
    assert TrialConfig.of(label_fraction=0.01).settings_id in {t.settings_id for t in sweep.trials()}
    assert sweep.describe(sweep.trials()[0]) == "CNN partial 0.01 lr 0.001 batch_size 32 seed 0"


def test_a_value_is_not_multiplied_into_trials_that_do_not_take_it() -> None:
    sweep = of(methods=["pass", "fixmatch"], grid={"threshold": [0.8, 0.9, 0.95]}, **PARTIAL)
    assert values_of(sweep, "method", "threshold") == [
        ("pass", None),
        *[("fixmatch", 0.8), ("fixmatch", 0.9), ("fixmatch", 0.95)],
    ]
    sweep = of(grid={"optimizer": ["Adam", "SGD"], "optimizer_momentum": [0, 0.9]}, **PARTIAL)
    assert values_of(sweep, "optimizer", "optimizer_momentum") == [
        *[("Adam", None), ("SGD", 0.0), ("SGD", 0.9)],
    ]
    sweep = of(models=["CNN", "WRN-28-2"], grid={"dropout": [0, 0.5]}, **PARTIAL)
    assert values_of(sweep, "model", "dropout") == [("CNN", 0), ("CNN", 0.5), ("WRN-28-2", None)]


def test_a_flag_with_several_values_is_an_axis() -> None:
    def tune(*arguments: str) -> SweepConfig:
        return parse("tune", "", arguments).sweep

    assert tune("--lr", "1e-3", "0.003").grid == {"lr": (0.001, 0.003)}
    assert tune("--flip", "true", "false").grid == {"flip": (True, False)}
    assert tune("--lr", "0.003").trial.optimizer.lr == 0.003
    assert tune("--compile").trial.compute.compile is True
    # A flag overrides the study's grid entry of its setting, and no other.
    study = ("--grid", "{lr: [0.1, 0.2], batch_size: [8, 16]}")
    assert tune(*study, "--lr", "0.3", "0.4").grid == {"batch_size": (8, 16), "lr": (0.3, 0.4)}
    one = tune(*study, "--lr", "0.3")
    assert (one.grid, one.trial.optimizer.lr) == ({"batch_size": (8, 16)}, 0.3)
    # Two workers are elastic, as before.
    workers = tune("--num-workers", "1", "2")
    assert (workers.grid, workers.trial.compute.min_workers) == ({}, 1)


def test_a_flag_of_a_searched_setting(tmp_path: Any) -> None:
    study = tmp_path / "mine.yaml"
    domains = "{lr: {log_uniform: [0.001, 0.1]}, dropout: {uniform: [0, 0.5]}}"
    study.write_text(f"search: {domains}\nsamples: 2\nholdout: 60\n")
    # It takes the setting out of a study's search, and is what stands untuned beside one of its own.
    sweep = parse("tune", "", [str(study), "--lr", "0.002"]).sweep
    assert (list(sweep.search), sweep.trial.optimizer.lr) == (["dropout"], 0.002)
    search = ("--search", domains, "--samples", "2", "--holdout", "60")
    sweep = parse("tune", "", [*search, "--lr", "0.002"]).sweep
    assert (list(sweep.search), sweep.trial.optimizer.lr) == (["lr", "dropout"], 0.002)
    with pytest.raises(InputError, match="search: lr must be without an entry in grid, got 'lr'"):
        parse("tune", "", [*search, "--lr", "0.002", "0.003"])


def test_a_study_may_stand_behind_a_flag(tmp_path: Any) -> None:
    study = tmp_path / "mine.yaml"
    study.write_text("grid: {lr: [0.1, 0.2]}\nepochs: 3\n")
    for arguments in ((str(study), "--batch-size", "8"), ("--batch-size", "8", str(study))):
        sweep = parse("tune", "", arguments).sweep
        assert (sweep.name, sweep.trial.batches.batch_size) == ("mine", 8)
        assert sweep.grid == {"lr": (0.1, 0.2)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"grid": {"lr": [0.1, "1e-1"]}},
            "grid: lr must be without repetition, got 0.1. Name it once.",
        ),
        ({"grid": {"lr": []}}, "grid: lr must be a list of at least one, got []. Name one."),
        ({"grid": {"lr": 0.1}}, "grid: lr must be a list, got 0.1. Did you mean [0.1]?"),
        ({"grid": {"lr": [20]}}, "lr must be in (0, 10), got 20.0. The default is 0.001."),
        ({"grid": {"lr": ["fast"]}}, "grid: lr: input should be a valid number, unable to parse"),
        ({"grid": {"batch_size": [1.5]}}, "grid: batch_size: must be a whole number, got 1.5."),
        ({"grid": {"optimizer": ["sgd"]}}, "optimizer must be one of Adam, "),
        ({"grid": {"seed": [1]}}, "grid: seed is a list of its own. Write seeds: [...] beside it."),
        ({"grid": {"models": ["CNN"]}}, "grid: models is a list of its own. Write models: [...]"),
        ({"grid": {"bach_size": [1]}}, "grid: unknown setting 'bach_size'. Did you mean batch_size?"),
        ({"grid": {"name": ["a"]}}, "grid: unknown setting 'name'. Known: subset, "),
        ({"grid": {"num_workers": [1, 2]}}, "grid must be without num_workers. It decides where"),
        (
            {"grid": {"dataset": ["digits"]}},
            "grid must be without dataset. A sweep is of one data set.",
        ),
        (
            {"grid": ["lr"]},
            "grid must be a map of settings, got ['lr']. Write grid: {lr: [0.001, 0.003]}.",
        ),
        ({"grid": {"lr": [0.1]}, "lr": 0.2}, "lr is given twice, in grid and beside it. Keep one."),
        (
            {"lr": [0.1, 0.2]},
            "lr takes one value here, got [0.1, 0.2]. Several are an axis: grid: {lr: [0.1",
        ),
        (
            {"grid": {"threshold": [0.9]}},
            "threshold must be a hyperparameter of a selected method, got 0.9.",
        ),
        (
            {"grid": {"nesterov": [True]}},
            "nesterov must be left out, since neither Adam nor schedule none",
        ),
        (
            {"grid": {"optimizer": ["Adam", "Adagrad"], "nesterov": [True]}},
            "nesterov must be left out, since none",
        ),
        (
            {"models": ["WRN-28-2"], "grid": {"dropout": [0.5]}},
            "dropout must be left out, since no selected model takes it, got 0.5.",
        ),
    ],
)
def test_a_grid_that_does_not_do_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        of(**settings)
    assert str(refused.value).startswith(message)


def test_very_many_combinations_are_counted_and_not_made() -> None:
    grid = {name: [round(0.001 * n, 3) for n in range(1, 101)] for name in ("lr", "dropout", "eps")}
    assert of(grid=grid, **PARTIAL).size == 10**6


# ---- domains ----

RANGES = {
    "uniform": st.floats(-1e6, 1e6),
    "log_uniform": st.floats(1e-12, 1e6),
    "int_uniform": st.integers(-(10**6), 10**6),
    "log_int_uniform": st.integers(1, 10**6),
}


@st.composite
def domains(draw: st.DrawFn) -> Domain:
    kind = draw(st.sampled_from(KINDS))
    if kind == "choice":
        values = draw(st.lists(st.integers() | st.text(max_size=3), min_size=1, unique=True))
        return Domain(kind, tuple(values))
    ends = draw(st.lists(RANGES[kind], min_size=2, max_size=2, unique=True))
    return Domain(kind, (min(ends), max(ends)))


@given(domains(), st.floats(0, 1, exclude_max=True))
def test_a_draw_is_in_its_domain_and_plain(domain: Domain, u: float) -> None:
    domain.check("x")
    drawn = domain.draw(u)
    if domain.kind == "choice":
        assert drawn in domain.values
    else:
        low, high = domain.values
        assert low <= drawn <= high  # type: ignore[operator]
        assert isinstance(drawn, int) == ("int" in domain.kind)
    if isinstance(drawn, float) and drawn not in domain.values:
        assert float(f"{drawn:.6g}") == drawn


def test_draws_are_spread_as_their_domain_says() -> None:
    places = [place_of(1000, n, "lr") for n in range(4000)]
    tenths = Counter(int(10 * place) for place in places)
    # Of 4,000 draws, 400 ± 19 (one standard deviation) lie in each tenth.
    assert len(tenths) == 10
    assert all(abs(count - 400) < 6 * 19 for count in tenths.values())
    log = Domain("log_uniform", (1e-4, 1e-2))
    assert math.isclose(log.draw(0.5), 1e-3)  # type: ignore[arg-type]
    assert Domain("uniform", (0.0, 2.0)).draw(0.5) == 1.0
    dice = Counter(Domain("int_uniform", (1, 6)).draw(place) for place in places)
    assert set(dice) == {1, 2, 3, 4, 5, 6}
    assert all(abs(count - 667) < 6 * 24 for count in dice.values())
    powers = Counter(Domain("log_int_uniform", (1, 1000)).draw(place) for place in places)
    assert powers[1] > 100 * max(powers[n] for n in range(500, 1001)) / 10


@given(
    st.dictionaries(st.sampled_from(["lr", "ramp", "ema", "mu"]), domains()),
    st.integers(0, 10**6),
    st.integers(0, 100),
)
def test_a_sample_depends_on_its_own_key_alone(
    search: dict[str, Domain], search_seed: int, number: int
) -> None:
    whole = sample_of(search, search_seed, number)
    for name, domain in search.items():  # with fewer settings, nothing else changes
        assert sample_of({name: domain}, search_seed, number) == {name: whole[name]}


def test_samples_are_what_they_were() -> None:
    # Frozen: the samples of a search that was run are these for ever.
    search = {"lr": Domain("log_uniform", (1e-4, 1e-2)), "batch_size": Domain("int_uniform", (16, 64))}
    assert [sample_of(search, 1000, n) for n in range(3)] == [
        {"lr": 0.00229695, "batch_size": 25},
        {"lr": 0.000155593, "batch_size": 37},
        {"lr": 0.00670568, "batch_size": 17},
    ]


# ---- the search's settings ----

SEARCH: dict[str, Any] = {
    "search": {
        "lr": {"log_uniform": ["1e-4", "1e-2"]},
        "unlabeled_weight": {"uniform": [0.1, 10]},
        "threshold": {"choice": [0.8, 0.9, 0.95]},
    },
    "samples": 4,
    "holdout": 60,
    "methods": ["pass", "pi_model", "fixmatch"],
    "seeds": [0, 1],
    **PARTIAL,
}


def test_each_group_gets_as_many_samples_of_the_same_draws() -> None:
    sweep = of(**SEARCH, grid={"batch_size": [32, 64]})
    groups = sweep.groups()
    assert list(groups) == [
        f"CNN partial 0.01{method} batch_size {size}"
        for size in (32, 64)
        for method in ("", " pi_model", " fixmatch")
    ]
    assert sweep.size == 6 * (4 + 2)
    samples = sweep.random_samples()
    assert Counter(sample.group for sample in samples) == dict.fromkeys(groups, 4)
    assert [each.number for each in samples] == [0, 1, 2, 3] * 6
    for number in range(4):
        drawn = [each.trial for each in samples if each.number == number]
        assert len({trial.optimizer.lr for trial in drawn}) == 1
        weights = {trial.unlabeled.method: trial.unlabeled.unlabeled_weight for trial in drawn}
        assert weights["pass"] is None
        assert weights["pi_model"] == weights["fixmatch"]
    assert all(
        (sample.trial.batches.seed, sample.trial.data.split_seed) == (1000, 1000) for sample in samples
    )
    assert {sample.trial.settings_id for sample in samples} == {t.settings_id for t in sweep.trials()}


def test_more_samples_and_more_settings_never_change_a_draw() -> None:
    few = of(**SEARCH).random_samples()
    many = of(**SEARCH | {"samples": 9}).random_samples()
    assert set(few) < set(many)
    more = SEARCH | {"search": SEARCH["search"] | {"ema": {"uniform": [0.5, 0.99]}}}
    for one, other in zip(few, of(**more).random_samples(), strict=True):
        assert one.trial.optimizer == other.trial.optimizer
        assert one.trial.unlabeled.threshold == other.trial.unlabeled.threshold


def test_a_sample_met_twice_is_one_trial() -> None:
    sweep = of(**SEARCH | {"search": {"threshold": {"choice": [0.8, 0.9]}}, "samples": 20})
    counts = Counter(sample.group for sample in sweep.random_samples())
    assert counts == {
        "CNN partial 0.01": 1,
        "CNN partial 0.01 pi_model": 1,
        "CNN partial 0.01 fixmatch": 2,
    }


def test_the_finals_are_the_winner_under_the_seeds() -> None:
    sweep = of(**SEARCH)
    winner = sweep.random_samples()[-1].trial
    finals = sweep.finals(winner)
    assert [(t.batches.seed, t.data.split_seed) for t in finals] == [(0, 0), (1, 1)]
    assert {t.replace(seed=1000, split_seed=1000) for t in finals} == {winner}
    splits = of(**SEARCH | {"split_seeds": [5, 6]}).finals(winner)
    assert [(t.batches.seed, t.data.split_seed) for t in splits] == [(0, 5), (0, 6), (1, 5), (1, 6)]


def test_the_first_rung_is_a_ninth_of_the_budget_unless_it_is_given() -> None:
    settings = {"scheduler": "asha", "max_steps": 900}
    assert of(**SEARCH | settings).first_rung == 100
    assert of(**SEARCH | settings | {"grace_steps": 30}).first_rung == 30
    assert of(**SEARCH | settings | {"max_steps": 5}).first_rung == 1
    assert of(**SEARCH).first_rung is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"search": {"lr": {"log_uniform": [0.01, 0.001]}}},
            "search: lr: log_uniform must be rising, got [0.01, 0.001]. Did you mean [0.001, 0.01]?",
        ),
        ({"search": {"lr": {"uniform": [0.01, 0.01]}}}, "search: lr: uniform must be rising"),
        (
            {"search": {"lr": {"log_uniform": [0, 0.001]}}},
            "search: lr: log_uniform must be of numbers above 0",
        ),
        (
            {"search": {"lr": {"loguniform": [0.1, 1]}}},
            "search: lr has the unknown domain 'loguniform'. Did you mean log_uniform?",
        ),
        (
            {"search": {"lr": {"uniform": [0.1]}}},
            "search: lr: uniform must be two numbers, the lowest and",
        ),
        ({"search": {"lr": {"uniform": 0.1}}}, "search: lr: uniform must be a list, got 0.1."),
        ({"search": {"lr": {"uniform": [True, False]}}}, "search: lr: uniform must be of numbers"),
        ({"search": {"lr": {"uniform": [0.1, ".inf"]}}}, "search: lr: "),
        ({"search": {"lr": {"uniform": [0.1, 20]}}}, "lr must be in (0, 10), got 20.0."),
        ({"search": {"lr": {"choice": [0.1, 0.1]}}}, "search: lr: choice must be without repetition"),
        ({"search": {"lr": {"choice": []}}}, "search: lr: choice must be a list of at least one"),
        (
            {"search": {"lr": [0.1, 0.2]}},
            "search: lr must be a domain, got [0.1, 0.2]. Did you mean {choice: [0.1, 0.2]}?",
        ),
        ({"search": {"lr": 0.1}}, "search: lr must be one domain, got 0.1. Write lr: {log_uniform"),
        ({"search": {"lr": {"uniform": [0, 1], "choice": [1]}}}, "search: lr must be one domain"),
        (
            {"search": {"batch_size": {"uniform": [1, 4]}}},
            "search: batch_size must be int_uniform or log_int_uniform or choice",
        ),
        (
            {"search": {"batch_size": {"int_uniform": [1.5, 4]}}},
            "search: batch_size: must be a whole number, got 1.5.",
        ),
        (
            {"search": {"lr": {"int_uniform": [1, 4]}}},
            "search: lr must be uniform or log_uniform or choice",
        ),
        (
            {"search": {"augment": {"uniform": [1, 4]}}},
            "search: augment: input should be 'none', 'weak' or 'strong'",
        ),
        (
            {"search": {"learning_rate": {"uniform": [1, 4]}}},
            "search: unknown setting 'learning_rate'.",
        ),
        ({"search": {"seed": {"choice": [1, 4]}}}, "search: seed is a list of its own. Write seeds"),
        (
            {"search": {"max_steps": {"choice": [1, 4]}}},
            "search must be without max_steps. All samples have the same budget.",
        ),
        (
            {"search": {"holdout": {"choice": [1, 4]}}},
            "search must be without holdout. All samples are judged on",
        ),
        (
            {"search": {"momentum": {"choice": [0.5]}}, "methods": ["pass"]},
            "momentum must be a hyperparameter of a selected method",
        ),
        ({"grid": {"lr": [0.1]}}, "search: lr must be without an entry in grid, got 'lr'."),
        (
            {
                "search": {"optimizer": {"choice": ["Adam", "SGD"]}},
                "grid": {"optimizer_momentum": [0, 0.9]},
            },
            "grid must be without optimizer_momentum",
        ),
        ({"samples": None}, "samples must be a number with a search, got None. Try 30."),
        ({"samples": 0}, "samples must be at least 1, got 0. Try 30."),
        (
            {"searcher": "hyperopt"},
            "searcher must be random or optuna, got 'hyperopt'. Ray has it, this program does not",
        ),
        (
            {"searcher": "optunna"},
            "searcher must be random or optuna, got 'optunna'. Did you mean optuna?",
        ),
        ({"seeds": [0, 1000]}, "seeds must be without search_seed 1000"),
        ({"split_seeds": [1000]}, "split_seeds must be without search_seed 1000"),
        (
            {"holdout": 0},
            "holdout must be more than 0 with a search, or the test images would choose, got 0.",
        ),
        (
            {"scheduler": "asha", "grace_steps": 50, "max_steps": 50},
            "grace_steps must be less than max_steps 50, got 50.",
        ),
        (
            {"scheduler": "asha", "max_steps": None},
            "grace_steps must be a number of steps with a scheduler and a budget in epochs, got None.",
        ),
        ({"grace_steps": 50}, "grace_steps must be left out without a scheduler, got 50."),
        ({"reduction": 1}, "reduction must be at least 2, got 1. Try 3."),
        ({"search_seconds": 0}, "search_seconds must be in (0, 100000000), got 0.0."),
        ({"search": {}, "samples": 3}, "samples must be left out without a search, got 3."),
        (
            {"search": {}, "samples": None, "scheduler": "asha"},
            "scheduler must be left out without a search, got 'asha'.",
        ),
        ({"search": [1]}, "search must be a map of settings, got [1]. Write search: {lr: {log_uniform"),
    ],
)
def test_a_search_that_does_not_do_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        of(**SEARCH | settings)
    assert str(refused.value).startswith(message)


def test_a_plan_names_the_samples_the_groups_and_the_finals(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--configs", "partial", "--label-fractions", "0.01", "--methods", "pass", "fixmatch"]
    arguments += ["--search", "{lr: {choice: [0.1, 0.2]}}", "--samples", "2", "--holdout", "60"]
    print_plan(parse("tune", "", [*arguments, "--seeds", "3", "4", "--untuned"]))
    printed = capsys.readouterr().out
    for sample in of(**PARTIAL, holdout=60, search={"lr": {"choice": [0.1, 0.2]}}, samples=2).trials():
        assert sample.settings_id in printed
    assert printed.splitlines()[-4:] == [
        "2 samples of each group, judged by the holdout's loss:",
        "  CNN partial 0.01",
        "  CNN partial 0.01 fixmatch",
        "then 4 finals: the best of each group under seeds 3, 4, beside its settings as they stand",
    ]


def test_a_search_has_no_rounds() -> None:
    settings = {name: value for name, value in SEARCH.items() if name != "label_fractions"}
    with pytest.raises(InputError, match=r"rounds must be left out with a search, got \[100, 200\]."):
        of(**settings, rounds=[100, 200], selections=["margin"])


# ---- what is read off the rows ----


def rows_of(sweep: SweepConfig, **figures: Any) -> list[dict[str, Any]]:
    """A finished row for each trial without a search."""
    return [trial_row(trial, sweep.name, **figures) for trial in sweep.trials()]


@pytest.mark.parametrize(
    "settings",
    [
        {"grid": {"lr": [0.001, 0.003], "batch_size": [32, 64]}},
        {"grid": {"dropout": [0, 0.25]}},  # one of them is the model's own
        {"methods": ["pass", "fixmatch", "pi_model"], "grid": {"unlabeled_weight": [1, 10]}},
        {"grid": {"optimizer": ["Adam", "SGD"], "optimizer_momentum": [0, 0.9]}},
        {"grid": {"order": ["shuffle", "paired"], "flip": [True, False]}},
        {"grid": {"schedule": ["none", "step"], "decay_factor": [0.1, 0.2]}, "seeds": [1, 2]},
    ],
)
def test_the_command_that_runs_a_grid_again_is_read_off_its_rows(settings: dict[str, Any]) -> None:
    sweep = of(**settings, **PARTIAL)
    words = shlex.split(command_of(frame_of(*rows_of(sweep))))
    again = parse("tune", "", words[3:]).sweep
    assert {t.settings_id for t in again.trials()} == {t.settings_id for t in sweep.trials()}


def searched_rows() -> tuple[SweepConfig, pd.DataFrame]:
    """A search that ended: its samples, and the finals of each group's first sample. A final of
    `fixmatch` is two points better than one of `pass` under the same seed."""
    sweep = of(**SEARCH)
    rows = []
    for sample in sweep.random_samples():
        place = {"role": "search", "search_group": sample.group, "sample": sample.number}
        place |= {"holdout_labels": 60, "search": sweep.search_record}
        rows.append(trial_row(sample.trial, "s", test_accuracy=0.99, **place))
        if sample.number == 0:
            place |= {"role": "final", "sample": None}
            for trial in sweep.finals(sample.trial):
                better = 0.02 if trial.unlabeled.method == "fixmatch" else 0.0
                accuracy = 0.7 + better + 0.05 * trial.batches.seed
                rows.append(trial_row(trial, "s", test_accuracy=accuracy, **place))
    return sweep, frame_of(*rows)


def test_only_the_finals_of_a_search_are_compared() -> None:
    _, rows = searched_rows()
    # Each method's learning rate is its own: a tuned method is compared with a tuned reference.
    rows.loc[(rows["role"] == "final") & (rows["method"] == "fixmatch"), "lr"] = 0.5
    assert set(compared_rows(rows)["role"]) == {"final"}
    table = compare(rows).set_index("method")
    assert table["n"].to_dict() == {"pass": 2, "pi_model": 2, "fixmatch": 2}
    assert table["test_accuracy_mean"].to_dict() == pytest.approx(
        {"pass": 0.725, "pi_model": 0.725, "fixmatch": 0.745}
    )
    assert table["to_pass_mean"]["fixmatch"] == pytest.approx(0.02)
    assert table["lr"]["fixmatch"] == 0.5
    assert searched_settings(rows) == ["lr", "unlabeled_weight", "threshold"]
    assert label_curve(rows)["n"].tolist() == [2, 2, 2]
    finals = set(rows.loc[rows["role"] == "final", "trial_id"])
    assert best_models(rows) <= finals
    # Samples alone are no comparison, and rows of other sweeps stay in it.
    assert compared_rows(rows[rows["role"] == "search"]).empty
    other = frame_of(trial_row(TrialConfig(), "other"))
    assert set(compared_rows(pd.concat([rows, other]))["sweep"]) == {"s", "other"}


def test_the_command_that_searches_again_has_what_stood_untuned() -> None:
    of_lr: dict[str, Any] = {"search": {"lr": {"choice": [0.1, 0.2]}}, "lr": 0.002, "untuned": True}
    sweep = of(**SEARCH | {"methods": ["pass"]} | of_lr)
    (group,) = sweep.groups()
    place = {"search_group": group, "search": sweep.search_record}
    rows = [
        trial_row(each.trial, "s") | place | {"role": "search", "sample": each.number}
        for each in sweep.random_samples()
    ]
    rows += [
        trial_row(trial, "s") | place | {"role": "default"}
        for trial in sweep.finals(sweep.groups()[group])
    ]
    again = parse("tune", "", shlex.split(command_of(frame_of(*rows)))[3:]).sweep
    assert sweep_settings(again) | {"question": None} == sweep_settings(sweep)


def test_the_command_that_searches_again_is_read_off_its_rows() -> None:
    sweep, rows = searched_rows()
    for some in (rows, rows[rows["role"] == "search"]):
        words = shlex.split(command_of(some))
        again = sweep_settings(parse("tune", "", words[3:]).sweep)
        assert again | {"methods": sorted(SEARCH["methods"])} == again
        same = again | {"methods": SEARCH["methods"], "question": None}
        assert same == sweep_settings(sweep)
