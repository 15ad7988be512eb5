"""One trial from its config to its rows, whoever runs it: data, loop, checkpoints, figures."""

import contextlib
import faulthandler
import functools
import os
import platform
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import ssl_runner
from ssl_runner.checkpoint import Checkpoints
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.results import settings_columns
from ssl_runner.train import FitResult, TrialData, fit, prepare
from ssl_runner.train.device import keep_compiler_files, keep_freed_memory

Rows = tuple[dict[str, Any], list[dict[str, Any]]]
"""A trial's row, and those of its epochs."""

Tell = Callable[[dict[str, Any]], None]
"""Called with each finished epoch's metrics."""


_GRACE_SECONDS = 30.0
"""Time to write the row of a trial that took too long."""


@dataclass(frozen=True)
class Setting:
    """Where a trial runs: what its row says beside the config, and where its state is kept.

    Attributes:
        sweep: Name of the sweep.
        question: What the sweep asks, or None.
        checkpoints: Folder of the trial's checkpoints, a path or URI.
        threads: CPU threads of each worker.
        checkpoint_steps: Steps between checkpoints within an epoch, or None.
        git_commit: Commit of the source, from `git_commit()` on the machine that has it.
        ray_version: Ray's version, or None without Ray.
        node: Name of the machine.
    """

    sweep: str
    checkpoints: str
    threads: int
    checkpoint_steps: int | None = None
    question: str | None = None
    git_commit: str | None = None
    ray_version: str | None = None
    node: str = socket.gethostname()


def run_trial(
    config: TrialConfig,
    dataset: ImageDataset,
    setting: Setting,
    tell: Tell,
    *,
    device: torch.device,
    group: dist.ProcessGroup | None = None,
) -> Rows:
    """Train a trial to its end, from its last checkpoint if it has one; a failure is a row too.

    Args:
        tell: Called on every rank after every epoch, when the checkpoint is written.
        group: The ranks that train together, or None; each calls this with equal arguments.

    Returns:
        The rows, to be written by rank 0. The checkpoints are left to be cleared after that.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    torch.set_num_threads(setting.threads)
    keep_freed_memory()
    keep_compiler_files()
    checkpoints = Checkpoints(setting.checkpoints)
    is_first = group is None or dist.get_rank(group) == 0
    history: list[dict[str, Any]] = []

    def report(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        if is_first:
            checkpoints.save(state)
        if metrics is not None:
            history.append(metrics)
            tell(metrics)

    try:
        data = prepare(config, dataset)
        resume = checkpoints.load()
        if resume is not None:
            history.extend(resume["progress"]["history"])
        result = fit(
            config,
            data,
            device=device,
            report=report,
            group=group,
            resume=resume,
            checkpoint_steps=setting.checkpoint_steps,
        )
    except (ValueError, FloatingPointError) as error:
        # What the settings lead to is the same on every rank, and would be the same again.
        return failed_rows(config, setting, str(error), started, history)
    except OSError:
        raise  # a disk or a network may be back when the trial is started again
    except Exception as error:
        if group is not None:  # another rank may have died: Ray Train starts them all again
            raise
        return failed_rows(config, setting, in_words(error), started, history)
    row = _base_row(config, setting, started)
    row |= _figures(result, data) | {
        "status": "finished",
        "data_digest": dataset.digest,
        "seconds": time.perf_counter() - clock,
        "device": _device_name(device),
        "world_size": 1 if group is None else dist.get_world_size(group),
    }
    return row, result.history


def loggers_place(metrics: dict[str, Any]) -> dict[str, Any]:
    """Where an epoch stands on the axis of Tune's loggers: at its step, by the name that Tune has
    for it. Left to itself it counts reports, from 1 again in a trial that goes on."""
    return {"timesteps_total": metrics["steps"]}


def in_words(error: BaseException) -> str:
    """An error in a line, its kind first."""
    lines = str(error).strip().splitlines() or ["no more is known"]
    text = f"{type(error).__name__}: {lines[0]}"
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if is_memory or "can't allocate memory" in str(error):
        return f"out of memory ({text}). Try a smaller batch_size, or fewer trials at a time."
    return text


@contextlib.contextmanager
def time_limit(seconds: float | None, give_up: Callable[[str], None]) -> Iterator[None]:
    """End this process if what is done here takes longer, even if it hangs.

    Where it hangs so that no other thread of Python can run, nothing can be written; it is ended all
    the same, some seconds later.

    Args:
        seconds: The limit, or None.
        give_up: Called first, in another thread, with the reason in words: writes the row.
    """

    def end() -> None:
        try:
            give_up(f"it took longer than its time_limit of {seconds:g} seconds")
        finally:
            os._exit(1)

    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)  # its thread is not Python's
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()
        timer.join()  # if it is giving up by now, nothing more is to be written


def failed_rows(
    config: TrialConfig,
    setting: Setting,
    error: str,
    started: datetime,
    history: list[dict[str, Any]] | None = None,
) -> Rows:
    """The rows of a trial that failed; the epochs it finished are kept."""
    row = _base_row(config, setting, started) | {"status": "failed", "error": error}
    return row, list(history or [])


@functools.cache
def git_commit() -> str | None:
    """Commit of this package's source, with a + if it was changed since; None outside a checkout."""
    here = Path(__file__).parent
    run = functools.partial(subprocess.run, cwd=here, capture_output=True, text=True, timeout=10)
    try:
        # A checkout of something else, with this package installed below it, says nothing of it.
        tracked = run(["git", "ls-files", "--error-unmatch", Path(__file__).name])
        if tracked.returncode:
            return None
        commit = run(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit + ("+" if changed else "") if commit else None


def _base_row(config: TrialConfig, setting: Setting, started: datetime) -> dict[str, Any]:
    return settings_columns(config) | {
        "sweep": setting.sweep,
        "question": setting.question,
        "threads": setting.threads,
        "node": setting.node,
        "started_at": started,
        "ended_at": datetime.now(UTC),
        "version": ssl_runner.__version__,
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "ray_version": setting.ray_version,
        "git_commit": setting.git_commit,
    }


def _figures(result: FitResult, data: TrialData) -> dict[str, Any]:
    best, progress = result.history[result.best_epoch - 1], result.progress
    student_validation, student_test = result.student_validation, result.student_test
    test_images = data.validation if data.test is None else data.test
    return {
        "labeled_images": len(data.labeled),
        "unlabeled_images": len(data.unlabeled),
        "validation_images": len(data.validation[1]),
        "test_images": len(test_images[1]),
        "split_digest": data.split_digest,
        "epochs_run": len(result.history),
        "best_epoch": result.best_epoch,
        "train_loss": best["train_loss"],
        "train_accuracy": best["train_accuracy"],
        "validation_loss": result.validation.loss,
        "validation_accuracy": result.validation.accuracy,
        "test_loss": result.test.loss,
        "test_accuracy": result.test.accuracy,
        "student_validation_loss": student_validation and student_validation.loss,
        "student_validation_accuracy": student_validation and student_validation.accuracy,
        "student_test_loss": student_test and student_test.loss,
        "student_test_accuracy": student_test and student_test.accuracy,
        "unlabeled_loss": best["unlabeled_loss"],
        "confidence": best["confidence"],
        "accepted_share": best["accepted_share"],
        "pseudo_accuracy": best["pseudo_accuracy"],
        "test_accuracy_per_class": result.test.accuracy_per_class,
        "confusion": result.test.confusion,
        "class_names": list(data.classes),
        "mistakes": [[int(data.test_places[n]), taken] for n, taken in result.test.mistakes],
        "steps": progress.steps,
        "passed": progress.passed,
        "images": progress.images,
        "unlabeled_images_seen": progress.unlabeled,
        "train_seconds": progress.train_seconds,
        "evaluate_seconds": progress.evaluate_seconds,
        "cpu_seconds": progress.cpu_seconds,
        "images_per_second": progress.images / progress.train_seconds,
        "parameters": result.parameters,
        "precision_used": result.precision,
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
