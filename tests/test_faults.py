"""Full disks, deleted folders, foreign files, trials that hang: what is said, and what stays."""

import contextlib
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_runner.config import MANY, SweepConfig, TrialConfig
from ssl_runner.results import SCHEMA_VERSION, ResultsFolder
from ssl_runner.storage import remove_drafts, write_whole
from ssl_runner.testing.processes import Runs
from ssl_runner.testing.tables import leftovers, tables
from ssl_runner.trial import describe_error
from tests.builders import epoch_rows, statuses, trial_row
from tests.conftest import SWEEP

pytestmark = pytest.mark.usefixtures("fashion_mnist")


def killed_while_writing(runs: Runs, target: Path, content: bytes, after: float) -> None:
    """A process that writes a file over and over, killed some time after its first one."""
    code = (
        "import sys; from pyarrow import fs; from ssl_runner.storage import write_whole\n"
        "while True: write_whole(fs.LocalFileSystem(), sys.argv[1], open(sys.argv[2], 'rb').read())"
    )
    source = target.with_name("source")
    source.write_bytes(content)
    writer = runs.start(str(target), str(source), code=code)
    writer.wait_for(target.exists)
    time.sleep(after)
    runs.kill()
    writer.end()
    source.unlink()


def test_a_killed_writer_leaves_no_half_file_and_its_drafts_are_removed(
    tmp_path: Path, runs: Runs
) -> None:
    content = random.Random(0).randbytes(4 << 20)
    drafts = 0
    for i in itertools.count():
        if i >= 6 and drafts:  # some were caught in the midst of it
            break
        folder = tmp_path / str(i)
        folder.mkdir()
        killed_while_writing(runs, folder / "file", content, 0.002 * i)
        assert (folder / "file").read_bytes() == content
        drafts += len(list(folder.glob(".*.draft")))
        remove_drafts(pa.fs.LocalFileSystem(), str(folder))
        assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_living_writer_s_draft_stays(tmp_path: Path) -> None:
    local = pa.fs.LocalFileSystem()
    write_whole(local, str(tmp_path / "file"), b"x")
    name = f".{os.uname().nodename}-{os.getpid()}-0.draft"
    for draft in (name, ".another-host-1-0.draft", f".{os.uname().nodename}-word-0.draft"):
        (tmp_path / draft).touch()
    remove_drafts(local, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4


# ---- what is said of trials that fail ----


def test_a_hang_that_keeps_the_interpreter_s_lock_ends_too(tmp_path: Path) -> None:
    code = (
        "import ctypes; from pathlib import Path; from ssl_runner import time_limit\n"
        "time_limit._GRACE_SECONDS = 0.5\n"
        "Path('begun').touch()\n"
        "with time_limit.time_limit(0.5, print):\n"
        "    ctypes.PyDLL(None).sleep(10_000)\n"  # a call into C that never lets go of the lock
        "    Path('ended').touch()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 1
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_running_out_of_memory_is_said_describe_error() -> None:
    with pytest.raises(RuntimeError) as allocated:
        torch.empty(1 << 60, dtype=torch.uint8)
    for error in (allocated.value, MemoryError()):
        assert describe_error(error).startswith("out of memory (")
        assert describe_error(error).endswith("Try a smaller batch_size, or fewer trials at a time.")
    assert describe_error(KeyError("x\ny")) == r"KeyError: 'x\ny'"
    assert describe_error(RuntimeError("one\ntwo")) == "RuntimeError: one"


# ---- folders ----


@pytest.mark.slow
def test_two_sweeps_of_one_name_do_not_run_at_once_and_two_names_do(
    tmp_path: Path, runs: Runs, undisturbed: Path
) -> None:
    arguments = (*SWEEP, "--max-concurrent", "1", "--results", str(tmp_path))
    first = runs.start(*arguments)
    first.wait_for(lambda: bool(list(tmp_path.glob(".f.lock"))))
    second = runs.start(*arguments)
    other = runs.start(*arguments, "--name", "g", "--methods", "pass")
    assert second.end().strip().splitlines()[-1] == (
        f"error: --name must be of a sweep that no other process runs in {tmp_path}, got 'f'. Wait for "
        "it, or choose another --name or --results."
    )
    assert second.returncode == 2
    watching = runs.start("ssl_runner.report", str(tmp_path), "--sweep", "f", "--watch")
    first.wait_for(lambda: bool(runs.processes("ray::ImplicitFunc")))
    listening = []
    for process in runs.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            listening += [
                connection.laddr.ip
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            ]
    assert len(listening) > 3
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    (raylet, *_) = runs.processes("raylet/raylet")
    environment = raylet.environ()
    assert environment["RAY_AUTH_MODE"] == "token"
    assert len(environment["RAY_AUTH_TOKEN"]) == 64
    first.succeed()
    other.succeed()
    watched = watching.succeed()  # it ends with the sweep
    assert "f: how far do the labels go?" in watched
    assert len(re.findall(r"^[0-9a-f]{10}: finished$", watched, re.MULTILINE)) >= 2
    trials = pd.read_parquet(tmp_path / "trials")
    assert trials["sweep"].value_counts().to_dict() == {"f": 3, "g": 2}
    assert leftovers(tmp_path) == set()
    for path in (*tmp_path.glob("*/g--*"),):
        path.unlink()
    assert tables(tmp_path) == tables(undisturbed)


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path, runs: Runs, undisturbed: Path) -> None:
    """A disk of 1 MB takes no checkpoint; with room again the same command goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can make a small disk")
    try:
        arguments = (*SWEEP, "--configs", "full", "--results", str(disk))
        run = runs.start(*arguments)
        output = run.end()
        assert run.returncode == 1, output
        assert "No space left on device" in output
        assert "Traceback" not in output
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        runs.start(*arguments, "--retry-failed").succeed()
        trials, epochs = tables(disk)
        (trial,) = trials
        all_trials, all_epochs = tables(undisturbed)
        assert trial in all_trials
        assert epochs == [row for row in all_epochs if row["trial_id"] == trial["trial_id"]]
        assert leftovers(disk) == set()
    finally:
        runs.kill()  # whoever has a file open there
        assert runs.are_gone()
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_results_folder_that_is_deleted_meanwhile(
    tmp_path: Path, runs: Runs, undisturbed: Path
) -> None:
    results = tmp_path / "results"
    arguments = (*SWEEP, "--max-concurrent", "1", "--results", str(results))
    run = runs.start(*arguments)

    def is_through() -> bool:
        """Whether a trial has its row and has cleared its checkpoints: it will not write them again."""
        rows = results.glob("trials/*.parquet")
        return any(not (results / "checkpoints" / row.stem).exists() for row in rows)

    run.wait_for(is_through)
    shutil.rmtree(results, ignore_errors=True)
    output = run.end()
    assert run.returncode == 1
    assert "have no row: it could not be written, or was deleted meanwhile" in " ".join(output.split())
    assert "Traceback" not in output
    runs.start(*arguments).succeed()
    assert tables(results) == tables(undisturbed)


def test_what_was_left_of_killed_commands_is_removed(tmp_path: Path) -> None:
    results = ResultsFolder(str(tmp_path))
    for trial_id in ("0123456789", "abcdef0123"):
        (tmp_path / "checkpoints" / f"s--{trial_id}").mkdir(parents=True)
    results.remove_leftovers("s", {"0123456789": "finished"})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["s--abcdef0123"]
    results.remove_leftovers("other", {"abcdef0123": "finished"})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["s--abcdef0123"]


# ---- files ----


def test_rows_of_version_1_are_read_and_those_of_a_later_one_refused(tmp_path: Path) -> None:
    results = ResultsFolder(str(tmp_path))
    config = TrialConfig()
    results.write(trial_row(config), epoch_rows(2))
    (path,) = tmp_path.glob("trials/*.parquet")
    table = pq.read_table(path)
    older = table.drop_columns(["ema", "mu", "student_test_loss", "keep"])
    place = older.schema.get_field_index("schema_version")
    pq.write_table(older.set_column(place, "schema_version", pa.array([1])), path)
    (row,) = results.trials().to_dict("records")
    assert (row["schema_version"], row["test_accuracy"]) == (1, 0.7)
    assert pd.isna(row["ema"])
    assert statuses(results, "s") == {config.settings_id: "finished"}
    later = table.set_column(place, "schema_version", pa.array([SCHEMA_VERSION + 1]))
    pq.write_table(later, path)
    with pytest.raises(
        ValueError,
        match=f"must be of version {SCHEMA_VERSION} or older, got {SCHEMA_VERSION + 1}. Read",
    ):
        results.trials()


def refusal(work: Callable[[], object]) -> str:
    """What a ValueError says, if there is one; any other error goes on."""
    try:
        work()
    except ValueError as error:
        return str(error)
    return ""


@given(content=st.binary(max_size=200), cut=st.integers(0, 5000), flipped=st.integers(0, 5000))
@settings(max_examples=50)
def test_foreign_and_damaged_files_are_named_and_nothing_else_happens(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int, flipped: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    results = ResultsFolder(str(folder))
    results.write(trial_row(TrialConfig()), [])
    (path,) = folder.glob("trials/*.parquet")
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[flipped % len(whole)] ^= 0xFF
    for made in (content, whole[: cut % len(whole)], bytes(damaged)):
        path.write_bytes(made)
        for read in (lambda: statuses(results, "s"), results.trials):
            said = refusal(read)
            assert "\n" not in said
            assert not said or str(path) in said or "or older, got" in said
        assert path.read_bytes() == made
    shutil.rmtree(folder)


# ---- very many trials ----


def test_a_million_trials_are_asked_about_before_they_start(tmp_path: Path) -> None:
    seeds = [str(seed) for seed in range(1000)]
    splits = [str(seed) for seed in range(1000)]
    arguments = ("--seeds", *seeds, "--split-seeds", *splits, "--configs", "partial")
    command = [sys.executable, "-m", "ssl_runner.tune", *arguments, "--results", str(tmp_path / "r")]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr == (
        "error: a sweep must have at most 10,000 trials, got 5,000,000. Shorten its lists, or add "
        "--yes.\n"
    )
    assert not (tmp_path / "r").exists()
    listed = subprocess.run([*command, "--dry-run"], capture_output=True, text=True)
    assert listed.stdout == "5,000,000 combinations: too many to list\n"


def test_the_size_of_a_sweep_is_that_of_its_lists() -> None:
    sweep = SweepConfig(seeds=(0, 1), methods=("pass", "fixmatch"), models=("CNN", "AdaptiveCNN"))
    assert sweep.size == 2 * 2 * 2 * 6 >= len(sweep.trials())
    assert SweepConfig(seeds=tuple(range(MANY))).size > MANY
