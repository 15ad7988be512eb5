"""Invalid input: the error that the user sees, and how its parts are worded."""

import difflib
import reprlib
from collections.abc import Iterable


class InputError(ValueError):
    """Invalid user input. The message is one line: the value, the rule, the fix.

    A command exits with this line and code 2. Any other error is a bug and keeps its traceback.
    """


class DataError(InputError):
    """The data can't be loaded, for a reason that the user can fix."""


class Described(str):
    """A text that an error quotes verbatim, without quotation marks."""

    __slots__ = ()


def require(kept: bool, name: str, rule: str, value: object, fix: str) -> None:
    """Raise an `InputError` unless a rule holds.

    Args:
        kept: Whether it holds.
        name: Name of the value.
        rule: The rule, after "must be".
        value: The value.
        fix: The likely fix, a sentence.
    """
    if not kept:
        raise InputError(f"{name} must be {rule}, got {shown(value)}. {fix}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A closing sentence for an error about an unknown name: the nearest one, or all of them."""
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1)
    return f"Did you mean {lower[near[0]]}?" if near else f"Known: {', '.join(lower.values())}."


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlist = _short.maxtuple = 10
_short.maxlevel = 3


def shown(value: object) -> str:
    """A value as an error quotes it: in one line, and truncated if it is long."""
    if isinstance(value, Described):
        return value
    try:
        return _short.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a very long number"
