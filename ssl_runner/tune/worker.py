"""What runs in a trial's process: the trial, and its rows written when it ends."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
import torch
from ray import tune

from ssl_runner.identity import Trial
from ssl_runner.results import ResultsFolder
from ssl_runner.time_limit import time_limit
from ssl_runner.trial import Rows, RunContext, failed_rows, finish_trial, run_trial
from ssl_runner.tune.sharing import opened

RESTARTS = 2
"""How often a trial resumes from its last checkpoint after its process, or one of its workers, died."""


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep have in common.

    Attributes:
        sweep: Name of the sweep.
        question: Its question, or None.
        results: Folder or URI of the results.
        dataset: The data set from `sharing.share`, in a list so that Ray does not fetch it early.
        data: What each row says of it, `ImageDataset.columns`.
        save: Which trained models are kept in the end, `SweepConfig.save`.
        threads: Threads of each worker.
        cpus_per_worker: CPUs that Ray reserves for each worker.
        checkpoint_steps: Steps between checkpoints within an epoch, or None.
        time_limit: Seconds that a trial may take, or None.
        gpus_per_worker: GPUs of each worker.
        storage: Folder for Ray's own files.
        git_commit: Commit of the source.
        verbose: Whether Ray's own output is shown.
    """

    sweep: str
    question: str | None
    results: str
    dataset: list[Any]
    data: dict[str, Any]
    save: str
    threads: int
    cpus_per_worker: float
    checkpoint_steps: int | None
    time_limit: float | None
    gpus_per_worker: float
    storage: str
    git_commit: str | None
    verbose: bool

    def context(self, trial: Trial, node: str) -> RunContext:
        """Where a trial runs and keeps its state."""
        return RunContext(
            sweep=self.sweep,
            question=self.question,
            data=self.data,
            models=f"{self.results}/models" if self._saves_model(trial) else None,
            checkpoints=ResultsFolder(self.results).checkpoints(self.sweep, trial.trial_id),
            threads=self.threads,
            checkpoint_steps=self.checkpoint_steps,
            git_commit=self.git_commit,
            ray_version=ray.__version__,
            node=node,
        )

    def _saves_model(self, trial: Trial) -> bool:
        """Of a search only the finals' are kept, unless all are."""
        is_compared = trial.place.get("role") in (None, "final")
        return self.save == "all" or (self.save == "best" and is_compared)


def trial_of(tune_trial: Any) -> Trial:
    """Our trial behind one of Ray Tune's."""
    return Trial.from_plain(tune_trial.config["trial"])


def logger_step(metrics: dict[str, Any]) -> dict[str, Any]:
    """An epoch's position for Tune's loggers: its step, under Tune's name for it. By default Tune
    counts reports, from 1 again in a trial that resumes."""
    return {"timesteps_total": metrics["steps"]}


_REPORTED = ("status", "error", "steps", "test_loss", "test_accuracy", "best_epoch")
"""What Tune's callbacks get when a trial has ended."""


def train_in_tune(param: dict[str, Any], shared: Shared) -> None:
    """A Tune function: one trial, in this process or over Ray Train's workers."""
    trial = Trial.from_plain(param["trial"])
    node: str = ray.get_runtime_context().get_node_id()[:12]
    context = shared.context(trial, node)
    results = ResultsFolder(shared.results)
    if (row := results.status(shared.sweep, trial.trial_id)) is not None:
        tune.report(row)  # the process died after its row was written
        return
    started = datetime.now(UTC)

    def on_timeout(reason: str) -> None:
        finish_trial(results, failed_rows(trial, context, reason, started), context)

    with time_limit(shared.time_limit, on_timeout):
        rows = _train(trial, context, shared)
    finish_trial(results, rows, context)
    known = {name: rows[0].get(name) for name in _REPORTED}
    tune.report({name: value for name, value in known.items() if value is not None or name == "error"})


def _train(trial: Trial, context: RunContext, shared: Shared) -> Rows:
    """The trial's rows, from this process or from Ray Train's workers."""
    if trial.config.compute.num_workers == 1:
        return run_trial(
            trial,
            opened(shared.dataset[0]),
            context,
            lambda metrics: tune.report(metrics | logger_step(metrics)),
            device=torch.device("cuda" if shared.gpus_per_worker else "cpu"),
        )
    from ssl_runner.tune.distributed import run_over_workers  # takes a second, so only if needed

    return run_over_workers(
        trial,
        shared.dataset[0],
        context,
        cpus_per_worker=shared.cpus_per_worker,
        gpus_per_worker=shared.gpus_per_worker,
        storage=shared.storage,
        verbose=shared.verbose,
    )


def last_line(error: str) -> str:
    """Why a process died: the last line that it, or Ray, wrote about it."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    # Ray adds a list of common causes.
    return lines[-1].strip().partition(" Some common causes")[0] if lines else ""
