"""The training loop, in plain PyTorch: one process or a rank among many, without Ray."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_runner.augment import draw, weak
from ssl_runner.config import TrialConfig
from ssl_runner.keyed import seed_of
from ssl_runner.loader import Batch, PartiallyLabeledDataset, make_loader
from ssl_runner.methods import build_method
from ssl_runner.models import build_model
from ssl_runner.sampler import HomogeneousBatchSampler
from ssl_runner.train.data import TrialData
from ssl_runner.train.device import (
    autocast,
    compile_in_place,
    resident,
    resolve_precision,
    to_model_input,
)
from ssl_runner.train.evaluation import Evaluation, evaluate, rank_and_size, sum_over_ranks

# B = images in this rank's batch, C = channels, H and W = height and width, K = classes

# What the seeds of torch's generator are drawn for, so that no two purposes share one.
_WEIGHTS, _STEP, _WEAK = 0, 1, 2

Report = Callable[[dict[str, Any] | None, dict[str, Any]], None]
"""Called with an epoch's metrics (None in mid-epoch) and the training state, which holds live
tensors: whoever wants to keep it writes it out before returning."""


@dataclass
class Sums:
    """What an epoch adds up, on the device, so that no step waits for a number.

    Attributes:
        loss: Cross entropy summed over the labeled images.
        correct: Labeled images classified right while training.
        images: Labeled images seen.
    """

    loss: torch.Tensor
    correct: torch.Tensor
    images: int = 0

    @classmethod
    def zero(cls, device: torch.device) -> "Sums":
        return cls(
            torch.zeros((), dtype=torch.float64, device=device),
            torch.zeros((), dtype=torch.int64, device=device),
        )

    def over_ranks(self, group: dist.ProcessGroup | None) -> "dict[str, float | int]":
        """The sums over all ranks, as plain numbers."""
        own = torch.stack([self.loss, self.correct.double(), self.loss.new_tensor(self.images)])
        loss, correct, images = sum_over_ranks(own, group).tolist()
        return {"loss": loss, "correct": int(correct), "images": int(images)}


@dataclass
class Progress:
    """Where a training stands, but for weights and optimizer: plain values, saved and restored.

    Attributes:
        steps: Optimizer steps taken.
        passed: Unlabeled batches that were passed over.
        images: Labeled images learned from, over all ranks.
        stale: Epochs since the validation loss was last lower than ever before.
        train_seconds, evaluate_seconds: Wall time in the loop and in evaluation.
        epoch_seconds: Of `train_seconds`, those before the epoch that is under way.
        cpu_seconds: This process's CPU time in both.
        history: The finished epochs' metrics.
    """

    steps: int = 0
    passed: int = 0
    images: int = 0
    stale: int = 0
    train_seconds: float = 0.0
    evaluate_seconds: float = 0.0
    epoch_seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class FitResult:
    """What came of a trial.

    Attributes:
        history: Each epoch's metrics, in order.
        best_epoch: The epoch of the lowest validation loss, from 1.
        validation, test: Figures of the weights of that epoch.
        weights: Those weights, on the CPU.
        progress: Steps, images and seconds in all.
        precision: `fp32` or `bf16`, as used.
        parameters: Number of trained weights.
    """

    history: list[dict[str, Any]]
    best_epoch: int
    validation: Evaluation
    test: Evaluation
    weights: dict[str, torch.Tensor]
    progress: Progress
    precision: str
    parameters: int


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    sums: Sums,
    *,
    config: TrialConfig,
    epoch: int,
    rank: int,
    device: torch.device,
    precision: str,
    after_step: Callable[[Batch], bool],
) -> None:
    """One passage through the batches: cross entropy on each labeled one, backward, step.

    Args:
        model: In training mode; wrapped in DDP when there are several ranks.
        batches: This rank's labeled batches.
        sums: Added to in place.
        after_step: Called after each step; its True ends the epoch.
    """
    for batch in batches:
        # The generator is set by place, so that nothing about it needs to be saved: a run that
        # starts here draws the same numbers as one that came by.
        torch.manual_seed(seed_of((config.seed, _STEP, epoch, batch.step, rank)))
        images_BCHW = to_model_input(_view(batch, config, epoch, device), device)
        targets_B = batch.targets.to(device, non_blocking=True)
        with autocast(precision, device):
            scores_BK = model(images_BCHW)
        loss = F.cross_entropy(scores_BK.float(), targets_B)
        optimizer.zero_grad(set_to_none=True)
        (loss if batch.weight == 1 else loss * batch.weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if batch.own:  # a filler image is no image of the epoch
            sums.loss += loss.detach() * batch.own
            sums.correct += (scores_BK.detach().argmax(1) == targets_B).sum()
            sums.images += batch.own
        if after_step(batch):
            return


def _view(batch: Batch, config: TrialConfig, epoch: int, device: torch.device) -> torch.Tensor:
    """The labeled images as the model learns from them: as they are, or a weak view of each."""
    images_BCHW = batch.images.to(device, non_blocking=True)
    if config.augment == "none":
        return images_BCHW
    key = (config.seed, _WEAK, epoch, batch.step)
    stop = batch.start + len(images_BCHW)
    return weak(images_BCHW, draw(key, batch.size, batch.start, stop, 3), config.flip)


def _agree(sampler: HomogeneousBatchSampler, group: dist.ProcessGroup | None) -> None:
    """Compare what the ranks are about to do: one that has more steps would wait for ever.

    Raises:
        ValueError: On every rank, if any two differ; says who has what.
    """
    if group is None:
        return
    own = {"epoch": sampler.epoch, "step": sampler.step, "steps": len(sampler.plan)}
    own |= sampler.fingerprint  # type: ignore[arg-type]
    all_of_them: list[dict[str, Any]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(all_of_them, own, group=group)
    differ = [name for name in own if len({other[name] for other in all_of_them}) > 1]
    if differ:
        raise ValueError(
            "all ranks must follow the same plan, got "
            + "; ".join(f"{name} {[other[name] for other in all_of_them]}" for name in differ)
            + " (rank 0 first). Start every rank with equal arguments."
        )


def fit(
    config: TrialConfig,
    data: TrialData,
    *,
    device: torch.device,
    report: Report,
    group: dist.ProcessGroup | None = None,
    resume: dict[str, Any] | None = None,
    checkpoint_steps: int | None = None,
) -> FitResult:
    """Train one trial to its end: the same function for one process and for a rank among many.

    Args:
        config: What to train.
        data: From `prepare`, equal on every rank.
        device: Where this rank computes.
        report: Called on every rank after every epoch, and in mid-epoch every `checkpoint_steps`.
        group: The ranks that train together, or None.
        resume: A state that `report` was given, by a run of an equal config and any number of
            ranks, to go on from there.
        checkpoint_steps: Optimizer steps between reports in mid-epoch; None: none in mid-epoch.

    Returns:
        The result; equal on every rank.

    Raises:
        FloatingPointError: If the training loss of an epoch is not a finite number.
        ValueError: If `resume` comes from another config, or there is no compiler to compile with.
    """
    rank, world_size = rank_and_size(group)
    precision = resolve_precision(config.precision, device)
    method = build_method(config.method)
    torch.manual_seed(seed_of((config.seed, _WEIGHTS)))
    channels, height, width = data.images_NCHW.shape[1:]
    bare = build_model(config.model, channels, (height, width), len(data.classes), config.dropout).to(
        device, memory_format=torch.channels_last
    )  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(bare.parameters(), lr=config.lr, fused=True)
    sampler = HomogeneousBatchSampler(
        data.labeled,
        data.unlabeled,
        batch_size=config.batch_size,
        num_replicas=world_size,
        rank=rank,
        seed=config.seed,
        order=config.order,
        last_batch=config.last_batch,
        skip_unlabeled=not method.needs_unlabeled,
    )
    progress, sums, best = Progress(), Sums.zero(device), None
    clock = cpu_clock = 0.0
    if resume is not None:
        progress, sums, best = _restore(resume, config, bare, optimizer, sampler, device, rank)

    images_NCHW = resident(data.images_NCHW, device)
    stays = isinstance(images_NCHW, torch.Tensor)
    targets_N = resident(data.targets_N, device) if stays else data.targets_N
    loader = make_loader(
        PartiallyLabeledDataset(images_NCHW, targets_N),
        sampler,
        pin_memory=device.type == "cuda" and not stays,
    )
    images, labels = (resident(rows, device) for rows in data.validation)
    if config.compile:
        compile_in_place(bare, device)
    model: nn.Module = bare
    if group is not None:
        ids = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(bare, device_ids=ids, process_group=group)

    def state() -> dict[str, Any]:
        return {
            "version": 1,
            "trial_id": config.trial_id,
            "model": bare.state_dict(),
            "optimizer": optimizer.state_dict(),
            "sampler": sampler.state_dict(),
            "sums": sums.over_ranks(group),
            "progress": asdict(progress),
            "best": best,
        }

    def budget_spent() -> bool:
        return config.max_steps is not None and progress.steps >= config.max_steps

    def after_step(batch: Batch) -> bool:
        nonlocal clock, cpu_clock
        progress.steps += 1
        progress.images += batch.size
        progress.passed += batch.step - sampler.step
        sampler.step = batch.step + 1
        if checkpoint_steps and progress.steps % checkpoint_steps == 0:
            progress.train_seconds += time.perf_counter() - clock
            progress.cpu_seconds += time.process_time() - cpu_clock
            report(None, state())
            clock, cpu_clock = time.perf_counter(), time.process_time()
        return budget_spent()

    while not _finished(config, progress, sampler.step):
        epoch = len(progress.history)
        sampler.set_epoch(epoch)
        _agree(sampler, group)
        model.train()
        clock, cpu_clock = time.perf_counter(), time.process_time()
        if not budget_spent():  # it may have been restored at the budget's last step
            train_epoch(
                model,
                optimizer,
                loader,
                sums,
                config=config,
                epoch=epoch,
                rank=rank,
                device=device,
                precision=precision,
                after_step=after_step,
            )
        if not budget_spent():  # unlabeled batches behind the last labeled one
            progress.passed += len(sampler.plan) - sampler.step
        totals = sums.over_ranks(group)
        trained = time.perf_counter()
        progress.train_seconds += trained - clock
        validation = evaluate(
            bare,
            images,
            labels,
            len(data.classes),
            device=device,
            precision=precision,
            group=group,
        )
        progress.evaluate_seconds += time.perf_counter() - trained
        progress.cpu_seconds += time.process_time() - cpu_clock
        train_loss = totals["loss"] / totals["images"]
        if not np.isfinite(train_loss):
            raise FloatingPointError(
                f"the training loss must stay finite, got {train_loss} in epoch {epoch + 1}. "
                f"Try a lower lr than {config.lr:g}."
            )
        progress.stale += 1
        if best is None or validation.loss < best["validation"]["loss"]:
            progress.stale = 0
            weights = {name: w.detach().cpu().clone() for name, w in bare.state_dict().items()}
            best = {"epoch": epoch + 1, "validation": asdict(validation), "weights": weights}
        metrics = {
            "epoch": epoch + 1,
            "train_loss": train_loss,
            "train_accuracy": totals["correct"] / totals["images"],
            "validation_loss": validation.loss,
            "validation_accuracy": validation.accuracy,
            "steps": progress.steps,
            "passed": progress.passed,
            "images": progress.images,
            "train_seconds": progress.train_seconds,
            "evaluate_seconds": progress.evaluate_seconds,
            "images_per_second": totals["images"] / (progress.train_seconds - progress.epoch_seconds),
        }
        progress.epoch_seconds = progress.train_seconds
        progress.history.append(metrics)
        sampler.set_epoch(epoch + 1)
        sums = Sums.zero(device)
        report(metrics, state())

    assert best is not None
    final = Evaluation(**best["validation"])
    test = final
    if data.test is not None:
        bare.load_state_dict(best["weights"])
        test = evaluate(
            bare, *data.test, len(data.classes), device=device, precision=precision, group=group
        )
    return FitResult(
        history=progress.history,
        best_epoch=best["epoch"],
        validation=final,
        test=test,
        weights=best["weights"],
        progress=replace(progress),
        precision=precision,
        parameters=sum(weight.numel() for weight in bare.parameters()),
    )


def _finished(config: TrialConfig, progress: Progress, step: int) -> bool:
    """Whether no epoch is to be begun, or gone on with, any more."""
    if step:
        return False
    if progress.history and config.patience and progress.stale >= config.patience:
        return True
    if config.max_steps is not None:
        return progress.steps >= config.max_steps
    return len(progress.history) >= config.epochs


def _restore(
    state: dict[str, Any],
    config: TrialConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sampler: HomogeneousBatchSampler,
    device: torch.device,
    rank: int,
) -> tuple[Progress, Sums, dict[str, Any] | None]:
    """Put a state back into fresh objects."""
    if state["version"] != 1 or state["trial_id"] != config.trial_id:
        raise ValueError(
            f"the training state must be of trial {config.trial_id}, got one of "
            f"{state['trial_id']} (version {state['version']}). Continue with equal settings."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    sampler.load_state_dict(state["sampler"])
    sums = Sums.zero(device)
    if rank == 0:  # the saved sums are those over all ranks
        sums.loss += state["sums"]["loss"]
        sums.correct += state["sums"]["correct"]
        sums.images = state["sums"]["images"]
    return Progress(**state["progress"]), sums, state["best"]
