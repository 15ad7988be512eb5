"""Figures over a whole set of images, exact over all ranks."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from ssl_runner.sampler import share
from ssl_runner.train.device import autocast, to_model_input

# N = images, B = images in a batch, C = channels, H and W = height and width, K = classes

EVALUATION_BATCH = {"cpu": 250, "cuda": 5000}
"""Images evaluated at a time: enough to keep the cores busy; on a CPU few enough for its caches."""


@dataclass(frozen=True)
class Evaluation:
    """Figures over a whole set of images, exact over all ranks.

    Attributes:
        loss: Mean cross entropy in nats.
        accuracy: Share of the images that are classified right.
        confusion: Counts, true class × predicted class, (K, K).
    """

    loss: float
    accuracy: float
    confusion: list[list[int]]

    @property
    def accuracy_per_class(self) -> list[float]:
        """Share of each class's images that are classified right; NaN where a class has none."""
        return [row[k] / sum(row) if sum(row) else float("nan") for k, row in enumerate(self.confusion)]


def sum_over_ranks(tensor: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
    if group is not None:
        dist.all_reduce(tensor, group=group)
    return tensor


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    images_NCHW: np.ndarray | torch.Tensor,
    labels_N: np.ndarray | torch.Tensor,
    classes: int,
    *,
    device: torch.device,
    precision: str,
    group: dist.ProcessGroup | None = None,
) -> Evaluation:
    """Loss, accuracy and confusion over all images, each rank taking its share without padding.

    Args:
        images_NCHW: uint8 images: an array, or a tensor on any device.
        labels_N: Their classes, likewise.
        classes: Number of classes, K.
        group: The ranks that evaluate together, each called with the same arguments.
    """
    rank, world_size = rank_and_size(group)
    start, stop = share(len(labels_N), rank, world_size)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    was_training = model.training
    model.eval()
    size = EVALUATION_BATCH[device.type]
    for first in range(start, stop, size):
        part = slice(first, min(first + size, stop))
        images_BCHW = to_model_input(_part(images_NCHW, part), device)
        labels_B = _part(labels_N, part).to(device, non_blocking=True)
        with autocast(precision, device):
            scores_BK = model(images_BCHW)
        loss_sum += F.cross_entropy(scores_BK.float(), labels_B, reduction="sum")
        # Not bincount, which on a GPU waits for the scores to find the largest index.
        cells_B = labels_B * classes + scores_BK.argmax(1)
        confusion.scatter_add_(0, cells_B, torch.ones_like(cells_B))
    model.train(was_training)
    sum_over_ranks(loss_sum, group)
    sum_over_ranks(confusion, group)
    matrix = confusion.view(classes, classes)
    total = len(labels_N)
    return Evaluation(
        loss=float(loss_sum) / total,
        accuracy=int(matrix.trace()) / total,
        confusion=matrix.tolist(),
    )


def _part(rows_N: np.ndarray | torch.Tensor, part: slice) -> torch.Tensor:
    if isinstance(rows_N, torch.Tensor):
        return rows_N[part]
    return torch.from_numpy(rows_N[part].copy())  # torch takes no read-only array


def rank_and_size(group: dist.ProcessGroup | None) -> tuple[int, int]:
    if group is None:
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)
