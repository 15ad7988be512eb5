"""The main command: run a study and compare its trials. Ray and torch are imported when it runs."""

import sys

from rich.table import Table

from ssl_runner.command import Command, parse, run_main
from ssl_runner.config import MANY, SweepConfig
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
        if command.shard is not None and not command.shard.holds(trial):
            continue
        steps, epochs = trial.budget.max_steps, trial.budget.epochs
        budget = f"{steps} steps" if steps else str(epochs)
        workers, split_seed = str(trial.compute.num_workers), str(trial.data.split_seed)
        table.add_row(trial.settings_id, sweep.describe(trial), split_seed, budget, workers)
    console = wide_console()
    if table.row_count:
        console.print(table)
    for line in (*_search_lines(sweep), *_rounds_lines(sweep)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
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


def _rounds_lines(sweep: SweepConfig) -> list[str]:
    """How rounds run; none without rounds."""
    if sweep.rounds is None:
        return []
    count = sum(len(trial.data.budgets) == len(sweep.rounds) for trial in sweep.trials())
    times = f"{count} times" if count > 1 else "once"
    return [f"{times} {len(sweep.rounds)} rounds: those of one beginning one after another"]


def _search_lines(sweep: SweepConfig) -> list[str]:
    """What else a search would run, group by group; none without a search."""
    if not sweep.search:
        return []
    groups = sweep.groups()
    count = sum(len(sweep.finals(base)) for base in groups.values())
    lines = [f"{sweep.samples} samples of each group, judged by the holdout's {sweep.objective}:"]
    lines += [f"  {name}" for name in groups]
    if sweep.searcher != "random":
        lines.append(f"each sample follows from those before it ({sweep.searcher})")
    finals = (
        f"then {count} finals: the best of each group under seeds {', '.join(map(str, sweep.seeds))}"
    )
    return [*lines, finals + (", beside its settings as they stand" if sweep.untuned else "")]


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
