"""Rounds of buying labels: what they are, what they may look at, and what a kill leaves of them."""

import dataclasses
import io
import itertools
import math
import shlex
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ssl_runner.command import parse
from ssl_runner.config import SweepConfig, TrialConfig
from ssl_runner.datasets import ImageArrays, ImageDataset
from ssl_runner.datasets.settings import SELECTIONS
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial, chains, identify, rounds_up_to
from ssl_runner.label_next.material import Asked, known_labels
from ssl_runner.labels import UNLABELED
from ssl_runner.report import words
from ssl_runner.report.__main__ import main as report_main
from ssl_runner.report.page import render_page
from ssl_runner.report.rerun import command_of
from ssl_runner.results import EPOCHS, ResultsFolder, compare, label_curve, labels_needed
from ssl_runner.results.labels_needed import labels_at
from ssl_runner.results.matching import config_of
from ssl_runner.rounds import buying_of, check_selections, data_of, with_purchases
from ssl_runner.saved_model import load_model
from ssl_runner.selection import STRATEGIES
from ssl_runner.split import digest, first_labels
from ssl_runner.study import sweep_from_settings
from ssl_runner.testing.processes import Runs
from ssl_runner.testing.tables import UNEQUAL, checkpoints, leftovers, tables
from ssl_runner.trial import RunContext, finish_trial, run_trial
from ssl_runner.tune.__main__ import main
from ssl_runner.tune.loggers import TensorBoardCallback
from ssl_runner.tune.progress import ProgressCallback, SweepProgress
from ssl_runner.tune.work import Pools, work_of
from ssl_runner.tune.worker import OUR_TRIAL, chain_of, for_loggers, param_of, trial_of
from tests.builders import frame_of, trial_row
from tests.conftest import RAY_BY_THE_DOZEN, Answer

CPU = torch.device("cpu")

ROUNDS: dict[str, Any] = {"configs": ("partial",), "selections": ("margin",), "rounds": (20, 30, 50)}

TRAINED = {"epochs": 2, "batch_size": 10, "patience": 0, "precision": "bf16", "keep": "last"}


@pytest.fixture(scope="module")
def small(fashion_mnist: ImageDataset) -> ImageDataset:
    """The first real images; some training images have no label."""
    train, test = fashion_mnist.train, fashion_mnist.test
    labels = train.labels[:400].copy()
    labels[::10] = UNLABELED
    return ImageDataset(
        "small",
        ImageArrays(train.images[:400], labels, train.class_names),
        ImageArrays(test.images[:100], test.labels[:100], train.class_names),
    )


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(str(tmp_path))


def chain(
    dataset: ImageDataset, rounds: tuple[int, ...] = (20, 30, 50), **settings: Any
) -> list[Trial]:
    """The rounds of one beginning."""
    selection = settings.pop("selection", "margin")
    configs = [
        TrialConfig.of(
            **TRAINED | settings,
            selection=selection,
            label_budgets=" ".join(map(str, rounds[:count])),
        )
        for count in range(1, len(rounds) + 1)
    ]
    (made,) = chains(identify(configs, dataset.digest))
    return made


def run_round(
    trial: Trial,
    number: int,
    dataset: ImageDataset,
    results: ResultsFolder,
    seen: ImageDataset | None = None,
) -> dict[str, Any]:
    """Run a round as a worker does, and write its row.

    Args:
        seen: What training and choice are given; None: the data set.
    """
    buying = buying_of(trial, number, dataset, results, "s")
    context = RunContext(
        sweep="s",
        checkpoints=results.checkpoints("s", trial.trial_id),
        threads=1,
        models=f"{results.location}/models",
        labels=360,
    )
    rows = run_trial(trial, seen or dataset, context, lambda metrics: None, device=CPU, buying=buying)
    finish_trial(results, rows, context)
    assert rows[0]["status"] == "finished", rows[0]["error"]
    return rows[0]


# ---- settings ----


def test_each_round_is_a_trial_known_by_its_budgets() -> None:
    sweep = SweepConfig(**ROUNDS | {"selections": ("random", "margin")}, seeds=(0, 1))
    trials = identify(sweep.trials(), "d")
    assert len({trial.trial_id for trial in trials}) == len(trials) == sweep.size == 2 * 3 * 2
    assert [len(each) for each in chains(trials)] == [3] * 4
    for made in chains(trials):
        assert [trial.config.data.label_budgets for trial in made] == ["20", "20 30", "20 30 50"]
        assert {trial.config.config for trial in made} == {"partial"}
        assert rounds_up_to(made[-1]) == made
        assert [number for _, number in with_purchases(made)] == [10, 20, 0]
    # A study that goes on has the same rounds, and then more.
    more = SweepConfig(**ROUNDS | {"selections": ("margin",), "rounds": (20, 30, 50, 80)}, seeds=(0, 1))
    ids = {trial.trial_id for trial in identify(more.trials(), "d")}
    assert len(ids & {trial.trial_id for trial in trials}) == 6


def test_trials_without_rounds_are_chains_of_one() -> None:
    trials = identify(SweepConfig().trials(), "d")
    assert chains(trials) == [[trial] for trial in trials]
    assert with_purchases(trials[:1]) == [(trials[0], 0)]


def test_methods_and_full_are_combined_with_rounds() -> None:
    sweep = SweepConfig(**ROUNDS | {"configs": ("full", "partial"), "methods": ("pass", "fixmatch")})
    descriptions = [config.description for config in sweep.trials()]
    assert descriptions == [
        "CNN full seed 0",
        "CNN partial margin 20 seed 0",
        "CNN partial margin 20 fixmatch seed 0",
        "CNN partial margin 30 seed 0",
        "CNN partial margin 30 fixmatch seed 0",
        "CNN partial margin 50 seed 0",
        "CNN partial margin 50 fixmatch seed 0",
    ]


def test_the_strategies_are_those_that_one_model_answers() -> None:
    answered = {name for name, strategy in STRATEGIES.items() if strategy.needs != "models"}
    assert set(SELECTIONS) == answered


FLAGS = "--configs partial --selections margin --rounds 20 30"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--selections margin --rounds 30 20",
            "numbers of labels that rise, at least 1, got [30, 20]. Try",
        ),
        (
            "--selections margin --rounds 0 20",
            "numbers of labels that rise, at least 1, got [0, 20]. Try [20].",
        ),
        (
            "--selections margin --rounds 20 20",
            "rounds must be without repetition, got 20. Name it once.",
        ),
        (
            "--selections margin margin --rounds 20",
            "selections must be without repetition, got 'margin'.",
        ),
        (
            "--selections margin",
            "rounds must be given with selections ['margin'], got none. Try --rounds",
        ),
        ("--rounds 20", "selections must be given with rounds [20], got none. Try --selections random"),
        ("--selections margn --rounds 20", "got 'margn'. Did you mean margin?"),
        (
            "--selections disagreement --rounds 20",
            "got 'disagreement', which needs several. Try margin.",
        ),
        (
            f"{FLAGS} --configs full",
            "configs must be with partial for rounds, got ['full']. Add partial",
        ),
        (
            f"{FLAGS} --label-fractions 0.1",
            "label_fractions must be left out with rounds, got [0.1]. The",
        ),
        ("--selections margin --rounds 2.5", "rounds.0: must be a whole number, got 2.5."),
        # What the data decide.
        (
            f"{FLAGS} --rounds 9 20",
            "the first of rounds must be in [10, 60000], a label of each class and",
        ),
        (
            f"{FLAGS} --subset 100 --rounds 20 101",
            "not take more labels than the 100 that there are, got 101",
        ),
        (
            f"{FLAGS} --subset 100 --holdout 50 --rounds 20 60",
            "not take more labels than the 50 that there",
        ),
        (
            f"{FLAGS} --selections coreset --models tests.models:Convolutions",
            "must have a model with a linear",
        ),
    ],
)
def test_bad_input_is_a_line(
    flags: str, message: str, tmp_path: Path, call: Callable[..., Answer]
) -> None:
    done = call(main, *flags.split(), "--results", str(tmp_path / "r"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not list(tmp_path.glob("r/*"))


def test_a_study_file_takes_them() -> None:
    sweep = sweep_from_settings({"selections": ["random"], "rounds": [10, 20]})
    assert (sweep.selections, sweep.rounds) == (("random",), (10, 20))
    with pytest.raises(InputError, match=r"'selection' is a list here: selections: \['margin'\]"):
        sweep_from_settings({"selection": "margin"})
    with pytest.raises(InputError, match=r"'label_budgets' follows from rounds here. Try rounds: \["):
        sweep_from_settings({"label_budgets": "10 20"})
    with pytest.raises(InputError, match="label_fractions must be left out with rounds"):
        sweep_from_settings({"selections": ["random"], "rounds": [10], "label_fractions": [0.01]})


@pytest.mark.parametrize("text", ["", "20 10", "0", "-1 2", "1  2", "1 2 ", "ten", "1.5", "²"])
def test_budgets_have_one_text(text: str) -> None:
    with pytest.raises(InputError, match="label_budgets"):
        TrialConfig.of(selection="margin", label_budgets=text)


def test_a_selection_and_its_budgets_come_together() -> None:
    for settings in ({"selection": "margin"}, {"label_budgets": "10"}):
        with pytest.raises(InputError, match="selection must be given with label_budgets"):
            TrialConfig.of(**settings)
    with pytest.raises(InputError, match="label_fraction must be 1 with label_budgets, got 0.5"):
        TrialConfig.of(selection="margin", label_budgets="10", label_fraction=0.5)


# ---- a chain, as Ray Tune has it ----


class TuneTrial:
    """What Tune hands to its callbacks, as far as ours look."""

    def __init__(self, made: list[Trial]) -> None:
        self.config = {"trial": param_of(made)}
        self.error_file = None


def test_a_chain_is_one_of_tune_s_trials() -> None:
    whole = chain_of_settings()
    for made in (whole, whole[1:], whole[2:], identify([TrialConfig()], "d")):
        tune_trial = TuneTrial(made)
        assert chain_of(tune_trial) == made
        for trial in made:
            report = for_loggers(trial, {"steps": 7}, 100)
            assert trial_of(tune_trial, report) == trial
            assert report["timesteps_total"] == 107


def test_progress_and_tensorboard_follow_each_round(tmp_path: Path) -> None:
    made = chain_of_settings()
    tune_trial, console = TuneTrial(made), Console(file=io.StringIO(), width=200)
    work = {trial.trial_id: 100 for trial in made}
    progress, said = SweepProgress(made, work, console), list[str]()
    reasons = {made[2].trial_id: "round 2 failed: it died"}
    callback = ProgressCallback(progress, lambda chain, error: reasons, lambda: None)
    board = TensorBoardCallback(tmp_path, said.append)
    callback.on_trial_start(0, [], tune_trial)
    assert list(progress.running) == [made[0].trial_id]
    metrics = {
        "epoch": 1,
        "steps": 5,
        "images": 50,
        "unlabeled_images_seen": 0,
        "images_per_second": 9.0,
        "train_loss": 1.0,
        "train_accuracy": 0.5,
        "validation_loss": 1.5,
        "validation_accuracy": 0.25,
    }
    for place in (0, 1):
        report = metrics | for_loggers(made[place], metrics)
        ended = {"status": "finished", "error": None, "steps": 5, "test_accuracy": 0.25}
        for result in (report, ended | {OUR_TRIAL: made[place].trial_id}):
            callback.on_trial_result(0, [], tune_trial, result)
            board.on_trial_result(0, [], tune_trial, result)
        assert list(progress.running) == [made[place + 1].trial_id]
    callback.on_trial_start(0, [], tune_trial)  # the process died, and goes on where it was
    assert list(progress.running) == [made[2].trial_id]
    callback.on_trial_error(0, [], tune_trial)
    assert progress.running == {}
    assert list(progress.ended.values()) == ["finished", "finished", "failed"]
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "CNN partial margin 30 seed 0: finished, 2 of 3 trials done" in printed
    assert "CNN partial margin 50 seed 0: failed: round 2 failed: it died" in printed
    board.on_experiment_end([])
    assert sorted(path.name.rpartition("-")[2] for path in tmp_path.iterdir()) == sorted(
        trial.trial_id for trial in made[:2]
    )
    assert said == []


def test_a_round_that_buys_is_more_work() -> None:
    config, pools = chain_of_settings()[0].config, Pools(20, 300)
    of_random = config.replace(selection="random")
    assert work_of(config, pools, is_asked=True) == work_of(config, pools) + 100
    assert work_of(of_random, pools, is_asked=True) == work_of(config, pools)


# ---- what a round has, and what it looks at ----


def test_the_first_labels_are_the_same_for_all_and_each_round_adds_to_them(
    small: ImageDataset, results: ResultsFolder
) -> None:
    first = first_labels(small.train.labels, 20, 3)
    for selection in ("random", "margin", "coreset"):
        made, labeled, before = chain(small, selection=selection, split_seed=3), first, set[int]()
        for trial, number in with_purchases(made):
            row = run_round(trial, number, small, results)
            budget = trial.config.data.budgets[-1]
            assert row["labeled_images"] == budget == len(labeled)
            assert row["label_fraction"] == budget / 360
            assert row["unlabeled_images"] == 400 - budget
            assert row["split_digest"] == digest(np.sort(labeled))
            assert row["round"] == len(trial.config.data.budgets)
            bought = row["next_images"] or []
            assert len(bought) == number
            assert not (set(bought) & set(labeled.tolist()))
            assert (small.train.labels[bought] != UNLABELED).all()
            assert before <= set(labeled.tolist())
            before = set(labeled.tolist())
            labeled = np.concatenate([labeled, np.array(bought, np.int64)])


# What is learned from the unlabeled images does not depend on how the labels were chosen.
@pytest.mark.parametrize(
    ("selection", "method"), [*((name, "pass") for name in SELECTIONS), ("margin", "fixmatch")]
)
def test_a_label_that_is_not_bought_is_not_looked_at(
    selection: str, method: str, small: ImageDataset, results: ResultsFolder, tmp_path: Path
) -> None:
    """Each round again with every other label replaced by a wrong one: the same bits."""
    settings = {"selection": selection, "method": method, "precision": "fp32"}
    made = chain(small, (20, 30), **settings, **({} if method == "pass" else {"threshold": 0.2}))
    again = ResultsFolder(str(tmp_path / "again"))
    for trial, number in with_purchases(made):
        number = number or 7
        row = run_round(trial, number, small, results)
        buying = buying_of(trial, number, small, results, "s")
        assert buying is not None
        hidden = np.setdiff1d(np.flatnonzero(small.train.labels != UNLABELED), buying.labeled)
        labels = small.train.labels.copy()
        labels[hidden] = (labels[hidden] + 1 + hidden % 9) % 10
        assert (labels[hidden] != small.train.labels[hidden]).all()
        wrong = dataclasses.replace(
            small, train=dataclasses.replace(small.train, labels=labels), digest=""
        )
        other = run_round(trial, number, small, again, seen=wrong)
        differing = {name for name in row if repr(row[name]) != repr(other[name])} - UNEQUAL
        assert differing <= {"pseudo_accuracy"}  # which only says how right the method was
        assert row["next_images"] == other["next_images"]
        weights = [load_model(trial.trial_id, results=f.location).module for f in (results, again)]
        one, two = (list(module.parameters()) for module in weights)
        assert all(map(torch.equal, one, two))


def test_random_depends_on_the_split_seed_and_the_round_alone(
    small: ImageDataset, results: ResultsFolder
) -> None:
    chosen = {}
    for seed, split_seed in ((0, 0), (1, 0), (0, 1)):
        made = chain(small, selection="random", seed=seed, split_seed=split_seed, epochs=1)
        for trial, number in with_purchases(made[:2]):
            row = run_round(trial, number or 20, small, results)
            chosen[seed, split_seed, row["round"]] = row["next_images"]
    assert chosen[0, 0, 1] == chosen[1, 0, 1]
    assert chosen[0, 0, 2] == chosen[1, 0, 2]
    assert chosen[0, 0, 1] != chosen[0, 1, 1]
    # An image's number in one round says nothing of that in the next.
    assert not set(chosen[0, 0, 2][:10]) <= set(chosen[0, 0, 1])


def test_the_averaged_weights_choose_where_they_are_evaluated(
    small: ImageDataset, results: ResultsFolder
) -> None:
    made = chain(small, ema=0.99)
    row = run_round(made[0], 10, small, results)
    saved = load_model(made[0].trial_id, results=results.location)
    buying = buying_of(made[0], 10, small, results, "s")
    assert buying is not None
    rest = np.setdiff1d(np.flatnonzero(small.train.labels != UNLABELED), buying.labeled)
    with torch.inference_mode():  # in float32, though the training was in bf16
        shares = saved.module(torch.tensor(small.train.images[rest]) / 255).double().softmax(1)
    margins = shares.topk(2).values
    order = rest[np.argsort((margins[:, 0] - margins[:, 1]).numpy(), kind="stable")]
    assert set(row["next_images"][:5]) <= set(order[:10].tolist())
    assert len(set(row["next_images"]) & set(order[:10].tolist())) >= 9  # rounding may change the last


def test_an_earlier_round_that_is_missing_or_failed_is_said(
    small: ImageDataset, results: ResultsFolder
) -> None:
    first, second, third = chain(small, epochs=1)
    with pytest.raises(InputError, match=rf"round 1 \(trial {first.trial_id}\) must have a row"):
        buying_of(second, 20, small, results, "s")
    run_round(first, 9, small, results)
    with pytest.raises(InputError, match="must have bought labels up to 30, got 29"):
        buying_of(second, 20, small, results, "s")
    results.write(
        trial_row(second.config, trial_id=second.trial_id, status="failed", error="tired"), []
    )
    run_round(first, 10, small, results)
    with pytest.raises(InputError, match="round 2 failed: tired"):
        buying_of(third, 0, small, results, "s")


def test_what_a_round_s_model_knew_is_read_off_the_rows(
    small: ImageDataset, results: ResultsFolder, fashion_mnist: ImageDataset
) -> None:
    """`predict --calibrate` and `label_next` ask for it."""
    train = fashion_mnist.train
    whole = dataclasses.replace(
        small,
        train=ImageArrays(train.images[:400], train.labels[:400], train.class_names),
        digest="",
    )
    made = chain(whole, epochs=1)
    rows = [run_round(trial, number, whole, results) for trial, number in with_purchases(made)]
    saved = load_model(made[-1].trial_id, results=results.location)
    config = results.config("s", made[-1].trial_id)
    assert config is not None
    assert config.resolved() == made[-1].config
    data = data_of(saved.card, config, whole, results)
    assert data.split_digest == rows[-1]["split_digest"]
    known = known_labels(whole, [Asked("m", saved, results.location)])
    np.testing.assert_array_equal(known.labeled, data.labeled)
    assert len(known.candidates) == 350


def test_typiclust_needs_scikit_learn(small: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn.cluster", None)
    network = TrialConfig().network
    with pytest.raises(InputError, match="typiclust needs scikit-learn"):
        check_selections({"typiclust"}, network, (1, 28, 28), 10)
    check_selections({"random", "coreset"}, network, (1, 28, 28), 10)


# ---- rows ----


def round_rows(sweep: SweepConfig) -> pd.DataFrame:
    """A made-up row for each trial of a sweep."""
    rows = []
    for config in sweep.trials():
        budget = max(config.data.budgets, default=60000)
        extra: dict[str, Any] = {"label_fraction": budget / 60000, "labeled_images": budget}
        rows.append(trial_row(config, **extra))
    return pd.DataFrame(rows)


def test_a_row_s_share_of_the_labels_is_no_setting() -> None:
    (config,) = (trial.config for trial in chain_of_settings()[-1:])
    row = trial_row(config, label_fraction=0.01, labeled_images=600)
    assert config_of(row) == config


def chain_of_settings() -> list[Trial]:
    return identify(SweepConfig(**ROUNDS).trials(), "d")


@pytest.mark.parametrize(
    "settings",
    [
        ROUNDS,
        ROUNDS | {"configs": ("full", "partial"), "selections": ("random", "typiclust", "margin")},
        ROUNDS | {"methods": ("pass", "fixmatch"), "seeds": (0, 1), "split_seeds": (4,)},
    ],
)
def test_the_command_on_the_page_runs_the_same_rounds(settings: dict[str, Any]) -> None:
    sweep = SweepConfig(**settings, name="s")
    command = shlex.split(command_of(round_rows(sweep)))
    again = parse("tune", "", command[3:]).sweep
    assert {config.settings_id for config in again.trials()} == {
        config.settings_id for config in sweep.trials()
    }


# ---- the real command ----

SWEEP = (
    *("ssl_runner.tune", "--name", "r", "--configs", "partial", "--subset", "600"),
    *("--rounds", "20", "40", "80", "--selections", "random", "margin", "--methods", "freematch"),
    *("--epochs", "3", "--batch-size", "20", "--patience", "0", "--checkpoint-steps", "1"),
    *("--precision", "fp32", "--augment", "weak", "--ema", "0.9", "--log", "--max-concurrent", "1"),
    *("--models", "tests.models:Rationed"),
)


def rows_of(results: Path) -> set[str]:
    return {path.stem for path in results.glob("trials/*.parquet")}


@pytest.mark.slow
def test_killed_in_any_round_it_resumes_to_the_bit(
    tmp_path: Path, runs: Runs, call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut, rations = tmp_path / "whole", tmp_path / "cut", tmp_path / "rations"
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(rations))
    done = runs.start(*SWEEP, "--results", str(whole)).succeed()
    assert "6 of 6 trials done" in done
    trials = pd.read_parquet(whole / "trials")
    assert sorted(trials["round"]) == [1, 1, 2, 2, 3, 3]
    last = trials[trials["round"] == 3]
    assert last["next_images"].isna().all()
    assert last["split_digest"].nunique() == 2  # the two strategies bought others
    assert trials[trials["round"] == 1]["split_digest"].nunique() == 1

    arguments = (*SWEEP, "--results", str(cut))
    # Killed when a first round has its row; the next trial can't end.
    rations.mkdir()
    (rations / "of the first").touch()
    run = runs.start(*arguments)
    run.wait_for(lambda: bool(rows_of(cut)))
    runs.kill()
    run.end()
    assert len(rows_of(cut)) == 1
    # In the midst of a later round's training, after the other chain's first round.
    (rations / "of the other's first").touch()
    seen = set(checkpoints(cut))
    second = set(trials[trials["round"] == 2]["trial_id"])

    def is_second(checkpoint: Path) -> bool:
        return checkpoint.parent.name.partition("--")[2] in second

    run = runs.start(*arguments)
    run.wait_for(lambda: any(map(is_second, set(checkpoints(cut)) - seen)))
    runs.kill()
    run.end()
    assert len(rows_of(cut)) == 2
    rations.rmdir()
    output = runs.start(*arguments).succeed()
    assert "2 of 6 trials are in" in output
    assert tables(cut) == tables(whole)
    assert leftovers(cut) == set()
    assert "6 of 6 trials are in" in call(main, *arguments[1:]).stdout

    # Killed between two rounds, as the folder then is; and a round whose row somebody deleted.
    for name in {f"r--{trial_id}" for trial_id in trials[trials["round"] > 1]["trial_id"]}:
        for path in cut.glob(f"*/{name}.*"):
            path.unlink()
    started = pd.read_parquet(cut / "trials").set_index("trial_id")["started_at"]
    runs.start(*arguments).succeed()
    again = pd.read_parquet(cut / "trials").set_index("trial_id")["started_at"]
    assert (again[started.index] == started).all()  # the first rounds were not run again
    assert tables(cut) == tables(whole)

    # More rounds: the last one so far buys labels now, the ones before it stay.
    longer = (*arguments, "--rounds", "20", "40", "80", "120")
    more = runs.start(*longer).succeed()
    assert "4 of 8 trials are in" in more
    assert "2 of 8 trials are rounds that bought another number of labels than the next ones" in more
    grown = pd.read_parquet(cut / "trials").set_index("trial_id")
    assert len(grown) == 8
    assert sorted(grown["next_images"].dropna().map(len)) == [20, 20, 40, 40, 40, 40]
    figures = ["test_loss", "split_digest", "steps"]
    before = trials.set_index("trial_id")[figures]
    pd.testing.assert_frame_equal(grown.loc[before.index, figures], before)
    assert "8 of 8 trials are in" in call(main, *longer[1:]).stdout
    assert leftovers(cut) == set()


@pytest.mark.slow
def test_a_round_that_fails_ends_its_chain_alone(
    tmp_path: Path, runs: Runs, call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(mark))
    results = tmp_path / "results"
    arguments = (
        *("ssl_runner.tune", "--name", "r", "--configs", "partial", "--subset", "300", "--log"),
        *("--rounds", "20", "30", "50", "--selections", "margin", "--epochs", "1"),  # 2, 3, 5 steps
        *("--models", *(f"tests.models:{name}" for name in ("DyingLater", "FailingLater", "Linear"))),
        *("--batch-size", "10", "--max-concurrent", "1"),
        *("--results", str(results)),
    )
    run = runs.start(*arguments)
    run.end()
    assert run.returncode == 1
    assert "Traceback" not in run.stdout + run.stderr
    trials = pd.read_parquet(results / "trials").sort_values(["model", "round"])
    broken = ["finished", "failed", "failed"]
    assert trials["status"].tolist() == [*broken, *broken, *["finished"] * 3]
    died, after, error, later = trials["error"].dropna()
    assert "died" in died
    assert after == f"round 2 failed: {died}"
    assert error == "RuntimeError: three steps are too many"
    assert later == f"round 2 failed: {error}"
    assert trials["label_fraction"].tolist() == pytest.approx([20 / 300, 30 / 300, 50 / 300] * 3)
    assert "4 of 9 trials failed:" in run.stdout
    assert "(tests.models:DyingLater partial 0.1 margin seed 0): " in run.stdout
    assert leftovers(results) == set()
    again = call(main, *arguments[1:])
    assert again.returncode == 1
    assert "9 of 9 trials are in" in again.stdout

    mark.touch()  # from now on it does not fail
    retried = runs.start(*arguments, "--retry-failed").succeed()
    assert "5 of 9 trials are in" in retried
    after = pd.read_parquet(results / "trials").sort_values(["model", "round"])
    assert set(after["status"]) == {"finished"}
    kept = after["started_at"].to_numpy() == trials["started_at"].to_numpy()
    assert kept.tolist() == [*[True, False, False] * 2, True, True, True]
    fresh = runs.start(*arguments, "--fresh", "--models", "tests.models:Linear").succeed()
    assert "are in" not in fresh
    new = pd.read_parquet(results / "trials").sort_values(["model", "round"])
    is_new = new["started_at"].to_numpy() > after["started_at"].to_numpy()
    assert is_new.tolist() == [False] * 6 + [True] * 3


@pytest.mark.slow
@pytest.mark.xdist_group(RAY_BY_THE_DOZEN)
def test_two_workers_buy_what_is_in_the_rows(
    tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    rations = tmp_path / "rations"
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(rations))
    arguments = (
        *("ssl_runner.tune", "--name", "r", "--configs", "partial", "--subset", "300", "--log"),
        *("--rounds", "10", "20", "--selections", "margin", "--epochs", "6", "--patience", "0"),
        *("--batch-size", "10", "--precision", "fp64", "--models", "tests.models:Rationed"),
    )
    one, two = tmp_path / "one", tmp_path / "two"
    runs.start(*arguments, "--results", str(one)).succeed()
    distributed = (*arguments, "--num-workers", "2", "--results", str(two), "--checkpoint-steps", "1")
    # Killed in the midst of the second round's training: both workers wait at its fifth batch.
    rations.mkdir()
    for rank in range(2):
        (rations / f"of the first round's rank {rank}").touch()
    run = runs.start(*distributed)

    def is_in_the_second() -> bool:
        rows = rows_of(two)
        return bool(rows) and any(path.parent.name not in rows for path in checkpoints(two))

    run.wait_for(is_in_the_second)
    runs.kill()
    run.end()
    assert len(rows_of(two)) == 1
    rations.rmdir()
    runs.start(*distributed).succeed()
    alone, together = (pd.read_parquet(folder / "trials").sort_values("round") for folder in (one, two))
    assert together["world_size"].tolist() == [2, 2]
    for column in ("trial_id", "split_digest", "steps"):
        assert together[column].tolist() == alone[column].tolist()
    bought = [frame["next_images"].dropna().map(list).tolist() for frame in (alone, together)]
    assert bought[0] == bought[1]
    assert together["test_loss"].tolist() == pytest.approx(alone["test_loss"].tolist(), abs=1e-9)


def test_a_plan_names_every_round(call: Callable[..., Answer]) -> None:
    planned = call(main, *FLAGS.split(), "--dry-run")
    assert planned.returncode == 0
    for count, config in itertools.product((20, 30), ("partial",)):
        assert f"CNN {config} margin {count} seed 0" in planned.stdout
    assert "once 2 rounds: those of one beginning one after another" in planned.stdout


# ---- compared ----

METHODS = ("pass", "fixmatch")


def rows_along(accuracy: Callable[[str, str, int, int], float]) -> list[dict[str, Any]]:
    """Made-up rows of three selections, two methods and three seeds, and of full.

    Args:
        accuracy: Of method, selection ("" for full), labels and seed.
    """
    sweep = SweepConfig(
        configs=("full", "partial"),
        selections=("random", "margin", "coreset"),
        rounds=(100, 200, 400, 800),
        methods=METHODS,
        seeds=(0, 1, 2),
    )
    rows = []
    for config in sweep.trials():
        labels = max(config.data.budgets, default=60000)
        figures: dict[str, Any] = {
            "label_fraction": labels / 60000,
            "labeled_images": labels,
            "test_accuracy": accuracy(
                config.unlabeled.method, config.data.selection or "", labels, config.batches.seed
            ),
        }
        rows.append(trial_row(config, **figures))
    return rows


def along(accuracy: Callable[[str, str, int, int], float]) -> pd.DataFrame:
    return frame_of(*rows_along(accuracy))


def needed_by(trials: pd.DataFrame, target: float) -> dict[tuple[str, str], dict[Hashable, Any]]:
    """`labels_needed` by method and selection."""
    rows = labels_needed(trials, target).to_dict("records")
    return {(row["method"], row["selection"]): row for row in rows}


def straight(method: str, selection: str, labels: int, seed: int) -> float:
    """0.5 at 100 labels and 0.1 more each time that they double, from there on earlier by a factor
    that is the same at every accuracy; the seeds differ."""
    factor = {"random": 1.0, "margin": 1.25, "coreset": 0.8, "": 1.0}[selection]
    factor *= {"pass": 1.0, "fixmatch": 2.0}[method] * (1 + seed / 10)
    return 0.5 + 0.1 * math.log2(labels * factor / 100)


def test_random_is_a_baseline_paired_by_seed_method_and_labels() -> None:
    compared = compare(along(straight))
    assert words.differences(compared) == ["full", "pass", "random"]
    rows = {
        (row["method"], row["selection"], row["labeled_images"]): row
        for row in compared.to_dict("records")
        if row["config"] == "partial"
    }
    assert len(rows) == 2 * 3 * 4
    for (method, selection, _), row in rows.items():
        factor = {"random": 1.0, "margin": 1.25, "coreset": 0.8}[selection]
        expected = 0.1 * math.log2(factor)  # the same for every seed: no width
        assert row["n"] == 3
        for part in ("mean", "low", "high"):
            assert row[f"to_random_{part}"] == pytest.approx(expected, abs=1e-12)
        assert row["to_pass_mean"] == pytest.approx(0.0 if method == "pass" else 0.1, abs=1e-12)
        assert row["to_full_mean"] < 0
        assert words.difference(row, "random") == (
            "–"
            if selection == "random"
            else f"{100 * expected:+.2f} ({100 * expected:+.2f} to {100 * expected:+.2f})"
        )
    (full,) = (row for row in compared.to_dict("records") if row["config"] == "full")
    assert math.isnan(full["to_random_mean"])
    assert words.difference(full, "random") == "–"
    assert "label_budgets" not in compared
    # One selection, or several without random, have no such baseline; by name any of them is one.
    for selections in (["margin"], ["margin", "coreset"]):
        trials = along(straight)
        some = trials[trials["selection"].isna() | trials["selection"].isin(selections)]
        assert words.differences(compare(some)) == ["full", "pass"]
    to_margin = compare(along(straight), ("margin",))
    assert words.differences(to_margin) == ["margin"]
    with pytest.raises(InputError, match="one of full, pass, fixmatch, .*margin.*, got 'entropy'"):
        compare(along(straight), ("entropy",))


def test_every_selection_s_curve_ends_in_full() -> None:
    curve = label_curve(along(straight))
    for (method, selection), points in curve.groupby(["method", "selection"]):
        assert points["labeled_images"].tolist() == [100, 200, 400, 800, 60000], (method, selection)
        assert set(points["n"]) == {3}
    assert len(curve) == 2 * 3 * 5
    # Where images have no label at all, full is trained with each method.
    full = [
        trial_row(TrialConfig.of(method="fixmatch", seed=seed).resolved(), test_accuracy=0.75)
        for seed in (0, 1, 2)
    ]
    curve = label_curve(frame_of(*rows_along(straight), *full)).query("labeled_images == 60000")
    assert len(curve) == 2 * 3
    assert set(curve.query("method == 'fixmatch'")["test_accuracy_mean"]) == {0.75}


def test_other_rounds_before_the_same_number_of_labels_are_another_configuration() -> None:
    one = along(straight)
    other = along(lambda *labels: straight(*labels) + 0.01)
    budgets = other["label_budgets"].str.replace("100 200", "150 200")
    ids = [f"{n:010x}" for n in range(len(other))]
    other = other.assign(label_budgets=budgets, trial_id=ids, settings_id=ids)
    both = pd.concat([one, other[other["labeled_images"] >= 200]], ignore_index=True)
    compared = compare(both[both["config"] == "partial"])
    assert "label_budgets" in compared
    row = compared.query("method == 'pass' and selection == 'margin' and label_budgets == '150 200'")
    assert row["to_random_mean"].item() == pytest.approx(0.1 * math.log2(1.25))
    with pytest.raises(InputError, match="must be of one list of rounds, got several, such as "):
        labels_needed(both, 0.6)


@pytest.mark.parametrize(
    ("accuracy", "target", "labels"),
    [
        ([0.5, 0.6, 0.7], 0.6, 200),  # a round's own
        ([0.5, 0.6, 0.7], 0.65, 200 * 2**0.5),  # halfway in the logarithm
        ([0.5, 0.6, 0.7], 0.7, 400),
        ([0.5, 0.6, 0.55, 0.7], 0.65, 400 * 2 ** (1 / 2)),  # a fall is level ground
        ([0.5, 0.6, 0.55, 0.58], 0.6, 200),
        ([0.5, 0.5, 0.7], 0.6, 200 * 2**0.5),
        ([0.5, 0.6, 0.7], 0.71, math.inf),
        ([0.5, 0.6, 0.7], 0.5, math.nan),  # already with the first: fewer might do
        ([0.5, 0.6, 0.7], 0.4, math.nan),
        ([0.5], 0.6, math.inf),
    ],
)
def test_labels_are_interpolated_in_their_logarithm(
    accuracy: list[float], target: float, labels: float
) -> None:
    budgets = 100.0 * 2.0 ** np.arange(len(accuracy))
    found = labels_at(budgets, np.array(accuracy), target)
    assert found == pytest.approx(labels, rel=1e-9, nan_ok=True)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=6),
    st.floats(0.001, 0.999),
    st.floats(0.001, 0.999),
)
def test_a_higher_target_takes_no_fewer_labels(accuracy: list[float], one: float, other: float) -> None:
    budgets = 100.0 * 2.0 ** np.arange(len(accuracy))
    low, high = (labels_at(budgets, np.array(accuracy), t) for t in sorted((one, other)))
    if not math.isnan(low):
        assert low <= high * (1 + 1e-12)
        assert budgets[0] <= low * (1 + 1e-12)
    assert not (math.isnan(high) and not math.isnan(low))


def test_labels_saved_are_those_of_the_law() -> None:
    needed = labels_needed(along(straight), 0.7)
    for row in needed.to_dict("records"):
        factor = {"random": 1.0, "margin": 1.25, "coreset": 0.8}[row["selection"]]
        gain = {"pass": 1.0, "fixmatch": 2.0}[row["method"]]
        seeds = [1.0, 1.1, 1.2]
        labels = [400 / (factor * gain * seed) for seed in seeds]
        assert row["chains"] == 3
        assert row["never"] == row["at_once"] == row["unfinished"] == 0
        assert row["labels_mean"] == pytest.approx(np.mean(labels))
        assert row["labels_spread"] == pytest.approx(np.std(labels, ddof=1))
        for name, reference in (
            ("to_random", [400 / (gain * seed) for seed in seeds]),
            ("to_pass_random", [400 / seed for seed in seeds]),
        ):
            is_itself = row["selection"] == "random" and (name == "to_random" or gain == 1)
            if is_itself:
                assert math.isnan(row[f"{name}_mean"])
                continue
            saved = np.subtract(reference, labels)
            half = 4.302653 * np.std(saved, ddof=1) / 3**0.5  # Student's t, two degrees of freedom
            assert row[f"{name}_mean"] == pytest.approx(np.mean(saved))
            assert row[f"{name}_low"] == pytest.approx(np.mean(saved) - half, rel=1e-6)
            assert row[f"{name}_high"] == pytest.approx(np.mean(saved) + half, rel=1e-6)


def test_where_a_chain_does_not_reach_it_there_is_no_mean() -> None:
    """0.81 at 800 labels for random's last seed alone; fixmatch has 0.7 with the first 200."""
    needed = needed_by(along(straight), 0.82)
    random, margin = needed["pass", "random"], needed["pass", "margin"]
    assert (random["never"], random["chains"]) == (2, 3)
    assert math.isnan(random["labels_mean"])
    assert margin["never"] == 0
    assert margin["labels_mean"] > 0
    assert math.isnan(margin["to_random_mean"])  # nothing to compare with
    assert needed["fixmatch", "margin"]["to_random_mean"] > 0
    assert words.labels_of(random) == "not reached by 2 of 3"
    at_once = needed_by(along(straight), 0.61)["fixmatch", "random"]
    assert at_once["at_once"] == 2  # two seeds have 0.61 with 100 labels
    assert words.labels_of(at_once) == "reached at once by 2 of 3"
    # A seed that random does not have yet.
    trials = along(straight)
    two = needed_by(trials[(trials["selection"] != "random") | (trials["seed"] > 0)], 0.7)
    assert (two["pass", "margin"]["chains"], two["pass", "margin"]["to_random_pairs"]) == (3, 2)
    assert words.labels_saved(two["pass", "margin"], "to_random").endswith("), n 2")
    # A chain that has not come to its last round.
    trials = along(straight)
    cut = trials[~((trials["seed"] == 1) & (trials["labeled_images"] == 800))]
    unfinished = needed_by(cut, 0.82)["pass", "random"]
    assert (unfinished["never"], unfinished["unfinished"]) == (1, 1)
    assert words.labels_of(unfinished | {"never": 0}) == "not yet reached by 1 of 3"


@pytest.mark.parametrize("target", [0.0, 1.0, -1.0, 85.0, math.nan])
def test_a_target_is_a_share(target: float) -> None:
    with pytest.raises(InputError, match=r"--target must be in \(0, 1\), got"):
        labels_needed(along(straight), target)


def test_labels_saved_need_rounds() -> None:
    with pytest.raises(InputError, match="must be those of rounds, got no finished trial with a sel"):
        labels_needed(frame_of(trial_row(TrialConfig())), 0.5)


def test_the_report_prints_what_is_saved(results: ResultsFolder, call: Callable[..., Answer]) -> None:
    for row in rows_along(straight):
        results.write(row, [])
    done = call(report_main, results.root, "--target", "0.7")
    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.split())
    assert "labels needed for a test accuracy of 70 %" in printed
    expected = needed_by(along(straight), 0.7)["fixmatch", "margin"]
    for text in (
        f"{expected['labels_mean']:,.0f} ± {expected['labels_spread']:,.0f}",
        words.labels_saved(expected, "to_random"),
        words.labels_saved(expected, "to_pass_random"),
    ):
        assert text in printed
    assert "to random" in printed
    refused = call(report_main, results.root, "--labels", "1000")
    assert refused.returncode == 2
    assert "a label curve must be of one selection, got coreset, margin, random." in refused.stderr
    by_name = call(report_main, results.root, "--baseline", "random", "--format", "csv")
    assert "to_random_mean" in by_name.stdout
    assert "to_full_mean" not in by_name.stdout


def test_the_page_has_the_rounds() -> None:
    html = render_page(along(straight), pd.DataFrame(columns=EPOCHS.names))
    assert '<button type="button">to random</button>' in html
    assert "pass, selection margin" in html
    assert "--rounds 100 200 400 800" in html
