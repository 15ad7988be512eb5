"""A search by Optuna, by the real command: killed, started over, with samples that it meets twice."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.results import ResultsFolder
from ssl_runner.study import sweep_from_settings
from ssl_runner.testing.processes import Runs
from ssl_runner.testing.tables import checkpoints, leftovers, tables
from ssl_runner.tune.__main__ import main
from ssl_runner.tune.adaptive import AdaptiveSearch
from ssl_runner.tune.studies import Outcome
from tests.conftest import Answer

pytestmark = pytest.mark.usefixtures("fashion_mnist")

STUDY = {
    "name": "o",
    "configs": ["partial"],
    "label_fractions": [0.2],
    "methods": ["pass", "fixmatch"],
    "subset": 600,
    "holdout": 60,
    "max_steps": 8,
    "samples": 3,
    "searcher": "optuna",
    "search": {"lr": {"log_uniform": [1e-4, 1e-1]}, "threshold": {"uniform": [0.5, 0.95]}},
}

# ---- without Ray ----


def search_of(folder: Path, dataset: ImageDataset, **settings: object) -> AdaptiveSearch:
    sweep = sweep_from_settings(STUDY | settings)
    return AdaptiveSearch(sweep, dataset, ResultsFolder(str(folder)))


def test_each_group_searches_what_its_trials_take(tmp_path: Path, fashion_mnist: ImageDataset) -> None:
    search = search_of(tmp_path, fashion_mnist, methods=["pass", "fixmatch", "pi_model"])
    searched = {
        base.unlabeled.method: set(search.sweep.searched_by(base)) for base in search.groups.values()
    }
    assert searched == {"pass": {"lr"}, "fixmatch": {"lr", "threshold"}, "pi_model": {"lr"}}


def test_what_depends_on_a_searched_setting_is_searched_with_it() -> None:
    optimizers = {"optimizer": {"choice": ["Adam", "SGD"]}, "beta1": {"uniform": [0.5, 0.9]}}
    sweep = sweep_from_settings(STUDY | {"search": optimizers, "methods": ["pass"]})
    (base,) = sweep.groups().values()
    assert set(sweep.searched_by(base)) == {"optimizer", "beta1"}
    sweep = sweep_from_settings(STUDY | {"search": STUDY["search"], "lr": 0.002})
    assert all("optimizer" not in sweep.searched_by(base) for base in sweep.groups().values())


def answered(search: AdaptiveSearch) -> list[str]:
    """The ids of the trials of all samples that a search asks for, all of them run."""
    rows: dict[str, Outcome] = {}
    searcher = search.searcher(lambda suggestion: {"id": suggestion.trial.trial_id}, lambda *_: None)
    searcher._search = replace(searcher._search, outcome_of=rows.get)
    number = 0
    while searcher.has_next():
        trial_id = searcher.suggest(str(number))["id"]
        rows[trial_id] = Outcome("finished", 0.5)
        searcher.on_trial_complete(str(number))
        number += 1
    return list(rows)


def test_a_group_that_takes_no_searched_setting_has_one_trial(
    tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    search = search_of(tmp_path, fashion_mnist, search={"threshold": {"uniform": [0.5, 0.95]}})
    assert len(answered(search)) == 1 + 3
    assert len(search.trials()) == 1 + 3
    assert [trial.place["sample"] for trial in search.trials()] == [0, 0, 1, 2]


def test_all_groups_draw_the_same_at_first_as_with_the_random_searcher(
    tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    search = search_of(tmp_path, fashion_mnist)
    answered(search)
    lrs: dict[str, list[float]] = {}
    for trial in search.trials():
        lrs.setdefault(trial.config.unlabeled.method, []).append(trial.config.optimizer.lr)
    assert lrs["pass"][0] == lrs["fixmatch"][0]
    assert len(set(lrs["pass"])) == 3


@pytest.mark.parametrize(
    ("changed", "goes_on"),
    [
        ({"samples": 5}, True),
        ({"seeds": [3, 4]}, True),
        ({"lr": 0.005}, True),  # it is searched: what it is otherwise decides nothing
        ({"scheduler": "asha", "grace_steps": 2}, True),
        ({"search_seed": 7}, False),
        ({"objective": "accuracy"}, False),
        ({"max_steps": 9}, False),
        ({"search": {"lr": {"log_uniform": [1e-4, 1e-2]}}}, False),
    ],
)
def test_what_is_the_same_search(
    tmp_path: Path, fashion_mnist: ImageDataset, changed: dict[str, object], goes_on: bool
) -> None:
    before = answered(search_of(tmp_path, fashion_mnist))
    after = search_of(tmp_path, fashion_mnist, **changed)
    known = [trial.trial_id for trial in after.trials()]
    assert sorted(known) == (sorted(before) if goes_on else [])


def test_studies_in_a_cloud_are_refused(fashion_mnist: ImageDataset) -> None:
    sweep = sweep_from_settings(STUDY)
    message = (
        "--results must be a folder on a disk with searcher optuna, got 'mock:///results': its studies "
        "are appended to line by line, which a cloud can't. Copy the results there afterwards, or "
        "search with --searcher random."
    )
    with pytest.raises(InputError) as refusal:
        AdaptiveSearch(sweep, fashion_mnist, ResultsFolder("mock:///results"))
    assert str(refusal.value) == message


def test_probes_are_at_the_ends_of_each_range(tmp_path: Path, fashion_mnist: ImageDataset) -> None:
    probes = search_of(tmp_path, fashion_mnist, lr=0.003).probes()
    of_fixmatch = [t.config for t in probes if t.config.unlabeled.method == "fixmatch"]
    assert [(config.optimizer.lr, config.unlabeled.threshold) for config in of_fixmatch] == [
        (0.0001, 0.95),
        (0.1, 0.95),
        (0.003, 0.5),
        (0.003, 0.95),
    ]
    assert not (tmp_path / "search").exists()


# ---- the command ----

SEARCH = (
    *("ssl_runner.tune", "--name", "o", "--configs", "partial", "--label-fractions", "0.2"),
    *("--subset", "600", "--holdout", "60", "--batch-size", "30", "--max-steps", "12"),
    *("--order", "paired", "--precision", "fp32", "--patience", "0", "--checkpoint-steps", "1"),
    *("--log", "--models", "tests.models:Rationed"),
    *("--methods", "pass", "fixmatch", "--samples", "3", "--searcher", "optuna"),
)
OF_LR = ("--search", "{lr: {log_uniform: [1e-4, 0.1]}, threshold: {uniform: [0.5, 0.95]}}")
ASHA = ("--scheduler", "asha", "--grace-steps", "6", "--reduction", "2")


def rows_of(results: Path) -> "pd.DataFrame":
    """The rows of the samples."""
    files = list(results.glob("trials/*.parquet"))
    rows = pd.concat([pd.read_parquet(path) for path in files]) if files else pd.DataFrame({"role": []})
    return rows[rows["role"] == "search"]


def answered_in(results: Path, dataset: ImageDataset) -> list[int]:
    """How many samples the studies of each group know the answer of."""
    model = {"models": ["tests.models:Rationed"], "max_steps": 12, "batch_size": 30, "order": "paired"}
    sweep = sweep_from_settings(STUDY | model | {"precision": "fp32", "patience": 0})
    search = AdaptiveSearch(sweep, dataset, ResultsFolder(str(results)))
    return [len(study.known) for study in search.studies.values()]


@pytest.mark.slow
def test_a_search_by_optuna_that_is_killed_loses_no_sample(
    tmp_path: Path,
    runs: Runs,
    fashion_mnist: ImageDataset,
    call: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rations = tmp_path / "rations"
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(rations))
    arguments = (*SEARCH, *OF_LR, *ASHA, "--results", str(tmp_path))
    # Two samples go on beyond their fifth batch, and the next ones wait there.
    rations.mkdir()
    for number in range(2):
        (rations / str(number)).touch()
    run = runs.start(*arguments)
    run.wait_for(lambda: len(rows_of(tmp_path)) >= 2 and bool(checkpoints(tmp_path)))
    assert runs.kill()
    run.end()
    rations.rmdir()
    rows = rows_of(tmp_path)
    started = dict(zip(rows["trial_id"], rows["started_at"], strict=True))
    # A sample whose row is gone runs again, and no other.
    deleted = rows["trial_id"].iloc[0]
    next(tmp_path.glob(f"trials/o--{deleted}.parquet")).unlink()
    output = runs.start(*arguments).succeed()
    assert "search: 6 samples of 2 groups, by optuna" in output
    rows = rows_of(tmp_path)
    assert sorted(zip(rows["method"], rows["sample"], strict=True)) == [
        (method, n) for method in ("fixmatch", "pass") for n in range(3)
    ]
    assert set(rows["status"]) <= {"finished", "stopped"}
    ends = dict(zip(rows["trial_id"], rows["started_at"], strict=True))
    assert {each for each, moment in started.items() if ends[each] != moment} == {deleted}
    assert leftovers(tmp_path) == set()
    assert answered_in(tmp_path, fashion_mnist) == [3, 3]
    # The same again runs nothing, and starts no Ray.
    before = tables(tmp_path)
    again = call(main, *arguments[1:])
    assert again.returncode == 0
    assert "6 of 6 trials are in" in again.stdout
    assert "trials done" not in again.stdout
    assert tables(tmp_path) == before


@pytest.mark.slow
def test_one_at_a_time_the_same_search_is_the_same_again(tmp_path: Path, runs: Runs) -> None:
    arguments = (*SEARCH, *OF_LR, "--max-concurrent", "1", "--results", str(tmp_path))
    runs.start(*arguments).succeed()
    before, journal = tables(tmp_path), (tmp_path / "search" / "o.journal").read_bytes()
    rows = rows_of(tmp_path)
    assert list(rows.sort_values("started_at")["sample"]) == [0, 0, 1, 1, 2, 2]  # the groups in turn
    runs.start(*arguments, "--fresh").succeed()
    assert tables(tmp_path) == before
    assert (tmp_path / "search" / "o.journal").read_bytes() != journal


@pytest.mark.slow
def test_a_sample_that_is_met_twice_is_not_run_twice(
    tmp_path: Path, runs: Runs, call: Callable[..., Answer]
) -> None:
    choice = ("--search", "{lr: {choice: [0.001, 0.003]}}", "--methods", "pass", "--samples", "6")
    arguments = (*SEARCH, *choice, "--max-concurrent", "1", "--results", str(tmp_path))
    output = runs.start(*arguments).succeed()
    rows = rows_of(tmp_path)
    assert sorted(rows["lr"]) == [0.001, 0.003]
    assert "of 2 samples has the best" in output
    more = call(main, *arguments[1:], "--samples", "8")
    assert more.returncode == 0
    assert "trials done" not in more.stdout


@pytest.mark.slow
def test_invalid_input_is_refused_before_there_is_a_study(
    tmp_path: Path, call: Callable[..., Answer]
) -> None:
    arguments = (*SEARCH[1:], *OF_LR, "--results", str(tmp_path))
    refused = call(main, *arguments, "--holdout", "200")
    assert refused.returncode == 2
    assert "holdout must be at most the 80 labels of" in refused.stderr
    assert not (tmp_path / "search").exists()
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "o.journal").write_text("lr,loss\n0.1,0.5\n")
    refused = call(main, *arguments)
    assert refused.returncode == 2
    assert "o.journal: not a journal of Optuna's studies" in refused.stderr
