"""How data reach the trials: in Ray's object store, or mapped by each node from its own cache."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from ssl_runner.config import SweepConfig
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.datasets.decoded.store import MappedDataset, handle_of
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError
from ssl_runner.tune.cluster import Cluster

STORE_SHARE = 0.3
"""Of the smallest object store of a cluster: larger data sets are mapped by each node instead."""


@dataclass(frozen=True)
class NodeMap:
    """A data set that each node maps from its own cache, decoding the files there if it has to.

    Attributes:
        mapped: Its entry in the cache of the node that began.
        path, files: Where its files are on every node, and how they are read.
        digest: What it must be.
        foreign: Reference to the foreign images in the object store; None: there are none.
    """

    mapped: MappedDataset
    path: str
    files: FileSettings
    digest: str
    foreign: Any = None

    def open(self) -> ImageDataset:
        """Map it.

        Raises:
            DataError: If its files are not on this node, or are others.
        """
        dataset = self._own()
        return dataset if self.foreign is None else replace(dataset, foreign=ray.get(self.foreign))

    def _own(self) -> ImageDataset:
        with contextlib.suppress(DataError):
            return self.mapped.open()
        dataset = load_dataset(self.path, say=lambda line: None, files=self.files)
        if dataset.digest != self.digest:
            raise DataError(
                f"{self.path}: must be the same files on every node, got data with the digest "
                f"{dataset.digest} in place of {self.digest}. Copy them again."
            )
        return dataset


def share(dataset: ImageDataset, sweep: SweepConfig, cluster: Cluster, is_local: bool) -> Any:
    """What the trials get: a `NodeMap`, or a reference to the object store. See `opened`.

    Args:
        dataset: The data set.
        sweep: Says where its files are, if it is read from files.
        cluster: Where the trials run.
        is_local: Whether that is this machine alone.
    """
    mapped = handle_of(dataset)
    store = min(cluster.each("object_store_memory"))
    if mapped is None or (not is_local and dataset.nbytes <= STORE_SHARE * store):
        return ray.put(dataset)
    path = str(Path(sweep.trial.data.dataset).absolute())
    files = sweep.files
    foreign = ray.put(dataset.foreign) if dataset.foreign else None
    return NodeMap(mapped, path, files, dataset.digest, foreign)


def opened(shared: Any) -> ImageDataset:
    """The data set behind what `share` returned."""
    if isinstance(shared, NodeMap):
        return shared.open()
    dataset: ImageDataset = ray.get(shared)
    return dataset
