"""The real command on the real data: real Ray, real processes, real Parquet."""

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from ssl_runner.datasets import ImageDataset
from ssl_runner.testing.processes import Run, Runs
from ssl_runner.testing.tables import checkpoints, leftovers
from ssl_runner.tune.__main__ import main
from tests.conftest import PASSED, RAY_BY_THE_DOZEN, Answer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fashion_mnist")]

SMALL = ("--subset", "1000", "--epochs", "2", "--batch-size", "50", "--label-fractions", "0.2")


def ended(run: Run) -> Run:
    """The same, when it has ended."""
    run.end()
    return run


@pytest.fixture(autouse=True)
def nothing_left_behind(runs: Runs, request: pytest.FixtureRequest) -> Iterator[None]:
    """Every command cleans up after itself: no process, no file in the home or temporary folder."""
    home_before = set(Path.home().glob(".ray*/*"))
    yield
    if request.node.stash[PASSED]:
        assert runs.are_gone()
        assert list(runs.temporary.iterdir()) == []
        assert set(Path.home().glob(".ray*/*")) == home_before


def test_the_main_job_end_to_end(
    tmp_path: Path, fashion_mnist: ImageDataset, runs: Runs, call: Callable[..., Answer]
) -> None:
    results = tmp_path / "results"
    secret = "a-token-that-nobody-else-may-read"
    secrets = {"AWS_SECRET_ACCESS_KEY": secret, "WANDB_API_KEY": secret}
    study = ("ssl_runner.tune", *SMALL, "--label-fractions", "0.05", "0.2", "--results", str(results))
    done = runs.start(*study, environment=os.environ | secrets)
    done.succeed()
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
    assert (full["steps"], full["unlabeled_batches_skipped"], full["labeled_images"]) == (40, 0, 1000)
    partial = trials[trials["label_fraction"] == 0.05].iloc[0]
    assert (partial["steps"], partial["unlabeled_batches_skipped"], partial["labeled_images"]) == (
        2,
        38,
        50,
    )
    assert full["test_accuracy"] > partial["test_accuracy"]
    assert full["ray_version"]
    # The mistakes are images of the whole test set, whose subset was tested on.
    assert len(full["misclassified"]) == 25
    counted = [[0] * 10 for _ in range(10)]
    for place, taken in full["misclassified"]:
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
    folders = {"trials", "epochs", "models", "tensorboard"}
    assert {path.name for path in results.iterdir()} == folders | pages
    # One seed of each configuration, so each trial is the best of its own.
    assert {f"models/{path.name}" for path in (results / "models").iterdir()} == set(trials["weights"])
    assert f"models: {results / 'models'} (3)" in done.stdout

    assert "3 of 3 trials are in" in call(main, *study[1:]).stdout
    pd.testing.assert_frame_equal(pd.read_parquet(results / "trials"), trials)

    runs.start(*study, "--configs", "full", "--fresh").succeed()
    rerun = pd.read_parquet(results / "trials")
    assert len(rerun) == 3  # only the trials that the command names are forgotten
    rerun_full = rerun[rerun["config"] == "full"].iloc[0]
    assert rerun_full["started_at"] > full["started_at"]
    assert rerun_full["validation_loss"] == full["validation_loss"]  # to the bit

    # The same trial without Ray is the same trial.
    runs.start(
        *("ssl_runner.train", "--subset", "1000", "--epochs", "2", "--batch-size", "50"),
        *("--cpus-per-trial", "1", "--results", str(results)),
    ).succeed()
    alone_row = pd.read_parquet(results / "trials").query("sweep == 'train'").iloc[0]
    for column in ("trial_id", "train_loss", "validation_loss", "test_accuracy", "split_digest"):
        assert alone_row[column] == full[column]


FAILING = {
    "tests.models:Diverging": "the training loss must stay finite, got nan in epoch 1",
    "tests.models:Raising": "RuntimeError: the weights are tired",
    "tests.models:Hanging": "it took longer than its time_limit of 20 seconds",
}


def test_a_failed_trial_is_a_row_and_the_others_go_on(
    tmp_path: Path, runs: Runs, call: Callable[..., Answer]
) -> None:
    models = ("--models", *FAILING, "tests.models:Linear", "--time-limit", "20")
    study = ("ssl_runner.tune", *SMALL, "--configs", "full", *models, "--results", str(tmp_path))
    done = ended(runs.start(*study))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    trials = pd.read_parquet(tmp_path / "trials").set_index("model")
    failed = dict.fromkeys(FAILING, "failed")
    assert trials["status"].to_dict() == failed | {"tests.models:Linear": "finished"}
    assert "3 of 4 trials failed:" in done.stdout
    for model, error in FAILING.items():
        assert error in trials["error"][model]
        said = rf"failed: {trials['trial_id'][model]} \({model} .*\): .*{re.escape(error)}"
        assert re.search(said, done.stdout), model
    assert leftovers(tmp_path) == set()

    # A failed trial is not run again unless asked for.
    again = call(main, *study[1:])
    assert again.returncode == 1
    assert "4 of 4 trials are in" in again.stdout


def test_a_killed_trial_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(tmp_path / "mark"))
    settings = ("--subset", "1000", "--epochs", "2", "--batch-size", "50")
    killed = ("--configs", "full", "--models", "tests.models:Killed")
    disturbed = runs.start("ssl_runner.tune", *settings, *killed, "--results", str(tmp_path / "one"))
    disturbed.succeed()
    assert (tmp_path / "mark").exists()  # from now on nobody is killed
    alone = ("--model", "tests.models:Killed", "--cpus-per-trial", "1")
    runs.start("ssl_runner.train", *settings, *alone, "--results", str(tmp_path / "other")).succeed()
    one, other = (
        pd.read_parquet(tmp_path / name / "epochs").sort_values("epoch") for name in ("one", "other")
    )
    for column in (
        "trial_id",
        "epoch",
        "train_loss",
        "validation_loss",
        "validation_accuracy",
        "steps",
    ):
        assert one[column].tolist() == other[column].tolist()
    # One whole epoch was trained once: its line was printed once.
    assert len(re.findall("epoch 1 of 2", disturbed.stdout)) == 1


def test_ctrl_c_keeps_the_rows_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(mark))
    # The partial trial's ten images are one step an epoch, and it ends; the full one waits.
    study = (
        *("ssl_runner.tune", *SMALL, "--epochs", "4", "--label-fractions", "0.01", "--patience", "0"),
        *("--models", "tests.models:Waiting", "--results", str(tmp_path)),
    )
    run = runs.start(*study)

    def one_has_ended_and_the_other_begun() -> bool:
        rows = {path.stem for path in tmp_path.glob("trials/*.parquet")}
        return bool(rows) and any(path.parent.name not in rows for path in checkpoints(tmp_path))

    run.wait_for(one_has_ended_and_the_other_begun)
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: the whole group
    run.end()
    assert run.returncode == 130, run.stderr
    assert run.stderr == "stopped; the same command resumes from here\n"
    first = pd.read_parquet(tmp_path / "trials")
    assert first["config"].tolist() == ["partial"]

    mark.touch()
    again = runs.start(*study).succeed()
    assert "1 of 2 trials are in" in again
    assert "epoch 1 of 4" not in again  # it went on from its checkpoint
    both = pd.read_parquet(tmp_path / "trials")
    assert sorted(both["config"]) == ["full", "partial"]
    epochs = pd.read_parquet(tmp_path / "epochs")
    full = both[both["config"] == "full"]["trial_id"].item()
    assert sorted(epochs[epochs["trial_id"] == full]["epoch"]) == [1, 2, 3, 4]


@pytest.fixture
def two_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> Iterator[tuple[str, Callable[[], None]]]:
    """The address of a Ray cluster of two nodes with one CPU each; and what lets the next thing happen
    to it: the second node is killed, then the cluster is that of an older Ray."""
    script = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "temp_dir": sys.argv[1]})
node = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
if sys.stdin.readline():
    cluster.remove_node(node, allow_graceful=False)
    print("killed", flush=True)
if sys.stdin.readline():
    import ray
    from ray._common.usage.usage_lib import put_cluster_metadata
    ray.__version__ = "2.59.0"
    put_cluster_metadata(cluster.head_node.get_gcs_client(), ray_init_cluster=False)
    print("older", flush=True)
    sys.stdin.read()
cluster.shutdown()
"""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(tmp_path / "mark"))
    folder = runs.temporary / "ray"
    cluster = runs.start(str(folder), code=script, stdin=subprocess.PIPE)
    cluster.wait_for(lambda: "\n" in cluster.stdout)
    stdin = cluster.process.stdin
    assert stdin is not None

    def go_on() -> None:
        before = cluster.stdout
        stdin.write("go on\n")
        stdin.flush()
        cluster.wait_for(lambda: len(cluster.stdout) > len(before))

    yield cluster.stdout.split()[0], go_on
    stdin.close()
    cluster.end()
    shutil.rmtree(folder)


ASKED_WHEN_DEAD = """
import sys
import ray
from ssl_runner.tune.cluster import Cluster
from ssl_runner.tune.nodes import check_nodes, check_shared
ray.init(sys.argv[1], log_to_driver=False)
cluster = Cluster({node["NodeID"]: {} for node in ray.nodes()}, scratch=None, to_come=[])
assert len(cluster.nodes) == 2
check_nodes(cluster)
check_shared("/tmp", True, cluster)
"""


@pytest.mark.xdist_group(RAY_BY_THE_DOZEN)
def test_a_cluster_of_two_nodes(
    tmp_path: Path, two_nodes: tuple[str, Callable[[], None]], runs: Runs
) -> None:
    address, go_on = two_nodes
    results = tmp_path / "results"
    small = ("ssl_runner.tune", *SMALL, "--address", address)
    settings = ("--epochs", "8", "--patience", "0", "--results", str(results))
    waiting = ("--models", "tests.models:Waiting")

    def are_both_running(sweep: str) -> bool:
        return len({path.parent for path in results.glob(f"checkpoints/{sweep}--*/*.pt")}) == 2

    run = runs.start(*small, *settings, *waiting)
    run.wait_for(lambda: are_both_running("label_fractions"))  # each waits, and holds its node's CPU
    (tmp_path / "mark").touch()
    run.succeed()
    (tmp_path / "mark").unlink()
    trials = pd.read_parquet(tmp_path / "results" / "trials")
    assert trials["status"].tolist() == ["finished", "finished"]
    assert trials["node"].nunique() == 2  # both nodes have run a trial
    assert not (results / "ray").exists()  # Ray's own files

    too_large = ended(runs.start(*small, "--cpus-per-trial", "2", "--results", str(tmp_path)))
    assert too_large.returncode == 2
    assert "2 nodes: 2 CPUs, 1 on the largest" in too_large.stderr

    # The second node dies in mid-training: its trial goes on from its checkpoint on the first.
    run = runs.start(*small, *settings, *waiting, "--name", "d")
    run.wait_for(lambda: are_both_running("d"))
    go_on()
    (tmp_path / "mark").touch()
    output = run.succeed()
    assert output.count("epoch 1 of 8") <= 2  # nothing began again
    disturbed = pd.read_parquet(results / "trials").query("sweep == 'd'").set_index("config")
    assert disturbed["status"].tolist() == ["finished", "finished"]
    assert disturbed["node"].nunique() == 1
    # A command that still takes the dead node for one of the cluster's has nothing to say against it.
    runs.start(address, code=ASKED_WHEN_DEAD).succeed()
    runs.start(
        *("ssl_runner.train", "--subset", "1000", "--label-fraction", "0.2", "--batch-size", "50"),
        *("--model", "tests.models:Waiting", "--cpus-per-trial", "1", "--name", "alone", *settings),
    ).succeed()
    undisturbed = pd.read_parquet(results / "trials").query("sweep == 'alone'").iloc[0]
    for column in ("trial_id", "train_loss", "validation_loss", "test_accuracy", "steps", "best_epoch"):
        assert disturbed.loc["partial", column] == undisturbed[column]  # to the bit

    go_on()
    refused = ended(runs.start(*small, "--results", str(tmp_path / "other")))
    assert refused.returncode == 2
    assert re.fullmatch(
        rf"error: --address must be that of a cluster of the same Ray and Python, got '{address}' with "
        r"Ray 2\.59\.0 and Python .*, where this has Ray .*\. Use the same in both places\.\n",
        refused.stderr,
    )


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
    tmp_path: Path, call: Callable[..., Answer], arguments: tuple[str, ...], message: str
) -> None:
    results = tmp_path / "results"
    (results / "trials").mkdir(parents=True)
    (results / "trials" / "mine.parquet").write_text("kept")
    done = call(main, *arguments, "--fresh", "--results", str(results))
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in results.rglob("*")] == ["trials", "mine.parquet"]


def test_an_address_where_nobody_answers_is_refused(tmp_path: Path, runs: Runs) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        done = ended(runs.start("ssl_runner.tune", "--address", address, "--results", str(tmp_path)))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    # It is the port itself that refuses, before Ray tries for a quarter of an hour.
    assert f"running Ray cluster, host:port or auto, got '{address}' ([Errno" in done.stderr


def test_a_results_folder_that_cannot_be_written(tmp_path: Path, call: Callable[..., Answer]) -> None:
    (tmp_path / "file").write_text("")
    done = call(main, "--results", str(tmp_path / "file"))
    assert done.returncode == 2
    assert re.fullmatch(r"error: --results must be a writable folder.*\n", done.stderr)
