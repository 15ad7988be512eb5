"""The flags that `ssl_runner.tune` and `ssl_runner.train` share, and how a command fails.

Nothing here needs torch or Ray, so that --help and a refused flag answer at once.
"""

import argparse
import dataclasses
import difflib
import os
import signal
import sys
import threading
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ssl_runner.config import AXES, FIELDS, FILE_FIELDS, OF_ROUNDS, SEARCH_KEYS, SweepConfig
from ssl_runner.errors import InputError
from ssl_runner.settings import Text, rule_of, without_none
from ssl_runner.shard import Shard
from ssl_runner.study import (
    KEYS,
    TRIAL_KEYS,
    load_settings,
    load_sweep,
    read_yaml,
    sweep_from_settings,
)

BAD_INPUT = 2
"""Exit code for invalid user input; 1 is for failed trials."""

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

LOGGERS = ("tensorboard", "mlflow", "wandb")

# What `--smoke` changes; experiments/smoke.yaml says the same.
SMOKE: dict[str, object] = {
    "name": "smoke",
    "label_fractions": [0.1],
    "subset": 6000,
    "epochs": 2,
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """What the command line asks for.

    Attributes:
        sweep: What to run: the study file's settings, with the flags over them.
        results: Folder or URI of the results.
        data_dir: Folder of the data set's files; None: the usual places.
        address: Address of a Ray cluster; None: a local one.
        yes: Whether to start without asking, however many trials there are.
        fresh: Whether to delete the earlier results of these trials first.
        retry_failed: Whether to retry failed trials.
        log: Loggers that get the epochs too: names of `LOGGERS`.
        dry_run: Whether to only print what would run.
        shard: Which share of the trials to run; None: all of them.
        verbose: Whether to show Ray's own output.
    """

    sweep: SweepConfig
    results: str = "results"
    data_dir: Path | None = None
    address: str | None = None
    fresh: bool = False
    yes: bool = False
    retry_failed: bool = False
    log: tuple[str, ...] = ("tensorboard",)
    dry_run: bool = False
    shard: Shard | None = None
    verbose: bool = False


class Parser(argparse.ArgumentParser):
    """Reports errors in one line, with the nearest known flag."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message}. See --help.")

    def parse_known(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, refusing unknown flags with a suggestion."""
        parsed, unknown = self.parse_known_args(arguments)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown[0].split("=")[0], flags, n=1)
            hint = f"Did you mean {near[0]}?" if near else "See --help."
            what = "flag" if unknown[0].startswith("-") else "argument"
            fail(f"unknown {what} {unknown[0]!r}. {hint}")
        return parsed


def fail(message: str) -> NoReturn:
    """Exit because of invalid input: one line, exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(BAD_INPUT)


def check_free(output: Path, force: bool, flag: str = "--output") -> None:
    """Refuse to write over a file, unless that is asked for.

    Raises:
        InputError: If there is one.
    """
    if output.exists() and not force:
        raise InputError(f"{flag} must not exist yet, got {str(output)!r}. Add --force to replace it.")


def write_output(output: Path, content: bytes, flag: str = "--output") -> None:
    """Write a file that a flag names, whole.

    Raises:
        InputError: If it can't be written.
    """
    from pyarrow.fs import LocalFileSystem

    from ssl_runner.storage import write_whole

    try:
        write_whole(LocalFileSystem(), str(output.absolute()), content)
    except OSError as error:
        raise InputError(
            f"{flag} must be a writable path, got {str(output)!r} ({error.strerror}). Choose another."
        ) from None


_interrupted = threading.Event()


def _stop(*_: object) -> None:
    """The first Ctrl-C: stop in good order, unless a second one follows."""
    _interrupted.set()
    signal.signal(signal.SIGINT, _stop_now)
    raise KeyboardInterrupt


def stop_if_asked() -> None:
    """Raise KeyboardInterrupt again, if another library's code lost the first one."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _stop_now(*_: object) -> None:
    """The second Ctrl-C: exit at once. Ray's processes end with this one."""
    os.write(2, b"stopped at once; the same command resumes from here\n")
    os._exit(INTERRUPTED)


def run_main(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function; invalid input becomes one line and exit code 2."""
    usual = signal.signal(signal.SIGINT, _stop)
    try:
        code = main()
        signal.signal(signal.SIGINT, usual)
    except InputError as error:
        fail(str(error))
    except OSError as error:
        from ssl_runner.object_store import said_of  # half a second of imports, only if needed

        if (line := said_of(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        code = 1  # it did answer when the command began
    except KeyboardInterrupt:
        print("stopped; the same command resumes from here", file=sys.stderr)
        code = INTERRUPTED
    sys.stdout.flush()
    raise SystemExit(code)


def _default_text(default: Any) -> str:
    if default is None or default is dataclasses.MISSING:
        return ""
    values = default if isinstance(default, tuple) else (default,)
    return f" (default: {' '.join(str(value) for value in values)})"


def _add_flag(
    group: argparse._ArgumentGroup,
    name: str,
    field: dataclasses.Field[Any],
    default: Any,
    several: bool = False,
) -> None:
    """A flag for a setting. Its text is read as in a study file.

    Args:
        several: Whether it takes several values, which are then an axis of the grid.
    """
    kind = without_none(field.type)
    is_list = typing.get_origin(kind) is tuple
    item = typing.get_args(kind)[0] if is_list else kind
    arity: dict[str, Any] = {}
    if is_list or name == "num_workers":
        arity = {"nargs": "+"}
    elif item is bool:  # the flag alone is true
        arity = {"nargs": "*"} if several else {"nargs": "?", "const": True}
    elif several:
        arity = {"nargs": "+"}
    group.add_argument(
        "--" + name.replace("_", "-"),
        dest=name,
        type=str if item is Text else _read,
        **arity,
        metavar=name.upper().rstrip("S") if is_list else name.upper(),
        default=argparse.SUPPRESS,
        help=(rule_of(field).help + _default_text(default)).replace("%", "%%"),
    )


def add_file_flags(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting of how a data set's files are read."""
    group = parser.add_argument_group("the data set's files, where it is a table or a folder")
    for name, field in FILE_FIELDS.items():
        _add_flag(group, name, field, field.default)


def add_setting_flags(parser: argparse.ArgumentParser, title: str, names: Sequence[str]) -> None:
    """A flag for each of some settings of a trial; what is not given is left out."""
    group = parser.add_argument_group(title)
    for name in names:
        _add_flag(group, name, FIELDS[name], FIELDS[name].default)


class _OfSeveral(argparse.Action):
    """A flag of the main command that a command for one trial refuses with the reason."""

    def __call__(self, *arguments: Any) -> NoReturn:
        fail(f"{arguments[-1]} makes several trials, one after another. Use python -m ssl_runner.tune.")


def _parser(prog: str, description: str, single: bool) -> Parser:
    parser = Parser(
        prog=prog,
        description=description,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=100),
    )
    if not single:
        parser.add_argument("study", nargs="?", type=Path, help="study file; flags override it")
    study = parser.add_argument_group("the trial" if single else "the study")
    sweep_fields = {field.name: field for field in dataclasses.fields(SweepConfig)}
    left_out = {"trial", "files"}
    if single:
        left_out |= {
            "max_concurrent",
            "configs",
            "question",
            "full_methods",
            "grid",
            "grids",
            *SEARCH_KEYS,
            *OF_ROUNDS,
        }
        for name in (*OF_ROUNDS, *(AXES[axis] for axis in OF_ROUNDS)):
            flag = "--" + name.replace("_", "-")
            study.add_argument(
                flag, nargs="*", action=_OfSeveral, help=argparse.SUPPRESS, default=argparse.SUPPRESS
            )
    for name, field in sweep_fields.items():
        if name in AXES and single and name not in left_out:
            single_field = FIELDS[AXES[name]]
            # No split seeds: the trial's seed is its split seed.
            default = None if field.default is None else single_field.default
            _add_flag(study, single_field.name, single_field, default)
        elif name not in left_out:
            _add_flag(study, name, field, field.default)
    for name, field in FIELDS.items():
        if name not in AXES.values():
            _add_flag(study, name, field, field.default, several=not single)
    add_file_flags(parser)
    run = parser.add_argument_group("the run")
    run.add_argument("--results", default="results", help="folder or URI of the results")
    run.add_argument(
        "--data-dir", type=Path, help="folder of the data set's files (or SSL_RUNNER_DATA)"
    )
    run.add_argument(
        "--fresh", action="store_true", help="delete the earlier results of these trials first"
    )
    run.add_argument(
        "--smoke",
        action="store_true",
        help="a small subset, 2 epochs, full and 10 %%: half a minute",
    )
    run.add_argument("--dry-run", action="store_true", help="only print what would run")
    if not single:
        run.add_argument("--yes", action="store_true", help="start without asking, however many trials")
        run.add_argument("--retry-failed", action="store_true", help="retry failed trials")
        run.add_argument(
            "--log",
            nargs="*",
            default=["tensorboard"],
            choices=LOGGERS,
            help="loggers that get the epochs too; no name: none (default: tensorboard)",
        )
        run.add_argument(
            "--address",
            default=os.environ.get("RAY_ADDRESS") or None,
            help="Ray cluster, host:port or auto (or RAY_ADDRESS); without it, start a local one",
        )
        run.add_argument(
            "--shard",
            metavar="I/N",
            help="run the I-th of N shares of the trials, beside other drivers that run the others",
        )
        run.add_argument("--verbose", action="store_true", help="show Ray's own output")
    return parser


def _read(value: str) -> object:
    """A flag's text, read as in a study file."""
    try:
        return read_yaml(value)
    except InputError:
        return value


def parse(prog: str, description: str, arguments: Sequence[str], single: bool = False) -> Command:
    """Read a command line.

    Args:
        prog: The command's name, for its help.
        description: A line about it, for its help.
        arguments: The command line without the program.
        single: Whether it runs one trial: `--seed 0` in place of `--seeds 0 1`, and no study file.

    Raises:
        SystemExit: After --help (0) and for unknown flags (2).
        InputError: For invalid values; the message names value, rule and fix.
    """
    given = vars(_parser(prog, description, single).parse_known(arguments))
    if not single:
        _take_study(given)
    run = {key: given.pop(key) for key in tuple(given) if key not in (*KEYS, *FIELDS)}
    settings: dict[str, object] = {"name": "train"} if single else {}
    study = run.pop("study", None)
    if study is not None:
        settings |= load_settings(study)
    if run.pop("smoke"):
        is_of_rounds = (settings | given).get("rounds") is not None
        left_out = {"label_fractions"} if is_of_rounds else set()
        settings |= {key: value for key, value in SMOKE.items() if key not in left_out}
    if not single:
        given = _spread(given, settings)
    settings |= given
    if single:
        settings = _as_lists(settings)
    try:
        sweep = sweep_from_settings(settings)
    except InputError:
        if study is not None:
            load_sweep(study)  # raises with the file's name, if the error is in the file
        raise
    if not single:
        run["log"] = tuple(dict.fromkeys(run["log"]))
        run["shard"] = None if run["shard"] is None else Shard.parse(run["shard"])
        if run["shard"] is not None and sweep.search:
            raise InputError(
                f"--shard must be left out of a search, got {run['shard']}: a choice needs all of it. "
                "Give each driver methods of its own, under another --name."
            )
    return Command(sweep=sweep, **run)


def _take_study(given: dict[str, Any]) -> None:
    """Take a study file that stands behind a flag of several values: `--lr 0.1 my_study.yaml`."""
    for name in TRIAL_KEYS:
        values = given.get(name)
        if given["study"] is None and isinstance(values, list) and len(values) > 1:
            *_, last = values
            if str(last).endswith((".yaml", ".yml")):
                given["study"] = Path(values.pop())


def _spread(given: dict[str, Any], study: dict[str, Any]) -> dict[str, Any]:
    """Flags of several values as entries of the grid, of one value as settings.

    Args:
        given: The flags.
        study: The study's settings. A flag's setting is taken out of them, out of their grids and
            their search too; not out of a search that is a flag: there it is what stands untuned.

    Returns:
        The flags, none of whose settings has a list where it takes one value.
    """
    spread: dict[str, Any] = {}
    several: dict[str, list[Any]] = {}
    for name, values in given.items():
        if name not in TRIAL_KEYS or name == "num_workers":
            spread[name] = values
        elif len(values) > 1:
            several[name] = values
        else:  # a flag without a value is true
            spread[name] = values[0] if values else True
    named = {name for name in given if name in TRIAL_KEYS}
    for name in several:
        study.pop(name, None)
    for key in ("grid", "search"):
        written = spread.get(key, study.get(key))
        if key == "search" and key in spread:
            continue
        if isinstance(written, dict):  # what else it may be is refused later
            kept = {name: each for name, each in written.items() if name not in named}
            spread[key] = kept if key in spread or kept != written else written
    grids = study.get("grids")
    if isinstance(grids, list) and "grids" not in spread:
        spread["grids"] = [
            {name: each for name, each in grid.items() if name not in named}
            if isinstance(grid, dict)
            else grid
            for grid in grids
        ]
    if several:
        grid = spread.get("grid", {})
        spread["grid"] = {**grid, **several} if isinstance(grid, dict) else grid
    return spread


def _as_lists(settings: dict[str, object]) -> dict[str, object]:
    """One trial's settings as those of a sweep that holds nothing else."""
    singles = {single: axis for axis, single in AXES.items()}
    full = settings.get("label_fraction", 1.0) == 1.0
    listed: dict[str, object] = {"configs": ["full" if full else "partial"]}
    for name, value in settings.items():
        listed[singles.get(name, name)] = [value] if name in singles else value
    listed["full_methods"] = listed.get("methods", ["pass"])
    return listed
