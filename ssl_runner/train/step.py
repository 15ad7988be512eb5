"""One optimizer step: the loss of a labeled batch, and that of the unlabeled ones that go with it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ssl_runner.augment import STRONG_NUMBERS, WEAK_NUMBERS, draw, strong, weak
from ssl_runner.config import TrialConfig
from ssl_runner.keyed_random import seed_of
from ssl_runner.loader import Batch
from ssl_runner.methods import LabeledBatch, Method, Networks, UnlabeledBatch
from ssl_runner.models.batch_norm import SyncBatchNorm
from ssl_runner.sampler import LABELED_KIND
from ssl_runner.train.device import autocast, dtype_of, seed_generator, to_model_input
from ssl_runner.train.optimizer import lr_factor
from ssl_runner.train.ranks import sum_over_ranks
from ssl_runner.train.values import Sums

# B = images in this rank's batch, n = images of the global batch, C = channels, H and W = height and
# width, K = classes

# Purposes of random numbers, so that no two share a seed.
WEIGHTS, _STEP, _WEAK, _STRONG = 0, 1, 2, 3


Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


def averaged_model(model: nn.Module, decay: float) -> AveragedModel:
    """A copy whose weights are a running average of the model's; `update_parameters` updates it.

    The decay is min(1 − 1/(step + 1), α) as in Tarvainen and Valpola's published code (2017), so that
    the first steps are a plain average and the initial weights are soon forgotten. Buffers are copied.
    """

    def move(averages: Tensors, weights: Tensors, step: torch.Tensor | int) -> None:
        torch._foreach_lerp_(averages, weights, max(1 / (int(step) + 1), 1 - decay))

    average = AveragedModel(model, multi_avg_fn=move)
    return average.requires_grad_(False).eval()


def group_by_step(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """The batches of each optimizer step: a labeled one, and the unlabeled ones up to the next."""
    group: list[Batch] = []
    for batch in batches:
        if batch.kind == LABELED_KIND and group:
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


@dataclass(frozen=True, kw_only=True)
class Learner:
    """Takes optimizer steps on one rank.

    Attributes:
        config: The trial, resolved.
        method: What is learned from unlabeled batches.
        bare: The model.
        model: The same, wrapped in DDP where there are several ranks.
        average: The running average of its weights, or None.
        optimizer: Of the model's weights.
        hidden_N: The classes of all training images, only for the table: no loss sees them.
        steps: Optimizer steps of the whole training.
        group: The ranks that train together, or None.
        device, precision: How it computes.
    """

    config: TrialConfig
    method: Method
    bare: nn.Module
    model: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    hidden_N: torch.Tensor
    steps: int
    group: dist.ProcessGroup | None
    device: torch.device
    precision: str

    def step(self, batches: list[Batch], sums: Sums, epoch: int, step: int) -> None:
        """One step on the sum of the labeled loss and the unlabeled ones' weighted mean.

        Args:
            batches: A labeled one, then any unlabeled ones.
            sums: Added to in place.
            epoch: Number of the epoch, from 0.
            step: Optimizer steps taken so far.
        """
        labeled, *unlabeled = batches
        self.optimizer.zero_grad(set_to_none=True)
        for batch in unlabeled:
            # The gradients add up on each rank; the last backward averages the sum over the ranks.
            with self._no_sync():
                self._learn_unlabeled(batch, labeled, sums, epoch, step, len(unlabeled))
        self._learn_labeled(labeled, sums, epoch)
        factor = lr_factor(self.config.optimizer, step, self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * factor
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.bare)

    def _no_sync(self) -> AbstractContextManager[None]:
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return nullcontext()

    def _learn_labeled(self, batch: Batch, sums: Sums, epoch: int) -> None:
        """Cross entropy and its gradient."""
        self._begin(batch, epoch)
        if self.config.batches.augment == "strong":
            images_BCHW = self._strong_views(batch, epoch)(0)
        elif self.config.batches.augment == "weak":
            images_BCHW = self._weak_views(batch, epoch)(0)
        else:
            images_BCHW = to_model_input(batch.images, self.device, self._dtype)
        targets_B = batch.targets.to(self.device, non_blocking=True)
        logits_BK = self._logits(self.model, images_BCHW)
        loss = F.cross_entropy(logits_BK, targets_B)
        (loss if batch.weight == 1 else loss * batch.weight).backward()  # type: ignore[no-untyped-call]
        if batch.own:  # a filler image does not count
            right = (logits_BK.detach().argmax(1) == targets_B).sum()
            sums.add(loss=loss.detach() * batch.own, correct=right, images=batch.own)

    def _learn_unlabeled(
        self, batch: Batch, labeled: Batch, sums: Sums, epoch: int, step: int, batches: int
    ) -> None:
        """The method's loss and its gradient."""
        self._begin(batch, epoch)
        views = self._views(batch, labeled, sums, epoch)
        loss = self.method.unlabeled_loss(self._networks, views, step)
        if loss is None:
            return
        assert self.config.unlabeled.unlabeled_weight is not None
        ramp_steps = (self.config.unlabeled.ramp or 0.0) * self.steps
        risen = min(1.0, step / ramp_steps) if ramp_steps else 1.0
        weight = self.config.unlabeled.unlabeled_weight * risen / batches
        (loss * (weight * batch.weight)).backward()  # type: ignore[no-untyped-call]
        if batch.own:
            sums.add(unlabeled_loss=loss.detach() * batch.own, unlabeled=batch.own)

    def _begin(self, batch: Batch, epoch: int) -> None:
        """Before a batch's forward passes."""
        for norm in self._norms:
            if isinstance(norm, SyncBatchNorm):
                norm.counts = batch.own > 0
        # The generator is seeded by position, so its state need not be saved: a run that resumes here
        # draws the same numbers as one that was never stopped.
        rank = 0 if self.group is None else dist.get_rank(self.group)
        seed_generator(seed_of((self.config.batches.seed, _STEP, epoch, batch.step, rank)), self.device)

    def _draw(self, batch: Batch, epoch: int, purpose: int, view: int) -> torch.Tensor:
        """Random numbers for a view of this rank's images."""
        key = (self.config.batches.seed, purpose, epoch, batch.step)
        numbers = STRONG_NUMBERS if purpose == _STRONG else WEAK_NUMBERS
        stop = batch.start + len(batch.images)
        return draw((*key, view) if view else key, batch.size, batch.start, stop, numbers)

    def _logits(self, model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
        with autocast(self.precision, self.device):
            logits_BK: torch.Tensor = model(images_BCHW)
        return logits_BK.to(self._dtype)

    @property
    def _dtype(self) -> torch.dtype:
        return dtype_of(self.precision)

    @cached_property
    def _norms(self) -> list[_BatchNorm]:
        return [module for module in self.bare.modules() if isinstance(module, _BatchNorm)]

    @cached_property
    def _networks(self) -> Networks:
        """The model as a method may call it."""
        tracking = [norm for norm in self._norms if norm.track_running_stats]

        def student(images_BCHW: torch.Tensor) -> torch.Tensor:
            for norm in tracking:
                norm.track_running_stats = False
            logits_BK = self._logits(self.model, images_BCHW)
            for norm in tracking:
                norm.track_running_stats = True
            return logits_BK

        def without_gradient(model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
            was_training = model.training
            model.eval()
            with torch.no_grad():
                logits_BK = self._logits(model, images_BCHW)
            model.train(was_training)
            return logits_BK

        teacher = self.bare if self.average is None else self.average.module
        return Networks(
            student=student,
            predict=lambda images_BCHW: without_gradient(self.bare, images_BCHW),
            teacher=lambda images_BCHW: without_gradient(teacher, images_BCHW),
        )

    def _weak_views(self, batch: Batch, epoch: int) -> Callable[[int], torch.Tensor]:
        """The weak views of a batch, by number."""

        def weak_view(view: int) -> torch.Tensor:
            images_BCHW = batch.images.to(self.device, non_blocking=True)
            numbers = self._draw(batch, epoch, _WEAK, view)
            views_BCHW = weak(images_BCHW, numbers, self.config.batches.flip)
            return to_model_input(views_BCHW, self.device, self._dtype)

        return weak_view

    def _strong_views(self, batch: Batch, epoch: int) -> Callable[[int], torch.Tensor]:
        """The strong views of a batch, by number."""

        def strong_view(view: int) -> torch.Tensor:
            images_BCHW = batch.images.to(self.device, non_blocking=True)
            numbers = self._draw(batch, epoch, _STRONG, view).to(self._dtype)
            settings = self.config.batches
            made = strong(images_BCHW, numbers, settings.flip, settings.magnitude)
            return made.contiguous(memory_format=torch.channels_last)

        return strong_view

    def _mean(self, batch: Batch) -> Callable[[torch.Tensor], torch.Tensor]:
        """The mean over the images of all workers, without the fillers."""

        def mean(values: torch.Tensor) -> torch.Tensor:
            own = values.detach()[: batch.own].sum(0)
            return sum_over_ranks(own, self.group) / batch.size

        return mean

    def _views(self, batch: Batch, labeled: Batch, sums: Sums, epoch: int) -> UnlabeledBatch:
        """An unlabeled batch as a method sees it."""

        def record(
            confidence_B: torch.Tensor | None = None,
            accepted_B: torch.Tensor | None = None,
            pseudo_B: torch.Tensor | None = None,
        ) -> None:
            own = slice(batch.own)
            if confidence_B is not None:
                sums.add(confidence=confidence_B[own].sum(), confident=batch.own)
            if accepted_B is not None:
                sums.add(accepted=accepted_B[own].sum(), judged=batch.own)
            if accepted_B is not None and pseudo_B is not None:
                hidden_B = self.hidden_N[batch.indices].to(self.device, non_blocking=True)
                known_B = (accepted_B & (hidden_B >= 0))[own]
                right_B = known_B & (pseudo_B == hidden_B)[own]
                sums.add(right=right_B.sum(), known=known_B.sum())

        return UnlabeledBatch(
            size=batch.size,
            weak=self._weak_views(batch, epoch),
            strong=self._strong_views(batch, epoch),
            mean=self._mean(batch),
            record=record,
            labeled=LabeledBatch(weak=self._weak_views(labeled, epoch), mean=self._mean(labeled)),
        )
