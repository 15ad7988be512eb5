"""A search whose scheduler stops trials, by the real command: killed, over workers, without referee."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ssl_runner.testing.processes import Runs
from ssl_runner.testing.tables import checkpoints, leftovers, tables
from ssl_runner.tune.__main__ import main
from tests.conftest import RAY_BY_THE_DOZEN, Answer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fashion_mnist")]

SEARCH = (
    *("ssl_runner.tune", "--name", "a", "--configs", "partial", "--label-fractions", "0.2"),
    *("--subset", "600", "--holdout", "100", "--batch-size", "20", "--max-steps", "24"),
    *("--order", "paired", "--precision", "fp32", "--patience", "0", "--checkpoint-steps", "2"),
    *("--log", "--max-concurrent", "1"),
    *("--search", "{lr: {log_uniform: [1e-5, 0.1]}}", "--samples", "5", "--objective", "accuracy"),
)
ASHA = ("--scheduler", "asha", "--grace-steps", "3", "--reduction", "2")
"""The rungs are at 3, 6 and 12 steps; an epoch has 20."""


def rows_of(results: Path) -> list[dict[str, Any]]:
    """The rows of the samples, in their order."""
    files = list(results.glob("trials/*.parquet"))
    rows = pd.concat([pd.read_parquet(path) for path in files]) if files else pd.DataFrame({"role": []})
    samples = rows[rows["role"] == "search"]
    return [{str(k): v for k, v in row.items()} for row in samples.to_dict("records")]


def statuses(results: Path) -> list[str]:
    return [row["status"] for row in rows_of(results)]


def check_rungs(rows: list[dict[str, Any]]) -> None:
    """What holds of every search with ASHA, in whatever order its trials reach their rungs."""
    for row in rows:
        steps = [rung["steps"] for rung in row["rungs"]]
        assert steps == [3, 6, 12][: len(steps)]
        is_stopped = row["status"] == "stopped"
        assert row["steps"] == (steps[-1] if is_stopped else 24)
        assert pd.isna(row["test_accuracy"]) == is_stopped
        if is_stopped:  # someone was better there
            there = [
                rung["validation_accuracy"]
                for other in rows
                for rung in other["rungs"]
                if rung["steps"] == steps[-1]
            ]
            assert row["validation_accuracy"] < max(there)
        else:
            assert len(steps) == 3


def test_a_search_that_is_killed_goes_on_with_what_its_trials_had_at_their_rungs(
    tmp_path: Path, runs: Runs, call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time the order is that of the samples, so the table is that of an undisturbed search."""
    whole, cut, rations = tmp_path / "whole", tmp_path / "cut", tmp_path / "rations"
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(rations))
    search = (*SEARCH, "--models", "tests.models:Rationed")
    arguments = (*search, *ASHA, "--save", "all")
    output = runs.start(*arguments, "--results", str(whole)).succeed()
    assert "stopped" in output
    rows = rows_of(whole)
    assert sorted(row["sample"] for row in rows) == [0, 1, 2, 3, 4]
    assert 2 <= statuses(whole).count("stopped") <= 4
    check_rungs(rows)
    assert all(pd.isna(row["weights"]) == (row["status"] == "stopped") for row in rows)
    # Killed after a trial was stopped, while another waits between its first rung and its second.
    rations.mkdir()
    (rations / "of the first").touch()
    run = runs.start(*arguments, "--results", str(cut))
    run.wait_for(lambda: "stopped" in statuses(cut) and bool(checkpoints(cut)))
    assert runs.kill()
    run.end()
    assert len(rows_of(cut)) < 5
    rations.rmdir()
    runs.start(*arguments, "--results", str(cut)).succeed()
    assert tables(cut) == tables(whole)
    assert leftovers(cut) == set()
    # A stopped trial is done, also where failed ones are to be retried.
    again = call(main, *arguments[1:], "--results", str(cut), "--retry-failed")
    assert again.returncode == 0
    assert "5 of 5 trials are in" in again.stdout
    assert tables(cut) == tables(whole)
    # Without the scheduler it is not: all samples get their budget.
    runs.start(*search, "--results", str(cut)).succeed()
    assert statuses(cut) == ["finished"] * 5
    assert {row["steps"] for row in rows_of(cut)} == {24}


@pytest.mark.xdist_group(RAY_BY_THE_DOZEN)
def test_a_search_over_workers_ends_and_its_referee_may_die(tmp_path: Path, runs: Runs) -> None:
    """Every trial takes the whole machine: with anything left behind the next one would never start."""
    cpus = str(max(2, len(os.sched_getaffinity(0))))
    search = (*SEARCH, "--num-workers", "2", "--cpus-per-trial", cpus, "--results", str(tmp_path))
    run = runs.start(*search, *ASHA, "--samples", "3")
    run.wait_for(lambda: len(rows_of(tmp_path)) == 2)
    assert runs.kill("ray::Referee")
    run.succeed()
    rows = rows_of(tmp_path)
    # The second one's learning rate is next to nothing.
    assert [row["status"] for row in sorted(rows, key=lambda row: row["sample"])][:2] == [
        "finished",
        "stopped",
    ]
    check_rungs(rows)
    trials = pd.read_parquet(tmp_path / "trials")
    assert set(trials["world_size"]) == {2}
    finished = [row for row in rows if row["status"] == "finished"]
    best = max(finished, key=lambda row: row["validation_accuracy"])
    finals = trials[trials["role"] == "final"]
    assert (finals["lr"].tolist(), finals["status"].tolist()) == ([best["lr"]], ["finished"])
    assert runs.are_gone()


def test_the_median_stops_trials_too_and_only_samples(tmp_path: Path, runs: Runs) -> None:
    median = ("--scheduler", "median", "--grace-steps", "5", "--seeds", "0", "1")
    runs.start(*SEARCH, *median, "--results", str(tmp_path)).succeed()
    rows = rows_of(tmp_path)
    assert 1 <= statuses(tmp_path).count("stopped") <= 3
    for row in rows:
        steps = [rung["steps"] for rung in row["rungs"]]
        assert steps == [5, 10, 15, 20][: len(steps)]
        assert row["status"] == "stopped" or len(steps) == 4
    finals = pd.read_parquet(tmp_path / "trials").query("role == 'final'")
    assert list(finals["status"]) == ["finished"] * 2
    assert all(len(rungs) == 0 for rungs in finals["rungs"])


def test_a_grace_beyond_the_epochs_is_refused_before_anything_runs(
    tmp_path: Path, call: Callable[..., Answer]
) -> None:
    epochs = ("--max-steps", "null", "--epochs", "1", "--grace-steps", "20")
    said = call(main, *SEARCH[1:], *ASHA, *epochs, "--results", str(tmp_path))
    assert said.returncode == 2
    assert (
        "grace_steps must be less than the 20 steps of CNN partial 0.2 lr 0.005276 seed" in said.stderr
    )
    assert said.stderr.endswith("got 20. No trial would ever be stopped.\n")
    assert list(tmp_path.glob("trials/*")) == []
