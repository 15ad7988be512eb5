"""A sweep with its data loaded: what all parts of running it need."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from rich.console import Console

from ssl_runner.command import Command, stop_if_asked
from ssl_runner.config import SweepConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.identity import Trial, chains
from ssl_runner.results import ResultsFolder
from ssl_runner.results.matching import Matches, match


class LockLostError(Exception):
    """Another process runs the sweep now. The message says why, in a line."""


@dataclass(frozen=True)
class LoadedSweep:
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
        """Raise if the sweep is to stop: KeyboardInterrupt after Ctrl-C, `LockLostError`."""
        stop_if_asked()
        if self.is_lost():
            raise LockLostError(
                f"another process has taken the sweep {self.name!r}, since {self.results.location} did "
                "not answer this one for minutes."
            )

    def say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)
