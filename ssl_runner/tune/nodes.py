"""What the nodes of a cluster must have in common, asked on each of them before any trial starts."""

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, NodeDiedError, RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ssl_runner.errors import InputError
from ssl_runner.tune.cluster import Cluster

_ON_ALL = "ssl_runner.tune.worker"
"""The module that a trial's process imports first."""

_PATIENCE = 120.0
"""Seconds in which each node has started a process and imported that."""


def check_nodes(cluster: Cluster) -> None:
    """Refuse a cluster with a node on which no trial could run, for want of a package or of an answer.

    Nodes of another Ray or Python are none of it: Ray lets them in neither.

    Raises:
        InputError: Naming the node, what it lacks, and the fix.
    """
    if len(cluster.nodes) == 1:
        return
    answers = _on_each(cluster, _importer(), _ON_ALL)
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    if lacking := {addresses[node_id]: said for node_id, said in answers.items() if said}:
        raise InputError(describe_lacking(lacking, len(cluster.nodes)))


def describe_lacking(lacking: Mapping[str, str], nodes: int) -> str:
    """The line about nodes on which no trial could run.

    Args:
        lacking: By address, what each of them said.
        nodes: How many the cluster has in all.
    """
    (address, said), *others = sorted(lacking.items())
    more = f" (and {len(others)} of the other {nodes - 1} nodes lack something too)" if others else ""
    return (
        f"every node of a cluster must have what the trials need, got node {address}: {said}{more}. "
        "Install there what is installed here, in the environment that Ray runs in (as the "
        "setup_commands of a cluster file do), or take the node out."
    )


def check_shared(location: str, is_local: bool, cluster: Cluster) -> None:
    """Refuse a local results folder that other nodes of the cluster don't see.

    Raises:
        InputError: Naming the folder and the fix.
    """
    if not is_local or len(cluster.nodes) == 1:
        return
    marker = Path(location) / f".seen-{secrets.token_hex(8)}"
    marker.touch()
    try:
        unseen = sum(seen is not True for seen in _on_each(cluster, Path.exists, marker).values())
    finally:
        marker.unlink()
    if unseen:
        raise InputError(
            f"--results must be seen by every node of a cluster, got {location!r}, which {unseen} of "
            f"{len(cluster.nodes)} nodes don't see: rows and checkpoints are written where the "
            "trials run. Try s3://bucket/results or a shared directory."
        )


def _on_each(cluster: Cluster, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Calls a function on each node.

    Returns:
        What it returned there, or why it did not in a line, by the node's id. A node that has died
        meanwhile is left out: no trial will run on it.
    """
    remote = ray.remote(num_cpus=0)(function)
    asked = {
        node_id: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(*arguments)
        for node_id in cluster.nodes
    }
    ray.wait(list(asked.values()), num_returns=len(asked), timeout=_PATIENCE)
    answers: dict[str, Any] = {}
    for node_id, answer in asked.items():
        try:
            answers[node_id] = ray.get(answer, timeout=0)
        except (NodeDiedError, TaskUnschedulableError):
            continue
        except GetTimeoutError:
            answers[node_id] = f"no answer within {_PATIENCE:g} seconds"
        except RayError as error:  # its process has crashed
            answers[node_id] = f"{type(error).__name__}: {error}".splitlines()[0]
    return answers


def _importer() -> Callable[[str], str]:
    """What imports a module, and says why it can't; empty if it can.

    It is no attribute of this module, so that Ray sends it whole: it runs without this package too.
    """

    def imports(module: str) -> str:
        import importlib

        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a package that is there in part raises
            return f"{type(error).__name__}: {error}".splitlines()[0]
        return ""

    return imports
