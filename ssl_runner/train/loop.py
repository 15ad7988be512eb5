"""The training loop, in plain PyTorch: one process or a rank among many, without Ray."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from ssl_runner.config import TrialConfig
from ssl_runner.errors import require
from ssl_runner.keyed_random import seed_of
from ssl_runner.loader import Batch, PartiallyLabeledDataset, make_loader
from ssl_runner.methods import Method, build_method
from ssl_runner.metrics import METRICS
from ssl_runner.models import build_model, synchronize
from ssl_runner.sampler import HomogeneousBatchSampler
from ssl_runner.train.data import TrialData
from ssl_runner.train.device import compile_in_place, dtype_of, resident, resolve_precision
from ssl_runner.train.evaluation import Evaluation, evaluate
from ssl_runner.train.optimizer import build_optimizer
from ssl_runner.train.ranks import check_agreement, rank_and_size, sum_over_ranks
from ssl_runner.train.step import WEIGHTS, Learner, averaged_model, group_by_step
from ssl_runner.train.values import RUNG, FitResult, Progress, Rungs, Stopped, Sums

# K = classes

Report = Callable[[dict[str, Any] | None, dict[str, Any]], None]
"""Called with an epoch's metrics (None in mid-epoch) and the training state, which holds live
tensors: a callback that keeps it must write it out before returning."""

_AGREE_STEPS = 10
"""Steps between two agreements of the ranks on whether they are asked to report."""


def fit(
    config: TrialConfig,
    data: TrialData,
    *,
    device: torch.device,
    report: Report,
    group: dist.ProcessGroup | None = None,
    resume: dict[str, Any] | None = None,
    trial_id: str | None = None,
    checkpoint_steps: int | None = None,
    rungs: Rungs | None = None,
    is_asked: Callable[[], bool] | None = None,
) -> FitResult:
    """Train one trial to its end: the same function for one process and for a rank among many.

    Args:
        config: What to train.
        data: From `prepare`, equal on every rank.
        device: Where this rank computes.
        report: Called on every rank after every epoch, and in mid-epoch every `checkpoint_steps`.
        group: The ranks that train together, or None.
        resume: A state to resume from, as given to `report` by a run of an equal config and any
            number of ranks.
        trial_id: Identifies the trial; a state of another one is refused. None: the id of the
            settings.
        checkpoint_steps: Optimizer steps between reports in mid-epoch; None: none in mid-epoch.
        rungs: Where else it is evaluated, and asked whether it goes on; None: nowhere.
        is_asked: Called after every step, with a group after every tenth: whether to report here too,
            in mid-epoch. Where any rank is asked to, all of them do.

    Returns:
        The result; equal on every rank.

    Raises:
        Stopped: On every rank, if it was told at a rung not to go on.
        FloatingPointError: If a loss of an epoch, or a weight after it, is not finite.
        ValueError: If `resume` comes from another config, or there is no compiler for `compile`.
    """
    training = Training(config, data, device, group, resume, trial_id)
    while not training.is_finished():
        training.train_epoch(report, checkpoint_steps, rungs, is_asked)
        metrics = training.close_epoch()
        report(metrics, training.state())
    return training.result()


class Training:
    """A running trial on one rank. The arguments are those of `fit`."""

    def __init__(
        self,
        config: TrialConfig,
        data: TrialData,
        device: torch.device,
        group: dist.ProcessGroup | None,
        resume: dict[str, Any] | None,
        trial_id: str | None = None,
    ) -> None:
        config = config.resolved()
        self.config, self.data, self.device, self.group = config, data, device, group
        self.trial_id = trial_id or config.settings_id
        self.precision = resolve_precision(config.compute.precision, device)
        method, bare = self._new_method(), self._new_model()
        optimizer = build_optimizer(config.optimizer, bare.parameters())
        average = averaged_model(bare, config.unlabeled.ema) if config.unlabeled.ema else None
        self.sampler = self._new_sampler(skip_unlabeled=not method.needs_unlabeled)
        self.progress, self.sums = Progress(), Sums(device)
        self.kept: dict[str, Any] | None = None
        # What is saved and restored by its own state_dict.
        self.parts: dict[str, Any] = {
            "model": bare,
            "method": method,
            "optimizer": optimizer,
            "sampler": self.sampler,
        }
        if average is not None:
            self.parts["average"] = average
        if resume is not None:
            self._restore(resume)
        check_agreement(self.sampler, group)
        self.loader = self._new_loader()
        images, labels = (resident(rows, device) for rows in data.validation)
        self.validation = images, labels
        steps = config.budget.max_steps or config.budget.epochs * self.sampler.plan.labeled_steps()
        warmup, rule = config.optimizer.warmup_steps, f"less than the {steps} steps of the training"
        require(warmup < steps, "warmup_steps", rule, warmup, "Train longer, or leave it out.")
        self.learner = Learner(
            config=config,
            method=method,
            bare=bare,
            model=self._wrapped(bare),
            average=average,
            optimizer=optimizer,
            hidden_N=torch.tensor(data.hidden_N),
            steps=steps,
            group=group,
            device=device,
            precision=self.precision,
        )

    def _new_method(self) -> Method:
        """The method, in the precision's own type."""
        data, dtype = self.data, dtype_of(self.precision)
        counts_K = np.bincount(data.targets_N[data.labeled], minlength=len(data.classes))
        shares_K = torch.tensor(counts_K / counts_K.sum(), dtype=dtype)
        return build_method(self.config.unlabeled, shares_K).to(self.device, dtype)

    def _new_model(self) -> nn.Module:
        """The model with its initial weights, which the seed alone decides."""
        channels, height, width = self.data.images_NCHW.shape[1:]
        classes = len(self.data.classes)
        torch.manual_seed(seed_of((self.config.batches.seed, WEIGHTS)))
        model = build_model(self.config.network, channels, (height, width), classes)
        placed: nn.Module = model.to(  # type: ignore[call-overload]
            self.device, dtype_of(self.precision), memory_format=torch.channels_last
        )
        return placed

    def _new_sampler(self, skip_unlabeled: bool) -> HomogeneousBatchSampler:
        """This rank's walk along the plan."""
        rank, world_size = rank_and_size(self.group)
        batches = self.config.batches
        return HomogeneousBatchSampler(
            self.data.labeled,
            self.data.unlabeled,
            batch_size=batches.batch_size,
            num_replicas=world_size,
            rank=rank,
            seed=batches.seed,
            order=batches.order,
            last_batch=batches.last_batch,
            mu=self.config.unlabeled.mu or 1,
            skip_unlabeled=skip_unlabeled,
        )

    def _new_loader(self) -> "DataLoader[Batch]":
        """Batches gathered where the images are: on the device, if they fit there."""
        images_NCHW, more_MCHW = resident(self.data.images_NCHW, self.device), self.data.foreign_MCHW
        stays = isinstance(images_NCHW, torch.Tensor)
        if isinstance(images_NCHW, torch.Tensor) and more_MCHW is not None:  # one array, one gathering
            images_NCHW = torch.cat((images_NCHW, torch.tensor(more_MCHW, device=self.device)))
            more_MCHW = None
        targets_N = resident(self.data.targets_N, self.device) if stays else self.data.targets_N
        return make_loader(
            PartiallyLabeledDataset(images_NCHW, targets_N, more_MCHW),
            self.sampler,
            pin_memory=self.device.type == "cuda" and not stays,
        )

    def _wrapped(self, bare: nn.Module) -> nn.Module:
        """The model as it is called: compiled, if so configured, and in DDP where there are ranks.

        DDP gives every rank the buffers of rank 0 before a forward pass. So without
        `sync_batch_norm` the running averages are those of rank 0's images; with it they are equal
        anyway.
        """
        if self.config.compute.compile:
            compile_in_place(bare, self.device)
        if self.group is None:
            return bare
        if self.config.network.sync_batch_norm:
            synchronize(bare, self.group)
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(bare, device_ids=devices, process_group=self.group)

    def state(self) -> dict[str, Any]:
        """Everything needed to resume, without rank or number of ranks."""
        return {
            "version": 3,
            "trial_id": self.trial_id,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "sums": self.sums.over_ranks(self.group),
            "progress": asdict(self.progress),
            "kept": self.kept,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        if state["version"] != 3 or state["trial_id"] != self.trial_id:
            raise ValueError(
                f"the training state must be of trial {self.trial_id}, got one of "
                f"{state['trial_id']} (version {state['version']}). Resume with equal settings, data "
                "and code."
            )
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        if rank_and_size(self.group)[0] == 0:  # the saved sums are those over all ranks
            self.sums.add(**state["sums"])
        self.progress, self.kept = Progress(**state["progress"]), state["kept"]

    def is_finished(self) -> bool:
        """Whether there is no epoch left to start or resume."""
        if self.sampler.step:
            return False
        if self.config.budget.patience and self.progress.stale >= self.config.budget.patience:
            return True
        if self.config.budget.max_steps is not None:
            return self._budget_spent()
        return len(self.progress.history) >= self.config.budget.epochs

    def _budget_spent(self) -> bool:
        return (
            self.config.budget.max_steps is not None
            and self.progress.steps >= self.config.budget.max_steps
        )

    def train_epoch(
        self,
        report: Report,
        checkpoint_steps: int | None,
        rungs: Rungs | None = None,
        is_asked: Callable[[], bool] | None = None,
    ) -> None:
        """Train on the rest of the epoch's batches, or of the budget in steps.

        Raises:
            Stopped: If it was told at a rung not to go on.
        """
        progress, epoch = self.progress, len(self.progress.history)
        self.learner.model.train()
        clock = _clock()
        # The budget may have been spent at the last step before this training was restored.
        for batches in () if self._budget_spent() else group_by_step(self.loader):
            # Before a step and not after one: where an epoch ends its own figures are known by then.
            if rungs is not None and self._is_due(rungs):
                self._count_time(clock)
                self._pass_rung(rungs)
                clock = _clock()
            self.learner.step(batches, self.sums, epoch, progress.steps)
            self._count(batches)
            is_due = checkpoint_steps and progress.steps % checkpoint_steps == 0
            if is_due or self._is_asked(is_asked):
                self._count_time(clock)
                report(None, self.state())
                clock = _clock()
            if self._budget_spent():
                break
        else:
            if not self._budget_spent():  # unlabeled batches behind the last labeled one
                progress.skipped += len(self.sampler.plan) - self.sampler.step
        self._count_time(clock)

    def _count_time(self, since: tuple[float, float], evaluating: bool = False) -> None:
        """Count the time since then as time in the loop, or in evaluation."""
        (wall, cpu), (since_wall, since_cpu) = _clock(), since
        if evaluating:
            self.progress.evaluate_seconds += wall - since_wall
        else:
            self.progress.train_seconds += wall - since_wall
        self.progress.cpu_seconds += cpu - since_cpu

    def _is_asked(self, is_asked: Callable[[], bool] | None) -> bool:
        """Whether any rank is asked to report here. They agree on it, which not every step pays for."""
        if is_asked is None:
            return False
        if self.group is None:
            return is_asked()
        if self.progress.steps % _AGREE_STEPS:
            return False
        return bool(sum_over_ranks(torch.tensor(float(is_asked()), device=self.device), self.group))

    def _is_due(self, rungs: Rungs) -> bool:
        """Whether there is a rung here that has not been passed."""
        progress = self.progress
        is_passed = bool(progress.rungs) and progress.rungs[-1]["steps"] == progress.steps
        return progress.steps in rungs.steps and not is_passed

    def _pass_rung(self, rungs: Rungs) -> None:
        """Evaluate as at an epoch's end, and ask whether to go on. Nothing else changes.

        Raises:
            Stopped: If not.
            FloatingPointError: If a loss or a weight is not finite; the epoch's end would raise it too.
        """
        progress = self.progress
        if progress.history and progress.history[-1]["steps"] == progress.steps:
            figures = progress.history[-1]
        else:
            self._check_finite(
                _epoch_means(self.sums.over_ranks(self.group)), len(progress.history) + 1
            )
            average = self.learner.average
            validation = self._validate(self.learner.bare if average is None else average.module)
            figures = {
                "steps": progress.steps,
                "validation_loss": validation.loss,
                "validation_accuracy": validation.accuracy,
            }
        progress.rungs.append({name: figures[name] for name in RUNG})
        # One rank asks, and all of them stop, or none does.
        stops = rank_and_size(self.group)[0] == 0 and not rungs.goes_on(progress.rungs)
        if sum_over_ranks(torch.tensor(float(stops), device=self.device), self.group):
            raise Stopped(replace(progress), self.precision, self._parameters())

    def _validate(self, model: nn.Module) -> Evaluation:
        """A model's figures of the validation images; their time is counted."""
        clock = _clock()
        # A holdout judges samples of a search, and smaller ones are drawn from it afterwards.
        validation = self._evaluate(model, *self.validation, each=self.data.test is not None)
        self._count_time(clock, evaluating=True)
        return validation

    def _count(self, batches: list[Batch]) -> None:
        """Note that a step was taken on these batches."""
        progress, (labeled, *unlabeled) = self.progress, batches
        progress.steps += 1
        progress.images += labeled.size
        progress.unlabeled += sum(batch.size for batch in unlabeled)
        progress.skipped += sum(self.sampler.advance(batch.step) for batch in batches)

    def close_epoch(self) -> dict[str, Any]:
        """Evaluate, keep the weights as `keep` says, and move to the next epoch.

        Returns:
            The epoch's metrics.
        """
        progress, epoch = self.progress, len(self.progress.history) + 1
        sums = self.sums.over_ranks(self.group)
        average, student = self.learner.average, self._validate(self.learner.bare)
        validation = student if average is None else self._validate(average.module)
        metrics = {
            "epoch": epoch,
            **_epoch_means(sums),
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
            "validation_macro_accuracy": validation.macro_accuracy,
            "student_validation_loss": None if average is None else student.loss,
            "student_validation_accuracy": None if average is None else student.accuracy,
            "steps": progress.steps,
            "unlabeled_batches_skipped": progress.skipped,
            "images": progress.images,
            "unlabeled_images_seen": progress.unlabeled,
            "train_seconds": progress.train_seconds,
            "evaluate_seconds": progress.evaluate_seconds,
            "images_per_second": sums["images"] / (progress.train_seconds - progress.epoch_seconds),
        }
        self._check_finite(metrics, epoch)
        progress.stale += 1
        is_better = validation.loss < progress.least_loss
        if is_better:
            progress.stale, progress.least_loss = 0, validation.loss
        if is_better or self.config.budget.keep == "last":
            self.kept = {"epoch": epoch, "validation": asdict(validation), "student": None}
            self.kept["weights"] = _copy(self.learner.bare if average is None else average.module)
            if average is not None:
                self.kept["student"] = {
                    "validation": asdict(student),
                    "weights": _copy(self.learner.bare),
                }
        progress.epoch_seconds = progress.train_seconds
        progress.history.append(metrics)
        self.sampler.set_epoch(epoch)
        self.sums = Sums(self.device)
        return metrics

    def _check_finite(self, metrics: Mapping[str, Any], epoch: int) -> None:
        """Fail if a loss or a weight is not finite.

        The weights are checked too: max-pooling in oneDNN's formats drops a NaN (`models.blocked`).
        """
        fix = f"Try a lower lr than {self.config.optimizer.lr:g}."
        for name, column in (("training", "train_loss"), ("unlabeled", "unlabeled_loss")):
            if not np.isfinite(metrics[column] or 0.0):
                raise FloatingPointError(
                    f"the {name} loss must stay finite, got {metrics[column]} in epoch {epoch}. {fix}"
                )
        are_finite = [weight.isfinite().all() for weight in self.learner.bare.parameters()]
        if not torch.stack(are_finite).all():
            raise FloatingPointError(
                f"the weights must stay finite, got some that are not in epoch {epoch}. {fix}"
            )

    def _evaluate(self, model: nn.Module, images: Any, labels: Any, each: bool = False) -> Evaluation:
        return evaluate(
            model,
            images,
            labels,
            len(self.data.classes),
            device=self.device,
            precision=self.precision,
            group=self.group,
            each=each,
        )

    def result(self) -> FitResult:
        """The result; the model is left with the best weights."""
        assert self.kept is not None
        student = self.kept["student"]
        student_validation, student_test = None, None
        if student is not None:
            student_validation, student_test = self._of(student)
        validation, test = self._of(self.kept)
        return FitResult(
            history=self.progress.history,
            best_epoch=self.kept["epoch"],
            validation=validation,
            test=test,
            student_validation=student_validation,
            student_test=student_test,
            weights=self.kept["weights"],
            progress=replace(self.progress),
            precision=self.precision,
            parameters=self._parameters(),
        )

    def _parameters(self) -> int:
        """Number of trained weights."""
        return sum(weight.numel() for weight in self.learner.bare.parameters())

    def _of(self, kept: dict[str, Any]) -> tuple[Evaluation, Evaluation]:
        """Validation and test figures of weights that were kept."""
        validation = Evaluation(**kept["validation"])
        if self.data.test is None:
            return validation, validation
        self.learner.bare.load_state_dict(kept["weights"])
        return validation, self._evaluate(self.learner.bare, *self.data.test)


def _clock() -> tuple[float, float]:
    """Wall time, and this process's CPU time, in seconds."""
    return time.perf_counter(), time.process_time()


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().cpu().clone() for name, weight in model.state_dict().items()}


def _epoch_means(sums: dict[str, float]) -> dict[str, float | None]:
    """An epoch's means over its images; None where nothing was counted."""
    return {
        metric.name: sums[metric.mean_of[0]] / sums[metric.mean_of[1]]
        if sums[metric.mean_of[1]]
        else None
        for metric in METRICS
        if metric.mean_of is not None
    }
