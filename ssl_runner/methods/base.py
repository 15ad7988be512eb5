"""What a method is, and what it gets to see. It knows nothing of Ray, files or ranks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ssl_runner.methods.settings import MethodSettings

# B = images in this rank's batch, C = channels, H and W = height and width, K = classes

Logits = Callable[[torch.Tensor], torch.Tensor]
"""Logits, (B, K), of images in [0, 1], (B, C, H, W), both float32, or float64 in precision fp64."""


@dataclass(frozen=True)
class Networks:
    """The model that is trained, as a method may call it.

    Attributes:
        student: In training mode, with gradient. Its batch-norm layers, if any, normalize an unlabeled
            batch by its own statistics and leave their running averages alone, which are those of
            the labeled images (as Oliver et al. 2018 do, appendix B).
        predict: The same weights in evaluation mode, without gradient: for making targets.
        teacher: The same with the averaged weights; the student's own where none are kept.
    """

    student: Logits
    predict: Logits
    teacher: Logits


@dataclass(frozen=True)
class LabeledBatch:
    """What a method sees of the labeled batch of the same step.

    Attributes:
        weak: The weak view of this number (0, 1, …) of each image, whatever the loop learns of them.
        mean: The mean of a tensor (B, …) over the images of all workers; without gradient.
    """

    weak: Callable[[int], torch.Tensor]
    mean: Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class UnlabeledBatch:
    """What a method sees of an unlabeled batch: views of the images, and no label.

    Attributes:
        size: Images of all workers.
        weak: The weak view of this number (0, 1, …) of each image: randomly flipped and shifted.
        strong: The strong view of this number.
        mean: The mean of a tensor (B, …) over the images of all workers; without gradient.
        record: Called with `confidence_B=` (of the target), `accepted_B=` (whether it counts) and
            `pseudo_B=` (its class), any of them, for the table.
        labeled: The labeled batch of the same step.
    """

    size: int
    weak: Callable[[int], torch.Tensor]
    strong: Callable[[int], torch.Tensor]
    mean: Callable[[torch.Tensor], torch.Tensor]
    record: Callable[..., None]
    labeled: LabeledBatch


class Method(nn.Module):
    """A method. What it keeps from step to step goes into buffers, which are saved and restored.

    Args:
        settings: Its hyperparameters, resolved: each that it takes has a value.
        shares_K: Share of each class in the labeled pool.
    """

    needs_unlabeled = True

    def __init__(self, settings: MethodSettings, shares_K: torch.Tensor) -> None:
        super().__init__()
        self.settings = settings

    def unlabeled_loss(
        self, networks: Networks, batch: UnlabeledBatch, step: int
    ) -> torch.Tensor | None:
        """The mean loss of this rank's images, with its gradient; None: there is nothing to learn.

        The loop applies the weight λ and its ramp, averages over the ranks and takes the step.

        Args:
            networks: The model.
            batch: Views of the images.
            step: Optimizer steps taken so far.
        """
        raise NotImplementedError
