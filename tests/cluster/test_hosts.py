"""What a cluster of several hosts is for: sweeps, trials over two hosts, jobs; and who is refused."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from ssl_runner.datasets import ImageDataset
from ssl_runner.testing.hosts import (
    HEAD,
    RECIPE,
    REPOSITORY,
    SHARED,
    WITH_RAY,
    Host,
    Hosts,
    Started,
)
from ssl_runner.testing.processes import Runs
from ssl_runner.testing.tables import checkpoints, leftovers, tables
from tests.cluster.conftest import LONG_SWEEP, ON_A_NODE
from tests.conftest import RAY_BY_THE_DOZEN
from tests.test_distributed import BOUND, command

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group(RAY_BY_THE_DOZEN)]  # they share the cluster


@pytest.fixture
def submit(hosts: Hosts) -> Iterator[str]:
    """What precedes `ray job` at the desk, as the page says, while the dashboard is forwarded there."""
    at_desk = f"cd {REPOSITORY} && {WITH_RAY}"
    forwarded = hosts.desk.start(f"{at_desk} && exec ray dashboard {RECIPE}")
    listens = "ss -Hltn sport = :8265 | grep -q ."
    forwarded.wait_for(lambda: hosts.desk.start(listens).end()[0] == 0)
    yield f"{at_desk} RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265 && exec ray job"
    for process in hosts.desk.processes("ray dashboard"):
        process.kill()
    forwarded.end()


def test_a_trial_over_two_hosts(hosts: Hosts, tmp_path: Path, runs: Runs) -> None:
    runs.start(*command(tmp_path, module="train")).succeed()
    arguments = command(Path(SHARED, "two"), "--num-workers", "2", "--cpus-per-trial", "2")
    run = hosts.head.start(f"{ON_A_NODE} {' '.join(arguments)} --address auto")

    def places() -> list[Host]:
        return [host for host in hosts.all if host.processes("ray::RayTrainWorker")]

    run.wait_for(lambda: len(places()) == 2)
    run.succeed()
    one, two = (
        pd.read_parquet(results / "epochs").sort_values("epoch")
        for results in (tmp_path, hosts.shared / "two")
    )
    for column in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert two[column].tolist() == pytest.approx(one[column].tolist(), abs=BOUND)
    (row,) = pd.read_parquet(hosts.shared / "two" / "trials").to_dict("records")
    assert (row["status"], row["world_size"]) == ("finished", 2)


def test_results_that_other_hosts_do_not_see_are_refused(hosts: Hosts) -> None:
    arguments = ("ssl_runner.tune", "--smoke", "--address", "auto", "--results", "/tmp/r")
    code, output = hosts.head.start(f"{ON_A_NODE} {' '.join(arguments)}").end()
    assert code == 2
    assert (
        "error: --results must be seen by every node of a cluster, got '/tmp/r', which 2 of 3 nodes "
        "don't see: rows and checkpoints are written where the trials run. Try s3://bucket/results or "
        "a shared directory."
    ) in output.splitlines()
    assert hosts.head.run("find /tmp/r -type f") == ""


def test_a_host_that_lacks_a_package_is_named(hosts: Hosts) -> None:
    (_, victim) = hosts.workers
    (torch,) = victim.run(". ~/ray_env.sh && python -c 'import torch; print(*torch.__path__)'").split()
    victim.run(f"mount -t tmpfs tmpfs {torch}", user=False)
    try:
        arguments = f"ssl_runner.tune --smoke --address auto --results {SHARED}/lacking"
        code, output = hosts.head.start(f"{ON_A_NODE} {arguments}").end()
    finally:
        victim.run(f"umount {torch}", user=False)
    assert code == 2, output
    (line,) = (line for line in output.splitlines() if line.startswith("error: "))
    assert f"got node {victim.address}: " in line
    assert "Install there what is installed here" in line
    assert not list(hosts.shared.glob("lacking/*/*"))


@pytest.mark.parametrize("token", ["", "0" * 64], ids=["none", "a wrong one"])
def test_who_has_not_the_token_is_refused(hosts: Hosts, token: str) -> None:
    """A stranger on one of the hosts, who can reach every port."""
    has = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN={token}" if token else "RAY_AUTH_MODE=disabled"
    stranger = f"export HOME=/tmp {has} && cd /tmp && exec ~you/venv/bin"
    job = "ray job submit --address http://127.0.0.1:8265 -- touch /tmp/was-here"
    code, output = hosts.head.start(f"{stranger}/{job}").end()
    assert code == 1
    assert "Unauthorized" in output or "Forbidden" in output
    sweep = f"python -m ssl_runner.tune --dataset digits --address {HEAD}:6379 --results {SHARED}/its"
    code, output = hosts.workers[0].start(f"{stranger}/{sweep}").end()
    assert code == 2, output
    assert "error: --address must be that of a running Ray cluster" in output
    assert "has it the cluster's token" in output
    assert hosts.head.run("find /tmp/was-here 2> /dev/null || true") == ""
    assert not list(hosts.shared.glob("its/*/*"))
    # The dashboard, which takes jobs, can't be reached from another host at all.
    reach = f"import socket; socket.create_connection(('{HEAD}', 8265), 30)"
    code, output = hosts.workers[0].start(f'python3 -c "{reach}"').end()
    assert (code, output.splitlines()[-1]) == (
        1,
        "ConnectionRefusedError: [Errno 111] Connection refused",
    )


def test_a_link_is_cut_mended_and_slow(hosts: Hosts) -> None:
    """What the benchmark of hosts rests on. A connection takes a frame there and one back."""
    (_, victim) = hosts.workers
    connect = f"socket.create_connection(('{HEAD}', 22), 2)"
    timed = f"import socket, time; t = time.monotonic(); {connect}; print(time.monotonic() - t)"
    reach = f'python3 -c "{timed}"'

    def is_cut() -> bool:
        code, output = victim.start(reach).end()
        return (code, "TimeoutError" in output or "No route to host" in output) == (1, True)

    victim.cut()
    assert is_cut()
    victim.mend()
    victim.run(reach)
    with victim.slow(seconds=0, loss=1):
        assert is_cut()
    with victim.slow(seconds=0.05, loss=0):
        assert float(victim.run(reach)) >= 0.1
    victim.run(reach)


def test_a_job_is_stopped_and_submitted_again_and_a_host_dies_meanwhile(
    hosts: Hosts, submit: str, alone: Path, fashion_mnist: ImageDataset
) -> None:
    """The last of these tests: the cluster has a host less then."""
    results = hosts.shared / "job"
    job = f"python -m {LONG_SWEEP} --address auto --results {SHARED}/job"

    def start(name: str) -> tuple[Started, Host]:
        """The job, once it has written a checkpoint; and a worker that runs one of its trials."""
        seen = {path.name for path in checkpoints(results)}
        run = hosts.desk.start(f"{submit} submit --submission-id {name} --working-dir . -- {job}")
        found: list[Host] = []

        def is_under_way() -> bool:
            found[:] = busy() if {path.name for path in checkpoints(results)} - seen else []
            return bool(found)

        run.wait_for(is_under_way)
        return run, found[0]

    def busy() -> list[Host]:
        return [host for host in hosts.workers if host.processes("ray::ImplicitFunc")]

    before = [host.received() for host in hosts.workers]
    first, _ = start("first")

    def received() -> list[int]:
        return [host.received() - already for host, already in zip(hosts.workers, before, strict=True)]

    # A host without a trial needs none of the arrays.
    first.wait_for(lambda: max(received()) > fashion_mnist.nbytes)
    hosts.desk.run(f"{submit} stop first")
    _, output = first.end()
    assert "Job 'first' was stopped" in output
    # Each host got the arrays once, however many trials it runs.
    assert max(received()) < 2 * fashion_mnist.nbytes
    second, victim = start("second")
    victim.kill()
    assert "how far do the labels go?" in second.succeed()
    assert tables(results) == tables(alone)
    assert leftovers(results) == set()
