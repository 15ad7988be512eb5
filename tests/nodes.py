"""Nodes that Ray's autoscaler makes on this machine, for tests of a cluster that grows."""

import sys
from typing import Any

import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class Nodes(FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's own, with what it lacks: the address of a cluster on any port, and ids that differ in
    their first digits, which are the ones that a row has."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        flag = "--gcs-address="  # of the autoscaler, whose process this is
        address = next(word.removeprefix(flag) for word in sys.argv if word.startswith(flag))
        super().__init__(provider_config | {"gcs_address": address}, cluster_name)

    def _next_hex_node_id(self) -> str:
        return str(ray.NodeID.from_random().hex())
