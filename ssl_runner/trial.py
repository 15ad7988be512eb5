"""One trial from its config to its rows, with or without Ray: data, loop, checkpoints, figures."""

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ssl_runner.checkpoint import Checkpoints
from ssl_runner.datasets import ImageDataset
from ssl_runner.identity import Trial
from ssl_runner.metrics import METRICS
from ssl_runner.results import ResultsFolder, identity_columns
from ssl_runner.results.folder import MODEL
from ssl_runner.rounds import Buying, next_images
from ssl_runner.saved_model import ModelCard, model_file
from ssl_runner.storage import open_folder, write_whole
from ssl_runner.train import FitResult, Rungs, Stopped, TrialData, fit, prepare
from ssl_runner.train.device import keep_compiler_files, keep_freed_memory
from ssl_runner.train.values import RUNG, Progress
from ssl_runner.versions import version_columns

Rows = tuple[dict[str, Any], list[dict[str, Any]]]
"""A trial's row, and those of its epochs."""

OnEpoch = Callable[[dict[str, Any]], None]
"""Called with each finished epoch's metrics."""


@dataclass(frozen=True)
class RunContext:
    """Where a trial runs: what its row says beside the config, and where its state is kept.

    Attributes:
        sweep: Name of the sweep.
        data: What each row says of the data set, `ImageDataset.columns`.
        question: The sweep's question, or None.
        checkpoints: Folder of the trial's checkpoints, a path or URI.
        threads: CPU threads of each worker.
        checkpoint_steps: Steps between checkpoints within an epoch, or None.
        models: Folder where the trained model is saved, a path or URI; None: it is not.
        git_commit: Commit of the source, from `git_commit()` on the machine that has it.
        ray_version: Ray's version, or None without Ray.
        node: Name of the machine.
        labels: Training images that have a label, of which a round's labels are a share.
    """

    sweep: str
    checkpoints: str
    threads: int
    checkpoint_steps: int | None = None
    models: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    question: str | None = None
    git_commit: str | None = None
    ray_version: str | None = None
    node: str = socket.gethostname()
    labels: int = 0


def run_trial(
    trial: Trial,
    dataset: ImageDataset,
    context: RunContext,
    on_epoch: OnEpoch,
    *,
    device: torch.device,
    group: dist.ProcessGroup | None = None,
    rungs: Rungs | None = None,
    buying: Buying | None = None,
    is_asked: Callable[[], bool] | None = None,
) -> Rows:
    """Train a trial to its end, from its last checkpoint if it has one; a failure gives a row too.

    Args:
        on_epoch: Called on every rank after every epoch, once the checkpoint is written.
        group: The ranks that train together, or None; each calls this with equal arguments.
        rungs: Where it may be told to stop, which gives a row too; None: nowhere.
        buying: Of a round: which labels it has, and how many it buys; None: the trial is no round.
        is_asked: Called now and then in an epoch, on every rank: whether to save a checkpoint now.

    Returns:
        The rows, which rank 0 must write. The checkpoints are to be cleared after that.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    torch.set_num_threads(context.threads)
    keep_freed_memory()
    keep_compiler_files()
    checkpoints = Checkpoints(context.checkpoints)
    is_first = group is None or dist.get_rank(group) == 0
    history: list[dict[str, Any]] = []
    passed: list[dict[str, Any]] = []

    def goes_on(figures: Sequence[dict[str, Any]]) -> bool:
        passed[:] = figures
        return rungs is None or rungs.goes_on(figures)

    def report(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        if is_first:
            checkpoints.save(state)
        if metrics is not None:
            history.append(metrics)
            on_epoch(metrics)

    try:
        data = prepare(trial.config, dataset, None if buying is None else buying.labeled)
        resume = checkpoints.load()
        if resume is not None:
            history.extend(resume["progress"]["history"])
            passed.extend(resume["progress"].get("rungs", ()))
        result = fit(
            trial.config,
            data,
            device=device,
            report=report,
            group=group,
            resume=resume,
            trial_id=trial.trial_id,
            checkpoint_steps=context.checkpoint_steps,
            rungs=None if rungs is None else Rungs(rungs.steps, goes_on),
            is_asked=is_asked,
        )
        bought = None
        if buying is not None and buying.number and is_first:
            bought = next_images(trial.config, data, result, buying.number, device)
        row = _figures(result, data) | {"status": "finished", "next_images": bought}
        history = result.history
    except Stopped as stopped:
        result, history = None, stopped.progress.history
        row = _figures_when_stopped(stopped, data) | {"status": "stopped"}
    except (ValueError, FloatingPointError) as error:
        # Caused by the settings: the same on every rank, and after a retry.
        return failed_rows(trial, context, str(error), started, history, passed)
    except OSError:
        raise  # a disk or a network may be back when the trial is retried
    except Exception as error:
        if group is not None:  # another rank may have died: Ray Train restarts them all
            raise
        return failed_rows(trial, context, describe_error(error), started, history, passed)
    if is_first and result is not None and context.models is not None:  # before the row that names it
        row["weights"] = _save_model(trial, data, result, context)
    if result is not None and trial.place.get("role") == "search":
        row["holdout_correct"] = bytes.fromhex(result.validation.correct)
    row |= {
        "seconds": time.perf_counter() - clock,
        "device": _device_name(device),
        "world_size": 1 if group is None else dist.get_world_size(group),
    }
    return _base_row(trial, context, started) | row, history


def _save_model(trial: Trial, data: TrialData, result: FitResult, context: RunContext) -> str:
    """Save the trained model; returns its place in the results folder."""
    columns = identity_columns(trial)
    card = ModelCard(
        network=vars(trial.config.network),
        image_shape=tuple(data.images_NCHW.shape[1:]),
        class_names=data.classes,
        scale=255.0,
        precision=result.precision,
        sweep=context.sweep,
        trial_id=trial.trial_id,
        dataset=trial.config.data.dataset,
        data_digest=trial.data_digest,
        sources=columns["sources"],
        versions=version_columns(),
    )
    filesystem, folder = open_folder(str(context.models))
    name = f"{context.sweep}--{trial.trial_id}{MODEL}"
    write_whole(filesystem, f"{folder}/{name}", model_file(result.weights, card))
    return f"models/{name}"


def describe_error(error: BaseException) -> str:
    """An error in a line, its type first."""
    lines = str(error).strip().splitlines() or ["no message"]
    text = f"{type(error).__name__}: {lines[0]}"
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if is_memory or "can't allocate memory" in str(error):
        return f"out of memory ({text}). Try a smaller batch_size, or fewer trials at a time."
    return text


def finish_trial(results: ResultsFolder, rows: Rows, context: RunContext) -> None:
    """Write a trial's rows, then delete its checkpoints, which are needed until the row exists.

    Raises:
        OSError: If the rows can't be written.
    """
    results.write(*rows)
    Checkpoints(context.checkpoints).clear()


def failed_rows(
    trial: Trial,
    context: RunContext,
    error: str,
    started: datetime,
    history: Sequence[dict[str, Any]] = (),
    rungs: Sequence[dict[str, Any]] = (),
) -> Rows:
    """The rows of a trial that failed; the epochs it finished and the rungs it reached are kept."""
    row = _base_row(trial, context, started)
    return row | {"status": "failed", "error": error, "rungs": list(rungs)}, list(history)


def _base_row(trial: Trial, context: RunContext, started: datetime) -> dict[str, Any]:
    budgets = trial.config.data.budgets
    share = {"label_fraction": budgets[-1] / context.labels} if budgets and context.labels else {}
    return (
        identity_columns(trial)
        | share
        | version_columns()
        | dict(context.data)
        | {
            "sweep": context.sweep,
            "question": context.question,
            "threads": context.threads,
            "node": context.node,
            "started_at": started,
            "ended_at": datetime.now(UTC),
            "ray_version": context.ray_version,
            "git_commit": context.git_commit,
        }
    )


def _figures(result: FitResult, data: TrialData) -> dict[str, Any]:
    """What is known of a trial that has finished."""
    best, student_test = result.history[result.best_epoch - 1], result.student_test
    test_images = data.validation if data.test is None else data.test
    figures = {metric.name: best.get(metric.name) for metric in METRICS} | {
        "test_images": len(test_images[1]),
        "best_epoch": result.best_epoch,
        "test_loss": result.test.loss,
        "test_accuracy": result.test.accuracy,
        "test_macro_accuracy": result.test.macro_accuracy,
        "student_test_loss": student_test and student_test.loss,
        "student_test_accuracy": student_test and student_test.accuracy,
        "test_accuracy_per_class": result.test.accuracy_per_class,
        "confusion": result.test.confusion,
        "misclassified": [
            [int(data.test_places[n]), predicted] for n, predicted in result.test.misclassified
        ],
        "parameters": result.parameters,
        "precision_used": result.precision,
    }
    return figures | _amounts(result.progress, data)


def _figures_when_stopped(stopped: Stopped, data: TrialData) -> dict[str, Any]:
    """What is known of a trial that was told to stop: its last rung, and nothing of the test images,
    which it has not looked at."""
    last = {name: stopped.progress.rungs[-1][name] for name in RUNG if name != "steps"}
    figures = {"parameters": stopped.parameters, "precision_used": stopped.precision}
    return last | figures | _amounts(stopped.progress, data)


def _amounts(progress: Progress, data: TrialData) -> dict[str, Any]:
    """What a trial was trained on, and how much of it."""
    return {
        "labeled_images": len(data.labeled),
        "unlabeled_images": len(data.unlabeled),
        "validation_images": len(data.validation[1]),
        "labeled_images_per_class": np.bincount(
            data.targets_N[data.labeled], minlength=len(data.classes)
        ).tolist(),
        "flipped_labels": data.flipped,
        "class_mismatch": data.class_mismatch,
        "foreign_unlabeled_images": data.foreign,
        "test_images_left_out": data.test_left_out,
        "split_digest": data.split_digest,
        "pools_digest": data.pools_digest,
        "class_names": list(data.classes),
        "epochs_run": len(progress.history),
        "rungs": progress.rungs,
        "steps": progress.steps,
        "unlabeled_batches_skipped": progress.skipped,
        "images": progress.images,
        "unlabeled_images_seen": progress.unlabeled,
        "train_seconds": progress.train_seconds,
        "evaluate_seconds": progress.evaluate_seconds,
        "cpu_seconds": progress.cpu_seconds,
        "images_per_second": progress.images / progress.train_seconds,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
