"""A group's samples from the random searcher, where only those are to run that there is time for."""

import itertools
from collections.abc import Callable, Mapping

from ssl_runner.search.domains import Domain
from ssl_runner.search.sampling import sample_of
from ssl_runner.tune.studies import Outcome, Values


class DrawnStudy:
    """The samples of one group in the order of their numbers; what came of them changes none.

    Args:
        search: What each setting is drawn from.
        search_seed: Fixes the samples.
        samples: How many there are at most.
        has_row: Whether a sample's trial has a row.

    Attributes:
        known: The values of each sample of earlier processes that has a row, by its number.
        asked: Those of each that was asked for, by this process or an earlier one.
    """

    is_waiting = False

    def __init__(
        self,
        search: Mapping[str, Domain],
        search_seed: int,
        samples: int,
        has_row: Callable[[int, Values], bool],
    ) -> None:
        self._search, self._seed = search, search_seed
        drawn = {number: sample_of(search, search_seed, number) for number in range(samples)}
        self.known: dict[int, Values] = {n: each for n, each in drawn.items() if has_row(n, each)}
        self.asked: dict[int, Values] = dict(self.known)

    def ask(self) -> tuple[int, Values]:
        """The first sample that was not asked for: its number, and the values of its settings."""
        number = next(n for n in itertools.count() if n not in self.asked)
        self.asked[number] = sample_of(self._search, self._seed, number)
        return number, self.asked[number]

    def tell(self, number: int, outcome: Outcome) -> None:
        """Nothing: a drawn sample depends on no other."""
