"""The main command: run a study and compare its trials. Ray and torch are imported when it runs."""

import sys

from rich.table import Table

from ssl_runner.command import Command, parse, run_main
from ssl_runner.config import MANY
from ssl_runner.errors import InputError
from ssl_runner.report.terminal import wide_console
from ssl_runner.tune.environment import set_environment


def print_plan(command: Command) -> None:
    """Print the trials that a command would run."""
    table = Table(title=f"{command.sweep.name}: trials")
    for heading in ("settings id", "trial", "split seed", "epochs", "workers"):
        table.add_column(heading)
    if command.sweep.size > MANY:
        print(f"{command.sweep.size:,} combinations: too many to list")
        return
    sweep = command.sweep
    for trial in sweep.trials():
        steps, epochs = trial.budget.max_steps, trial.budget.epochs
        budget = f"{steps} steps" if steps else str(epochs)
        workers, split_seed = str(trial.compute.num_workers), str(trial.data.split_seed)
        table.add_row(trial.settings_id, sweep.describe(trial), split_seed, budget, workers)
    console = wide_console()
    console.print(table)
    if sweep.trial.data.dataset == "fashion_mnist" and sweep.files.labels_file is None:
        return
    # No data are loaded for a plan, so it can't know.
    full = [trial for trial in sweep.trials(has_unlabeled=True) if trial.config == "full"]
    methods = ", ".join(dict.fromkeys(trial.unlabeled.method for trial in full))
    if full and methods != "pass":
        order = "; all trials in paired order" if full[0].batches.order == "paired" else ""
        console.print(
            f"where training images have no label, full is trained with {methods}{order}",
            highlight=False,
        )


def confirm(command: Command) -> None:
    """Ask for confirmation where there are very many trials.

    Raises:
        InputError: If the user declines, or can't be asked.
    """
    count = command.sweep.size
    if count <= MANY or command.yes:
        return
    if sys.stdin.isatty() and input(f"Start {count:,} trials? [y/N] ").strip().lower() in ("y", "yes"):
        return
    raise InputError(
        f"a sweep must have at most {MANY:,} trials, got {count:,}. Shorten its lists, or add --yes."
    )


def main() -> int:
    """Run full and partial training at several label fractions, and compare them."""
    command = parse("python -m ssl_runner.tune", str(main.__doc__), sys.argv[1:])
    if command.dry_run:
        print_plan(command)
        return 0
    confirm(command)
    set_environment(local=command.address is None)
    from ssl_runner.tune.sweep import run_sweep  # seconds of imports, only if needed

    return run_sweep(command)


if __name__ == "__main__":
    run_main(main)
