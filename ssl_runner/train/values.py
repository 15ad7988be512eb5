"""Metric sums, progress and results of a trial: values that are saved, restored and reported."""

import math
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from ssl_runner.metrics import AT_A_RUNG
from ssl_runner.train.evaluation import Evaluation
from ssl_runner.train.ranks import sum_over_ranks


class Sums:
    """An epoch's metric sums by name, on the device, so that no step waits for a number.

    Names: `loss` (cross entropy over labeled images), `correct`, `images` (labeled ones);
    `unlabeled_loss`, `unlabeled` (images), `confidence`, `confident` (images whose confidence is
    known), `accepted`, `judged` (images that were accepted or not), `right`, `known` (accepted
    images whose pseudo-label is right, and those whose label is known).
    """

    NAMES = (
        *("loss", "correct", "images", "unlabeled_loss", "unlabeled"),
        *("confidence", "confident", "accepted", "judged", "right", "known"),
    )

    def __init__(self, device: torch.device) -> None:
        zeros = torch.zeros(len(self.NAMES), dtype=torch.float64, device=device)
        self._all = zeros
        self._each = dict(zip(self.NAMES, zeros.unbind(), strict=True))

    def add(self, **values: torch.Tensor | float) -> None:
        """Add to the named sums."""
        for name, value in values.items():
            self._each[name] += value

    def over_ranks(self, group: dist.ProcessGroup | None) -> dict[str, float]:
        """The sums over all ranks, as plain numbers."""
        return dict(zip(self.NAMES, sum_over_ranks(self._all.clone(), group).tolist(), strict=True))


@dataclass
class Progress:
    """How far a trial is, without weights and optimizer: plain values, saved and restored.

    Attributes:
        steps: Optimizer steps taken.
        skipped: Unlabeled batches that were skipped.
        images: Labeled images learned from, over all ranks.
        unlabeled: Unlabeled images learned from, over all ranks.
        stale: Epochs since the validation loss last reached a new minimum.
        least_loss: That minimum.
        train_seconds, evaluate_seconds: Wall time in the loop and in evaluation.
        epoch_seconds: Of `train_seconds`, those before the current epoch.
        cpu_seconds: This process's CPU time in both.
        history: The finished epochs' metrics.
        rungs: The figures at the rungs that were reached, those of `RUNG`.
    """

    steps: int = 0
    skipped: int = 0
    images: int = 0
    unlabeled: int = 0
    stale: int = 0
    least_loss: float = math.inf
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    epoch_seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    rungs: list[dict[str, Any]] = field(default_factory=list)


RUNG = ("steps", *AT_A_RUNG)
"""What is known of a training at a rung."""


@dataclass(frozen=True)
class Rungs:
    """Where a training is evaluated beside the ends of its epochs, and asked whether it goes on.

    It does not affect the outcome of a training that goes on.

    Attributes:
        steps: Numbers of optimizer steps; those at or beyond the training's end are not reached.
        goes_on: Called on the first rank with the figures of all rungs so far, the newest last, as in
            `Progress.rungs`. False: the training stops here, with `Stopped`.
    """

    steps: Container[int]
    goes_on: Callable[[Sequence[dict[str, Any]]], bool] = lambda rungs: True


class Stopped(Exception):  # noqa: N818 (no error)
    """A training that was told at a rung not to go on.

    Attributes:
        progress: How far it came.
        precision: `fp32`, `bf16` or `fp64`, as used.
        parameters: Number of trained weights.
    """

    def __init__(self, progress: Progress, precision: str, parameters: int) -> None:
        super().__init__(f"stopped after {progress.steps} steps")
        self.progress, self.precision, self.parameters = progress, precision, parameters


@dataclass(frozen=True)
class FitResult:
    """The result of a trial.

    Attributes:
        history: Each epoch's metrics, in order.
        best_epoch: The epoch whose weights are kept, from 1: the one of the lowest validation loss,
            or the last.
        validation, test: Figures of the weights of that epoch: the averaged ones where such are kept.
        student_validation, student_test: Where averaged weights are kept, the figures of the trained
            ones beside them; else None.
        weights: The weights that `validation` and `test` are of, on the CPU.
        progress: Steps, images and seconds in all.
        precision: `fp32`, `bf16` or `fp64`, as used.
        parameters: Number of trained weights.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    validation: Evaluation
    test: Evaluation
    student_validation: Evaluation | None
    student_test: Evaluation | None
    weights: dict[str, torch.Tensor]
    progress: Progress
    precision: str
    parameters: int
