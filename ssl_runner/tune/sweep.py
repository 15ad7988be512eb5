"""A sweep: which of its trials run, and in what order."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from rich.console import Console

from ssl_runner.checkpoint import Checkpoints
from ssl_runner.command import Command, stop_if_asked
from ssl_runner.datasets import load_dataset
from ssl_runner.datasets.decoded.store import handle_of
from ssl_runner.identity import Trial, identify
from ssl_runner.object_store import said_of
from ssl_runner.pools.foreign import with_foreign
from ssl_runner.report.terminal import wide_console
from ssl_runner.results import ResultsFolder
from ssl_runner.results.matching import KnownTrial, Matches
from ssl_runner.results.standings import Standing
from ssl_runner.rounds import with_purchases
from ssl_runner.storage import is_local
from ssl_runner.suited import suited
from ssl_runner.tune.adaptive import AdaptiveSearch
from ssl_runner.tune.checking import check_trials
from ssl_runner.tune.cluster import Cluster, check_fits, ray_cluster, this_machine
from ssl_runner.tune.concluding import compact, conclude
from ssl_runner.tune.loaded import LoadedSweep, LockLostError
from ssl_runner.tune.loggers import build_loggers
from ssl_runner.tune.nodes import check_nodes, check_shared
from ssl_runner.tune.progress import SweepProgress
from ssl_runner.tune.searching import Suggestion
from ssl_runner.tune.stages import check_judges, choices, final_trials, put_in_place, sample_trials
from ssl_runner.tune.tuning import run_in_tune
from ssl_runner.tune.worker import param_of


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
    except LockLostError as lost:
        reason = str(lost)
    console.print(
        f"stopped: {reason} The rows that are there stay; the same command runs the other trials.",
        style="red",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 1


def _run_locked(command: Command, results: ResultsFolder, console: Console) -> int:
    """The same, against other processes.

    Raises:
        OSError: If an object store with the results does not answer any more.
        LockLostError: If it did not for so long that another process took the sweep.
    """
    with results.lock_sweep(command.sweep.name, command.shard) as is_lost:
        results.check_name(command.sweep.name, is_search=bool(command.sweep.search))
        name, files = command.sweep.trial.data.dataset, command.sweep.files
        dataset = load_dataset(name, command.data_dir, files=files)
        config, lines = suited(command.sweep, dataset)
        dataset = with_foreign(dataset, config.foreign_sets)
        sweep = LoadedSweep(command, config, results, dataset, [], console, is_lost)
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
        compact(sweep)  # first, since the rest reads all rows several times
        return conclude(sweep)


class _RayOnce:
    """A local Ray, or a cluster, started or joined when the first trial needs it, until the stack is
    closed."""

    def __init__(self, sweep: LoadedSweep, stack: ExitStack) -> None:
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


def _search(sweep: LoadedSweep, ray_once: _RayOnce) -> LoadedSweep:
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


def _run_stage(sweep: LoadedSweep, ray_once: _RayOnce) -> None:
    """Run those of the sweep's trials that have no row."""
    matches = sweep.matches()
    pending = _pending(sweep, matches)
    if sweep.config.search and not sweep.command.fresh:
        rows = sweep.results.trials(sweep.name)
        put_in_place(sweep.results, sweep.name, sweep.trials, matches, rows)
    if pending:
        _run(sweep, matches, pending, ray_once)
        sweep.results.tidy()


def _run_adaptive(sweep: LoadedSweep, ray_once: _RayOnce) -> LoadedSweep:
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
    for trial_id, most in check_trials(sweep, probes).items():
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
            run_in_tune(known, [], cluster, loggers, progress, searcher)
        stop_if_asked()
        results.tidy()
    done = replace(sweep, trials=search.trials())
    put_in_place(results, sweep.name, done.trials, done.matches(), results.trials(sweep.name))
    return done


def _pending(sweep: LoadedSweep, matches: Matches) -> list[list[Trial]]:
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


def _run(
    sweep: LoadedSweep, matches: Matches, pending: Sequence[list[Trial]], ray_once: _RayOnce
) -> None:
    """Run the pending trials, on a local Ray or on a cluster."""
    command, results = sweep.command, sweep.results
    if command.address is None:
        check_fits(command.sweep, this_machine())
    trials = [trial for chain in pending for trial in chain]
    work, under_way = check_trials(sweep, trials), results.under_way(sweep.name)

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
        run_in_tune(sweep, pending, cluster, loggers, progress)
    stop_if_asked()


def _standings(sweep: LoadedSweep, matches: Matches, pending: Sequence[Trial]) -> list[Standing]:
    """How far the searches are whose samples are to run, by the rows that are there."""
    samples = [trial for trial in sweep.trials if trial.place.get("role") == "search"]
    counts = Counter(trial.place["search_group"] for trial in samples)
    ids = {trial.trial_id for trial in samples} - {trial.trial_id for trial in pending}
    return _standings_of(
        sweep, counts, {matches.rows[each].trial_id for each in ids & matches.rows.keys()}
    )


def _standings_of(sweep: LoadedSweep, counts: Mapping[str, int], kept: set[str]) -> list[Standing]:
    """The same of groups with so many samples each, where these rows are kept."""
    objective = f"validation_{sweep.config.objective}"
    found = {group: Standing(group, count, objective) for group, count in counts.items()}
    if kept:
        rows = sweep.results.trials(sweep.name)
        for row in rows[rows["trial_id"].isin(kept)].to_dict("records"):
            found[row["search_group"]].add_row(row)
    return list(found.values())


def _clear(sweep: LoadedSweep, matches: Matches, pending: Sequence[list[Trial]]) -> None:
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
