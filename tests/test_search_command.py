"""A search by the real command: its stages, killed in each; what it says and refuses."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssl_runner.datasets.decoded.pool import usable_cpus
from ssl_runner.testing.processes import Run, Runs
from ssl_runner.testing.tables import leftovers, tables

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fashion_mnist")]

CORES = usable_cpus()

SMALL = (
    *("ssl_runner.tune", "--name", "s", "--configs", "partial", "--label-fractions", "0.2"),
    *("--subset", "600", "--holdout", "60", "--batch-size", "30", "--max-steps", "6"),
    *("--precision", "fp32", "--patience", "0", "--checkpoint-steps", "2", "--log"),
)
SEARCH = (
    *(*SMALL, "--methods", "pass", "fixmatch", "--seeds", "0", "1", "--samples", "3", "--untuned"),
    *("--search", "{lr: {log_uniform: [1e-4, 1e-2]}, threshold: {choice: [0.5, 0.95]}}"),
)


def roles(results: Path) -> dict[str, int]:
    """How many rows there are of each role."""
    files = list(results.glob("trials/*.parquet"))
    counts = pd.concat([pd.read_parquet(path, columns=["role"]) for path in files] or [pd.DataFrame()])
    return {str(name): int(count) for name, count in counts.value_counts().droplevel([]).items()}


def count(results: Path, role: str) -> int:
    return sum(n for name, n in roles(results).items() if role in name)


def test_a_search_killed_in_each_stage_ends_in_the_same_rows(tmp_path: Path, runs: Runs) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    output = runs.start(*SEARCH, "--results", str(whole)).succeed()
    assert "search: 6 samples of 2 groups" in output
    assert "CNN partial 0.2 fixmatch: sample " in output
    assert "finals: 8 trials, each under a seed that chose nothing" in output

    # Killed among the samples, then among the finals: with all processes at once.
    run = runs.start(*SEARCH, "--results", str(cut))
    run.wait_for(lambda: count(cut, "search") >= 2)
    assert runs.kill()
    run.end()
    assert count(cut, "final") == 0
    run = runs.start(*SEARCH, "--results", str(cut))
    run.wait_for(lambda: count(cut, "final") >= 1)
    assert runs.kill()
    assert "of 6 trials are in" in run.end()
    assert count(cut, "search") == 6
    again = runs.start(*SEARCH, "--results", str(cut)).succeed()
    assert "6 of 6 trials are in" in again
    assert tables(cut) == tables(whole)
    assert leftovers(cut) == set()

    rows = pd.read_parquet(whole / "trials")
    samples, finals = rows[rows["role"] == "search"], rows[rows["role"] == "final"]
    assert set(samples["seed"]) == set(samples["split_seed"]) == {1000}
    assert sorted(zip(finals["seed"], finals["split_seed"], strict=True)) == [
        (0, 0),
        (0, 0),
        (1, 1),
        (1, 1),
    ]
    assert set(samples["holdout_labels"]) == set(finals["holdout_labels"]) == {60}
    assert samples["weights"].isna().all()
    # A bit for each image of the holdout, of which as many are right as the accuracy says.
    for row in samples.to_dict("records"):
        bits = np.unpackbits(np.frombuffer(row["holdout_correct"], dtype=np.uint8))
        assert len(bits) == 64
        assert bits.sum() / 60 == row["validation_accuracy"]
    for method, group in samples.groupby("method"):
        best = group.sort_values(["validation_loss", "trial_id"]).iloc[0]
        assert set(finals.loc[finals["method"] == method, "lr"]) == {best["lr"]}
        assert (
            f"{best['search_group']}: best holdout loss so far {best['validation_loss']:.4f} "
            f"(sample {best['sample']:.0f}), all 3 samples done"
        ) in output
    assert "The settings were chosen among 3 samples" in (whole / "s.html").read_text()

    # Another batch of samples is more of the same search: nothing that is there runs again.
    started = rows.set_index("trial_id")["started_at"]
    more = runs.start(*SEARCH, "--samples", "4", "--results", str(whole)).succeed()
    assert "6 of 8 trials are in" in more
    after = pd.read_parquet(whole / "trials").set_index("trial_id")
    assert (after["started_at"].loc[started.index] == started).all()


def failing(run: Run) -> str:
    """The output of a command that ends with exit code 1."""
    output = run.end()
    assert run.returncode == 1, output
    return output


def test_a_group_whose_samples_all_fail_has_no_finals(tmp_path: Path, runs: Runs) -> None:
    models = ("--models", "tests.models:Linear", "tests.models:Raising")
    search = ("--search", "{dropout: {uniform: [0, 0.5]}}", "--samples", "2")
    output = failing(runs.start(*SMALL, *models, *search, "--results", str(tmp_path)))
    assert "tests.models:Raising partial 0.2: all 2 samples failed, so it has no finals" in output
    rows = pd.read_parquet(tmp_path / "trials")
    stood = {(model, role): len(group) for (model, role), group in rows.groupby(["model", "role"])}
    assert stood == {
        ("tests.models:Linear", "search"): 2,
        ("tests.models:Linear", "final"): 1,
        ("tests.models:Raising", "search"): 2,
    }


def refused(run: Run) -> str:
    output = run.end()
    assert run.returncode == 2, output
    return output.splitlines()[-1]


def test_a_holdout_larger_than_the_training_labels_is_refused(tmp_path: Path, runs: Runs) -> None:
    arguments = (*SEARCH, "--holdout", "200", "--results", str(tmp_path))
    assert refused(runs.start(*arguments)) == (
        "error: holdout must be at most the 80 labels of CNN partial 0.2, got 200. Choose a smaller "
        "one; --large-holdout allows it, and the page says so."
    )
    assert roles(tmp_path) == {}


def test_a_group_whose_seconds_are_up_starts_no_more_samples(tmp_path: Path, runs: Runs) -> None:
    limit = ("--samples", "100", "--search-seconds", "0.5")
    arguments = (*SEARCH, *limit, "--results", str(tmp_path))
    assert "200 samples of 2 groups, at most 0.5 seconds each" in runs.start(*arguments).succeed()
    rows = pd.read_parquet(tmp_path / "trials")
    samples = rows[rows["role"] == "search"]
    for _, group in samples.groupby("search_group"):
        # The first samples, and the last of them was started in time.
        assert sorted(group["sample"]) == list(range(len(group)))
        before = group.sort_values("ended_at")["seconds"].iloc[: -CORES - 1].sum()
        assert before < 0.5
    assert len(samples["search_group"].unique()) == 2
    assert (rows["role"] == "final").sum() == 4
    again = runs.start(*arguments).succeed()
    assert f"{len(samples)} of {len(samples)} trials are in" in again
    assert len(pd.read_parquet(tmp_path / "trials")) == len(rows)
