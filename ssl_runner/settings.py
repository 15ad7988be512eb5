"""What a setting is: its default, its meaning, its range, and its neutral value.

The groups of settings are frozen dataclasses beside the code that uses them (`datasets/settings.py`,
`train/settings.py`, …). To add a setting, add a field made by `setting`: flags, study files, checks,
the trial's identity and the table's columns follow from it. Nothing here needs NumPy, torch or Ray.
"""

import dataclasses
import functools
import math
import re
import types
import typing
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from ssl_runner.errors import did_you_mean, require

BELOW_1 = math.nextafter(1, 0)

_LARGEST = 1 << 63


def _number(value: object) -> object:
    """YAML's `yes` must not become 1."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return value


def _whole(value: object) -> object:
    """Nor must 2.0 workers silently become 2."""
    if isinstance(value, float):
        raise ValueError("must be a whole number")
    return _number(value)


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be text, in quotes if it looks like another type")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, BeforeValidator(_text)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """The arguments of `setting`, kept in the field's metadata.

    Attributes:
        help: Meaning and unit, in a line.
        column: The same for the table's column.
        neutral: The value that leaves a trial as it was before the setting existed.
        decides: Whether it affects the outcome; a setting that only says where a trial runs does not.
        least, most, above, below: The range; None: no bound on that side.
        fix: The likely fix when the value is out of range.
    """

    help: str
    column: str
    neutral: Any
    decides: bool
    least: float | None
    most: float | None
    above: float | None
    below: float | None
    fix: str


def setting(
    default: Any,
    help: str,
    *,
    column: str = "",
    neutral: Any = dataclasses.MISSING,
    decides: bool = True,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    fix: str = "",
) -> Any:
    """A field of a group of settings; see `Rule`.

    The neutral value is the first default that the setting had. Pass it when the default changes,
    so that earlier trials keep their ids.
    """
    rule = Rule(
        help=help,
        column=column or help,
        neutral=default if neutral is dataclasses.MISSING else neutral,
        decides=decides,
        least=least,
        most=most,
        above=above,
        below=below,
        fix=fix or f"The default is {default}.",
    )
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata={"rule": rule})
    return dataclasses.field(default=default, metadata={"rule": rule})


def rule_of(field: "dataclasses.Field[Any]") -> Rule:
    """The `Rule` of a field."""
    rule: Rule = field.metadata["rule"]
    return rule


def without_none(kind: Any) -> Any:
    """A field's type without its `| None`."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(kind) if part is not types.NoneType)
    return kind


def is_real(field: "dataclasses.Field[Any]") -> bool:
    """Whether a setting is a real number, for which 1 and 1.0 are the same."""
    return bool(without_none(field.type) == Real)


def check(group: Any) -> None:
    """Check every field of a group against its range, or against its type's list of values.

    Raises:
        InputError: For the first that is out of range.
    """
    for field in dataclasses.fields(group):
        if "rule" in field.metadata:
            check_value(field, getattr(group, field.name))


@functools.cache
def _choices(field: "dataclasses.Field[Any]") -> tuple[str, ...]:
    """The values of a setting whose type lists them; empty for any other."""
    kind = without_none(field.type)
    return typing.get_args(kind) if typing.get_origin(kind) is Literal else ()


def check_value(field: "dataclasses.Field[Any]", value: Any) -> None:
    """Check one value of a setting by itself.

    Raises:
        InputError: If it is out of range.
    """
    rule, known = rule_of(field), _choices(field)
    if value is None:
        return
    if known and value not in known:
        require(False, field.name, "one of " + ", ".join(known), value, f"Try {known[0]}.")
    if isinstance(value, tuple | str | dict):
        return
    if not _is_within(value, rule):  # no words before they are needed: a search checks thousands
        require(False, field.name, _range(rule), value, rule.fix)
    if isinstance(value, int):
        fix = "The table holds no larger number."
        require(value < _LARGEST, field.name, "less than 2**63", value, fix)


def _is_within(value: float, rule: Rule) -> bool:
    return (
        (rule.least is None or value >= rule.least)
        and (rule.most is None or value <= rule.most)
        and (rule.above is None or value > rule.above)
        and (rule.below is None or value < rule.below)
    )


def _range(rule: Rule) -> str:
    """The range in words: `at least 1`, `in [0, 1)`."""
    low = rule.above if rule.least is None else rule.least
    high = rule.below if rule.most is None else rule.most
    if low is not None and high is not None:
        left, right = "(" if rule.least is None else "[", ")" if rule.most is None else "]"
        return f"in {left}{low}, {high}{right}"
    if low is not None:
        return f"more than {low}" if rule.least is None else f"at least {low}"
    return f"less than {high}" if rule.most is None else f"at most {high}"


def taken_alone(group: Any, names: typing.Iterable[str], taken: typing.Mapping[str, Any]) -> Any:
    """A group of settings resolved: of the settings named, those that are taken have a value, their
    default where none is given, and the others have none."""
    written: dict[str, Any] = dict.fromkeys(names)
    for name, default in taken.items():
        given = getattr(group, name)
        written[name] = default if given is None else given
    return dataclasses.replace(group, **written)


_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_OF_TORCHVISION = re.compile(r"torchvision:\w+")


def is_torchvision(value: str) -> bool:
    """Whether a text names something of torchvision's, `torchvision:name`: no import path."""
    return _OF_TORCHVISION.fullmatch(value) is not None


def is_import_path(value: str) -> bool:
    """Whether a text is of the form `package.module:Name`, and so names a user's own code."""
    return _IMPORT_PATH.fullmatch(value) is not None and not is_torchvision(value)


def require_known(name: str, value: str, known: typing.Iterable[str]) -> None:
    """Refuse a value that is neither a built-in name nor an import path, `package.module:Name`."""
    names = tuple(known)
    rule = "a known name or an import path such as package.module:Name"
    if not (value in names or is_import_path(value)):
        require(False, name, rule, value, did_you_mean(value, names))
