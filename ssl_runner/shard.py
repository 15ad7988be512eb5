"""A share of a sweep's trials, for one of several drivers."""

import re
from dataclasses import dataclass

from ssl_runner.config import TrialConfig
from ssl_runner.datasets.settings import budgets_text
from ssl_runner.errors import InputError


@dataclass(frozen=True)
class Shard:
    """Which of a sweep's shards one driver runs.

    Attributes:
        number: From 1.
        of: How many there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `2/4`.

        Raises:
            InputError: If it is no such thing.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(
                f"--shard must be i/n with i from 1 to n, got {text!r}. Try 1/4 for the first of four."
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def holds(self, config: TrialConfig) -> bool:
        """Whether it runs a trial. The trial's settings alone decide, whatever other trials there are
        and wherever the data; rounds stay with those that they follow from."""
        if config.data.budgets:
            config = config.replace(label_budgets=budgets_text(config.data.budgets[:1]))
        return int(config.settings_id, 16) % self.of == self.number - 1


_BETWEEN = "~"
"""Between a sweep's name, which can't hold it, and its shard, in the name of a lock."""


def lock_name(sweep: str, shard: Shard | None) -> str:
    """Name of the lock of a sweep, or of a shard of it."""
    return sweep if shard is None else f"{sweep}{_BETWEEN}{shard.number}of{shard.of}"


def sweep_of_lock(name: str) -> str:
    """The sweep of a lock."""
    return name.partition(_BETWEEN)[0]


def excludes(name: str, sweep: str, shard: Shard | None) -> bool:
    """Whether a lock that is held excludes running a sweep or a shard of it; not its own lock."""
    of_sweep, is_sharded, of_shard = name.partition(_BETWEEN)
    if of_sweep != sweep or name == lock_name(sweep, shard):
        return False
    return shard is None or not is_sharded or not of_shard.endswith(f"of{shard.of}")
