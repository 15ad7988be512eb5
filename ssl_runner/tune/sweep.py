"""A sweep: which of its trials run, in what order, and what is printed at the end."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import torch
from ray import tune
from rich.console import Console

from ssl_runner.checkpoint import Checkpoints
from ssl_runner.command import Command, stop_if_asked
from ssl_runner.config import SweepConfig, TrialConfig
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.datasets.decoded.store import handle_of
from ssl_runner.errors import InputError, require
from ssl_runner.identity import Trial, chains, identify
from ssl_runner.methods import build_method
from ssl_runner.models import check_models
from ssl_runner.object_store import join, said_of
from ssl_runner.pools.foreign import with_foreign
from ssl_runner.report.page import render_page
from ssl_runner.report.terminal import print_comparison, wide_console
from ssl_runner.results import ResultsFolder, newest
from ssl_runner.results.best import best_models
from ssl_runner.results.matching import KnownTrial, Matches, match
from ssl_runner.results.standings import Standing
from ssl_runner.rounds import check_selections, with_purchases
from ssl_runner.shard import lock_name
from ssl_runner.storage import is_local, write_whole
from ssl_runner.suited import suited
from ssl_runner.train import prepare
from ssl_runner.train.data import first_labeled, known_of, with_label
from ssl_runner.trial import failed_rows
from ssl_runner.tune.adaptive import AdaptiveSearch
from ssl_runner.tune.cluster import (
    Cluster,
    check_fits,
    living_nodes,
    nodes_awaited,
    ray_cluster,
    this_machine,
)
from ssl_runner.tune.in_order import InOrder
from ssl_runner.tune.loggers import build_loggers, count_nothing
from ssl_runner.tune.nodes import check_nodes, check_shared
from ssl_runner.tune.progress import ProgressCallback, SweepProgress
from ssl_runner.tune.scheduling import Judge, Rule
from ssl_runner.tune.searching import GroupedSearcher, Suggestion
from ssl_runner.tune.sharing import share
from ssl_runner.tune.stages import (
    check_judges,
    choices,
    final_trials,
    put_in_place,
    sample_trials,
)
from ssl_runner.tune.work import Pools, steps_of, work_of
from ssl_runner.tune.worker import (
    RESTARTS,
    Shared,
    chain_of,
    last_line,
    param_of,
    train_in_tune,
)
from ssl_runner.versions import git_commit

# What Tune reserves for a trial that only waits for its Ray Train workers. Tune refuses an empty
# request, and any share of a CPU would be missing when the workers need them all: so a byte of memory.
_WAITING = {"memory": 1.0}

_ENDLESS = 1 << 40

MANY_FILES = 1000
"""Files of one trial each from which on a results folder is compacted at a sweep's end: reading them
takes a second and more."""


@dataclass(frozen=True)
class _Sweep:
    """A sweep with its data loaded.

    Attributes:
        command: What the command line asks for.
        config: Its sweep as it suits the data.
        results: Where its rows go.
        dataset: What its trials are trained on.
        trials: Its trials, full ones first.
        console: Where to print.
        is_lost: Whether another process has taken the sweep's lock.
    """

    command: Command
    config: SweepConfig
    results: ResultsFolder
    dataset: ImageDataset
    trials: list[Trial]
    console: Console
    is_lost: Callable[[], bool]

    @property
    def name(self) -> str:
        return self.command.sweep.name

    @cached_property
    def chains(self) -> list[list[Trial]]:
        """The trials in the order in which they depend on each other: rounds together, each other
        trial by itself."""
        return chains(self.trials)

    @property
    def own_ids(self) -> set[str] | None:
        """The ids of the trials that no other driver runs; None: no other one runs this sweep."""
        if self.command.shard is None:
            return None
        return {trial.trial_id for trial in self.trials}

    def matches(self) -> Matches:
        """Which of its trials have a row."""
        return match(self.trials, self.results.known(self.name))

    def row_ids(self) -> set[str]:
        """The ids of the rows that its trials have."""
        return {row.trial_id for row in self.matches().rows.values()}

    def go_on(self) -> None:
        """Raise if the sweep is to stop: KeyboardInterrupt after Ctrl-C, `_LockLostError`."""
        stop_if_asked()
        if self.is_lost():
            raise _LockLostError(
                f"another process has taken the sweep {self.name!r}, since {self.results.location} did "
                "not answer this one for minutes."
            )

    def say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)


def run_sweep(command: Command) -> int:
    """Run the rest of a sweep, print the comparison and where the files are.

    Returns:
        The exit code: 0, or 1 if a trial failed.

    Raises:
        InputError: For invalid input; nothing in the results folder has changed then.
    """
    results, console = ResultsFolder(command.results), wide_console()
    results.check_writable()
    try:
        return _run_locked(command, results, console)
    except OSError as error:
        if (line := said_of(error)) is None:
            raise
        reason = line
    except _LockLostError as lost:
        reason = str(lost)
    console.print(
        f"stopped: {reason} The rows that are there stay; the same command runs the other trials.",
        style="red",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 1


class _LockLostError(Exception):
    """Another process runs the sweep now. The message says why, in a line."""


def _run_locked(command: Command, results: ResultsFolder, console: Console) -> int:
    """The same, against other processes.

    Raises:
        OSError: If an object store with the results does not answer any more.
        _LockLostError: If it did not for so long that another process took the sweep.
    """
    with results.lock_sweep(command.sweep.name, command.shard) as is_lost:
        results.check_name(command.sweep.name, is_search=bool(command.sweep.search))
        name, files = command.sweep.trial.data.dataset, command.sweep.files
        dataset = load_dataset(name, command.data_dir, files=files)
        config, lines = suited(command.sweep, dataset)
        dataset = with_foreign(dataset, config.foreign_sets)
        sweep = _Sweep(command, config, results, dataset, [], console, is_lost)
        for line in lines:
            sweep.say(line)
        with ExitStack() as stack:
            ray_once = _RayOnce(sweep, stack)
            if config.search:
                sweep = _search(sweep, ray_once)
            else:
                configs = config.trials(dataset.has_unlabeled)
                trials = identify(configs, dataset.digest, dataset.foreign_digests)
                if command.shard is not None:
                    count = len(trials)
                    trials = [trial for trial in trials if command.shard.holds(trial.config)]
                    sweep.say(f"shard {command.shard}: {len(trials):,} of {count:,} trials")
                sweep = replace(sweep, trials=trials)
                _run_stage(sweep, ray_once)
        _compact(sweep)  # first, since the rest reads all rows several times
        return _conclude(sweep)


class _RayOnce:
    """A local Ray, or a cluster, started or joined when the first trial needs it, until the stack is
    closed."""

    def __init__(self, sweep: _Sweep, stack: ExitStack) -> None:
        self._sweep, self._stack = sweep, stack
        self._cluster: Cluster | None = None

    def cluster(self) -> Cluster:
        """The cluster, checked for this sweep.

        Raises:
            InputError: If no cluster answers, or it does not suit the sweep.
        """
        if self._cluster is None:
            command, results = self._sweep.command, self._sweep.results
            dataset = self._sweep.dataset
            in_store = (0 if handle_of(dataset) else dataset.nbytes) + dataset.foreign_nbytes
            cluster = self._stack.enter_context(ray_cluster(command.address, in_store, command.verbose))
            check_fits(command.sweep, cluster)
            check_nodes(cluster)
            check_shared(results.location, is_local(results.filesystem), cluster)
            self._cluster = cluster
        return self._cluster


def _search(sweep: _Sweep, ray_once: _RayOnce) -> _Sweep:
    """Run the samples of a search, choose the best of each group, and run the finals.

    Returns:
        The sweep with all of these trials.
    """
    config, dataset = sweep.config, sweep.dataset
    check_judges(config, dataset)
    groups = len(config.groups(dataset.has_unlabeled))
    of = f"{groups} groups" if groups > 1 else "one group"
    if config.searcher == "random" and config.search_seconds is None:
        samples = replace(sweep, trials=sample_trials(config, dataset))
        sweep.say(f"search: {len(samples.trials):,} samples of {of}")
        _run_stage(samples, ray_once)
    else:
        limit = f", at most {config.search_seconds:g} seconds each" if config.search_seconds else ""
        most = groups * (config.samples or 0)
        sweep.say(f"search: {most:,} samples of {of}{limit}, by {config.searcher}")
        samples = _run_adaptive(sweep, ray_once)
    rows, ids = sweep.results.trials(sweep.name), samples.row_ids()
    chosen = choices(config, dataset, rows[rows["trial_id"].isin(ids)])
    for choice in chosen:
        sweep.say(choice.line(config), style="red" if choice.best is None else None)
    finals = replace(sweep, trials=final_trials(config, dataset, chosen))
    if finals.trials:
        count = f"{len(finals.trials):,} trials, each" if len(finals.trials) > 1 else "one trial,"
        sweep.say(f"finals: {count} under a seed that chose nothing")
        _run_stage(finals, ray_once)
    return replace(sweep, trials=samples.trials + finals.trials)


def _run_stage(sweep: _Sweep, ray_once: _RayOnce) -> None:
    """Run those of the sweep's trials that have no row."""
    matches = sweep.matches()
    pending = _pending(sweep, matches)
    if sweep.config.search and not sweep.command.fresh:
        rows = sweep.results.trials(sweep.name)
        put_in_place(sweep.results, sweep.name, sweep.trials, matches, rows)
    if pending:
        _run(sweep, matches, pending, ray_once)
        sweep.results.tidy()


def _run_adaptive(sweep: _Sweep, ray_once: _RayOnce) -> _Sweep:
    """Run the samples of a search, each of which follows from those before.

    Returns:
        The sweep with these trials.
    """
    command, config, results = sweep.command, sweep.config, sweep.results
    search = AdaptiveSearch(config, sweep.dataset, results)
    if command.address is None:
        check_fits(command.sweep, this_machine())
    probes = search.probes()
    work: dict[str, int] = {}
    for trial_id, most in _check_trials(sweep, probes).items():
        group = next(t.place["search_group"] for t in probes if t.trial_id == trial_id)
        work[group] = max(work.get(group, 0), most)
    known = replace(sweep, trials=search.trials())
    matches = known.matches()
    pending = _pending(known, matches)
    if command.fresh:
        _clear(known, matches, pending)
        search.forget()
        known = sweep
    else:
        put_in_place(results, sweep.name, known.trials, matches, results.trials(sweep.name))
        _clear(known, matches, pending)
    left = {trial.trial_id for chain in pending for trial in chain}
    kept = {row.trial_id for each, row in known.matches().rows.items() if each not in left}
    counts = dict.fromkeys(search.groups, config.samples or 0)
    found = _standings_of(sweep, counts, kept)
    to_come = Counter(group for group, _ in search.left())
    for standing in found:  # a sample that was met before has no row of its own
        standing.ended = standing.samples - to_come[standing.group]
    progress = SweepProgress([], {}, sweep.console, config.describe, found)
    for group, number in search.left():
        progress.expect(f"{group} {number}", work[group])

    def begin(suggestion: Suggestion) -> dict[str, Any]:
        group = suggestion.group
        progress.found(f"{group} {suggestion.number}", suggestion.trial, work[group])
        return {"trial": param_of([suggestion.trial])}

    searcher = search.searcher(begin, lambda group, number: progress.found(f"{group} {number}"))
    if searcher.has_next():
        loggers = build_loggers(command.log, results, sweep.name, sweep.say)
        cluster = ray_once.cluster()
        with progress:
            _tune(known, [], cluster, loggers, progress, searcher)
        stop_if_asked()
        results.tidy()
    done = replace(sweep, trials=search.trials())
    put_in_place(results, sweep.name, done.trials, done.matches(), results.trials(sweep.name))
    return done


def _pending(sweep: _Sweep, matches: Matches) -> list[list[Trial]]:
    """The trials to run, those of a chain together; prints what exists already, and what has changed
    since."""
    command, trials = sweep.command, sweep.trials
    if command.fresh:
        sweep.results.remove_leftovers(sweep.name, (), sweep.own_ids)
        return sweep.chains
    done = {"finished"} | (set() if command.retry_failed else {"failed"})
    if sweep.config.scheduler != "none":
        done.add("stopped")
    pending, short = [], set()
    for chain in sweep.chains:
        for place, (trial, number) in enumerate(with_purchases(chain)):
            row = matches.rows.get(trial.trial_id)
            is_there = row is not None and row.status in done
            if row is not None and _bought_others(row, number):
                short.add(trial.trial_id)
                is_there = False
            if not is_there:  # those after it depend on what it buys
                pending.append(chain[place:])
                break
    skipped = len(trials) - sum(map(len, pending))
    if skipped:
        sweep.say(f"{skipped} of {len(trials)} trials are in {command.results} already")
    if short:
        sweep.say(
            f"{len(short)} of {len(trials)} trials are rounds that bought another number of labels "
            "than the next ones need: they run again"
        )
    for what, count in matches.changed.items():
        sweep.say(
            f"{count} of {len(trials)} trials have rows from before {what} changed: they run again, "
            "and the old rows are kept (report --all-versions shows both)",
            style="yellow",
        )
    has_row = {row.trial_id for row in (*matches.rows.values(), *matches.older)}
    sweep.results.remove_leftovers(sweep.name, has_row - short, sweep.own_ids)
    return pending


def _bought_others(row: KnownTrial, number: int) -> bool:
    """Whether a finished round bought another number of labels than the next one needs."""
    return row.status == "finished" and number not in (0, row.bought)


def _run(sweep: _Sweep, matches: Matches, pending: Sequence[list[Trial]], ray_once: _RayOnce) -> None:
    """Run the pending trials, on a local Ray or on a cluster."""
    command, results = sweep.command, sweep.results
    if command.address is None:
        check_fits(command.sweep, this_machine())
    trials = [trial for chain in pending for trial in chain]
    work, under_way = _check_trials(sweep, trials), results.under_way(sweep.name)

    def place(chain: Sequence[Trial]) -> tuple[int, bool]:
        """The longest first: the last ones are short, so that no core waits long for another. Of equal
        ones those under way: their rivals are judged by what they have reached."""
        return -sum(work[trial.trial_id] for trial in chain), chain[0].trial_id not in under_way

    pending = sorted(pending, key=place)
    loggers = build_loggers(command.log, results, sweep.name, sweep.say)
    cluster = ray_once.cluster()
    _clear(sweep, matches, pending)
    found = _standings(sweep, matches, trials)
    with SweepProgress(trials, work, sweep.console, sweep.config.describe, found) as progress:
        _tune(sweep, pending, cluster, loggers, progress)
    stop_if_asked()


def _standings(sweep: _Sweep, matches: Matches, pending: Sequence[Trial]) -> list[Standing]:
    """How far the searches are whose samples are to run, by the rows that are there."""
    samples = [trial for trial in sweep.trials if trial.place.get("role") == "search"]
    counts = Counter(trial.place["search_group"] for trial in samples)
    ids = {trial.trial_id for trial in samples} - {trial.trial_id for trial in pending}
    return _standings_of(
        sweep, counts, {matches.rows[each].trial_id for each in ids & matches.rows.keys()}
    )


def _standings_of(sweep: _Sweep, counts: Mapping[str, int], kept: set[str]) -> list[Standing]:
    """The same of groups with so many samples each, where these rows are kept."""
    objective = f"validation_{sweep.config.objective}"
    found = {group: Standing(group, count, objective) for group, count in counts.items()}
    if kept:
        rows = sweep.results.trials(sweep.name)
        for row in rows[rows["trial_id"].isin(kept)].to_dict("records"):
            found[row["search_group"]].add_row(row)
    return list(found.values())


def _check_trials(sweep: _Sweep, trials: Sequence[Trial]) -> dict[str, int]:
    """Check what each trial needs before any of them starts, and say which weights start fresh;
    returns the work of each by its id.

    Raises:
        InputError: If the data or a model does not suit a trial.
    """
    dataset, configs = sweep.dataset, [trial.config for trial in trials]
    channels, height, width = dataset.train.images.shape[1:]
    classes = len(dataset.train.class_names)
    for known in dict.fromkeys(config.pools.labeled_classes for config in configs):
        some = [config for config in configs if config.pools.labeled_classes == known]
        classes = len(known_of(some[0], dataset).names)
        # Dropout is no reason why a model can't be built, and a search has as many as samples.
        networks = {replace(config.network, dropout=None): config.network for config in some}
        for line in check_models(networks.values(), channels, (height, width), classes):
            sweep.say(line)
    for settings in {config.unlabeled.method: config.unlabeled for config in configs}.values():
        build_method(settings, torch.full((classes,), 1 / classes))
    for network in {config.network.model: config.network for config in configs}.values():
        of_it = (config.data.selection for config in configs if config.network == network)
        check_selections(set(filter(None, of_it)), network, (channels, height, width), classes)
    pools: dict[tuple[object, ...], Pools] = {}
    asked = {
        trial.trial_id for chain in chains(trials) for trial, number in with_purchases(chain) if number
    }
    work = {}
    for trial in trials:
        data = trial.config.data
        # What the pools' sizes depend on: not on what their images are.
        sized = replace(
            trial.config.pools, label_noise=0.0, noise_kind=None, foreign=0.0, foreign_images=None
        )
        key = (data.subset, data.holdout, data.label_fraction, data.label_budgets, sized)
        if key not in pools:
            pools[key] = _pools(trial.config, dataset)
        steps, warmup = steps_of(trial.config, pools[key]), trial.config.optimizer.warmup_steps
        labeled, judges = pools[key].labeled, trial.place.get("holdout_labels")
        is_small = judges is None or judges <= labeled or sweep.config.large_holdout
        rule = f"at most the {labeled} labels of {trial.place.get('search_group')}"
        fix = "Choose a smaller one; --large-holdout allows it, and the page says so."
        require(is_small, "holdout", rule, judges, fix)
        rule = f"less than the {steps} steps of {sweep.config.describe(trial.config)}"
        require(warmup < steps, "warmup_steps", rule, warmup, "Train longer, or leave it out.")
        grace = sweep.config.grace_steps
        can_stop = grace is None or grace < steps or trial.place.get("role") != "search"
        require(can_stop, "grace_steps", rule, grace, "No trial would ever be stopped.")
        work[trial.trial_id] = work_of(trial.config, pools[key], trial.trial_id in asked)
    return work


def _pools(config: TrialConfig, dataset: ImageDataset) -> Pools:
    """The sizes of a trial's pools.

    Raises:
        InputError: If the data do not suit it.
    """
    first = first_labeled(config, dataset) if config.data.budgets else None
    data = prepare(config, dataset, first)
    bought = max(config.data.budgets, default=len(data.labeled)) - len(data.labeled)
    return Pools(len(data.labeled) + bought, len(data.unlabeled) - bought)


def _clear(sweep: _Sweep, matches: Matches, pending: Sequence[list[Trial]]) -> None:
    """Delete the rows to be replaced, and set aside checkpoints that can't be read."""
    results = sweep.results
    trials = [(trial, number) for chain in pending for trial, number in with_purchases(chain)]
    if sweep.command.fresh:
        old = [row.trial_id for row in (*matches.rows.values(), *matches.older)]
    else:  # a trial to be retried still has its row; that of a round which buys more stays until then
        rows = [(matches.rows.get(trial.trial_id), number) for trial, number in trials]
        old = [row.trial_id for row, number in rows if row and not _bought_others(row, number)]
    results.forget(sweep.name, old)
    there = results.with_checkpoints(sweep.name)
    for trial, _ in trials:
        if trial.trial_id not in there:  # to ask for each would cost a cloud a request
            continue
        checkpoints = Checkpoints(results.checkpoints(sweep.name, trial.trial_id))
        if sweep.command.fresh:
            checkpoints.clear()
        for path in checkpoints.set_aside():
            sweep.say(
                f"warning: a checkpoint can't be read; the one before it, if any, is used, and it is "
                f"set aside as {path}",
                style="yellow",
            )


def _tune(
    sweep: _Sweep,
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


def _judge(sweep: _Sweep, is_adaptive: bool) -> Judge | None:
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


def _conclude(sweep: _Sweep) -> int:
    """Print the comparison, write the page, print where the files are; returns the exit code."""
    results, matches = sweep.results, sweep.matches()
    rows = results.trials(sweep.name)
    models = len(rows["weights"].dropna())
    if sweep.command.sweep.save == "best":
        models = results.keep_models(sweep.name, best_models(rows), among=set(rows["trial_id"]))
    ids = {row.trial_id for row in matches.rows.values()}
    print_comparison(rows[rows["trial_id"].isin(ids)], sweep.console)
    try:
        html = render_page(newest(rows), results.epochs(sweep.name), sweep.dataset)
        write_whole(results.filesystem, f"{results.root}/{sweep.name}.html", html.encode())
    except OSError as error:
        sweep.say(f"the page could not be written: {error.strerror or error}", style="red")
    sweep.say(
        f"rows: {results.place('trials')}   epochs: {results.place('epochs')}   "
        f"(pandas.read_parquet reads them)   page: {results.place(f'{sweep.name}.html')}"
    )
    if models:
        sweep.say(f"models: {results.place('models')} ({models})")
    failed_samples = sum(_is_failed_sample(trial, matches) for trial in sweep.trials)
    if failed_samples:
        sweep.say(f"{failed_samples} samples failed, and can't be chosen")
    without = sum(matches.status(trial) is None for trial in sweep.trials)
    if without:
        sweep.say(
            f"{without} of {len(sweep.trials)} trials have no row: it could not be written, or was "
            "deleted meanwhile. The same command runs them again.",
            style="red",
        )
    groups = {trial.place.get("search_group") for trial in sweep.trials}
    with_finals = {t.place["search_group"] for t in sweep.trials if t.place.get("role") == "final"}
    # A sample may fail, as with too high a learning rate, while others of its group do not.
    return int(
        any(
            matches.status(trial) in (None, "failed") and not _is_failed_sample(trial, matches)
            for trial in sweep.trials
        )
        or (bool(sweep.config.search) and groups != with_finals)
    )


def _compact(sweep: _Sweep) -> None:
    """Make a few large files of very many small ones, unless another sweep is running here too."""
    results = sweep.results
    if not is_local(results.filesystem) or results.small_files() < MANY_FILES:
        return
    try:
        done = results.compact(running=lock_name(sweep.name, sweep.command.shard))
    except InputError:  # at another sweep's end, or by hand
        return
    sweep.say(
        f"compacted: the rows are in {done['trials'].after:,} files, not {done['trials'].before:,}"
    )


def _is_failed_sample(trial: Trial, matches: Matches) -> bool:
    return trial.place.get("role") == "search" and matches.status(trial) == "failed"
