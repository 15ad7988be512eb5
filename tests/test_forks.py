"""Commands forked from a process that has imported much: they are what new processes are."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_runner.testing.forks import Forked
from ssl_runner.testing.processes import Run, Runs
from ssl_runner.testing.tables import tables

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are forked on Linux alone")

TRAIN = (
    *("ssl_runner.train", "--subset", "600", "--label-fraction", "0.2", "--batch-size", "30"),
    *("--method", "freematch", "--epochs", "2", "--patience", "0", "--precision", "fp32"),
)


def seen(run: Run) -> tuple[int, str, str]:
    run.end()
    return run.returncode, run.stdout, run.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("ssl_runner.report", "nowhere"),
        ("ssl_runner.train", "--dry-run", "--lr", "0.5"),
        ("ssl_runner.train", "--help"),
        ("ssl_runner.tune", "--lr", "nonsense"),
        ("ssl_runner.tune", "--models", "mine:Model"),
    ],
)
def test_a_fork_ends_and_says_what_a_new_process_does(
    tmp_path: Path, runs: Runs, arguments: tuple[str, ...]
) -> None:
    forked = runs.start(*arguments, cwd=tmp_path)
    assert isinstance(forked.process, Forked)
    with Runs() as anew:
        assert seen(forked) == seen(anew.start(*arguments, cwd=tmp_path))


@pytest.mark.usefixtures("fashion_mnist")
def test_a_fork_trains_what_a_new_process_does(tmp_path: Path, runs: Runs) -> None:
    forked, new = tmp_path / "forked", tmp_path / "new"
    runs.start(*TRAIN, "--results", str(forked)).succeed()
    with Runs() as anew:
        anew.start(*TRAIN, "--results", str(new)).succeed()
    assert tables(forked) == tables(new)


@pytest.mark.usefixtures("fashion_mnist")
def test_a_fork_is_found_and_killed(tmp_path: Path, runs: Runs) -> None:
    run = runs.start(*TRAIN, "--epochs", "1000", "--results", str(tmp_path))
    run.wait_for(lambda: "epoch 1 of" in run.stdout)
    assert run.process.poll() is None
    assert runs.pids() == {run.process.pid}
    assert runs.kill("ssl_runner.tune") == 0
    assert runs.kill("ssl_runner.train --subset 600") == 1
    run.end()
    assert run.returncode == -signal.SIGKILL
    assert runs.are_gone()


def test_no_fork_where_a_new_process_could_differ(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(runs.start(code="").process, Forked)
    assert not isinstance(runs.start("ssl_runner.tune", "--address", "x:1", "--help").process, Forked)
    asked = runs.start("ssl_runner.tune", "--help", stdin=subprocess.PIPE)  # a fork reads nothing
    assert not isinstance(asked.process, Forked)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert not isinstance(runs.start("ssl_runner.tune", "--help").process, Forked)
    monkeypatch.undo()
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", "x")
    assert isinstance(runs.start("ssl_runner.tune", "--help").process, Forked)
