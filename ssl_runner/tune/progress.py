"""What the user sees while a sweep runs: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ssl_runner.config import TrialConfig
from ssl_runner.identity import Trial
from ssl_runner.report import words
from ssl_runner.report.terminal import standings_table
from ssl_runner.results.standings import Standing
from ssl_runner.tune.work import work_done
from ssl_runner.tune.worker import BEST, OF_THE_BEST, WARNING, chain_of, trial_of

_LOOK_SECONDS = 1.0
"""How often the cluster's nodes are looked at, where they may come and go."""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _place(config: TrialConfig, metrics: Mapping[str, Any] | None) -> str:
    """How far a trial is, in what its budget is in."""
    if config.budget.max_steps is not None:
        return f"{metrics['steps'] if metrics else 0:,} of {config.budget.max_steps:,} steps"
    return f"{metrics['epoch'] if metrics else '–'} of {config.budget.epochs}"


class SweepProgress:
    """Follows the trials of a sweep, and reports on them.

    Args:
        trials: The trials that are to run.
        work: The most work that each has to do, from `work_of`, by its id.
        console: Where to print.
        describe: What to call a trial.
        standings: How far the searches are whose samples run, by the rows before; none: no search.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        work: Mapping[str, int],
        console: Console,
        describe: Callable[[TrialConfig], str] = lambda config: config.description,
        standings: Sequence[Standing] = (),
    ) -> None:
        self.describe = describe
        self.names = {trial.trial_id: describe(trial.config) for trial in trials}
        self.configs = {trial.trial_id: trial.config for trial in trials}
        self.work = {trial_id: work[trial_id] for trial_id in self.configs}
        self.standings = {standing.group: standing for standing in standings}
        self.places = {trial.trial_id: trial.place for trial in trials}
        self.console = console
        self.running: dict[str, Mapping[str, Any] | None] = {}
        self.ended: dict[str, str] = {}
        self.clock = time.monotonic()
        # Work that earlier runs did, which does not count for this run's pace.
        self.head_start: dict[str, int] = {}
        self.awaited: str | None = None
        self.warnings = set[str]()
        self.live: Live | None = None

    def __enter__(self) -> "SweepProgress":
        if self.console.is_terminal:
            self.live = Live(get_renderable=self._table, console=self.console, refresh_per_second=2)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.awaited = None
        if self.live:
            self.live.stop()

    def expect(self, place: str, work: int) -> None:
        """A trial is to come that is not known yet: a sample that follows from others."""
        self.work[place] = work

    def found(self, place: str, trial: Trial | None = None, work: int = 0) -> None:
        """The trial that was expected there is known, and its work; None: there is none to run."""
        self.work.pop(place, None)
        if trial is None and (standing := self.standings.get(place.rpartition(" ")[0])) is not None:
            standing.ended += 1
        if trial is not None:
            self.names[trial.trial_id] = self.describe(trial.config)
            self.configs[trial.trial_id] = trial.config
            self.places[trial.trial_id] = trial.place
            self.work[trial.trial_id] = work

    def waits(self, line: str | None) -> None:
        """What trials wait for now; None: nothing, or only for each other."""
        if line is not None and line != self.awaited and not self.live:
            self._say(line)
        self.awaited = line

    def warn(self, line: str) -> None:
        """Say something of a trial that may be true of many, once."""
        if line not in self.warnings:
            self.warnings.add(line)
            self._say(line, style="yellow")

    def started(self, trial_id: str) -> None:
        """A trial's process has begun."""
        self.running[trial_id] = None

    def epoch(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """A trial has finished an epoch."""
        if trial_id not in self.head_start:
            epochs_before = int(metrics["epoch"]) - 1
            per_epoch = work_done(metrics) // int(metrics["epoch"])
            self.head_start[trial_id] = epochs_before * per_epoch
        self.running[trial_id] = metrics
        if not self.live:
            config = self.configs[trial_id]
            unit = "" if config.budget.max_steps else "epoch "
            self._say(
                f"{self.names[trial_id]}: {unit}{_place(config, metrics)}, "
                f"train {metrics['train_loss']:.3f} / {metrics['train_accuracy']:.2%}, "
                f"validation {metrics['validation_loss']:.3f} / "
                f"{metrics['validation_accuracy']:.2%}, "
                f"{metrics['images_per_second']:,.0f} images/s, {self._left()}"
            )

    def end(
        self,
        trial_id: str,
        status: str,
        error: str | None,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """A trial has its row.

        Args:
            figures: What it reached, by the columns of validation; None: nothing.
        """
        self.running.pop(trial_id, None)
        self.ended[trial_id] = status
        place = self.places[trial_id]
        standing = self.standings.get(place.get("search_group", ""))
        if standing is not None:
            standing.add(place["sample"], status, (figures or {}).get(standing.objective))
        if error:
            self._say(f"{self.names[trial_id]}: {status}: {error}")
        elif not self.live:
            self._say(f"{self.names[trial_id]}: {status}, {self._left()}")
        if standing is not None and not self.live:
            self._say(words.standing(standing))

    def _say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, highlight=False, markup=False, soft_wrap=True)

    def _left(self) -> str:
        """How many trials are done, and an estimate of the time left."""
        done = self._done()
        count = f"{len(self.ended)} of {len(self.work)} trials done"
        remaining = sum(self.work.values()) - done
        new = done - sum(self.head_start.values())
        if new <= 0 or not remaining:
            return count
        seconds = (time.monotonic() - self.clock) * remaining / new
        return f"{count}, about {_duration(seconds)} left"

    def _done(self) -> int:
        """Images learned from so far; those that early stopping saves count as done."""
        under_way = sum(work_done(metrics) for metrics in self.running.values() if metrics)
        return under_way + sum(self.work[trial_id] for trial_id in self.ended)

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        table.add_column("trial")
        for heading in ("epoch", "images/s", "val loss", "val acc"):
            table.add_column(heading, justify="right")
        for trial_id, metrics in tuple(self.running.items()):
            config = self.configs[trial_id]
            if metrics is None:
                table.add_row(self.names[trial_id], _place(config, None), "–", "–", "–")
                continue
            table.add_row(
                self.names[trial_id],
                _place(config, metrics),
                f"{metrics['images_per_second']:,.0f}",
                f"{metrics['validation_loss']:.3f}",
                f"{metrics['validation_accuracy']:.2%}",
            )
        elapsed = _duration(time.monotonic() - self.clock)
        searches = standings_table(tuple(self.standings.values()))
        awaited = [] if self.awaited is None else [Text(self.awaited)]
        left = Text(f"{elapsed} elapsed, {self._left()}", style="dim")
        return Group(table, *searches, *awaited, left)


class ProgressCallback(tune.Callback):  # type: ignore[misc]
    """Forwards Tune's events to a `SweepProgress`, and has the row written of a trial that died.

    Args:
        progress: Gets the events.
        on_death: Writes the rows of trials that could not do so themselves, given the trials of a
            process that died and why; returns the reason of each in words, by its id.
        stop_if_asked: Called at every step of Tune's; raises KeyboardInterrupt after Ctrl-C.
        awaited: Called every second with how many of Tune's trials have not ended: what some of them
            wait for; None where no node can come.
    """

    def __init__(
        self,
        progress: SweepProgress,
        on_death: Callable[[Sequence[Trial], str], dict[str, str]],
        stop_if_asked: Callable[[], None],
        awaited: Callable[[int], str | None] | None = None,
    ) -> None:
        self.progress = progress
        self.on_death = on_death
        self.stop_if_asked = stop_if_asked
        self.awaited = awaited
        self.looked = -_LOOK_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks for a restore, which we never use."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        self.stop_if_asked()
        if self.awaited and trials and time.monotonic() - self.looked > _LOOK_SECONDS:
            self.progress.waits(self.awaited(sum(not trial.is_finished() for trial in trials)))
            self.looked = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._started_next(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        trial_id = trial_of(trial, result).trial_id
        if "status" in result:
            figures = {
                name: result[f"{BEST}{name}"] for name in OF_THE_BEST if f"{BEST}{name}" in result
            }
            self.progress.end(trial_id, result["status"], result["error"], figures)
            if WARNING in result:
                self.progress.warn(result[WARNING])
            self._started_next(trial)
        else:
            self.progress.epoch(trial_id, result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for trial_id, error in self.on_death(chain_of(trial), _error_text(trial)).items():
            self.progress.end(trial_id, "failed", error)

    def _started_next(self, trial: Any) -> None:
        """The first trial of a process that has not ended has begun."""
        for ours in chain_of(trial):
            if ours.trial_id not in self.progress.ended:
                self.progress.started(ours.trial_id)
                return


def _error_text(trial: Any) -> str:
    """A trial's errors as Tune wrote them on this machine. Its `get_error` reads the copy in the
    storage, which may be written only later."""
    path = Path(trial.error_file) if trial.error_file else None
    return path.read_text() if path is not None and path.exists() else ""
