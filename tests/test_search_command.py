"""A search by the real command: its stages, killed in each; what it says and refuses."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ssl_runner.config import TrialConfig
from ssl_runner.datasets.decoded.pool import usable_cpus
from ssl_runner.results import ResultsFolder
from ssl_runner.testing.processes import Run, Runs
from ssl_runner.testing.tables import leftovers, tables
from ssl_runner.tune.__main__ import main
from tests.builders import trial_row
from tests.conftest import Answer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fashion_mnist")]

CORES = usable_cpus()

SMALL = (
    *("ssl_runner.tune", "--name", "s", "--configs", "partial", "--label-fractions", "0.2"),
    *("--subset", "600", "--holdout", "60", "--batch-size", "30", "--max-steps", "6"),
    *("--precision", "fp32", "--patience", "0", "--checkpoint-steps", "2", "--log"),
    *("--max-concurrent", "1"),  # one process that imports torch
)
SEARCH = (
    *(*SMALL, "--methods", "pass", "fixmatch", "--seeds", "0", "1", "--samples", "3"),
    *("--search", "{lr: {log_uniform: [1e-4, 1e-2]}, threshold: {choice: [0.5, 0.95]}}"),
)


def roles(results: Path) -> dict[str, int]:
    """How many rows there are of each role."""
    files = list(results.glob("trials/*.parquet"))
    counts = pd.concat([pd.read_parquet(path, columns=["role"]) for path in files] or [pd.DataFrame()])
    return {str(name): int(count) for name, count in counts.value_counts().droplevel([]).items()}


def count(results: Path, role: str) -> int:
    return roles(results).get(role, 0)


def failing(run: Run) -> str:
    """The output of a command that ends with exit code 1."""
    output = run.end()
    assert run.returncode == 1, output
    return output


def test_a_search_killed_in_each_stage_ends_in_the_same_rows(tmp_path: Path, runs: Runs) -> None:
    """Two groups, and two of a model that raises: all their samples fail, so they have no finals."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    search = (*SEARCH, "--models", "tests.models:SmallCNN", "tests.models:Raising", "--results")
    more = ("--samples", "4")
    output = failing(runs.start(*search, str(whole), *more))
    assert "search: 16 samples of 4 groups" in output
    assert "tests.models:SmallCNN partial 0.2 fixmatch: sample " in output
    assert "finals: 4 trials, each under a seed that chose nothing" in output
    for of_method in ("", " fixmatch"):
        said = f"tests.models:Raising partial 0.2{of_method}: all 4 samples failed, so it has no finals"
        assert said in output

    # Killed among the samples, then among the finals: with all processes at once.
    run = runs.start(*search, str(cut))
    run.wait_for(lambda: count(cut, "search") >= 2)
    assert runs.kill()
    run.end()
    assert count(cut, "final") == 0
    run = runs.start(*search, str(cut))
    run.wait_for(lambda: count(cut, "final") >= 1)
    assert runs.kill()
    assert "of 12 trials are in" in run.end()
    assert count(cut, "search") == 12
    # Another batch of samples is more of the same search: nothing that is there runs again.
    before = pd.read_parquet(cut / "trials").set_index("trial_id")["started_at"]
    assert "12 of 16 trials are in" in failing(runs.start(*search, str(cut), *more))
    after = pd.read_parquet(cut / "trials").set_index("trial_id")
    assert (after["started_at"].loc[before.index] == before).all()
    # Where the new samples are better, finals of the others stay.
    former = set(after.index[after["role"] == "former"])
    of_cut, of_whole = tables(cut), tables(whole)
    standing = [[row for row in rows if row["trial_id"] not in map(repr, former)] for rows in of_cut]
    assert standing == list(of_whole)
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
    assert set(samples["status"][samples["model"] == "tests.models:Raising"]) == {"failed"}
    # A bit for each image of the holdout, of which as many are right as the accuracy says.
    finished = samples[samples["status"] == "finished"]
    assert len(finished) == 8
    for sample in finished.to_dict("records"):
        bits = np.unpackbits(np.frombuffer(sample["holdout_correct"], dtype=np.uint8))
        assert len(bits) == 64
        assert bits.sum() / 60 == sample["validation_accuracy"]
    for method, group in finished.groupby("method"):
        best = group.sort_values(["validation_loss", "trial_id"]).iloc[0]
        assert set(finals.loc[finals["method"] == method, "lr"]) == {best["lr"]}
        assert (
            f"{best['search_group']}: best holdout loss so far {best['validation_loss']:.4f} "
            f"(sample {best['sample']:.0f}), all 4 samples done"
        ) in output
    assert "The settings were chosen among 4 samples" in (whole / "s.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "there", "message"),
    [
        (
            (*SEARCH, "--holdout", "200"),
            None,
            "holdout must be at most the 80 labels of CNN partial 0.2, got 200. Choose a smaller one; "
            "--large-holdout allows it, and the page says so.",
        ),
        (SEARCH, {}, "--name must be of a search, or new, got 's': its rows in "),
        (SMALL, {"role": "search"}, "--name must be of a sweep without a search, or new, got 's': its"),
    ],
)
def test_what_does_not_do_is_refused_before_anything_runs(
    tmp_path: Path,
    call: Callable[..., Answer],
    arguments: tuple[str, ...],
    there: dict[str, str] | None,
    message: str,
) -> None:
    if there is not None:
        ResultsFolder(str(tmp_path)).write(trial_row(TrialConfig(), "s") | there, [])
    before = roles(tmp_path)
    done = call(main, *arguments[1:], "--results", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
    assert done.stderr.count("\n") == 1
    assert roles(tmp_path) == before


def test_a_group_whose_seconds_are_up_starts_no_more_samples(
    tmp_path: Path, runs: Runs, call: Callable[..., Answer]
) -> None:
    limit = ("--samples", "100", "--search-seconds", "0.5", "--untuned")
    arguments = (*SEARCH, *limit, "--results", str(tmp_path))
    output = runs.start(*arguments).succeed()
    assert "200 samples of 2 groups, at most 0.5 seconds each" in output
    assert "finals: 8 trials" in output  # and the settings as they stand beside them
    rows = pd.read_parquet(tmp_path / "trials")
    samples = rows[rows["role"] == "search"]
    for _, group in samples.groupby("search_group"):
        # The first samples, and the last of them was started in time.
        assert sorted(group["sample"]) == list(range(len(group)))
        before = group.sort_values("ended_at")["seconds"].iloc[: -CORES - 1].sum()
        assert before < 0.5
    assert len(samples["search_group"].unique()) == 2
    assert roles(tmp_path) == {"search": len(samples), "final": 4, "default": 4}
    again = call(main, *arguments[1:])
    assert again.returncode == 0
    assert f"{len(samples)} of {len(samples)} trials are in" in again.stdout
    assert "what tuning changed in test accuracy" in again.stdout
    assert len(pd.read_parquet(tmp_path / "trials")) == len(rows)
