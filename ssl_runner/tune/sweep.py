"""A sweep: which of its trials are to run, in what order, and what is said at the end."""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import ray
import torch
from ray import tune
from rich.console import Console

from ssl_runner.checkpoint import Checkpoints
from ssl_runner.command import Command, stop_if_asked
from ssl_runner.config import SweepConfig, TrialConfig
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.methods import build_method
from ssl_runner.models import build_model
from ssl_runner.progress import ProgressCallback, SweepProgress, images_worked
from ssl_runner.report.page import find_dataset, render_page
from ssl_runner.report.terminal import print_comparison, wide_console
from ssl_runner.results import ResultsFolder
from ssl_runner.storage import is_local, write_whole
from ssl_runner.train import prepare
from ssl_runner.trial import failed_rows, git_commit
from ssl_runner.tune.cluster import Cluster, check_fits, check_shared, ray_cluster, this_machine
from ssl_runner.tune.loggers import build_loggers
from ssl_runner.tune.worker import Shared, train_in_tune

RESTARTS = 2
"""How often a trial goes on from its last checkpoint after its process has died."""

# What a trial takes that only waits for its Ray Train workers. Tune refuses none at all, and any
# share of a CPU would be missing when the workers want them all: so a byte of memory.
_WAITING = {"memory": 1.0}


def run_sweep(command: Command) -> int:
    """Run what is left of a sweep, print the comparison, and say where the files are.

    Returns:
        The exit code: 0, or 1 if a trial failed.

    Raises:
        ValueError: Over what the user can mend; nothing in the results folder was touched then.
    """
    console = wide_console()
    sweep, trials = command.sweep, command.sweep.trials()
    results = ResultsFolder(command.results)
    results.check_writable()
    with results.alone(sweep.name):
        return _run_alone(command, results, trials, console)


def _run_alone(
    command: Command, results: ResultsFolder, trials: Sequence[TrialConfig], console: Console
) -> int:
    """`run_sweep`, where nobody else runs the sweep."""
    sweep = command.sweep
    statuses = {} if command.fresh else results.statuses(sweep.name)
    kept = {"finished"} if command.retry_failed else {"finished", "failed"}
    pending = [trial for trial in trials if statuses.get(trial.trial_id) not in kept]
    if len(pending) < len(trials):
        skipped = len(trials) - len(pending)
        console.print(f"{skipped} of {len(trials)} trials are in {command.results} already")
    results.remove_leftovers(sweep.name, statuses)
    dataset = None
    if pending:
        dataset = _run(command, results, pending, console)
        results.tidy()
    rows = results.trials(sweep.name)
    print_comparison(rows[rows["trial_id"].isin([trial.trial_id for trial in trials])], console)
    page = f"{results.root}/{sweep.name}.html"
    try:
        html = render_page(rows, results.epochs(sweep.name), dataset or find_dataset(rows))
        write_whole(results.filesystem, page, html.encode())
    except OSError as error:
        console.print(f"the page could not be written: {error.strerror or error}", style="red")
    console.print(
        f"rows: {results.location}/trials   epochs: {results.location}/epochs   "
        f"(pandas.read_parquet reads them)   page: {results.location}/{sweep.name}.html",
        highlight=False,
        soft_wrap=True,
    )
    statuses = results.statuses(sweep.name)
    without = sum(trial.trial_id not in statuses for trial in trials)
    if without:
        console.print(
            f"{without} of {len(trials)} trials have no row: it could not be written, or was deleted "
            "meanwhile. The same command runs them again.",
            style="red",
            soft_wrap=True,
        )
    return int(any(statuses.get(trial.trial_id) != "finished" for trial in trials))


def _run(
    command: Command, results: ResultsFolder, pending: Sequence[TrialConfig], console: Console
) -> ImageDataset:
    """Run the trials that have no row yet; returns what they were trained on."""
    sweep = command.sweep
    if command.address is None:
        check_fits(sweep, this_machine())
    dataset = load_dataset(sweep.trial.dataset, command.data_dir)
    pools = _check_trials(pending, dataset)
    work = {trial.trial_id: _work(trial, pools[_size_key(trial)]) for trial in pending}
    # The longest first: what is left for the end is short, and no core waits long for another.
    pending = sorted(pending, key=lambda trial: -work[trial.trial_id])
    loggers = build_loggers(command.log, results, sweep.name, lambda line: console.print(line))
    data_bytes = dataset.train.images.nbytes + dataset.test.images.nbytes
    with ray_cluster(command.address, data_bytes, command.verbose) as cluster:
        check_fits(sweep, cluster)
        check_shared(results.location, is_local(results.filesystem), cluster)
        if command.fresh:
            results.forget(sweep.name, [trial.trial_id for trial in sweep.trials()])
            for trial in sweep.trials():
                Checkpoints(results.checkpoints(sweep.name, trial.trial_id)).clear()
        else:  # what is to be retried has its row until now
            results.forget(sweep.name, [trial.trial_id for trial in pending])
        for trial in pending:
            checkpoints = Checkpoints(results.checkpoints(sweep.name, trial.trial_id))
            for path in checkpoints.set_aside():
                console.print(
                    f"warning: a checkpoint can't be read; the one before it, if any, is used, and it "
                    f"is set aside as {path}",
                    style="yellow",
                    soft_wrap=True,
                )
        storage = f"{results.location}/ray" if cluster.scratch is None else str(cluster.scratch)
        shared = Shared(
            sweep=sweep.name,
            question=sweep.question,
            results=results.location,
            dataset=[ray.put(dataset)],
            threads=sweep.threads,
            cpus_per_worker=sweep.cpus_per_worker,
            checkpoint_steps=sweep.checkpoint_steps,
            time_limit=sweep.time_limit,
            gpus_per_worker=sweep.gpus_per_trial / sweep.trial.num_workers,
            storage=f"{storage}/{sweep.name}",
            git_commit=git_commit(),
            verbose=command.verbose,
        )

        def on_death(config: TrialConfig, error: str) -> str:
            reason = _reason(error)
            setting = shared.setting(config, node="")
            try:
                results.write(*failed_rows(config, setting, reason, datetime.now(UTC)))
            except OSError as written:  # a full disk must not end the other trials
                reason += f" (and its row could not be written: {written.strerror or written})"
            return reason

        cleaners = []
        if sweep.trial.num_workers > 1:
            from ssl_runner.distributed import FreeWorkers  # a second, for those that need it

            cleaners = [FreeWorkers()]
        with SweepProgress(pending, [work[t.trial_id] for t in pending], console) as progress:
            tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(train_in_tune, shared=shared),
                    tune.PlacementGroupFactory([_resources(sweep)]),
                ),
                param_space={
                    "trial": tune.grid_search([dataclasses.asdict(trial) for trial in pending])
                },
                tune_config=tune.TuneConfig(
                    max_concurrent_trials=_concurrent(sweep, cluster),
                    reuse_actors=True,  # a process imports torch once, not once a trial
                    trial_dirname_creator=lambda trial: trial.trial_id,
                    trial_name_creator=lambda trial: TrialConfig(**trial.config["trial"]).label,
                ),
                run_config=tune.RunConfig(
                    name=sweep.name,
                    storage_path=storage,
                    callbacks=[
                        ProgressCallback(progress, on_death, stop_if_asked),
                        *cleaners,
                        *loggers,
                    ],
                    failure_config=tune.FailureConfig(max_failures=RESTARTS),
                    verbose=0,
                ),
            ).fit()
        stop_if_asked()
    return dataset


SizeKey = tuple[int | None, int, float]


class Pools(NamedTuple):
    """Images of the two pools."""

    labeled: int
    unlabeled: int


def _size_key(trial: TrialConfig) -> SizeKey:
    """What the sizes of a trial's pools depend on."""
    return trial.subset, trial.holdout, trial.label_fraction


def _check_trials(trials: Sequence[TrialConfig], dataset: ImageDataset) -> dict[SizeKey, Pools]:
    """Try what each trial needs before any of them starts; the pools' sizes by their key.

    Raises:
        ValueError: If the data or a model does not do for a trial.
    """
    channels, height, width = dataset.train.images.shape[1:]
    classes = len(dataset.train.class_names)
    for name in {trial.model for trial in trials}:
        build_model(name, channels, (height, width), classes, 0.0)
    for trial in {trial.method: trial for trial in trials}.values():
        build_method(trial, torch.full((classes,), 1 / classes))
    distinct = {_size_key(trial): trial for trial in trials}
    sizes = {}
    for key, trial in distinct.items():
        data = prepare(trial, dataset)
        sizes[key] = Pools(len(data.labeled), len(data.unlabeled))
    return sizes


def _work(trial: TrialConfig, pools: Pools) -> int:
    """What a trial has to do at the most, in images; see `progress.images_worked`."""
    steps = -(-pools.labeled // trial.batch_size)
    mu = trial.mu or 1
    if trial.order == "paired":
        steps = max(steps, -(-pools.unlabeled // (trial.batch_size * mu)))
    steps = trial.max_steps or trial.epochs * steps
    unlabeled = 0 if trial.method == "pass" else steps * mu
    return images_worked(steps * trial.batch_size, unlabeled * trial.batch_size)


def _resources(sweep: SweepConfig) -> dict[str, float]:
    """What Tune reserves for a trial. Ray Train reserves for its workers itself."""
    if sweep.trial.num_workers > 1:
        return _WAITING
    resources = {"CPU": sweep.cpus_per_worker}
    if sweep.gpus_per_trial:
        resources["GPU"] = sweep.gpus_per_trial
    return resources


def _concurrent(sweep: SweepConfig, cluster: Cluster) -> int | None:
    """Trials at a time: no more than fit with all their workers, or two would wait for each other."""
    if sweep.trial.num_workers == 1:
        return sweep.max_concurrent
    workers = sweep.trial.num_workers
    fit = int(sum(cluster.each("CPU")) // (sweep.cpus_per_worker * workers))
    if sweep.gpus_per_trial:
        fit = min(fit, int(sum(cluster.each("GPU")) // sweep.gpus_per_trial))
    return min(max(fit, 1), sweep.max_concurrent or max(fit, 1))


def _reason(error: str) -> str:
    """Why a trial's process could not write its own row, in a line."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    # Ray goes on with a lecture on what else it may have been.
    return (
        lines[-1].strip().partition(" Some common causes")[0] if lines else "the trial's process died"
    )
