"""One trial without Ray: the same flags as the main command, the same row at the end."""

import os
import sys
from datetime import UTC, datetime
from typing import Any

import torch
from rich.console import Console

from ssl_runner.checkpoint import Checkpoints
from ssl_runner.command import Command, parse, run_main
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import load_dataset
from ssl_runner.report.terminal import print_comparison, wide_console
from ssl_runner.results import ResultsFolder
from ssl_runner.trial import Setting, failed_rows, git_commit, run_trial, time_limit


def main() -> int:
    """Train one trial without Ray, and write its row."""
    command = parse("python -m ssl_runner.train", str(main.__doc__), sys.argv[1:], single=True)
    (config,) = command.sweep.trials()
    if config.num_workers > 1:
        raise ValueError(
            f"--num-workers must be 1 without Ray, got {config.num_workers}. "
            "Use python -m ssl_runner.tune for several."
        )
    console = wide_console()
    console.print(f"trial {config.trial_id}: {config.label}", highlight=False)
    if command.dry_run:
        return 0
    results = ResultsFolder(command.results)
    results.check_writable()
    sweep = command.sweep.name
    setting = Setting(
        sweep=sweep,
        checkpoints=results.checkpoints(sweep, config.trial_id),
        threads=int(command.sweep.cpus_per_trial or len(os.sched_getaffinity(0))) or 1,
        checkpoint_steps=command.sweep.checkpoint_steps,
        git_commit=git_commit(),
    )
    with results.alone(f"{sweep}--{config.trial_id}"):  # other trials may train beside this one
        _run(command, results, config, setting, console)
    rows = results.trials(sweep)
    row = rows[rows["trial_id"] == config.trial_id]
    print_comparison(row, console)
    return int((row["status"] != "finished").any())


def _run(
    command: Command, results: ResultsFolder, config: TrialConfig, setting: Setting, console: Console
) -> None:
    """Train the trial, unless it has its row, and write it."""
    sweep = command.sweep.name
    checkpoints = Checkpoints(setting.checkpoints)
    statuses = {} if command.fresh else results.statuses(sweep)
    results.remove_leftovers(sweep, statuses)
    if config.trial_id not in statuses:
        dataset = load_dataset(config.dataset, command.data_dir)
        if command.fresh:
            results.forget(sweep, [config.trial_id])
            checkpoints.clear()
        for path in checkpoints.set_aside():
            console.print(f"warning: a checkpoint can't be read, and is set aside as {path}")

        def tell(metrics: dict[str, Any]) -> None:
            console.print(
                f"epoch {metrics['epoch']} of {config.epochs}: "
                f"train {metrics['train_loss']:.3f} / {metrics['train_accuracy']:.2%}, "
                f"validation {metrics['validation_loss']:.3f} / "
                f"{metrics['validation_accuracy']:.2%}, "
                f"{metrics['images_per_second']:,.0f} images/s",
                highlight=False,
            )

        device = torch.device("cuda" if command.sweep.gpus_per_trial else "cpu")
        started = datetime.now(UTC)

        def give_up(reason: str) -> None:
            results.write(*failed_rows(config, setting, reason, started))
            checkpoints.clear()
            console.print(f"failed: {reason}", style="red")

        with time_limit(command.sweep.time_limit, give_up):
            rows = run_trial(config, dataset, setting, tell, device=device)
        results.write(*rows)
        checkpoints.clear()
        results.tidy()


if __name__ == "__main__":
    run_main(main)
