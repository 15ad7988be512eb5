"""Natural order: numbers inside names compare as numbers."""

import re
from collections.abc import Iterable

_NUMBERS = re.compile("([0-9]+)")

Key = tuple[tuple[object, ...], str]


def natural_key(text: str) -> Key:
    """A key to sort by, in which "class 2" is before "class 10".

    Upper and lower case count only between names that are otherwise equal, and so do leading zeros.
    """
    pieces: list[object] = _NUMBERS.split(text.casefold())
    # The odd pieces are numbers. A longer one without leading zeros is larger; Python's own int()
    # refuses more than 4300 digits.
    for at in range(1, len(pieces), 2):
        digits = str(pieces[at]).lstrip("0")
        pieces[at] = (len(digits), digits)
    return tuple(pieces), text


def natural_order(names: Iterable[str]) -> list[str]:
    """The names in natural order."""
    return sorted(names, key=natural_key)
