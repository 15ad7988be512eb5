"""What runs in a trial's process: the trial, and its rows written when it ends."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
import torch
from ray import tune

from ssl_runner.errors import InputError
from ssl_runner.identity import Trial, rounds_up_to
from ssl_runner.object_store import join
from ssl_runner.results import ResultsFolder
from ssl_runner.rounds import Buying, buying_of, has_bought, with_purchases
from ssl_runner.time_limit import time_limit
from ssl_runner.train import Rungs
from ssl_runner.trial import Rows, RunContext, failed_rows, finish_trial, run_trial
from ssl_runner.tune.notice import notice
from ssl_runner.tune.scheduling import Judge
from ssl_runner.tune.sharing import opened

OUR_TRIAL = "our_trial"
"""The id of the trial that a report to Tune is of: the rounds of a chain report one after another."""

RESTARTS = 2
"""How often a trial, or a chain of rounds, resumes from its last checkpoint after its process, or one
of its workers, died."""


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
        labels: Of each round by its id: training images that have a label in the data.
        storage: Folder for Ray's own files.
        git_commit: Commit of the source.
        verbose: Whether Ray's own output is shown.
        may_leave: Whether a trial's node may be taken away, with notice: one of a cluster.
        judge: Says which samples of a search go on; None: all do.
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
    labels: Mapping[str, int]
    storage: str
    git_commit: str | None
    verbose: bool
    may_leave: bool
    judge: Judge | None = None

    def context(self, trial: Trial, node: str) -> RunContext:
        """Where a trial runs and keeps its state."""
        return RunContext(
            sweep=self.sweep,
            question=self.question,
            data=self.data,
            models=join(self.results, "models") if self._saves_model(trial) else None,
            checkpoints=ResultsFolder(self.results).checkpoints(self.sweep, trial.trial_id),
            threads=self.threads,
            checkpoint_steps=self.checkpoint_steps,
            git_commit=self.git_commit,
            ray_version=ray.__version__,
            node=node,
            labels=self.labels.get(trial.trial_id, 0),
        )

    def _saves_model(self, trial: Trial) -> bool:
        """Of a search only the finals' are kept, unless all are."""
        is_compared = trial.place.get("role") in (None, "final")
        return self.save == "all" or (self.save == "best" and is_compared)

    def rungs(self, trial: Trial) -> Rungs | None:
        """Where a trial may be told to stop: only a sample of a search is, beside its group's."""
        if self.judge is None or trial.place.get("role") != "search":
            return None
        return self.judge.rungs(trial.place["search_group"], trial.trial_id)


def param_of(chain: list[Trial]) -> dict[str, Any]:
    """Trials that run one after another, as Ray Tune takes them: the last, and how many they are. All
    but the last are rounds before it."""
    return chain[-1].plain() | ({"chain": len(chain)} if len(chain) > 1 else {})


def chain_of(tune_trial: Any) -> list[Trial]:
    """Our trials behind one of Ray Tune's: several where they are rounds."""
    return _chain(tune_trial.config)


def _chain(param: dict[str, Any]) -> list[Trial]:
    return rounds_up_to(Trial.from_plain(param["trial"]))[-param["trial"].get("chain", 1) :]


def trial_of(tune_trial: Any, report: dict[str, Any]) -> Trial:
    """Our trial that a report of one of Ray Tune's is of."""
    chain = chain_of(tune_trial)
    return next((trial for trial in chain if trial.trial_id == report.get(OUR_TRIAL)), chain[-1])


def for_loggers(trial: Trial, metrics: dict[str, Any], steps_before: int = 0) -> dict[str, Any]:
    """What a report says beside its metrics: whose they are, and their step under Tune's name for it,
    over all rounds. By default Tune counts reports, from 1 again in a trial that resumes."""
    return {OUR_TRIAL: trial.trial_id, "timesteps_total": steps_before + metrics["steps"]}


WARNING = "warning"
"""What the user is to be told of a trial that has ended otherwise than asked for, in a line."""

_REPORTED = ("status", "error", "steps", "test_loss", "test_accuracy", "best_epoch")
"""What Tune's callbacks get when a trial has ended."""

OF_THE_BEST = ("validation_loss", "validation_accuracy")
"""And these of the row, under names of their own: for a logger they are figures of an earlier step."""

BEST = "best_"
"""What those names begin with."""

_OF_EARLIER: tuple[str, ...] = ("status", "error")
"""What they get where it had ended before."""


def train_in_tune(param: dict[str, Any], shared: Shared) -> None:
    """A Tune function: a trial, or rounds one after another, in this process or over Ray Train's
    workers. A round whose row is there is not run again, unless it bought too few labels."""
    results = ResultsFolder(shared.results)
    for trial, number in with_purchases(_chain(param)):
        row, reported = results.purchase(shared.sweep, trial.trial_id), _OF_EARLIER
        if row is None or not has_bought(row, number):  # else the process died after it was written
            row, reported = _run(trial, number, shared, results), _REPORTED
        known = {name: row.get(name) for name in reported}
        known |= {f"{BEST}{name}": row.get(name) for name in OF_THE_BEST}
        if shared.gpus_per_worker and row.get("device") == "cpu":
            known[WARNING] = (
                f"warning: PyTorch sees no GPU on node {row['node']}, where Ray counts one: a trial "
                "ran on its CPU. Are the driver and a PyTorch with CUDA there?"
            )
        said = {name: value for name, value in known.items() if value is not None or name == "error"}
        tune.report(said | {OUR_TRIAL: trial.trial_id})


def _run(trial: Trial, number: int, shared: Shared, results: ResultsFolder) -> dict[str, Any]:
    """Run a trial, which buys so many labels, and write its row.

    Returns:
        The row.
    """
    node: str = ray.get_runtime_context().get_node_id()[:12]
    context = shared.context(trial, node)
    started = datetime.now(UTC)

    def on_timeout(reason: str) -> None:
        finish_trial(results, failed_rows(trial, context, reason, started), context)

    with time_limit(shared.time_limit, on_timeout):
        buying = None
        dataset = opened(shared.dataset[0]) if trial.config.data.budgets else None
        try:
            if dataset is not None:
                buying = buying_of(trial, number, dataset, results, shared.sweep)
        except InputError as error:  # an earlier round failed
            rows = failed_rows(trial, context, str(error), started)
        else:
            rows = _train(trial, buying, context, shared)
    finish_trial(results, rows, context)
    return rows[0]


def _train(trial: Trial, buying: Buying | None, context: RunContext, shared: Shared) -> Rows:
    """The trial's rows, from this process or from Ray Train's workers."""
    before = 0 if buying is None else buying.steps
    if trial.config.compute.num_workers == 1:
        has_gpu = shared.gpus_per_worker > 0 and torch.cuda.is_available()
        with notice() if shared.may_leave else nullcontext() as is_asked:
            return run_trial(
                trial,
                opened(shared.dataset[0]),
                context,
                lambda metrics: tune.report(metrics | for_loggers(trial, metrics, before)),
                device=torch.device("cuda" if has_gpu else "cpu"),
                buying=buying,
                rungs=shared.rungs(trial),
                is_asked=is_asked,
            )
    from ssl_runner.tune.distributed import run_over_workers  # takes a second, so only if needed

    return run_over_workers(
        trial,
        shared.dataset[0],
        context,
        buying=buying,
        rungs=shared.rungs(trial),
        cpus_per_worker=shared.cpus_per_worker,
        gpus_per_worker=shared.gpus_per_worker,
        storage=shared.storage,
        verbose=shared.verbose,
        may_leave=shared.may_leave,
    )


def last_line(error: str) -> str:
    """Why a process died: the last line that it, or Ray, wrote about it."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    # Ray adds a list of common causes.
    return lines[-1].strip().partition(" Some common causes")[0] if lines else ""
