"""Starting a local Ray, or joining a cluster; and whether a sweep fits there."""

import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
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

_HEAD = "node:__internal_head__"
"""A resource that only the head has."""

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
        room: How many of those it may add at most; None: there is no autoscaler, or that is unknown.
    """

    nodes: dict[str, dict[str, float]]
    scratch: Path | None
    to_come: list[dict[str, float]] | None
    room: int | None = None

    @property
    def may_grow(self) -> bool:
        """Whether nodes may come, as far as is known."""
        return self.to_come is None or self.room is not None

    def each(self, resource: str) -> list[float]:
        """How much of a resource ("CPU", "GPU") each node has, those to come included."""
        return [node.get(resource, 0.0) for node in (*self.nodes.values(), *(self.to_come or ()))]

    def most(self, resource: str) -> float:
        """How much of a resource the cluster may come to have."""
        return self._sum(lambda node: node.get(resource, 0.0))

    def places(self, per_worker: Mapping[str, float]) -> int:
        """How many workers fit beside each other, each of them on one node.

        Args:
            per_worker: What each takes: {"CPU": 1.0, "GPU": 0.5}, none of it 0.
        """

        def on(node: Mapping[str, float]) -> int:
            return min(
                int(node.get(name, 0.0) / amount + _ROUNDING) for name, amount in per_worker.items()
            )

        return int(self._sum(on))

    def _sum(self, of: Callable[[Mapping[str, float]], float]) -> float:
        """Over the nodes, and over those to come that have most, as many as there is room for."""
        to_come = sorted(map(of, self.to_come or ()), reverse=True)
        return sum(map(of, self.nodes.values())) + sum(to_come[: self.room])

    @property
    def as_it_is(self) -> "Cluster":
        """The same without what may come."""
        return replace(self, to_come=[], room=None)

    def when(self, nodes: dict[str, dict[str, float]]) -> "Cluster":
        """The same when it has these nodes: a new one is no longer to come, one that has gone may
        come again."""
        if self.to_come is None or self.room is None:
            return replace(self, nodes=nodes)
        to_come = [*self.to_come, *(self.nodes[gone] for gone in self.nodes.keys() - nodes.keys())]
        for new in nodes.keys() - self.nodes.keys():
            sizes = [(kind.get("CPU", 0.0), kind.get("GPU", 0.0)) for kind in to_come]
            size = nodes[new].get("CPU", 0.0), nodes[new].get("GPU", 0.0)
            if size in sizes:
                del to_come[sizes.index(size)]
        room = max(0, self.room + len(self.nodes) - len(nodes))
        return replace(self, nodes=nodes, to_come=to_come, room=room)


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
        cluster = Cluster(living_nodes(), scratch=None, to_come=[])
        if address is not None:
            cluster = _with_autoscaler(cluster)
        is_alone = len(cluster.nodes) == 1 and not cluster.may_grow
        yield replace(cluster, scratch=scratch if is_alone else None)
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


@ray.remote(num_cpus=0, resources={_HEAD: 0.001})  # type: ignore[untyped-decorator]
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


def _with_autoscaler(cluster: Cluster) -> Cluster:
    """A cluster with the nodes that its autoscaler may still add."""
    if "KUBERNETES_SERVICE_HOST" in os.environ:  # KubeRay's autoscaler is in another container
        return replace(cluster, to_come=None)
    config = ray.get(_autoscaling_config.remote(ray.get_runtime_context().gcs_address))
    if config is None:
        return cluster
    limit = int(config.get("max_workers", 0))
    types = dict(config.get("available_node_types", {}))
    types.pop(config.get("head_node_type"), None)
    possible = [
        kind.get("resources", {})
        for kind in types.values()
        for _ in range(min(limit, int(kind.get("max_workers", limit))))
    ]
    head = {name: node for name, node in cluster.nodes.items() if _HEAD in node}
    return replace(cluster, nodes=head, to_come=possible, room=limit).when(cluster.nodes)


def living_nodes() -> dict[str, dict[str, float]]:
    """What each living node has, by its id."""
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}


def nodes_awaited(
    cluster: Cluster, trials: int, per_worker: Mapping[str, float], workers: int
) -> str | None:
    """What trials wait for that could run if the cluster had grown, in a line; None if none does.

    Args:
        cluster: As it is now.
        trials: Trials that have not ended.
        per_worker: What each of their workers takes, as for `places`.
        workers: Workers that a trial needs.
    """
    now, later = (each.places(per_worker) // workers for each in (cluster.as_it_is, cluster))
    resource = "GPU" if "GPU" in per_worker else "CPU"
    has = cluster.as_it_is.most(resource)
    if cluster.to_come is None:  # there may be no autoscaler: then they wait for each other
        waiting, more = 0 if now else trials, "; whether more come is not known here"
    else:
        waiting, more = min(trials, later) - now, f" and may grow to {cluster.most(resource):g}"
    if waiting <= 0:
        return None
    who = "1 trial waits" if waiting == 1 else f"{waiting:,} trials wait"
    return f"{who} for nodes: the cluster has {has:g} {resource}{'s' * (has != 1)} now{more}"


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
