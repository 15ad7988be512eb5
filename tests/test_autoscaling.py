"""A cluster that grows for its trials and shrinks after them, and one of its nodes taken away."""

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from rich.console import Console

from ssl_runner.checkpoint_name import CheckpointName
from ssl_runner.testing.processes import Run, Runs, wait_until
from ssl_runner.testing.tables import checkpoints
from ssl_runner.train.__main__ import main as train_main
from ssl_runner.tune.cluster import Cluster, nodes_awaited
from ssl_runner.tune.progress import ProgressCallback, SweepProgress
from tests.conftest import RAY_BY_THE_DOZEN, Answer

CPU, GPU = {"CPU": 2.0}, {"CPU": 4.0, "GPU": 1.0}
NO_CPU = {"CPU": 0.0}


def cluster(*now: dict[str, float], to_come: list[dict[str, float]] | None, room: int = 0) -> Cluster:
    return Cluster({str(n): node for n, node in enumerate(now)}, None, to_come, room)


GROWS = cluster(NO_CPU, CPU, to_come=[CPU, CPU, GPU], room=2)
UNKNOWN = "; whether more come is not known here"
ONE, HALF_A_GPU = {"CPU": 1.0}, {"CPU": 1.0, "GPU": 0.5}


@pytest.mark.parametrize(
    ("nodes", "trials", "per_worker", "workers", "said"),
    [
        (GROWS, 2, ONE, 1, None),
        (GROWS, 3, ONE, 1, ("1 trial waits", "2 CPUs", " and may grow to 8")),
        (GROWS, 7, ONE, 1, ("5 trials wait", "2 CPUs", " and may grow to 8")),
        # The other 92 wait for trials to end.
        (GROWS, 100, ONE, 1, ("6 trials wait", "2 CPUs", " and may grow to 8")),
        (GROWS, 9, HALF_A_GPU, 1, ("2 trials wait", "0 GPUs", " and may grow to 1")),
        # Two workers of two CPUs each; there is a place for one.
        (GROWS, 9, {"CPU": 2.0}, 2, ("2 trials wait", "2 CPUs", " and may grow to 8")),
        (
            cluster(ONE, to_come=[CPU], room=1),
            2,
            ONE,
            1,
            ("1 trial waits", "1 CPU", " and may grow to 3"),
        ),
        # It is as large as it may become.
        (cluster(NO_CPU, CPU, to_come=[CPU], room=0), 9, ONE, 1, None),
        (cluster(NO_CPU, CPU, to_come=[], room=0), 9, ONE, 1, None),
        # Where trials run already, nothing says that more could.
        (cluster(NO_CPU, CPU, to_come=None), 9, ONE, 1, None),
        (cluster(NO_CPU, to_come=None), 9, ONE, 1, ("9 trials wait", "0 CPUs", UNKNOWN)),
        (cluster(NO_CPU, to_come=None), 0, ONE, 1, None),
    ],
)
def test_what_trials_wait_for(
    nodes: Cluster,
    trials: int,
    per_worker: dict[str, float],
    workers: int,
    said: tuple[str, str, str] | None,
) -> None:
    line = nodes_awaited(nodes, trials, per_worker, workers)
    if said is None:
        assert line is None
    else:
        who, has, more = said
        assert line == f"{who} for nodes: the cluster has {has} now{more}"


class TuneTrial:
    """As much of one as is asked for."""

    def __init__(self, *, ended: bool) -> None:
        self.ended = ended

    def is_finished(self) -> bool:
        return self.ended


@pytest.mark.parametrize("terminal", [False, True])
def test_it_is_said_once_until_it_changes_and_shown_while_it_lasts(
    terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssl_runner.tune.progress._LOOK_SECONDS", -1.0)
    file = io.StringIO()
    progress = SweepProgress([], {}, Console(file=file, width=120, force_terminal=terminal))
    lines = ["two wait", "two wait", "one waits", None, "one waits"]
    asked = list[int]()

    def awaited(trials: int) -> str | None:
        asked.append(trials)
        return lines[len(asked) - 1]

    callback = ProgressCallback(progress, lambda chain, error: {}, lambda: None, awaited)
    shown = []
    with progress:
        for step in range(len(lines)):
            callback.on_step_begin(step, [TuneTrial(ended=False), TuneTrial(ended=True)])
            table = io.StringIO()
            Console(file=table, width=120).print(progress._table())
            shown.append(next((line for line in lines if line and line in table.getvalue()), None))
    assert asked == [1] * 5
    assert shown == lines
    said = [line for line in file.getvalue().splitlines() if "wait" in line]
    assert terminal or said == ["two wait", "one waits", "one waits"]
    assert progress.awaited is None  # nor after the end


# ---- a real cluster ----

SIZES = {"object_store_memory": 100 << 20}
CONFIG = {
    "cluster_name": "tests",
    "max_workers": 3,
    "idle_timeout_minutes": 0.1,
    # The autoscaler of today (v2), as `ray up` starts it. Ray's own name for these nodes,
    # `fake_multinode`, asks for a file that its wheel lacks.
    "provider": {
        "type": "external",
        "module": "tests.nodes.Nodes",
        "launch_multiple": True,
        "disable_node_updaters": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 1, **SIZES}, "node_config": {}, "max_workers": 2},
        "gpu": {"resources": {"CPU": 1, "GPU": 1, **SIZES}, "node_config": {}, "max_workers": 1},
    },
    **dict.fromkeys(("setup_commands", "head_setup_commands", "worker_setup_commands"), ()),
    "cluster_synced_files": (),
}

HEAD = """
import sys, time
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
head = {"num_cpus": 0, "temp_dir": sys.argv[1], "autoscaling_config": sys.argv[2]}
cluster = Cluster(initialize_head=True, head_node_args=head | {"include_dashboard": False})
print(cluster.address, flush=True)
ray, spot = cluster.head_node.get_gcs_client(), DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
for line in sys.stdin:
    deadline = int(1000 * time.time()) + 600_000
    is_accepted, why = ray.drain_node(line.strip(), spot, "reclaimed", deadline)
    print("drained" if is_accepted else why, flush=True)
"""


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs) -> Run:
    """A head without CPUs, whose autoscaler adds nodes of one CPU, one of them with a GPU in name. It
    prints its address; to its stdin goes the id of a node to be drained."""
    from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(tmp_path / "mark"))
    config = tmp_path / "cluster.yaml"
    config.write_text(json.dumps(CONFIG))
    environment = {
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_NODE_TYPE_NAME": str(CONFIG["head_node_type"]),
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "PYTHONPATH": str(Path(__file__).parent.parent),  # for the autoscaler's own process
    }
    started = runs.start(
        *(str(runs.temporary / "ray"), str(config)),
        code=HEAD,
        environment=os.environ | environment,
        stdin=subprocess.PIPE,
    )
    started.wait_for(lambda: "\n" in started.stdout)
    return started


def raylets(runs: Runs) -> dict[str, psutil.Process]:
    """The process of each node, by the node's id."""
    found = {}
    flag = "--node_id="
    for process in runs.processes("raylet/raylet"):
        with contextlib.suppress(psutil.Error):  # it has just ended
            words = process.cmdline()
            found.update({w.removeprefix(flag): process for w in words if w.startswith(flag)})
    return found


def node_of(process: int, nodes: dict[str, psutil.Process]) -> str:
    """The node that a trial's process is on."""
    parent = psutil.Process(process).ppid()
    return next(node for node, raylet in nodes.items() if raylet.pid == parent)


def take_away(raylet: psutil.Process, runs: Runs) -> None:
    """A node ends, with all of its processes."""
    there = [raylet, *raylet.children(recursive=True)]
    for process in there:
        process.kill()
    wait_until(lambda: runs.pids().isdisjoint(process.pid for process in there))


@pytest.mark.slow
@pytest.mark.xdist_group(RAY_BY_THE_DOZEN)
def test_a_cluster_grows_for_its_trials_loses_a_node_and_shrinks(
    tmp_path: Path, head: Run, runs: Runs, call: Callable[..., Answer]
) -> None:
    results, mark = tmp_path / "results", tmp_path / "mark"
    settings = (
        *("--dataset", "digits", "--subset", "1000", "--batch-size", "1", "--epochs", "1"),
        *("--precision", "fp32", "--results", str(results)),
    )
    on_cluster = ("ssl_runner.tune", *settings, "--address", head.stdout.strip(), "--configs", "full")

    # Two trials need two nodes: they wait, and then each has one, without a GPU.
    sweep = runs.start(*on_cluster, "--models", "tests.models:Pacing", "--seeds", "0", "1")
    sweep.wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    assert "2 trials wait for nodes: the cluster has 0 CPUs now and may grow to 3\n" in sweep.stdout
    without_gpu = raylets(runs)
    assert len(without_gpu) == 3
    homes = {node_of(int(path.stem), without_gpu) for path in tmp_path.glob("*.pid")}
    assert len(homes) == 2

    # A trial that asks for a GPU gets a node of its own, and computes there with what there is.
    other = runs.start(
        *on_cluster, "--gpus-per-trial", "1", "--name", "g", "--models", "tests.models:Linear"
    )
    other.wait_for(lambda: len(raylets(runs)) == 4)
    (with_gpu,) = raylets(runs).keys() - without_gpu.keys()
    output = other.succeed()
    assert "1 trial waits for nodes: the cluster has 0 GPUs now and may grow to 1\n" in output
    assert f"PyTorch sees no GPU on node {with_gpu[:12]}" in output
    (row,) = pd.read_parquet(results / "trials").to_dict("records")
    assert (row["status"], row["node"], row["device"]) == ("finished", with_gpu[:12], "cpu")

    # One of the two nodes will be taken away: its trial saves what it has, in mid-epoch.
    drained = min(homes)
    assert checkpoints(results) == []
    assert head.process.stdin is not None
    head.process.stdin.write(f"{drained}\n")
    head.process.stdin.flush()
    sweep.wait_for(lambda: bool(checkpoints(results)))
    assert head.stdout.splitlines()[1:] == ["drained"]
    (folder,) = {path.parent for path in checkpoints(results)}
    for path in folder.glob("*.pt"):
        name = CheckpointName.parse(path.name)
        assert name is not None
        assert (name.epochs, name.steps >= 25) == (0, True)
    take_away(without_gpu[drained], runs)
    mark.touch()
    assert sweep.succeed().count("epoch 1 of 1") == 2

    # The row is that of an undisturbed trial, to the bit.
    trials = pd.read_parquet(results / "trials").set_index("trial_id")
    disturbed = trials.loc[folder.name.rpartition("--")[2]]
    alone = (
        "--model",
        "tests.models:Pacing",
        "--seed",
        str(disturbed["seed"]),
        "--cpus-per-trial",
        "1",
    )
    assert call(train_main, *settings, *alone, "--name", "alone").returncode == 0
    undisturbed = pd.read_parquet(results / "trials").query("sweep == 'alone'").iloc[0]
    assert undisturbed["trial_id"] == disturbed.name
    for column in ("status", "train_loss", "validation_loss", "test_accuracy", "steps", "images"):
        assert disturbed[column] == undisturbed[column]

    # Nothing needs the nodes any more.
    head.wait_for(lambda: len(raylets(runs)) == 1)
