"""What runs in a trial's process: the trial, and its rows written when it ends."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
import torch
from ray import tune

from ssl_runner.checkpoint import Checkpoints
from ssl_runner.config import TrialConfig
from ssl_runner.results import ResultsFolder
from ssl_runner.trial import Rows, Setting, failed_rows, loggers_place, run_trial, time_limit


@dataclass(frozen=True)
class Shared:
    """What all trials of a sweep have in common.

    Attributes:
        sweep: Name of the sweep.
        question: What it asks, or None.
        results: Folder or URI of the results.
        dataset: The data set in Ray's object store, in a list so that it is not fetched on the way.
        threads: Threads of each worker.
        cpus_per_worker: CPUs that Ray reserves for each worker.
        checkpoint_steps: Steps between checkpoints within an epoch, or None.
        time_limit: Seconds that a trial may take, or None.
        gpus_per_worker: GPUs of each worker.
        storage: Folder for Ray's own files.
        git_commit: Commit of the source.
        verbose: Whether Ray's own output is let through.
    """

    sweep: str
    question: str | None
    results: str
    dataset: list[Any]
    threads: int
    cpus_per_worker: float
    checkpoint_steps: int | None
    time_limit: float | None
    gpus_per_worker: float
    storage: str
    git_commit: str | None
    verbose: bool

    def setting(self, config: TrialConfig, node: str) -> Setting:
        """Where a trial runs and keeps its state."""
        return Setting(
            sweep=self.sweep,
            question=self.question,
            checkpoints=ResultsFolder(self.results).checkpoints(self.sweep, config.trial_id),
            threads=self.threads,
            checkpoint_steps=self.checkpoint_steps,
            git_commit=self.git_commit,
            ray_version=ray.__version__,
            node=node,
        )


_TOLD = ("status", "error", "steps", "test_loss", "test_accuracy", "best_epoch")
"""What Tune's callbacks are told of a trial that has ended."""


def train_in_tune(param: dict[str, Any], shared: Shared) -> None:
    """A Tune function: one trial, in this process or over Ray Train's workers."""
    config = TrialConfig(**param["trial"])
    node: str = ray.get_runtime_context().get_node_id()[:12]
    setting = shared.setting(config, node)
    results = ResultsFolder(shared.results)
    if (row := results.status(shared.sweep, config.trial_id)) is not None:
        tune.report(row)  # this trial's process died when its row was written
        return
    started = datetime.now(UTC)

    def give_up(reason: str) -> None:
        results.write(*failed_rows(config, setting, reason, started))
        Checkpoints(setting.checkpoints).clear()

    with time_limit(shared.time_limit, give_up):
        rows = _train(config, setting, shared)
    results.write(*rows)
    Checkpoints(setting.checkpoints).clear()  # only now: until the row is there they are needed
    known = {name: rows[0].get(name) for name in _TOLD}
    tune.report({name: value for name, value in known.items() if value is not None or name == "error"})


def _train(config: TrialConfig, setting: Setting, shared: Shared) -> Rows:
    """The trial's rows, from this process or from Ray Train's workers."""
    if config.num_workers == 1:
        return run_trial(
            config,
            ray.get(shared.dataset[0]),
            setting,
            lambda metrics: tune.report(metrics | loggers_place(metrics)),
            device=torch.device("cuda" if shared.gpus_per_worker else "cpu"),
        )
    from ssl_runner.distributed import run_over_workers  # a second, for those that need it

    return run_over_workers(
        config,
        shared.dataset[0],
        setting,
        cpus_per_worker=shared.cpus_per_worker,
        gpus_per_worker=shared.gpus_per_worker,
        storage=shared.storage,
        verbose=shared.verbose,
    )
