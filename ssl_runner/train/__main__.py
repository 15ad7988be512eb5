"""One trial without Ray: the same flags as the main command, the same row at the end."""

import sys
from datetime import UTC, datetime
from typing import Any

import torch
from rich.console import Console

from ssl_runner.checkpoint import Checkpoints
from ssl_runner.command import Command, parse, run_main
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.datasets.decoded.pool import usable_cpus
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial, identify
from ssl_runner.models import check_models
from ssl_runner.pools.foreign import with_foreign
from ssl_runner.report.terminal import print_comparison, wide_console
from ssl_runner.results import ResultsFolder
from ssl_runner.results.matching import match
from ssl_runner.suited import suited
from ssl_runner.time_limit import time_limit
from ssl_runner.train.data import known_of
from ssl_runner.trial import RunContext, failed_rows, finish_trial, run_trial
from ssl_runner.versions import git_commit


def main() -> int:
    """Train one trial without Ray, and write its row."""
    command = parse("python -m ssl_runner.train", str(main.__doc__), sys.argv[1:], single=True)
    (config,) = command.sweep.trials(has_unlabeled=True)  # full takes the method that is named
    workers = config.compute.num_workers
    if workers > 1:
        raise InputError(
            f"--num-workers must be 1 without Ray, got {workers}. "
            "Use python -m ssl_runner.tune for several."
        )
    console = wide_console()
    if command.dry_run:
        console.print(f"settings {config.settings_id}: {config.description}", highlight=False)
        return 0
    results = ResultsFolder(command.results)
    results.check_writable()
    sweep = command.sweep.name
    results.check_name(sweep, is_search=False)
    dataset = load_dataset(config.data.dataset, command.data_dir, files=command.sweep.files)
    suitable, lines = suited(command.sweep, dataset)
    for line in lines:
        console.print(line, highlight=False, markup=False)
    (config,) = suitable.trials(dataset.has_unlabeled)
    dataset = with_foreign(dataset, [config.pools.foreign_images])
    (trial,) = identify([config], dataset.digest, dataset.foreign_digests)
    console.print(f"trial {trial.trial_id}: {config.description}", highlight=False)
    with results.lock_sweep(f"{sweep}--{trial.trial_id}"):  # other trials may train beside this one
        matches = match([trial], results.known(sweep))
        has_row = {row.trial_id for row in matches.rows.values()}
        results.remove_leftovers(sweep, () if command.fresh else has_row, {trial.trial_id})
        if command.fresh or not has_row:
            channels, height, width = dataset.train.images.shape[1:]
            classes = len(known_of(config, dataset).names)
            for line in check_models([config.network], channels, (height, width), classes):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        for what in matches.changed:
            console.print(f"it has a row from before {what} changed, which is kept", highlight=False)
        if command.fresh:
            results.forget(sweep, has_row)
            Checkpoints(results.checkpoints(sweep, trial.trial_id)).clear()
        if command.fresh or not has_row:
            _run(command, results, trial, dataset, console)
    rows = results.trials(sweep)
    ids = {row.trial_id for row in match([trial], results.known(sweep)).rows.values()}
    row = rows[rows["trial_id"].isin(ids)]
    print_comparison(row, console)
    return int((row["status"] != "finished").any())


def _run(
    command: Command, results: ResultsFolder, trial: Trial, dataset: ImageDataset, console: Console
) -> None:
    """Train the trial, and write its row."""
    sweep = command.sweep
    context = RunContext(
        sweep=sweep.name,
        data=dataset.columns(),
        models=results.place("models") if sweep.save != "none" else None,
        checkpoints=results.checkpoints(sweep.name, trial.trial_id),
        threads=int(sweep.cpus_per_trial or usable_cpus()) or 1,
        checkpoint_steps=sweep.checkpoint_steps,
        git_commit=git_commit(),
    )
    for path in Checkpoints(context.checkpoints).set_aside():
        console.print(f"warning: a checkpoint can't be read, and is set aside as {path}")

    def print_epoch(metrics: dict[str, Any]) -> None:
        console.print(
            f"epoch {metrics['epoch']} of {trial.config.budget.epochs}: "
            f"train {metrics['train_loss']:.3f} / {metrics['train_accuracy']:.2%}, "
            f"validation {metrics['validation_loss']:.3f} / "
            f"{metrics['validation_accuracy']:.2%}, "
            f"{metrics['images_per_second']:,.0f} images/s",
            highlight=False,
        )

    device = torch.device("cuda" if sweep.gpus_per_trial else "cpu")
    started = datetime.now(UTC)

    def on_timeout(reason: str) -> None:
        finish_trial(results, failed_rows(trial, context, reason, started), context)
        console.print(f"failed: {reason}", style="red")

    with time_limit(sweep.time_limit, on_timeout):
        rows = run_trial(trial, dataset, context, print_epoch, device=device)
    finish_trial(results, rows, context)
    results.tidy()


if __name__ == "__main__":
    run_main(main)
