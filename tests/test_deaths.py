"""Whatever is killed, the same command again ends in the same table."""

import os
import random
import signal
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.benchmarks.killing import Run, checkpoints, killed_until_done, leftovers, tables
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
@pytest.mark.parametrize("victim", VICTIMS)
def test_whatever_dies_the_same_command_ends_in_the_same_table(
    tmp_path: Path, temporary: Path, undisturbed: Path, victim: str
) -> None:
    arguments = (*SWEEP, "--results", str(tmp_path))
    run = Run(*arguments, temporary=temporary)
    rows = tmp_path / "trials"
    run.wait_for(lambda: bool(list(rows.glob("*.parquet")) and checkpoints(tmp_path)))
    finished = pd.read_parquet(rows).set_index("trial_id")["started_at"]
    assert all(run.kill(name) for name in VICTIMS[victim])
    # Ray's own processes end with their head; the command may wait for them, and is not to.
    time.sleep(1)
    run.kill("ssl_runner.tune")
    assert run.is_gone(60), [process.cmdline() for process in run.processes()]
    run.end()
    again = Run(*arguments, temporary=temporary)
    output = again.end()
    assert again.process.returncode == 0, output
    assert tables(tmp_path) == tables(undisturbed)
    started = pd.read_parquet(rows).set_index("trial_id")["started_at"]
    assert (started[finished.index] == finished).all()  # what was finished was not run again
    assert leftovers(tmp_path) == set()
    assert again.is_gone()
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once(tmp_path: Path, temporary: Path) -> None:
    arguments = (*SWEEP, "--epochs", "400", "--results", str(tmp_path))
    run = Run(*arguments, temporary=temporary)
    run.wait_for(lambda: bool(checkpoints(tmp_path)))
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    run.process.send_signal(signal.SIGINT)
    output = run.end(20)
    assert run.process.returncode == 130, output
    assert output.splitlines()[-1] == "stopped at once; the same command goes on from here"
    assert "Traceback" not in output
    assert run.is_gone(60)


TRAIN = (
    *("ssl_runner.train", "--subset", "300", "--label-fraction", "0.2", "--method", "freematch"),
    *("--epochs", "2", "--patience", "0", "--batch-size", "30", "--checkpoint-steps", "1"),
    *("--precision", "fp32", "--name", "t", "--cpus-per-trial", "1"),
)


@pytest.mark.slow
def test_a_process_killed_at_random_moments(tmp_path: Path, temporary: Path) -> None:
    """With a checkpoint at every step most of the moments are in the midst of writing one."""
    whole = Run(*TRAIN, "--results", str(tmp_path / "whole"), temporary=temporary)
    assert "freematch" in whole.end()
    results = tmp_path / "cut"
    arguments = (*TRAIN, "--results", str(results))
    kills, _ = killed_until_done(arguments, results, temporary, random.Random(0))
    assert kills >= 3
    assert tables(results) == tables(tmp_path / "whole")
    assert leftovers(results) == set()


def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path, temporary: Path) -> None:
    """Files from an hour ahead are what a clock that was put back leaves behind."""
    whole = Run(*TRAIN, "--results", str(tmp_path / "whole"), temporary=temporary)
    whole.end()
    results = tmp_path / "cut"
    arguments = (*TRAIN, "--results", str(results))
    run = Run(*arguments, temporary=temporary)
    run.wait_for(lambda: len(checkpoints(results)) > 1)
    run.kill()
    run.end()
    ahead = time.time() + 3600
    # The older checkpoint is now the one that was written last.
    for place, path in enumerate(sorted(checkpoints(results), reverse=True)):
        os.utime(path, (ahead + place, ahead + place))
    newest = max(path.name for path in checkpoints(results))
    again = Run(*arguments, temporary=temporary)
    again.wait_for(lambda: newest not in {path.name for path in checkpoints(results)})
    again.end()
    assert again.process.returncode == 0
    assert tables(results) == tables(tmp_path / "whole")
    # A row whose end lies before its start is a row like any other.
    (path,) = results.glob("trials/*.parquet")
    table = pq.read_table(path)
    place = table.schema.get_field_index("ended_at")
    early = pa.array([table["started_at"][0].as_py() - timedelta(hours=1)], table.schema.types[place])
    pq.write_table(table.set_column(place, table.schema.field(place), early), path)
    report = Run("ssl_runner.report", str(results), "--page", str(tmp_path / "p"), temporary=temporary)
    assert "freematch" in report.end()
    assert report.process.returncode == 0
