"""What a searched setting may be: a range, uniform or uniform in the logarithm, or a choice.

In a study a domain is a map of one key, such as `{log_uniform: [0.0001, 0.01]}`.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl_runner.errors import InputError, did_you_mean, require, shown

Value = float | int | bool | str | None

REAL_KINDS = ("uniform", "log_uniform")
WHOLE_KINDS = ("int_uniform", "log_int_uniform")
KINDS = (*REAL_KINDS, *WHOLE_KINDS, "choice")
"""The domains by name; all but `choice` are ranges, whose two ends belong to them."""

_DIGITS = 6
_EXAMPLE = "Write lr: {log_uniform: [0.0001, 0.01]}."


@dataclass(frozen=True)
class Domain:
    """What a searched setting may be.

    Attributes:
        kind: One of `KINDS`.
        values: The lowest and the highest value of a range, or each value of a choice.
    """

    kind: str
    values: tuple[Value, ...]

    def check(self, name: str) -> None:
        """Check that it can be drawn from.

        Args:
            name: The setting's.

        Raises:
            InputError: If its kind is unknown, its ends are swapped, or there is nothing to draw.
        """
        if self.kind not in KINDS:
            hint = did_you_mean(str(self.kind), KINDS)
            raise InputError(f"search: {name} has the unknown domain {shown(self.kind)}. {hint}")
        place, values = f"search: {name}: {self.kind}", list(self.values)
        if self.kind == "choice":
            require(len(values) > 0, place, "a list of at least one", values, "Name the values.")
            (value, times), *_ = Counter(self.values).most_common(1)
            require(times == 1, place, "without repetition", value, "Name it once.")
            return
        rule = "two numbers, the lowest and the highest"
        numbers = self._numbers()
        require(len(values) == len(numbers) == 2, place, rule, values, _EXAMPLE)
        low, high = numbers
        fix = f"Did you mean {[high, low]}?" if low > high else "For one value, leave it out."
        require(low < high, place, "rising", values, fix)
        if self.kind in WHOLE_KINDS:
            are_whole = all(isinstance(value, int) for value in numbers)
            require(are_whole, place, "whole numbers", values, "Or take uniform.")
        if self.kind.startswith("log"):
            fix = "A logarithm needs a lowest value above 0."
            require(low > 0, place, "of numbers above 0", values, fix)

    def draw(self, u: float) -> Value:
        """The value at a place in [0, 1): equal places give equal values in every process.

        A real number has six significant digits, so that ids, study files and tables agree on it.
        """
        if self.kind == "choice":
            return self.values[min(int(u * len(self.values)), len(self.values) - 1)]
        first, last = low, high = self._numbers()
        if self.kind in WHOLE_KINDS:  # each whole number is as wide as 1
            low, high = low - 0.5, high + 0.5
        if self.kind.startswith("log"):
            drawn = math.exp(math.log(low) + u * (math.log(high) - math.log(low)))
        else:
            drawn = low + u * (high - low)
        if self.kind in WHOLE_KINDS:
            return min(max(math.floor(drawn + 0.5), int(first)), int(last))
        return min(max(canonical(drawn), low), high)

    def plain(self) -> dict[str, list[Value]]:
        """As a study file has it."""
        return {self.kind: list(self.values)}

    def _numbers(self) -> list[float]:
        """Its values that are finite numbers, which all of a range's are."""
        return [
            value
            for value in self.values
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        ]


def canonical(drawn: float) -> float:
    """A drawn number with six significant digits."""
    return float(f"{drawn:.{_DIGITS}g}")


def read_domain(name: str, written: object) -> tuple[str, list[Any]]:
    """A domain's kind and its values as a study has them, of whatever type.

    Args:
        name: The setting's.

    Raises:
        InputError: If it is not a map of one known key to a list.
    """
    if isinstance(written, list | tuple):
        raise InputError(
            f"search: {name} must be a domain, got {shown(written)}. "
            f"Did you mean {{choice: {shown(list(written))}}}?"
        )
    if not isinstance(written, Mapping) or len(written) != 1:
        raise InputError(f"search: {name} must be one domain, got {shown(written)}. {_EXAMPLE}")
    ((kind, values),) = written.items()
    if kind not in KINDS:
        hint = did_you_mean(str(kind), KINDS)
        raise InputError(f"search: {name} has the unknown domain {shown(kind)}. {hint}")
    if not isinstance(values, list | tuple):
        raise InputError(
            f"search: {name}: {kind} must be a list, got {shown(values)}. Write {{{kind}: [...]}}."
        )
    return str(kind), list(values)
