"""What is lost when something is killed? Real SIGKILLs, and the tables they end in, compared.

python -m experiments.benchmarks.faults                        # about 25 minutes on two cores
python -m experiments.benchmarks.faults --kills 20 --rounds 1  # a first look
python -m experiments.benchmarks.faults --kills 0 --parts "its workers" "its trial's process"

Each run is killed and the same command run again, until one run finishes; its rows must then be
those of an undisturbed run, row for row and to the bit, with no file left beside them. A training
without Ray is killed at random moments, half of them soon after it has written a checkpoint, of which
there is one at every step, so that many kills fall into the writing of a file; a sweep part by part,
once there is a row and a checkpoint. "seconds to recover" is from the kill, or the same command's
start, to its end, the work that was left included.
"""

import argparse
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ssl_runner.testing.processes import Runs, newest
from ssl_runner.testing.tables import checkpoints, leftovers, tables

TRAIN = (
    *("--subset", "300", "--label-fraction", "0.2", "--method", "freematch", "--epochs", "6"),
    *("--patience", "0", "--batch-size", "30", "--checkpoint-steps", "1", "--precision", "fp32"),
    *("--cpus-per-trial", "1", "--name", "t"),
)
SWEEP = (
    *("ssl_runner.tune", "--subset", "600", "--label-fractions", "0.2", "--batch-size", "30"),
    *("--methods", "pass", "freematch", "--epochs", "6", "--patience", "0", "--augment", "weak"),
    *("--checkpoint-steps", "5", "--precision", "fp32", "--name", "f"),
)
ONE = ()
TWO = ("--configs", "partial", "--num-workers", "2")
"""Two workers a trial, on as many CPUs as there are."""

# What is killed: its process's name, and of which sweep.
PARTS = {
    "a trial's process": ("ray::ImplicitFunc", ONE),
    "the command": ("ssl_runner.tune", ONE),
    "the raylet": ("raylet/raylet", ONE),
    "the GCS": ("gcs_server", ONE),
    "everything at once": ("", ONE),
    "its workers": ("ray::RayTrainWorker", TWO),
    "its trial's process": ("ray::ImplicitFunc", TWO),
}
RESTARTED = ("a trial's process", "its workers", "its trial's process")
"""What the command itself restarts."""


@dataclass
class Outcome:
    """The outcome of some kills.

    Attributes:
        kills: How many there were.
        lost: Rows that an undisturbed run has and these runs have not.
        wrong: Rows that differ from its rows, or are too many, and files left beside them.
        seconds: Of each recovery.
    """

    kills: int = 0
    lost: int = 0
    wrong: int = 0
    seconds: list[float] = field(default_factory=list)

    def compare(self, results: Path, whole: Path) -> None:
        """Count what is lost or wrong in a results folder."""
        for rows, expected in zip(tables(results), tables(whole), strict=True):
            self.lost += max(0, len(expected) - len(rows))
            self.wrong += max(0, len(rows) - len(expected))
            self.wrong += sum(row not in expected for row in rows)
        self.wrong += len(leftovers(results))


def train(results: str) -> None:
    """`python -m ssl_runner.train` in a process that has its imports already."""
    from ssl_runner.train.__main__ import main

    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    sys.argv = ["train", *TRAIN, "--results", results]
    raise SystemExit(main())


def kill_trainings(context: ForkServerContext, kills: int, folder: Path) -> Outcome:
    """Kill trainings at random moments, at least so often."""

    outcome = Outcome()

    def start(results: Path) -> ForkServerProcess:
        child = context.Process(target=train, args=(str(results),))
        child.start()
        return child

    moments = random.Random(0)
    whole = folder / "whole"
    start(folder / "first").join()  # the imports, paid once
    started = time.monotonic()
    start(whole).join()
    usual = time.monotonic() - started
    while outcome.kills < kills:
        results = folder / str(len(outcome.seconds))
        while True:
            started = time.monotonic()
            child = start(results)
            if moments.random() < 0.5:  # not before it has written something
                before = newest(results)
                while child.exitcode is None and newest(results) == before:
                    time.sleep(0.002)
                child.join(moments.uniform(0, 0.1) * usual)
            else:
                child.join(moments.uniform(0, 0.5) * usual)
            if child.exitcode is not None:
                break
            child.kill()
            child.join()
            outcome.kills += 1
        assert child.exitcode == 0
        outcome.seconds.append(time.monotonic() - started)
        outcome.compare(results, whole)
        say(f"{outcome.kills} kills of {len(outcome.seconds)} trainings", outcome)
    return outcome


def say(what: str, outcome: Outcome) -> None:
    """Print a line of progress, apart from the table."""
    print(f"{what}: {outcome.lost} rows lost, {outcome.wrong} wrong", file=sys.stderr, flush=True)


def kill_sweep(part: str, results: Path, whole: Path, runs: Runs, outcome: Outcome) -> None:
    """Kill one part of a sweep, and run the same command again."""
    name, flags = PARTS[part]
    arguments = (*SWEEP, *flags, "--results", str(results))
    run = runs.start(*arguments)
    rows = results / "trials"
    run.wait_for(lambda: bool(list(rows.glob("*.parquet")) and checkpoints(results)))
    assert runs.kill(name)
    started = time.monotonic()
    if part not in RESTARTED:
        time.sleep(1)
        runs.kill()
    run.end()
    runs.start(*arguments).succeed()
    outcome.kills += 1
    outcome.seconds.append(time.monotonic() - started)
    outcome.compare(results, whole)


def main() -> None:
    """Kill, compare, and print the table."""
    parser = argparse.ArgumentParser(description="What is lost when something is killed?")
    parser.add_argument("--kills", type=int, default=200, help="of trainings without Ray")
    parser.add_argument("--rounds", type=int, default=4, help="of each part of a sweep")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="of a sweep")
    options = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ssl_runner.train.__main__"])
    table = Table(title="Killed by SIGKILL, and the same command again")
    for heading in ("what", "killed", "rows lost", "rows wrong", "median seconds to recover"):
        table.add_column(heading)

    outcomes: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory() as name, Runs() as runs:
        folder = Path(name)
        if options.kills:
            moments = "a training without Ray, at random moments"
            outcomes[moments] = kill_trainings(context, options.kills, folder / "train")
        wholes: dict[tuple[str, ...], Path] = {}
        for part in options.parts:
            _, flags = PARTS[part]
            if flags not in wholes:
                whole = wholes[flags] = folder / f"whole-{len(wholes)}"
                runs.start(*SWEEP, *flags, "--results", str(whole)).succeed()
            kind = "two workers a trial" if flags == TWO else "a sweep"
            outcome = outcomes[f"{kind}: {part}"] = Outcome()
            for _ in range(options.rounds):
                results = folder / "killed"
                kill_sweep(part, results, wholes[flags], runs, outcome)
                shutil.rmtree(results)
                say(f"{outcome.kills} kills of {part}", outcome)
        assert runs.are_gone()
    for what, outcome in outcomes.items():
        seconds = f"{statistics.median(outcome.seconds):.1f}" if outcome.seconds else "–"
        table.add_row(what, str(outcome.kills), str(outcome.lost), str(outcome.wrong), seconds)
    Console(width=104).print(table)


if __name__ == "__main__":
    main()
