"""What is lost when a host dies, or its link? On three hosts, and the tables they end in, compared.

python -m experiments.benchmarks.hosts                                  # as root; needs Linux
python -m experiments.benchmarks.hosts --times 1 --parts "the head dies"

The hosts are made of namespaces (ssl_runner/testing/hosts.py), their cluster by
experiments/cluster/own_machines.yaml. A sweep runs over them, and something happens at a random moment
of it. Where that ends the sweep, the host is started, and `ray up` and the same command run again. Its
rows must then be those of one machine, to the bit; those of a trial over two hosts on a slow link the
same as on a fast one. "seconds" are from then to the end, the work that was left included; with a slow
link, and with nothing, from the start.
"""

import argparse
import contextlib
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.faults import SWEEP, Outcome, say
from ssl_runner.testing.hosts import SHARED, Host, Hosts, Started
from ssl_runner.testing.processes import Runs
from ssl_runner.testing.tables import checkpoints

LONG = (*SWEEP, "--epochs", "20")
TWO = (
    *(*SWEEP, "--methods", "freematch", "--epochs", "1", "--configs", "partial"),
    *("--num-workers", "2", "--cpus-per-trial", "2"),
)
"""A trial over two hosts. Short: a slow link takes seconds for each step's gradient."""

SECONDS = 20.0
"""How long a link is cut, if not for good."""


class TooLateError(Exception):
    """No worker has a trial any more."""


@dataclass
class Study:
    """What happens to what.

    Attributes:
        hosts: The hosts.
        moments: Draws the moments.
        alone: Results of one machine.
        usual: Seconds from the sweep's first checkpoint to its end when nothing happens.
    """

    hosts: Hosts
    moments: random.Random
    alone: Path
    usual: float = 0.0

    def start(self, sweep: tuple[str, ...] = LONG) -> Started:
        line = f". ~/ray_env.sh && exec python -m {' '.join(sweep)} --address auto --results {SHARED}/r"
        return self.hosts.head.start(line)

    @property
    def results(self) -> Path:
        return self.hosts.shared / "r"

    def victim(self, run: Started) -> Host:
        """A worker with a trial, at a random moment between the first checkpoint and the end.

        Raises:
            TooLateError: If there is none any more.
        """
        self.wait_for_checkpoint(run)
        time.sleep(self.moments.uniform(0, 0.9) * self.usual)
        at_work = [host for host in self.hosts.workers if host.processes("ray::ImplicitFunc.train")]
        if not at_work:
            run.succeed()
            shutil.rmtree(self.results)
            raise TooLateError
        return self.moments.choice(at_work)

    def wait_for_checkpoint(self, run: Started) -> None:
        run.wait_for(lambda: bool(checkpoints(self.results)))

    def over_two(self) -> Path:
        """Results of the trial over two hosts when nothing happens."""
        undisturbed = self.results.with_name("two")
        if not undisturbed.exists():
            self.start(TWO).succeed()
            self.results.rename(undisturbed)
        return undisturbed

    def compare(self, outcome: Outcome, started: float, undisturbed: Path | None = None) -> None:
        outcome.kills += 1
        outcome.seconds.append(time.monotonic() - started)
        outcome.compare(self.results, undisturbed or self.alone)
        shutil.rmtree(self.results)


def a_worker_dies(study: Study, outcome: Outcome) -> None:
    run = study.start()
    victim = study.victim(run)
    victim.kill()
    started = time.monotonic()
    run.succeed()
    study.compare(outcome, started)
    study.hosts.wait_for_nodes()  # Ray has noticed: a host that dies while Ray starts on it stays out
    study.hosts.boot(victim)
    study.hosts.wait_for_nodes()


def its_link_is_cut(study: Study, outcome: Outcome, seconds: float | None) -> None:
    run = study.start()
    victim = study.victim(run)
    victim.cut()
    started = time.monotonic()
    if seconds is not None:
        time.sleep(seconds)
        victim.mend()
    run.succeed()
    study.compare(outcome, started)
    if seconds is None:
        study.hosts.wait_for_nodes(without=victim)
        victim.mend()
    study.hosts.wait_for_nodes()


def the_head_dies(study: Study, outcome: Outcome) -> None:
    run = study.start()
    study.victim(run)
    study.hosts.head.kill()
    started = time.monotonic()
    run.end()
    study.hosts.boot(study.hosts.head)
    study.hosts.ray_up()
    study.start().succeed()
    study.compare(outcome, started)


def nothing(study: Study, outcome: Outcome) -> None:
    started = time.monotonic()
    study.start().succeed()
    study.compare(outcome, started)


def nothing_over_two(study: Study, outcome: Outcome) -> None:
    undisturbed = study.over_two()
    started = time.monotonic()
    study.start(TWO).succeed()
    study.compare(outcome, started, undisturbed)


def a_slow_link(study: Study, outcome: Outcome) -> None:
    """Under a trial over two hosts: 50 ms in either direction, one frame in a hundred lost."""
    undisturbed = study.over_two()
    started = time.monotonic()
    run = study.start(TWO)
    hosts: list[Host] = []

    def is_under_way() -> bool:
        hosts[:] = [host for host in study.hosts.workers if host.processes("ray::RayTrainWorker")]
        return bool(hosts)

    run.wait_for(is_under_way)  # the head has one CPU, so a worker is one of the two
    with study.moments.choice(hosts).slow(0.05, 0.01):
        run.succeed()
    study.compare(outcome, started, undisturbed)


PARTS: dict[str, Callable[[Study, Outcome], None]] = {
    "nothing": nothing,
    "a worker host dies": a_worker_dies,
    f"its link is cut for {SECONDS:g} s": lambda study, outcome: its_link_is_cut(
        study, outcome, SECONDS
    ),
    "its link is cut for good": lambda study, outcome: its_link_is_cut(study, outcome, None),
    "the head dies": the_head_dies,
    "nothing, over two hosts": nothing_over_two,
    "a slow link, over two hosts": a_slow_link,
}


def main() -> None:
    """Make the hosts, let it happen, and print the table."""
    parser = argparse.ArgumentParser(description="What is lost when a host dies, or its link?")
    parser.add_argument("--times", type=int, default=10, help="of each part")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    table = Table(title="Three hosts, and the same command again where it ended")
    for heading in ("what", "times", "rows lost", "rows wrong", "median seconds"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as name, Hosts() as hosts:
        with Runs() as runs:
            runs.start(*LONG, "--results", name).succeed()
        hosts.ray_up()
        study = Study(hosts, random.Random(0), Path(name))
        run = study.start()
        study.wait_for_checkpoint(run)
        started = time.monotonic()
        run.succeed()
        study.usual = time.monotonic() - started
        shutil.rmtree(study.results)
        for part in options.parts:
            outcome = Outcome()
            while outcome.kills < options.times:
                with contextlib.suppress(TooLateError):
                    PARTS[part](study, outcome)
                say(f"{outcome.kills} times: {part}", outcome)
            low, high = min(outcome.seconds), max(outcome.seconds)
            seconds = f"{statistics.median(outcome.seconds):.0f} ({low:.0f} to {high:.0f})"
            print(f"{part}: {seconds} s", file=sys.stderr, flush=True)
            table.add_row(part, str(outcome.kills), str(outcome.lost), str(outcome.wrong), seconds)
    Console(width=104).print(table)


if __name__ == "__main__":
    main()
