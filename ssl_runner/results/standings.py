"""How far the searches of a sweep are: the best so far of each group, and what is left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssl_runner.metrics import is_share
from ssl_runner.results.search_history import searches


@dataclass
class Standing:
    """How far the search of one group is.

    Attributes:
        group: Its name.
        samples: How many samples it gets.
        objective: The column of the figure that it is for.
        ended: How many of its samples have a row.
        best: The best figure of those that finished; None: none has.
        best_sample: The number of that sample.
    """

    group: str
    samples: int
    objective: str
    ended: int = 0
    best: float | None = None
    best_sample: int | None = None

    def add(self, sample: int, status: str, value: float | None) -> None:
        """A sample has its row.

        Args:
            sample: Its number.
            status: How it ended.
            value: The figure; None where it has none.
        """
        self.ended += 1
        if status != "finished" or value is None or value != value:
            return
        if self.best is None or (value > self.best if is_share(self.objective) else value < self.best):
            self.best, self.best_sample = value, sample

    def add_row(self, row: Mapping[Any, Any]) -> None:
        """The same of a row as in `results/trials`."""
        value = row[self.objective]
        self.add(int(row["sample"]), row["status"], None if pd.isna(value) else float(value))


def standings(trials: pd.DataFrame) -> list[Standing]:
    """How far each search is by its rows. A group without a row is not known here.

    Args:
        trials: Rows as in `results/trials`.
    """
    found = []
    for one in searches(trials):
        standing = Standing(one.name, one.record["samples"], one.objective)
        for row in one.samples.to_dict("records"):
            standing.add_row(row)
        found.append(standing)
    return found
