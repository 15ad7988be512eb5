"""Samples that are not known beforehand: they follow from those before, or from the time that is left.

Between a sweep and the searcher that Ray asks.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ssl_runner.config import Sample, SweepConfig, short_hash
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial
from ssl_runner.results import ResultsFolder
from ssl_runner.storage import is_local
from ssl_runner.tune.drawn import DrawnStudy
from ssl_runner.tune.searching import GroupedSearcher, Search, Study, Suggestion
from ssl_runner.tune.stages import sample_trials
from ssl_runner.tune.studies import GroupStudy, Outcome, Values, open_journal


class AdaptiveSearch:
    """The samples of a sweep's search, from its studies beside the results.

    Args:
        sweep: The sweep, as it suits the data.
        dataset: What its trials are trained on.
        results: Where their rows go.

    Raises:
        InputError: If the results are in a cloud, or the studies' file is something else.
    """

    def __init__(self, sweep: SweepConfig, dataset: ImageDataset, results: ResultsFolder) -> None:
        if sweep.searcher != "random" and not is_local(results.filesystem):
            raise InputError(
                f"--results must be a folder on a disk with searcher {sweep.searcher}, got "
                f"{results.location!r}: its studies are appended to line by line, which a cloud can't. "
                "Copy the results there afterwards, or search with --searcher random."
            )
        self.sweep, self.dataset, self.results = sweep, dataset, results
        self.groups = sweep.groups(dataset.has_unlabeled)
        self.journal = Path(results.root, "search", f"{sweep.name}.journal")

    @cached_property
    def studies(self) -> Mapping[str, Study]:
        """The study of each group."""
        return self._drawn() if self.sweep.searcher == "random" else self._journaled()

    def _drawn(self) -> dict[str, Study]:
        """Those of the random searcher."""

        def study_of(group: str) -> DrawnStudy:
            def has_row(number: int, values: Values) -> bool:
                return self._outcome_of(self._trial_of(group, number, values).trial_id) is not None

            searched = self.sweep.searched_by(self.groups[group])
            return DrawnStudy(searched, self.sweep.search_seed, self._samples, has_row)

        return {group: study_of(group) for group in self.groups}

    def _journaled(self) -> dict[str, Study]:
        """Those of a searcher that learns. A study's name has all that decides which samples are the
        same: settings, data, own code, domains, objective and seed."""
        storage = open_journal(self.journal)
        made: dict[str, Study] = {}
        for group, base in self.groups.items():
            searched = self.sweep.searched_by(base)
            first = {name: domain.values[0] for name, domain in searched.items()}
            domains = {name: domain.plain() for name, domain in searched.items()}
            seed, objective = self.sweep.search_seed, self.sweep.objective
            key = short_hash([self._trial_of(group, 0, first).trial_id, domains, objective, seed])
            made[group] = GroupStudy(f"{group} {key}", searched, objective, storage, seed)
        return made

    def forget(self) -> None:
        """Delete the studies: the search starts over."""
        self.journal.unlink(missing_ok=True)
        self.__dict__.pop("studies", None)

    def trials(self) -> list[Trial]:
        """The trials of all samples so far."""
        return self._trials(
            Sample(group, number, self.sweep.with_sample(self.groups[group], values))
            for group, study in self.studies.items()
            for number, values in study.asked.items()
            if number < self._samples and self._is_possible(group, values)
        )

    def probes(self) -> list[Trial]:
        """Trials at the ends of each searched setting's range, the others as they stand: what is wrong
        with one of them is to be said before anything runs."""
        samples = []
        for group, base in self.groups.items():
            ends = [
                {name: value}
                for name, domain in self.sweep.searched_by(base).items()
                for value in dict.fromkeys(domain.values)
            ]
            samples += [Sample(group, 0, self.sweep.with_sample(base, each)) for each in (ends or [{}])]
        return self._trials(samples)

    def left(self) -> list[tuple[str, int]]:
        """The samples that are not answered, at most so many: each its group and number."""
        return [
            (group, number)
            for group, study in self.studies.items()
            for number in range(self._samples)
            if number not in study.known
        ]

    def searcher(
        self, begin: Callable[[Suggestion], dict[str, Any]], skip: Callable[[str, int], None]
    ) -> GroupedSearcher:
        """What Ray Tune asks; the arguments are those of `Search`."""
        return GroupedSearcher(
            Search(
                studies=self.studies,
                samples=self._samples,
                seconds=self.sweep.search_seconds,
                trial_of=self._trial_of,
                outcome_of=self._outcome_of,
                begin=begin,
                skip=skip,
            )
        )

    @property
    def _samples(self) -> int:
        assert self.sweep.samples is not None
        return self.sweep.samples

    def _trials(self, samples: Any) -> list[Trial]:
        return sample_trials(self.sweep, self.dataset, list(samples))

    def _trial_of(self, group: str, number: int, values: Values) -> Trial:
        config = self.sweep.with_sample(self.groups[group], values)
        (trial,) = self._trials([Sample(group, number, config)])
        return trial

    def _is_possible(self, group: str, values: Values) -> bool:
        try:
            self.sweep.with_sample(self.groups[group], values)
        except InputError:
            return False
        return True

    def _outcome_of(self, trial_id: str) -> Outcome | None:
        row = self.results.outcome(self.sweep.name, trial_id)
        if row is None:
            return None
        column = f"validation_{self.sweep.objective}"
        return Outcome(
            status=row["status"],
            value=row[column],
            rungs=[(rung["steps"], rung[column]) for rung in row["rungs"] or ()],
            seconds=row["seconds"] or 0.0,
        )
