"""Figures over a whole set of images, exact over all ranks."""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from ssl_runner.datasets.decoded.mapped import was_read
from ssl_runner.sampler import share
from ssl_runner.train.device import autocast, dtype_of, to_model_input
from ssl_runner.train.ranks import rank_and_size, sum_over_ranks

# N = images, B = images in a batch, C = channels, H and W = height and width, K = classes,
# M = misclassified images that are kept

EVALUATION_BATCH = {"cpu": 125, "cuda": 5000}
"""Images evaluated at a time: enough to keep the cores busy; on a CPU few enough for its caches."""

MISCLASSIFIED = 25
"""At most so many misclassified images are kept."""


@dataclass(frozen=True)
class Evaluation:
    """Figures over a whole set of images, exact over all ranks.

    Attributes:
        loss: Mean cross entropy in nats.
        accuracy: Share of the images that are classified correctly.
        confusion: Counts, true class × predicted class, (K, K).
        misclassified: The misclassified images of the largest loss, largest first: the image's place
            among all, and the predicted class.
        correct: A bit for each image, the first one highest: whether it is classified correctly, in
            hexadecimal; empty where that is not asked for.
    """

    loss: float
    accuracy: float
    confusion: list[list[int]]
    misclassified: list[list[int]] = field(default_factory=list)
    correct: str = ""

    @property
    def accuracy_per_class(self) -> list[float]:
        """Share of each class's images that are classified correctly; NaN where a class has none."""
        return [row[k] / sum(row) if sum(row) else float("nan") for k, row in enumerate(self.confusion)]

    @property
    def macro_accuracy(self) -> float:
        """Mean of `accuracy_per_class` over the classes that have images: each class counts alike."""
        return float(np.nanmean(self.accuracy_per_class))


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
    each: bool = False,
) -> Evaluation:
    """Loss, accuracy and confusion over all images, each rank taking its share without padding.

    Args:
        images_NCHW: uint8 images: an array, or a tensor on any device.
        labels_N: Their classes, as an array or a tensor.
        classes: Number of classes, K.
        group: The ranks that evaluate together, each called with the same arguments.
        each: Whether to say of each image whether it is classified correctly.
    """
    rank, world_size = rank_and_size(group)
    start, stop = share(len(labels_N), rank, world_size)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
    worst_M3 = torch.full((MISCLASSIFIED, 3), -1.0, dtype=torch.float64, device=device)
    correct_N = torch.zeros(len(labels_N) if each else 0, dtype=torch.uint8, device=device)
    was_training = model.training
    model.eval()
    size, dtype = EVALUATION_BATCH[device.type], dtype_of(precision)
    for first in range(start, stop, size):
        part = slice(first, min(first + size, stop))
        images_BCHW = to_model_input(_part(images_NCHW, part), device, dtype)
        labels_B = _part(labels_N, part).to(device, non_blocking=True)
        with autocast(precision, device):
            logits_BK = model(images_BCHW)
        losses_B = F.cross_entropy(logits_BK.to(dtype), labels_B, reduction="none").double()
        loss_sum += losses_B.sum()
        # Not bincount, which on a GPU waits for the logits to find the largest index.
        predicted_B = logits_BK.argmax(1)
        cells_B = labels_B * classes + predicted_B
        confusion.scatter_add_(0, cells_B, torch.ones_like(cells_B))
        places_B = torch.arange(part.start, part.stop, device=device)
        wrong_B = predicted_B != labels_B
        if each:
            correct_N[part] = ~wrong_B
        batch_B3 = torch.stack((losses_B.where(wrong_B, -1.0), places_B, predicted_B), dim=1)
        worst_M3 = _worst(torch.cat((worst_M3, batch_B3)))
    model.train(was_training)
    sum_over_ranks(loss_sum, group)
    sum_over_ranks(confusion, group)
    if each:
        sum_over_ranks(correct_N, group)  # each image is one rank's
    if group is not None:
        of_each_rank = [torch.empty_like(worst_M3) for _ in range(world_size)]
        dist.all_gather(of_each_rank, worst_M3, group=group)
        worst_M3 = _worst(torch.cat(of_each_rank))
    matrix = confusion.view(classes, classes)
    total = len(labels_N)
    return Evaluation(
        loss=float(loss_sum) / total,
        accuracy=int(matrix.trace()) / total,
        confusion=matrix.tolist(),
        misclassified=[
            [int(place), int(predicted)] for loss, place, predicted in worst_M3.tolist() if loss >= 0
        ],
        correct=np.packbits(correct_N.cpu().numpy()).tobytes().hex(),
    )


def _worst(rows_N3: torch.Tensor) -> torch.Tensor:
    """The rows of the largest first column; of equal ones the earlier, for any number of ranks."""
    order = rows_N3[:, 0].sort(descending=True, stable=True).indices[:MISCLASSIFIED]
    return rows_N3[order]


def _part(rows_N: np.ndarray | torch.Tensor, part: slice) -> torch.Tensor:
    if isinstance(rows_N, torch.Tensor):
        return rows_N[part]
    copied = torch.from_numpy(rows_N[part].copy())  # torch accepts no read-only array
    was_read(rows_N, len(copied), scattered=False)
    return copied
