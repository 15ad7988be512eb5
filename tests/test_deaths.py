"""Whatever is killed, the same command again ends in the same table."""

import os
import random
import signal
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssl_runner.testing.processes import Runs, killed_until_done, wait_until
from ssl_runner.testing.tables import checkpoints, leftovers, tables
from tests.conftest import SWEEP

pytestmark = pytest.mark.usefixtures("fashion_mnist")

# A trial's process is killed in test_tune, a Ray Train worker in test_distributed, each of Ray's own
# processes alone in experiments/benchmarks/faults.py.
VICTIMS = {
    "the driver": ["ssl_runner.tune"],
    "the raylet and the GCS": ["raylet/raylet", "gcs_server"],
    "the machine": [""],
}


@pytest.mark.slow
def test_whatever_dies_the_same_command_ends_in_the_same_table(
    tmp_path: Path, runs: Runs, undisturbed: Path
) -> None:
    """One sweep, in which everything dies once: in the end when a trial has its row."""
    arguments = (*SWEEP, "--results", str(tmp_path))
    rows, seen = tmp_path / "trials", set[Path]()

    def is_under_way(least: int) -> bool:
        is_new = bool(set(checkpoints(tmp_path)) - seen)
        return is_new and len(list(rows.glob("*.parquet"))) >= least

    for victim, names in VICTIMS.items():
        run = runs.start(*arguments)
        run.wait_for(partial(is_under_way, least=int(victim == "the machine")))
        assert all(runs.kill(name) for name in names), victim
        # Ray's own processes end with their head; the command may wait for them, and is not to. It has
        # a moment to do something wrong.
        time.sleep(1)
        runs.kill("ssl_runner.tune")
        assert runs.are_gone()
        run.end()
        seen |= set(checkpoints(tmp_path))
    finished = pd.read_parquet(rows).set_index("trial_id")["started_at"]
    runs.start(*arguments).succeed()
    assert tables(tmp_path) == tables(undisturbed)
    started = pd.read_parquet(rows).set_index("trial_id")["started_at"]
    assert (started[finished.index] == finished).all()  # what was finished was not run again
    assert leftovers(tmp_path) == set()
    assert runs.are_gone()
    assert list(runs.temporary.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once(tmp_path: Path, runs: Runs) -> None:
    run = runs.start(*SWEEP, "--epochs", "400", "--results", str(tmp_path))
    run.wait_for(lambda: bool(checkpoints(tmp_path)))

    def press_ctrl_c() -> bool:
        run.process.send_signal(signal.SIGINT)
        return run.process.poll() is not None

    wait_until(press_ctrl_c)  # again and again, as the impatient do
    assert run.returncode == 130, run.end()
    assert run.stderr.splitlines()[-1] == "stopped at once; the same command resumes from here"
    assert "Traceback" not in run.stdout + run.stderr
    assert runs.are_gone()


TRAIN = (
    *("ssl_runner.train", "--subset", "300", "--label-fraction", "0.2", "--method", "freematch"),
    *("--epochs", "4", "--patience", "0", "--batch-size", "30", "--checkpoint-steps", "1"),
    *("--precision", "fp32", "--name", "t", "--cpus-per-trial", "1"),
)


@pytest.mark.slow
def test_a_process_killed_at_random_moments(tmp_path: Path, runs: Runs) -> None:
    """With a checkpoint at every step most of the moments are in the midst of writing one."""
    whole = runs.start(*TRAIN, "--results", str(tmp_path / "whole"))
    assert "freematch" in whole.succeed()
    results = tmp_path / "cut"
    arguments = (*TRAIN, "--results", str(results))
    kills, _ = killed_until_done(runs, arguments, results, random.Random(0))
    assert kills >= 3
    assert tables(results) == tables(tmp_path / "whole")
    assert leftovers(results) == set()


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path, runs: Runs) -> None:
    """Files from an hour ahead are what a clock that was put back leaves behind."""
    runs.start(*TRAIN, "--results", str(tmp_path / "whole")).succeed()
    results = tmp_path / "cut"
    arguments = (*TRAIN, "--results", str(results))
    run = runs.start(*arguments)
    run.wait_for(lambda: len(checkpoints(results)) > 1)
    runs.kill()
    run.end()
    ahead = time.time() + 3600
    # The older checkpoint is now the one that was written last.
    for place, path in enumerate(sorted(checkpoints(results), reverse=True)):
        os.utime(path, (ahead + place, ahead + place))
    newest = max(path.name for path in checkpoints(results))
    again = runs.start(*arguments)
    again.wait_for(lambda: newest not in {path.name for path in checkpoints(results)})
    again.succeed()
    assert tables(results) == tables(tmp_path / "whole")
    # A row whose end lies before its start is a row like any other.
    (path,) = results.glob("trials/*.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index("ended_at")
    early = pa.array([table["started_at"][0].as_py() - timedelta(hours=1)], table.schema.types[place])
    pq.write_table(table.set_column(place, table.schema.field(place), early), path)
    report = runs.start("ssl_runner.report", str(results), "--page", str(tmp_path / "p"))
    assert "freematch" in report.succeed()
