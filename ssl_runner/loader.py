"""From the sampler's indices to a batch of pixels, in one indexing operation."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ssl_runner.datasets.decoded.mapped import was_read
from ssl_runner.sampler import HomogeneousBatchSampler, Kind, RankBatch

# N = images, B = images in this rank's batch, C = channels, H and W = height and width


@dataclass(frozen=True)
class Batch:
    """One rank's images of a step.

    Attributes:
        images: uint8, or floating as a transform has made them, (B, C, H, W).
        targets: int64, (B,); `UNLABELED` throughout in a batch of that kind.
        indices: Places of the images in the training set, (B,).
        step, kind, size, start, own, weight: As in `RankBatch`.
    """

    images: torch.Tensor
    targets: torch.Tensor
    indices: list[int]
    step: int
    kind: Kind
    size: int
    start: int
    own: int
    weight: float

    @classmethod
    def of(cls, indices: RankBatch, images: torch.Tensor, targets: torch.Tensor) -> "Batch":
        """The batch at these indices, with their place in the epoch."""
        return cls(
            images,
            targets,
            indices=indices,
            step=indices.step,
            kind=indices.kind,
            size=indices.size,
            start=indices.start,
            own=indices.own,
            weight=indices.weight,
        )

    def pin_memory(self) -> "Batch":
        """The same with its tensors in pinned memory; `DataLoader(pin_memory=True)` calls it."""
        return Batch(
            **{
                **vars(self),
                "images": self.images.pin_memory(),
                "targets": self.targets.pin_memory(),
            }
        )


class PartiallyLabeledDataset(Dataset[Any]):
    """Images in memory or mapped from a file, some of them without a label.

    Args:
        images_NCHW: uint8 images: an array (it may be read-only), or a tensor on any device, where
            the batches are then gathered.
        targets_N: Class of each image, int64, `UNLABELED` where there is none. It holds no label
            that the training must not see.
        more_MCHW: More images, in an array of their own, which have the indices from N on; None: there
            are none.
    """

    def __init__(
        self,
        images_NCHW: np.ndarray | torch.Tensor,
        targets_N: np.ndarray | torch.Tensor,
        more_MCHW: np.ndarray | None = None,
    ):
        self.images_NCHW = images_NCHW
        self.targets_N = targets_N
        self.more_MCHW = more_MCHW

    def __len__(self) -> int:
        return len(self.targets_N)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """One image, uint8 (C, H, W), and its target."""
        return self._images([index])[0], _gather(self.targets_N, [index])[0]

    def __getitems__(self, indices: RankBatch) -> Batch:
        """A whole batch, gathered at once."""
        return Batch.of(indices, self._images(indices), _gather(self.targets_N, indices))

    def _images(self, indices: list[int]) -> torch.Tensor:
        own = len(self.images_NCHW)
        if self.more_MCHW is None or max(indices) < own:
            return _gather(self.images_NCHW, indices)
        index_B = np.array(indices)
        is_own_B = index_B < own
        images = torch.empty((len(indices), *self.more_MCHW.shape[1:]), dtype=torch.uint8)
        images[is_own_B] = _gather(self.images_NCHW, index_B[is_own_B].tolist())
        images[~is_own_B] = _gather(self.more_MCHW, (index_B[~is_own_B] - own).tolist())
        return images


def _gather(rows: np.ndarray | torch.Tensor, indices: list[int]) -> torch.Tensor:
    """Rows by index. Indexing an array copies only the batch, so it may be read-only."""
    if isinstance(rows, torch.Tensor):
        index = torch.tensor(indices)
        if rows.is_cuda:  # only a copy from pinned memory is asynchronous
            index = index.pin_memory().to(rows.device, non_blocking=True)
        return rows[index]
    taken = torch.from_numpy(np.take(rows, indices, axis=0))
    was_read(rows, len(indices), scattered=True)
    return taken


def collate(batch: Any) -> Batch:
    """The batch unchanged: `__getitems__` has gathered it."""
    assert isinstance(batch, Batch)
    return batch


def make_loader(
    dataset: Dataset[Any],
    sampler: HomogeneousBatchSampler,
    pin_memory: bool = False,
    num_workers: int = 0,
) -> "DataLoader[Batch]":
    """A loader of a data set whose `__getitems__` gives a `Batch`.

    By default in this process: gathering rows takes microseconds, sending them takes longer. Files are
    decoded faster in several (`num_workers`).
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        pin_memory=pin_memory,
        num_workers=num_workers,
    )
