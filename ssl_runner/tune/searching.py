"""A searcher for Ray Tune that learns from the samples before: the groups of a search asked in turn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ray.tune.search import Searcher

from ssl_runner.errors import InputError
from ssl_runner.identity import Trial
from ssl_runner.tune.studies import Outcome, Values


class Study(Protocol):
    """The samples of one group: `studies.GroupStudy`, or `drawn.DrawnStudy`."""

    known: dict[int, Values]
    asked: dict[int, Values]

    @property
    def is_waiting(self) -> bool:
        """Whether the next sample is one that an earlier process asked for."""

    def ask(self) -> tuple[int, Values]:
        """The next sample: its number, and the values of its settings."""

    def tell(self, number: int, outcome: Outcome) -> None:
        """Answer a sample."""


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
        seconds: Seconds of a group's trials after which none of its samples is started; None: no limit.
        trial_of: The trial of a sample, from its group, number and values; raises InputError where
            there is none.
        outcome_of: What a trial has come to, by its id; None: it has no row.
        begin: Called with each suggestion that is to run: what Ray Tune gets as its config.
        skip: Called with the group and number of each sample for which nothing is to run.
    """

    studies: Mapping[str, Study]
    samples: int
    seconds: float | None
    trial_of: Callable[[str, int, Values], Trial]
    outcome_of: Callable[[str], Outcome | None]
    begin: Callable[[Suggestion], dict[str, Any]]
    skip: Callable[[str, int], None]


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
        self._of_tune: dict[str, tuple[str, str]] = {}  # group and our trial's id, by Tune's id
        self._spent = dict.fromkeys(search.studies, 0.0)  # seconds of each group
        # Samples that were answered before, but have no row: it was deleted, or is to be retried.
        self._missing: list[Suggestion] = []
        self._next: Suggestion | None = None
        seen = set()
        for group, study in search.studies.items():
            for number, values in study.known.items():
                trial = self._trial_of(group, number, values)
                if trial is None or trial.trial_id in seen or number >= search.samples:
                    continue
                seen.add(trial.trial_id)
                if (outcome := search.outcome_of(trial.trial_id)) is None:
                    self._missing.append(Suggestion(group, number, trial))
                else:
                    self._spent[group] += outcome.seconds

    def has_next(self) -> bool:
        """Whether there is anything to run."""
        self._next = self._next or self._find()
        return self._next is not None

    def suggest(self, trial_id: str) -> Any:
        """The next trial as Ray Tune's config, or `Searcher.FINISHED`."""
        if not self.has_next():
            return Searcher.FINISHED
        assert self._next is not None
        suggestion, self._next = self._next, None
        self._of_tune[trial_id] = suggestion.group, suggestion.trial.trial_id
        return self._search.begin(suggestion)

    def _find(self) -> Suggestion | None:
        """The next trial to run, once all samples before it are answered that can be."""
        if self._missing:
            suggestion = self._missing.pop(0)
            self._running.setdefault(suggestion.trial.trial_id, [])
            return suggestion
        while (wanting := self._next_group()) is not None:
            group = wanting
            number, values = self._search.studies[group].ask()
            trial = self._trial_of(group, number, values)
            if trial is None:
                self._search.studies[group].tell(number, Outcome("failed"))
            elif trial.trial_id in self._running:
                self._running[trial.trial_id].append((group, number))
            elif (outcome := self._search.outcome_of(trial.trial_id)) is not None:
                self._search.studies[group].tell(number, outcome)
            else:
                self._running[trial.trial_id] = [(group, number)]
                return Suggestion(group, number, trial)
            self._search.skip(group, number)
        return None

    def _trial_of(self, group: str, number: int, values: Values) -> Trial | None:
        """A sample's trial; None where its values exclude each other."""
        try:
            return self._search.trial_of(group, number, values)
        except InputError:
            return None

    def _next_group(self) -> str | None:
        """The group with the fewest samples so far of those that want another; samples of an earlier
        process come first."""
        samples, limit = self._search.samples, self._search.seconds
        wanting = {
            group: (not study.is_waiting, len(study.asked))
            for group, study in self._search.studies.items()
            if study.is_waiting
            or (len(study.asked) < samples and (limit is None or self._spent[group] < limit))
        }
        return min(wanting, key=wanting.__getitem__) if wanting else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Answer the samples of a trial that has ended, from its row."""
        group, ours = self._of_tune.pop(trial_id)
        samples, outcome = self._running.pop(ours), self._search.outcome_of(ours)
        if outcome is None and error:  # its process died, and its row is written only after this
            outcome = Outcome("failed")
        if outcome is None:  # its row could not be written: the same command asks for it again
            return
        self._spent[group] += outcome.seconds
        for of, number in samples:
            self._search.studies[of].tell(number, outcome)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its searcher for a restore, which we never use."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the studies save themselves."""
