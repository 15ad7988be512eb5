"""Trials run by Ray Tune: with what resources, how many beside each other, and what Tune calls."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ray import tune

from ssl_runner.config import SweepConfig
from ssl_runner.identity import Trial
from ssl_runner.object_store import join, said_of
from ssl_runner.shard import lock_name
from ssl_runner.train.data import with_label
from ssl_runner.trial import failed_rows
from ssl_runner.tune.cluster import Cluster, living_nodes, nodes_awaited
from ssl_runner.tune.in_order import InOrder
from ssl_runner.tune.loaded import LoadedSweep
from ssl_runner.tune.loggers import count_nothing
from ssl_runner.tune.progress import ProgressCallback, SweepProgress
from ssl_runner.tune.scheduling import Judge, Rule
from ssl_runner.tune.searching import GroupedSearcher
from ssl_runner.tune.sharing import share
from ssl_runner.tune.worker import RESTARTS, Shared, chain_of, last_line, param_of, train_in_tune
from ssl_runner.versions import git_commit

# What Tune reserves for a trial that only waits for its Ray Train workers. Tune refuses an empty
# request, and any share of a CPU would be missing when the workers need them all: so a byte of memory.
_WAITING = {"memory": 1.0}

_ENDLESS = 1 << 40


def run_in_tune(
    sweep: LoadedSweep,
    pending: Sequence[list[Trial]],
    cluster: Cluster,
    loggers: Sequence[tune.Callback],
    progress: SweepProgress,
    searcher: GroupedSearcher | None = None,
) -> None:
    """Run the trials in Ray Tune until all of them have ended, and those that a searcher suggests."""
    config, results = sweep.command.sweep, sweep.results
    own = lock_name(config.name, sweep.command.shard)
    storage = results.ray_folder(own) if cluster.scratch is None else str(cluster.scratch)
    shared = Shared(
        sweep=config.name,
        question=config.question,
        results=results.location,
        dataset=[share(sweep.dataset, config, cluster, sweep.command.address is None)],
        data=sweep.dataset.columns(),
        save=config.save,
        threads=config.threads,
        cpus_per_worker=config.cpus_per_worker,
        checkpoint_steps=config.checkpoint_steps,
        time_limit=config.time_limit,
        gpus_per_worker=config.gpus_per_trial / config.trial.compute.num_workers,
        labels={
            trial.trial_id: len(with_label(trial.config, sweep.dataset))
            for chain in pending
            for trial in chain
            if trial.config.data.budgets
        },
        storage=join(storage, config.name),
        git_commit=git_commit(),
        verbose=sweep.command.verbose,
        may_leave=sweep.command.address is not None,
        judge=_judge(sweep, searcher is not None),
    )

    gone: list[OSError] = []

    def go_on() -> None:
        sweep.go_on()
        if gone:  # each trial would wait for the store in turn
            raise gone[0]

    def on_death(chain: Sequence[Trial], error: str) -> dict[str, str]:
        reason, reasons = last_line(error) or "the trial's process died", {}
        for trial in chain:
            try:
                if results.status(config.name, trial.trial_id) is not None:
                    continue  # a round that had ended
            except OSError as error:
                if said_of(error) is None:
                    raise
                gone.append(error)
                return {}
            context = shared.context(trial, node="")
            said = reason
            try:
                results.write(*failed_rows(trial, context, reason, datetime.now(UTC)))
            except OSError as written:  # a full disk must not end the other trials
                said += f" (and its row could not be written: {written.strerror or written})"
            reasons[trial.trial_id] = said
            if len(trial.config.data.budgets) and not reason.startswith("round "):
                reason = f"round {len(trial.config.data.budgets)} failed: {reason}"
        return reasons

    def awaited(trials: int) -> str | None:
        compute = config.trial.compute
        workers = compute.min_workers or compute.num_workers
        return nodes_awaited(cluster.when(living_nodes()), trials, _per_worker(config), workers)

    nodes = awaited if cluster.may_grow else None
    callbacks = [ProgressCallback(progress, on_death, go_on, nodes), *loggers]
    if config.trial.compute.num_workers > 1:
        from ssl_runner.tune.distributed import FreeWorkers  # takes a second, so only if needed

        callbacks.append(FreeWorkers())
    concurrent = _concurrent(config, cluster, searcher is not None)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(train_in_tune, shared=shared),
            tune.PlacementGroupFactory([_resources(config)]),
        ),
        tune_config=tune.TuneConfig(
            search_alg=searcher or InOrder([param_of(chain) for chain in pending], concurrent or 0),
            num_samples=_ENDLESS if searcher else 1,  # it says itself when it has no more
            max_concurrent_trials=concurrent if searcher else None,
            reuse_actors=True,  # a process imports torch once, not once a trial
            trial_dirname_creator=lambda trial: trial.trial_id,
            trial_name_creator=lambda trial: config.describe(chain_of(trial)[-1].config),
        ),
        run_config=tune.RunConfig(
            name=config.name,
            storage_path=storage,
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            verbose=0,
        ),
    )
    count_nothing()
    try:
        tuner.fit()
    finally:
        results.remove_ray_folder(own)


def _judge(sweep: LoadedSweep, is_adaptive: bool) -> Judge | None:
    """What says which samples of a search go on, with what is known from the rows; None: all do."""
    config = sweep.config
    are_samples = is_adaptive or any(t.place.get("role") == "search" for t in sweep.trials)
    if config.scheduler == "none" or not are_samples:
        return None
    assert config.first_rung is not None
    rule = Rule(config.scheduler, config.first_rung, config.reduction, config.objective)
    rows = sweep.results.trials(sweep.name)
    known = rows[rows["trial_id"].isin(sweep.row_ids())].to_dict("records")
    rungs = [(row["search_group"], row["trial_id"], row["rungs"]) for row in known]
    return Judge.start(rule, [(group, each, list(of)) for group, each, of in rungs if of is not None])


def _resources(sweep: SweepConfig) -> dict[str, float]:
    """What Tune reserves for a trial. For its workers Ray Train does."""
    if sweep.trial.compute.num_workers > 1:
        return _WAITING
    resources = {"CPU": sweep.cpus_per_worker}
    if sweep.gpus_per_trial:
        resources["GPU"] = sweep.gpus_per_trial
    return resources


def _concurrent(sweep: SweepConfig, cluster: Cluster, is_adaptive: bool) -> int | None:
    """Trials at a time: at most as many as fit with all their workers, or two would deadlock; and a
    searcher would be asked for a trial before those that it could learn from have ended."""
    workers = sweep.trial.compute.num_workers
    if workers == 1 and not is_adaptive:
        return sweep.max_concurrent
    fit = max(1, cluster.places(_per_worker(sweep)) // workers)
    return min(fit, sweep.max_concurrent or fit)


def _per_worker(sweep: SweepConfig) -> dict[str, float]:
    """What each worker of a trial takes."""
    per_worker = {"CPU": sweep.cpus_per_worker}
    if sweep.gpus_per_trial:
        per_worker["GPU"] = sweep.gpus_per_trial / sweep.trial.compute.num_workers
    return per_worker
