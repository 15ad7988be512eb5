"""The real command on the real data: real Ray, real processes, real Parquet."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ssl_runner.datasets import ImageDataset

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fashion_mnist")]

SMALL = ("--subset", "1000", "--epochs", "2", "--batch-size", "50", "--label-fractions", "0.2")


def command(*arguments: str, module: str = "ssl_runner.tune") -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def run(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """Run the main command to its end."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=150, check=False, **keywords
    )


def processes_with(variable: str) -> list[str]:
    """Command lines of the living processes that have this in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            if variable.encode() in environment.read_bytes().split(b"\0"):
                found.append(environment.with_name("cmdline").read_text())
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Every command cleans up after itself: no process, no file in the home or temporary folder."""
    home_before = set(Path.home().glob(".ray*/*"))
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as temporary:
        monkeypatch.setenv("TMPDIR", temporary)
        yield
        assert list(Path(temporary).iterdir()) == []
        deadline = time.monotonic() + 10
        while processes_with(f"TMPDIR={temporary}") and time.monotonic() < deadline:
            time.sleep(0.2)
        assert processes_with(f"TMPDIR={temporary}") == []
    assert set(Path.home().glob(".ray*/*")) == home_before


def test_the_main_job_end_to_end(tmp_path: Path, fashion_mnist: ImageDataset) -> None:
    results = tmp_path / "results"
    secret = "a-token-that-nobody-else-may-read"
    secrets = {"AWS_SECRET_ACCESS_KEY": secret, "WANDB_API_KEY": secret}
    done = run(
        *(*SMALL, "--label-fractions", "0.05", "0.2", "--results", str(results)),
        env=os.environ | secrets,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    # Neither the environment nor the command line is stored whole.
    for path in (path for path in results.rglob("*") if path.is_file()):
        assert secret.encode() not in path.read_bytes(), path
    for row in pd.read_parquet(results / "trials").to_dict("records"):
        assert secret not in repr(row)  # Parquet's pages are compressed
    trials = pd.read_parquet(results / "trials")
    assert sorted(trials["label_fraction"]) == [0.05, 0.2, 1.0]
    assert set(trials["status"]) == {"finished"}
    assert set(trials["data_digest"]) == {fashion_mnist.digest}
    full = trials[trials["config"] == "full"].iloc[0]
    assert (full["steps"], full["passed"], full["labeled_images"]) == (40, 0, 1000)
    partial = trials[trials["label_fraction"] == 0.05].iloc[0]
    assert (partial["steps"], partial["passed"], partial["labeled_images"]) == (2, 38, 50)
    assert full["test_accuracy"] > partial["test_accuracy"]
    assert full["ray_version"]
    # The mistakes are images of the whole test set, whose subset was tested on.
    assert len(full["mistakes"]) == 25
    counted = [[0] * 10 for _ in range(10)]
    for place, taken in full["mistakes"]:
        counted[fashion_mnist.test.labels[place]][taken] += 1
    for k, (some, every) in enumerate(zip(counted, full["confusion"], strict=True)):
        assert some[k] == 0
        assert all(few <= many for few, many in zip(some, every, strict=True))
    epochs = pd.read_parquet(results / "epochs")
    assert len(epochs) == 6
    # What was printed is what was written: each epoch as a line, then the comparison.
    for row in epochs.to_dict("records"):
        assert (
            f"validation {row['validation_loss']:.3f} / {row['validation_accuracy']:.2%}" in done.stdout
        )
    for accuracy in trials["test_accuracy"]:
        assert f" {accuracy:.2%}".rstrip("%") in done.stdout
    assert str(results / "trials") in done.stdout
    pages = {"label_fractions.html"}
    assert {path.name for path in results.iterdir()} == {"trials", "epochs", "tensorboard"} | pages

    again = run(*SMALL, "--label-fractions", "0.05", "0.2", "--results", str(results))
    assert again.returncode == 0
    assert "3 of 3 trials are in" in again.stdout
    pd.testing.assert_frame_equal(pd.read_parquet(results / "trials"), trials)

    fresh = run(*SMALL, "--configs", "full", "--fresh", "--results", str(results))
    assert fresh.returncode == 0
    rerun = pd.read_parquet(results / "trials")
    assert len(rerun) == 3  # only the trials that the command names are forgotten
    rerun_full = rerun[rerun["config"] == "full"].iloc[0]
    assert rerun_full["started_at"] > full["started_at"]
    assert rerun_full["validation_loss"] == full["validation_loss"]  # to the bit

    # The same trial without Ray is the same trial.
    alone = command(
        *("--subset", "1000", "--epochs", "2", "--batch-size", "50", "--cpus-per-trial", "1"),
        *("--results", str(results)),
        module="ssl_runner.train",
    )
    subprocess.run(alone, check=True, capture_output=True)
    alone_row = pd.read_parquet(results / "trials").query("sweep == 'train'").iloc[0]
    for column in ("trial_id", "train_loss", "validation_loss", "test_accuracy", "split_digest"):
        assert alone_row[column] == full[column]


FAILING = {
    "tests.models:Diverging": "the training loss must stay finite, got nan in epoch 1",
    "tests.models:Raising": "RuntimeError: the weights are tired",
}


def test_a_failed_trial_is_a_row(tmp_path: Path) -> None:
    models = ("--models", *FAILING, "tests.models:Linear")
    settings = (*SMALL, "--configs", "full", *models, "--results", str(tmp_path))
    done = run(*settings)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    trials = pd.read_parquet(tmp_path / "trials").set_index("model")
    failed = dict.fromkeys(FAILING, "failed")
    assert trials["status"].to_dict() == failed | {"tests.models:Linear": "finished"}
    assert "2 of 3 trials failed:" in done.stdout
    for model, error in FAILING.items():
        assert error in trials["error"][model]
        assert f"failed: {trials['trial_id'][model]}" in done.stdout

    # A failed trial is not run again unless asked for.
    again = run(*settings)
    assert again.returncode == 1
    assert "3 of 3 trials are in" in again.stdout


def test_a_killed_trial_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(tmp_path / "mark"))
    settings = (*SMALL, "--configs", "full", "--models", "tests.models:Killed")
    disturbed = run(*settings, "--results", str(tmp_path / "disturbed"))
    assert disturbed.returncode == 0, disturbed.stdout + disturbed.stderr
    assert (tmp_path / "mark").exists()
    undisturbed = run(*settings, "--results", str(tmp_path / "undisturbed"))
    assert undisturbed.returncode == 0
    one, other = (
        pd.read_parquet(tmp_path / name / "epochs").sort_values("epoch")
        for name in ("disturbed", "undisturbed")
    )
    for column in ("epoch", "train_loss", "validation_loss", "validation_accuracy", "steps"):
        assert one[column].tolist() == other[column].tolist()
    # One whole epoch was trained once: its line was printed once.
    assert len(re.findall("epoch 1 of 2", disturbed.stdout)) == 1


def test_ctrl_c_keeps_the_rows_and_the_same_command_goes_on(tmp_path: Path) -> None:
    settings = [*SMALL, "--epochs", "40", "--subset", "2000", "--label-fractions", "0.01"]
    settings += ["--patience", "0", "--results", str(tmp_path)]
    process = subprocess.Popen(
        command(*settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while not list(tmp_path.glob("trials/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the whole group
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors == "stopped; the same command goes on from here\n"
    first = pd.read_parquet(tmp_path / "trials")
    assert first["config"].tolist() == ["partial"]

    again = run(*settings)
    assert again.returncode == 0, again.stderr
    assert "1 of 2 trials are in" in again.stdout
    assert "epoch 1 of 40" not in again.stdout  # it went on from its checkpoint
    both = pd.read_parquet(tmp_path / "trials")
    assert sorted(both["config"]) == ["full", "partial"]
    epochs = pd.read_parquet(tmp_path / "epochs")
    full = both[both["config"] == "full"]["trial_id"].item()
    assert sorted(epochs[epochs["trial_id"] == full]["epoch"]) == list(range(1, 41))


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a Ray cluster of two nodes with one CPU each; and what kills the second."""
    script = """
import sys, time
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
node = cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
if sys.stdin.readline():
    cluster.remove_node(node, allow_graceful=False)
    sys.stdin.read()
cluster.shutdown()
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("TMPDIR")  # Ray's sockets want a short path
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        address = next(line for line in process.stdout if line.startswith("address")).split()[1]

        def kill() -> None:
            assert process.stdin is not None
            process.stdin.write("kill\n")
            process.stdin.flush()

        yield address, kill
        process.communicate("", timeout=60)


def test_a_cluster_of_two_nodes(tmp_path: Path, two_nodes: tuple[str, Callable[[], None]]) -> None:
    address, kill = two_nodes
    results = tmp_path / "results"
    done = run(*SMALL, "--epochs", "8", "--address", address, "--results", str(results))
    assert done.returncode == 0, done.stderr
    trials = pd.read_parquet(tmp_path / "results" / "trials")
    assert trials["status"].tolist() == ["finished", "finished"]
    assert trials["node"].nunique() == 2  # both nodes have run a trial

    too_large = run("--cpus-per-trial", "2", "--address", address, "--results", str(tmp_path))
    assert too_large.returncode == 2
    assert "2 nodes: 2 CPUs, 1 on the largest" in too_large.stderr

    # The second node dies in mid-training: its trial goes on from its checkpoint on the first.
    longer = (*SMALL, "--epochs", "30", "--patience", "0", "--results", str(results), "--name", "d")
    process = subprocess.Popen(
        command(*longer, "--address", address),
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + 90
    while len(list(results.glob("checkpoints/d--*/*.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    kill()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert output.count("epoch 1 of 30") <= 2  # nothing began again
    disturbed = pd.read_parquet(results / "trials").query("sweep == 'd'").set_index("config")
    assert disturbed["status"].tolist() == ["finished", "finished"]
    assert disturbed["node"].nunique() == 1
    alone = command(
        *("--subset", "1000", "--label-fraction", "0.2", "--batch-size", "50", "--epochs", "30"),
        *("--patience", "0", "--cpus-per-trial", "1", "--results", str(results), "--name", "alone"),
        module="ssl_runner.train",
    )
    subprocess.run(alone, check=True, capture_output=True)
    undisturbed = pd.read_parquet(results / "trials").query("sweep == 'alone'").iloc[0]
    for column in ("trial_id", "train_loss", "validation_loss", "test_accuracy", "steps", "best_epoch"):
        assert disturbed.loc["partial", column] == undisturbed[column]  # to the bit


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--cpus-per-trial", "1000"),
            r"fit into the cluster, got --cpus-per-trial 1000 .* Lower --cpus",
        ),
        (("--gpus-per-trial", "8"), r"fit into the cluster, got --gpus-per-trial 8 .* Lower --gpus"),
        (("--num-workers", "1000"), r"got --cpus-per-trial 1000 with --num-workers 1000: .* Lower"),
        (("--label-fractions", "0.00001"), "leave every class a labeled image, got 1e-05"),
        (("--subset", "70000"), r"in \[1, 60000\], got 70000"),
        (("--models", "tests.models:Nothing"), "tests.models has no 'Nothing'"),
        (("--data-dir", "nowhere"), "nowhere"),
        (("--dataset", "fashion_mnits"), "Did you mean fashion_mnist"),
    ],
)
def test_bad_input_is_one_line_and_touches_nothing(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    results = tmp_path / "results"
    (results / "trials").mkdir(parents=True)
    (results / "trials" / "mine.parquet").write_text("kept")
    done = run(*arguments, "--fresh", "--results", str(results))
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in results.rglob("*")] == ["trials", "mine.parquet"]


def test_an_address_where_nobody_answers_is_refused_in_seconds(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        started = time.monotonic()
        done = run("--address", address, "--results", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"running Ray cluster, host:port or auto, got '{address}'" in done.stderr
    assert time.monotonic() - started < 60


def test_a_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("--results", str(tmp_path / "file"))
    assert done.returncode == 2
    assert re.fullmatch(r"error: --results must be a folder that can be written.*\n", done.stderr)
