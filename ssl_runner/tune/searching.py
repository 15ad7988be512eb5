"""A searcher for Ray Tune that learns from the samples before: the groups of a search asked in turn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher

from ssl_runner.identity import Trial
from ssl_runner.tune.studies import GroupStudy, Outcome, Values


@dataclass(frozen=True)
class Suggestion:
    """A sample that is a trial to run.

    Attributes:
        group: Its group's name.
        number: Its number in the group, from 0.
        trial: Its trial.
    """

    group: str
    number: int
    trial: Trial


@dataclass(frozen=True)
class Search:
    """What `GroupedSearcher` needs to know of a sweep.

    Attributes:
        studies: The study of each group, by its name.
        samples: Samples of each group.
        trial_of: The trial of a group's sample.
        outcome_of: What a trial has come to, by its id; None: it has no row.
        may_start: Whether another sample of a group may be started.
        begin: Called with each suggestion that is to run: what Ray Tune gets as its config.
    """

    studies: Mapping[str, GroupStudy]
    samples: int
    trial_of: Callable[[str, Values], Trial]
    outcome_of: Callable[[str], Outcome | None]
    begin: Callable[[Suggestion], dict[str, Any]]
    may_start: Callable[[str], bool] = lambda group: True


class GroupedSearcher(Searcher):  # type: ignore[misc]
    """Gives each group its samples, in turn, so that each learns from as many of its own as possible.

    A suggestion that has a row is answered from it, one that is running when it has ended: neither
    runs twice.
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._search = search
        # The samples that wait for a trial to end, each its group and number, by our trial's id.
        self._running: dict[str, list[tuple[str, int]]] = {}
        self._of_tune: dict[str, str] = {}  # our trial's id, by Tune's
        # Samples that were answered before, but have no row: it was deleted, or is to be retried.
        self._missing = [
            (group, number, values)
            for group, study in search.studies.items()
            for number, values in study.known.items()
            if number < search.samples
            and search.outcome_of(search.trial_of(group, values).trial_id) is None
        ]

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Ray Tune's config, or `Searcher.FINISHED`."""
        while self._missing:
            group, number, values = self._missing.pop(0)
            trial = self._search.trial_of(group, values)
            if trial.trial_id not in self._running:
                return self._begin(trial_id, Suggestion(group, number, trial), [])
        while (wanting := self._next_group()) is not None:
            group = wanting
            number, values = self._search.studies[group].ask()
            trial = self._search.trial_of(group, values)
            if (running := self._running.get(trial.trial_id)) is not None:
                running.append((group, number))
            elif (outcome := self._search.outcome_of(trial.trial_id)) is not None:
                self._search.studies[group].tell(number, outcome)
            else:
                sample = [(group, number)]
                return self._begin(trial_id, Suggestion(group, number, trial), sample)
        return Searcher.FINISHED

    def _begin(
        self, tune_id: str, suggestion: Suggestion, samples: list[tuple[str, int]]
    ) -> dict[str, Any]:
        trial_id = suggestion.trial.trial_id
        self._running[trial_id] = samples
        self._of_tune[tune_id] = trial_id
        return self._search.begin(suggestion)

    def _next_group(self) -> str | None:
        """The group with the fewest samples so far of those that want another; samples of an earlier
        process come first."""
        wanting = [
            (not study.is_waiting, study.count, group)
            for group, study in self._search.studies.items()
            if study.is_waiting
            or (study.count < self._search.samples and self._search.may_start(group))
        ]
        order = list(self._search.studies)
        return min(wanting, key=lambda each: (*each[:2], order.index(each[2])))[2] if wanting else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Answer the samples of a trial that has ended, from its row."""
        ours = self._of_tune.pop(trial_id)
        samples, outcome = self._running.pop(ours), self._search.outcome_of(ours)
        if outcome is None and error:  # its process died, and its row is written only after this
            outcome = Outcome("failed")
        if outcome is None:  # its row could not be written: the same command asks for it again
            return
        for group, number in samples:
            self._search.studies[group].tell(number, outcome)

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the studies are saved by themselves, and Tune's own restore is never used."""
