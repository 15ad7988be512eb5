"""A sweep from a study file or from flags: flat YAML keys, checked types, one-line errors."""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from ssl_runner.config import (
    AXES,
    FIELDS,
    FILE_FIELDS,
    GROUP_OF,
    GROUPS,
    LISTS,
    SweepConfig,
    TrialConfig,
)
from ssl_runner.errors import InputError, did_you_mean, shown
from ssl_runner.search.domains import REAL_KINDS, WHOLE_KINDS, Domain, read_domain

FILE_KEYS = tuple(FILE_FIELDS)
SWEEP_KEYS = tuple(
    field.name for field in dataclasses.fields(SweepConfig) if field.name not in ("trial", "files")
)
TRIAL_KEYS = tuple(name for name in FIELDS if name not in AXES.values())
KEYS = SWEEP_KEYS + FILE_KEYS + TRIAL_KEYS


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _explain(error: ValidationError) -> str:
    """The first of pydantic's errors in one line."""
    first, cause = error.errors()[0], _cause(error)
    parts = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    if parts and parts[0] in (
        *GROUPS,
        "files",
    ):  # flat names are unique: the user need not know of groups
        parts = parts[1:]
    if isinstance(cause, ValueError) and not parts:
        return str(cause)
    place = ".".join(parts)
    return f"{place}: {_rule(error)}, got {shown(first['input'])}. See --help for what it takes."


def _cause(error: ValidationError) -> object:
    """What was raised by a check of ours, if the first of pydantic's errors is such a one."""
    return error.errors()[0].get("ctx", {}).get("error")


def _rule(error: ValidationError) -> str:
    """The rule that the first of pydantic's errors states."""
    cause = _cause(error)
    message = str(cause) if isinstance(cause, ValueError) else error.errors()[0]["msg"]
    return message[0].lower() + message[1:]


def _listed(value: object) -> str:
    """A value as a list: `[3]` for `3`."""
    return shown(value if isinstance(value, list) else [value])


def _elastic(trial: dict[str, object]) -> dict[str, object]:
    """`num_workers: [1, 3]` as the two settings it stands for."""
    workers = trial.get("num_workers")
    if not isinstance(workers, list | tuple):
        return trial
    if len(workers) == 1:
        return trial | {"num_workers": workers[0]}
    if len(workers) != 2:
        raise InputError(
            f"num_workers must be a number or two, the fewest and the most, got {shown(workers)}. "
            "Try [1, 2]."
        )
    return trial | {"min_workers": workers[0], "num_workers": workers[1]}


def _typed(where: str, name: str, values: Iterable[object]) -> tuple[Any, ...]:
    """Values of a setting, each of its type. Names that are unknown are left to `SweepConfig`.

    Raises:
        InputError: If one is of another type.
    """
    if name not in FIELDS:
        return tuple(values)
    typed = []
    kind: Any = FIELDS[name].type
    for value in values:
        try:
            typed.append(_adapter(kind).validate_python(value))
        except ValidationError as error:
            raise InputError(f"{where}: {name}: {_rule(error)}, got {shown(value)}.") from None
    return tuple(typed)


def _mapping(key: str, written: object, example: str) -> Mapping[str, object]:
    """A map of settings.

    Raises:
        InputError: If it is none.
    """
    if isinstance(written, Mapping):
        return {str(name): value for name, value in written.items()}
    raise InputError(f"{key} must be a map of settings, got {shown(written)}. Write {key}: {example}.")


def _grid(
    written: object, beside: Mapping[str, object], key: str = "grid"
) -> dict[str, tuple[Any, ...]]:
    """A study's grid, each value of its setting's type.

    Args:
        beside: Settings that it may not have.
        key: The study's key for it.

    Raises:
        InputError: If it is no map of lists, or has a setting that is beside it too.
    """
    grid = {}
    for name, values in _mapping(key, written, "{lr: [0.001, 0.003]}").items():
        if name in beside and name in FIELDS:
            raise InputError(f"{name} is given twice, in grid and beside it. Keep one.")
        if not isinstance(values, list | tuple):
            raise InputError(
                f"{key}: {name} must be a list, got {shown(values)}. Did you mean {_listed(values)}?"
            )
        grid[name] = _typed(key, name, values)
    return grid


def _grids(written: object) -> tuple[dict[str, tuple[Any, ...]], ...]:
    """A study's grids, one after another. What stands beside them is what the others keep.

    Raises:
        InputError: If they are no list of grids.
    """
    if not isinstance(written, list | tuple):
        raise InputError(
            f"grids must be a list of grids, got {shown(written)}. Did you mean {_listed(written)}?"
        )
    return tuple(_grid(each, {}, "grids") for each in written)


def _search(written: object) -> dict[str, Domain]:
    """A study's searched settings, each with its domain, of its setting's type.

    Raises:
        InputError: If it is no map of domains.
    """
    search = {}
    for name, domain in _mapping("search", written, "{lr: {log_uniform: [0.0001, 0.01]}}").items():
        if name not in FIELDS:
            search[name] = Domain("choice", ())  # unknown: refused by its name
            continue
        kind, values = read_domain(name, domain)
        is_range = kind in (*REAL_KINDS, *WHOLE_KINDS)
        if is_range and any(value is None or isinstance(value, bool) for value in values):
            raise InputError(f"search: {name}: {kind} must be of numbers, got {shown(values)}.")
        search[name] = Domain(kind, _typed("search", name, values))
    return search


def _unfolded(settings: Mapping[str, object]) -> dict[str, object]:
    """With the keys of a `dataset:` that is a mapping beside the others.

    Raises:
        InputError: If it has no path, or a key that is not about files, or one that is given twice.
    """
    dataset = settings.get("dataset")
    if not isinstance(dataset, Mapping):
        return dict(settings)
    if "path" not in dataset:
        raise InputError(
            f"dataset must have a path among its keys, got {shown(list(dataset))}. "
            "Write dataset: {path: labels.csv, image_dir: images}."
        )
    unfolded = dict(settings)
    for key, value in dataset.items():
        if key == "path":
            unfolded["dataset"] = value
        elif key not in FILE_KEYS:
            hint = did_you_mean(str(key), ("path", *FILE_KEYS))
            raise InputError(f"unknown key {shown(key)} of dataset. {hint}")
        elif key in settings:
            raise InputError(f"{key} is given twice, beside dataset and in it. Keep one.")
        else:
            unfolded[key] = value
    return unfolded


def sweep_from_settings(settings: Mapping[str, object]) -> SweepConfig:
    """A sweep from the flat keys of a study file or the command line.

    Args:
        settings: Any of `KEYS`; what is left out keeps its default.

    Raises:
        InputError: In one line: the key or value, the rule, the likely fix.
    """
    settings = _unfolded(settings)
    for key in settings:
        if key in AXES.values():
            plural = next(axis for axis, single in AXES.items() if single == key)
            if plural == "rounds":
                raise InputError(f"{key!r} follows from rounds here. Try rounds: [100, 300, 600]")
            raise InputError(f"{key!r} is a list here: {plural}: {_listed(settings[key])}")
        if key not in KEYS:
            raise InputError(f"unknown key {shown(key)}. {did_you_mean(str(key), KEYS)}")
    if settings.get("rounds") is not None and "label_fractions" in settings:
        raise InputError(
            f"label_fractions must be left out with rounds, got {shown(settings['label_fractions'])}. "
            "The rounds say how many labels there are."
        )
    nested: dict[str, object] = {key: settings[key] for key in SWEEP_KEYS if key in settings}
    for axis in LISTS:
        if axis in nested and not isinstance(nested[axis], list | tuple | None):
            raise InputError(
                f"{axis} must be a list, got {shown(nested[axis])}. "
                f"Did you mean {_listed(nested[axis])}?"
            )
    for key in (name for name in TRIAL_KEYS if name != "num_workers"):
        values = settings.get(key)
        if isinstance(values, list | tuple) and len(values) > 1:
            raise InputError(
                f"{key} takes one value here, got {_listed(values)}. Several are an axis: "
                f"grid: {{{key}: {_listed(values)}}}"
            )
    readers = {"grid": lambda value: _grid(value, settings), "grids": _grids, "search": _search}
    for key, read in readers.items():
        if nested.get(key) is not None:
            nested[key] = read(nested[key])
    try:
        trial = _elastic({key: settings[key] for key in TRIAL_KEYS if key in settings})
        grouped: dict[str, dict[str, object]] = {}
        for name, value in trial.items():
            grouped.setdefault(GROUP_OF[name], {})[name] = value
        nested["trial"] = _adapter(TrialConfig).validate_python(grouped)
        files = {key: settings[key] for key in FILE_KEYS if key in settings}
        if isinstance(files.get("image_size"), int):
            files["image_size"] = [files["image_size"]]
        nested["files"] = files
        sweep: SweepConfig = _adapter(SweepConfig).validate_python(nested)
    except ValidationError as error:
        raise InputError(_explain(error)) from None
    return sweep


class _StudyError(InputError):
    """Something invalid in a study's YAML, and its line."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(f"line {node.start_mark.line + 1}: {what}")


class _StrictLoader(yaml.SafeLoader):
    """Safe, and stricter than YAML: keys must be words, and a duplicate key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):  # as `!!map name` makes it
            raise _StudyError(node, f"{shown(node.value)} is not a map. Write key: value")
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _StudyError(key_node, f"a key must be a word, got {shown(key)}")
            if key in seen:
                raise _StudyError(key_node, f"duplicate key {shown(key)}. Keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except _StudyError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            # PyYAML leaves `2024-13-45` to datetime, and `!!bool maybe` to a dictionary.
            kind = node.tag.rpartition(":")[2]
            what = f"{shown(node.value)} is not a valid {kind}. Put it in quotes if it is text"
            raise _StudyError(node, what) from None


def read_yaml(text: str) -> object:
    """The value of a YAML text.

    Raises:
        InputError: If it is not valid YAML; one line says where and why.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{line}invalid YAML ({problem})") from None
    except RecursionError:
        raise InputError("nested too deeply") from None


def load_settings(path: Path) -> dict[str, object]:
    """The keys of a study file; its name by default is the file's.

    Raises:
        InputError: If it can't be read, isn't YAML, or isn't a list of `key: value` lines.
    """
    example = "Compare with experiments/label_fractions.yaml"
    try:
        loaded = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}). Is the path right?") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}). Is it a study?") from None
    except InputError as error:
        raise InputError(f"{path}: {error}. {example}") from None
    if not isinstance(loaded, dict):
        got = "nothing" if loaded is None else type(loaded).__name__
        raise InputError(f"{path}: a study must be lines of 'key: value', got {got}. {example}")
    settings: dict[str, object] = {"name": path.stem}
    return settings | loaded


def load_sweep(path: Path) -> SweepConfig:
    """A sweep from a study file. Raises InputError, with the file's name in it."""
    settings = load_settings(path)
    try:
        return sweep_from_settings(settings)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
