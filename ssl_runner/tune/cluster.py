"""Starting a local Ray, or joining a cluster; and whether a sweep fits there."""

import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
import yaml
from filelock import FileLock, Timeout
from ray._common.network_utils import parse_address
from ray._private.services import canonicalize_bootstrap_address
from ray._private.utils import get_num_cpus
from ray.exceptions import RayError

from ssl_runner.config import SweepConfig
from ssl_runner.errors import InputError

_CONNECT_SECONDS = 10

_ROUNDING = 1e-6
"""Three thirds of a CPU are one CPU."""

_SCRATCH, _ALIVE = "ssl_runner-", ".alive"

# Ray needs some room for the objects that it passes; a data set's arrays are far smaller.
_OBJECT_STORE_BYTES = 256 << 20


@dataclass(frozen=True)
class Cluster:
    """A Ray that has been started or joined.

    Attributes:
        nodes: What each living node has: {"CPU": 2.0, ...}, by its id.
        scratch: A folder for Ray's own files; None on a cluster that has, or may get, several nodes,
            which needs a shared one.
        to_come: The same for each node that an autoscaler may still add; None: unknown.
    """

    nodes: dict[str, dict[str, float]]
    scratch: Path | None
    to_come: list[dict[str, float]] | None

    def each(self, resource: str) -> list[float]:
        """How much of a resource ("CPU", "GPU") each node has, those to come included."""
        return [node.get(resource, 0.0) for node in self._all]

    @property
    def _all(self) -> list[dict[str, float]]:
        return [*self.nodes.values(), *(self.to_come or ())]

    def places(self, per_worker: Mapping[str, float]) -> int:
        """How many workers fit beside each other, each of them on one node.

        Args:
            per_worker: What each takes: {"CPU": 1.0, "GPU": 0.5}, none of it 0.
        """
        return sum(
            min(int(node.get(name, 0.0) / amount + _ROUNDING) for name, amount in per_worker.items())
            for node in self._all
        )


def this_machine() -> Cluster:
    """The resources that a local Ray will have, before it is started."""
    resources = {"CPU": float(get_num_cpus()), "GPU": float(torch.cuda.device_count())}
    return Cluster(nodes={"local": resources}, scratch=None, to_come=[])


@contextlib.contextmanager
def ray_cluster(address: str | None, data_bytes: int, verbose: bool) -> Iterator[Cluster]:
    """Start a local Ray, or join the one at `address`; shut down and clean up at exit.

    Args:
        address: `host:port` or `auto`; None starts a local Ray on the loopback interface.
        data_bytes: Size of the arrays that go into a local Ray's object store.
        verbose: Whether Ray's own output is shown.

    Raises:
        InputError: If no cluster answers at `address`.
    """
    # A failed trial has its row and its line; Ray would add a traceback.
    level = logging.INFO if verbose else logging.CRITICAL
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(level)
    _remove_stale()
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=_short_temporary_folder()))
    alive = FileLock(scratch / _ALIVE)
    alive.acquire()
    # Libraries' temporary files (wandb's, which Ray imports) are removed with it, even after a kill.
    usual, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=int(this_machine().each("CPU")[0]),
                num_gpus=int(this_machine().each("GPU")[0]),
                include_dashboard=False,
                log_to_driver=verbose,
                logging_level=level,
                object_store_memory=_OBJECT_STORE_BYTES + 2 * data_bytes,
                _temp_dir=str(scratch),
            )
        else:
            _join(address, verbose, level)
        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        to_come = [] if address is None else _nodes_to_come()
        is_alone = len(nodes) == 1 and to_come == []
        yield Cluster(nodes=nodes, scratch=scratch if is_alone else None, to_come=to_come)
    finally:
        ray.shutdown()
        tempfile.tempdir = usual
        shutil.rmtree(scratch, ignore_errors=True)
        alive.release()


def _remove_stale() -> None:
    """Remove the folders of killed commands, whose lock is free."""
    for folder in Path(_short_temporary_folder()).glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError, Timeout):  # another user's, or in use
            if (folder / _ALIVE).exists():
                with FileLock(folder / _ALIVE).acquire(timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def _short_temporary_folder() -> str:
    """The temporary folder, unless its path is too long for Ray's sockets (107 bytes in all)."""
    usual = tempfile.gettempdir()
    return usual if len(usual.encode()) <= 20 else "/tmp"


def _join(address: str, verbose: bool, level: int) -> None:
    """Join a running cluster.

    Raises:
        InputError: If no cluster answers.
    """
    if address.startswith("ray://"):
        raise InputError(
            f"--address must be host:port of the cluster's head, or auto, got {address!r}: a sweep's "
            "driver must be on one of the nodes, and a Ray client is on none. Run the command there, "
            "or send it with ray job submit."
        )
    try:
        # Ray's own attempt takes seconds, even where the port is closed.
        found = canonicalize_bootstrap_address(address)
        host, port = parse_address(found or "") or ("", "")
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=verbose, logging_level=level)
    except (OSError, OverflowError, RuntimeError, ValueError, RayError) as error:
        if (other := _other_versions(str(error))) is not None:
            raise InputError(
                f"--address must be that of a cluster of the same Ray and Python, got {address!r} "
                f"with {other}. Use the same in both places."
            ) from None
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--address must be that of a running Ray cluster, host:port or auto, got {address!r} "
            f"({reason}). Is the cluster up (ray status), is this machine in it, and has it the "
            "cluster's token (RAY_AUTH_MODE=token, ~/.ray/auth_token)?"
        ) from None


def _other_versions(error: str) -> str | None:
    """The versions that a cluster has and this process has not, from what Ray says; None: it says
    something else."""
    said = re.findall(r"Ray: (\S+)\s+Python: (\S+)", error)
    if "Version mismatch" not in error or len(said) != 2:
        return None
    names = [f"Ray {ray_version} and Python {python}" for ray_version, python in said]
    return f"{names[0]}, where this has {names[1]}"


@ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001})  # type: ignore[untyped-decorator]
def _autoscaling_config(gcs_address: str) -> dict[str, Any] | None:
    """The autoscaler's settings, read on the head; None if none runs.

    Ray has no public API for this: its `get_max_resources_from_cluster_config` returns None even if
    an autoscaler runs. So we look for its process, and the file it was started with.
    """
    import psutil  # comes inside ray

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"--gcs-address={gcs_address}" not in words:  # another cluster's
            continue
        for word in words:
            if word.startswith("--autoscaling-config="):
                loaded: dict[str, Any] = yaml.safe_load(
                    Path(word.partition("=")[2]).expanduser().read_text()
                )
                return loaded
    return None


def _nodes_to_come() -> list[dict[str, float]] | None:
    """The resources of each node that an autoscaler may still add; None where that is unknown."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:  # KubeRay's autoscaler is in another container
        return None
    config = ray.get(_autoscaling_config.remote(ray.get_runtime_context().gcs_address)) or {}
    limit = int(config.get("max_workers", 0))
    types = dict(config.get("available_node_types", {}))
    types.pop(config.get("head_node_type"), None)
    return [
        kind.get("resources", {})
        for kind in types.values()
        for _ in range(min(limit, int(kind.get("max_workers", limit))))
    ]


def check_fits(sweep: SweepConfig, cluster: Cluster) -> None:
    """Refuse a sweep with a trial that the cluster could never run.

    Raises:
        InputError: Naming what is requested, what is available, and the fix.
    """
    workers = sweep.trial.compute.min_workers or sweep.trial.compute.num_workers
    if cluster.to_come is None:
        return
    for resource, per_worker, flag in (
        ("CPU", sweep.cpus_per_worker, "--cpus-per-trial"),
        ("GPU", sweep.gpus_per_trial / sweep.trial.compute.num_workers, "--gpus-per-trial"),
    ):
        each = cluster.each(resource)
        asked = per_worker * workers
        total, largest = sum(each), max(each, default=0.0)
        if per_worker and cluster.places({resource: per_worker}) < workers:
            where = "this machine" if len(each) == 1 else f"{len(each)} nodes"
            flags = f"{flag} or --num-workers" if workers > 1 else flag
            raise InputError(
                f"a trial must fit into the cluster, got {flag} {asked:g} with --num-workers "
                f"{workers}: {where}: {total:g} {resource}s, {largest:g} on the largest. "
                f"Lower {flags}."
            )
