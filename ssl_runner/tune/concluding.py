"""The end of a sweep: its rows compacted, the comparison, the page, the exit code."""

from ssl_runner.errors import InputError
from ssl_runner.identity import Trial
from ssl_runner.report.page import render_page
from ssl_runner.report.terminal import print_comparison
from ssl_runner.results import newest
from ssl_runner.results.best import best_models
from ssl_runner.results.matching import Matches
from ssl_runner.shard import lock_name
from ssl_runner.storage import is_local, write_whole
from ssl_runner.tune.loaded import LoadedSweep

MANY_FILES = 1000
"""Files of one trial each from which on a results folder is compacted at a sweep's end: reading them
takes a second and more."""


def compact(sweep: LoadedSweep) -> None:
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


def conclude(sweep: LoadedSweep) -> int:
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


def _is_failed_sample(trial: Trial, matches: Matches) -> bool:
    return trial.place.get("role") == "search" and matches.status(trial) == "failed"
