"""Shares of a sweep for several drivers: together they are the sweep, and none is in another's way."""

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_runner.config import SweepConfig
from ssl_runner.errors import InputError
from ssl_runner.results import ResultsFolder
from ssl_runner.shard import Shard
from ssl_runner.testing.processes import Runs, wait_until
from ssl_runner.testing.tables import checkpoints, leftovers, tables
from ssl_runner.tune.__main__ import main
from tests.builders import trial_row
from tests.conftest import SWEEP, Answer

CHAINS = SweepConfig(
    configs=("partial",), selections=("random", "margin"), rounds=(20, 40, 60), seeds=(0, 1, 2, 3)
)


@given(st.integers(1, 9))
def test_each_trial_is_in_one_shard(of: int) -> None:
    for sweep in (SweepConfig(seeds=tuple(range(4))), CHAINS):
        trials = sweep.trials()
        for trial in trials:
            assert sum(Shard(number, of).holds(trial) for number in range(1, of + 1)) == 1


def test_shards_are_of_about_equal_size() -> None:
    trials = SweepConfig(seeds=tuple(range(200))).trials()  # 1,200 of them
    for number in range(1, 5):
        assert 225 < sum(Shard(number, 4).holds(trial) for trial in trials) < 375  # 5 deviations


def test_rounds_stay_together() -> None:
    def beginning(trial):
        return trial.data.selection, trial.batches.seed

    trials = sorted(CHAINS.trials(), key=beginning)
    in_first = set()
    for _, chain in itertools.groupby(trials, beginning):
        (is_held,) = {Shard(1, 2).holds(trial) for trial in chain}
        in_first.add(is_held)
    assert in_first == {True, False}


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "a/b", "1/4/2", "-1/4", "1.5/4"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--shard must be i/n with i from 1 to n"):
        Shard.parse(text)


# ---- locks ----

SHARDS = (None, Shard(1, 2), Shard(2, 2), Shard(1, 3), Shard(1, 12))


@pytest.mark.parametrize("held", SHARDS)
@pytest.mark.parametrize("wanted", SHARDS)
def test_shards_of_as_many_run_beside_each_other(
    tmp_path: Path, held: Shard | None, wanted: Shard | None
) -> None:
    results = ResultsFolder(str(tmp_path))
    are_shards = held is not None and wanted is not None
    may_run = are_shards and held != wanted and str(held)[-2:] == str(wanted)[-2:]
    with ExitStack() as stack, results.lock_sweep("a", held), results.lock_sweep("a.b"):
        if not may_run:
            flag = "--name" if wanted is None else "--shard"
            stack.enter_context(pytest.raises(InputError, match=f"{flag} must be"))
        with results.lock_sweep("a", wanted):
            assert results.is_running("a")
            with pytest.raises(InputError, match="running a sweep"):
                results.compact()
    assert not results.is_running(None)
    assert list(tmp_path.iterdir()) == []


def test_the_models_of_other_shards_stay(tmp_path: Path) -> None:
    results = ResultsFolder(str(tmp_path))
    trials = SweepConfig(seeds=(0, 1)).trials()
    own, other = trials[0].settings_id, trials[1].settings_id
    (tmp_path / "models").mkdir()
    for trial_id in (own, other):  # written before their rows
        (tmp_path / "models" / f"s--{trial_id}.safetensors").touch()
    assert results.keep_models("s", set(), among={own} - {own}) == 0
    results.remove_leftovers("s", (), own={own})
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f"s--{other}.safetensors"]
    results.write(trial_row(trials[0], weights=None), [])
    assert results.keep_models("s", set(), among={own}) == 0
    assert len(list((tmp_path / "models").iterdir())) == 1


# ---- the command ----


def test_the_plan_of_a_shard(call: Callable[..., Answer]) -> None:
    study = ("--seeds", "0", "1", "--dry-run")
    plans = [call(main, *study, "--shard", f"{number}/2").stdout for number in (1, 2)]
    for trial in SweepConfig(seeds=(0, 1)).trials():
        assert [trial.settings_id in plan for plan in plans].count(True) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shard", "3/2"), "--shard must be i/n with i from 1 to n, got '3/2'"),
        (
            (
                *("--shard", "1/2", "--holdout", "600", "--samples", "2"),
                *("--search", "{lr: {choice: [0.1, 0.2]}}"),
            ),
            "--shard must be left out of a search",
        ),
    ],
)
def test_a_shard_that_cannot_be_is_refused(
    call: Callable[..., Answer], arguments: tuple[str, ...], said: str
) -> None:
    answer = call(main, *arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_four_drivers_and_deaths_end_in_the_table_of_one(
    tmp_path: Path, runs: Runs, undisturbed: Path
) -> None:
    def start(number: int):
        return runs.start(*SWEEP, "--results", str(tmp_path), "--shard", f"{number}/4")

    first = [start(number) for number in (1, 2, 3, 4)]
    came = wait_until(
        lambda: bool(checkpoints(tmp_path)),
        lambda: any(run.process.poll() is None for run in first),
        runs.pids,
    )
    assert came
    runs.kill()  # all of them, at once
    for run in first:
        run.end()
    for run in [start(number) for number in (1, 2, 3, 4)]:
        run.succeed()
    assert tables(tmp_path) == tables(undisturbed)
    assert leftovers(tmp_path) == set()
    assert runs.are_gone()
