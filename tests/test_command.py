"""The command line: which flags there are, what they mean, and how a wrong one is refused."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from ssl_runner.command import Command, parse, run_main
from ssl_runner.config import FIELDS, FILE_FIELDS, OF_A_SEARCH, SweepConfig, TrialConfig
from ssl_runner.errors import InputError
from ssl_runner.methods.settings import HYPERPARAMETERS
from ssl_runner.settings import rule_of
from ssl_runner.study import KEYS, load_sweep, sweep_from_settings
from ssl_runner.tune.__main__ import main as tune_main
from tests.builders import sweep_settings
from tests.test_config import TAKERS, valid_settings

EXPERIMENTS = Path(__file__).parent.parent / "experiments"


@pytest.fixture(autouse=True)
def no_cluster_of_the_person_testing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def tune(*arguments: str) -> Command:
    """What `python -m ssl_runner.tune` makes of its arguments."""
    return parse("tune", "Tune.", arguments)


def train(*arguments: str) -> Command:
    """What `python -m ssl_runner.train` makes of its arguments."""
    return parse("train", "Train.", arguments, single=True)


# ---- flags ----

FLAGS: dict[str, tuple[str, object]] = {
    "name": ("2024-01-01", "2024-01-01"),  # to YAML a date
    "question": ("why?", "why?"),
    "configs": ("partial", ["partial"]),
    "label_fractions": ("0.5 1 1e-3", [0.5, 1.0, 0.001]),
    "models": ("CNN torchvision:resnet18", ["CNN", "torchvision:resnet18"]),
    "methods": ("pass fixmatch", ["pass", "fixmatch"]),
    "selections": ("random margin", ["random", "margin"]),
    "rounds": ("50 100", [50, 100]),
    "seeds": ("3 0", [3, 0]),
    "split_seeds": ("4", [4]),
    "grid": ("{lr:[1e-3,0.01]}", {"lr": [0.001, 0.01]}),
    "grids": ("{lr:[1e-3]} {}", [{"lr": [0.001]}, {}]),
    "search": ("{lr:{log_uniform:[1e-4,0.01]}}", {"lr": {"log_uniform": [0.0001, 0.01]}}),
    "samples": ("5", 5),
    "searcher": ("random", "random"),
    "search_seed": ("7", 7),
    "objective": ("accuracy", "accuracy"),
    "search_seconds": ("90", 90.0),
    "scheduler": ("asha", "asha"),
    "grace_steps": ("40", 40),
    "reduction": ("4", 4),
    "large_holdout": ("", True),
    "untuned": ("", True),
    "cpus_per_trial": ("4", 4.0),
    "checkpoint_steps": ("50", 50),
    "gpus_per_trial": ("8", 8.0),
    "time_limit": ("90", 90.0),
    "max_concurrent": ("3", 3),
    "dataset": ("123", "123"),  # to YAML a number
    "subset": ("600", 600),
    "unlabeled_fraction": ("1e-1", 0.1),
    "labeled_classes": ("3", "3"),  # to YAML a number
    "unlabeled_classes": ("0-4,bag", "0-4,bag"),
    "labeled_imbalance": ("10", 10.0),
    "unlabeled_imbalance": ("1e2", 100.0),
    "label_noise": ("2e-1", 0.2),
    "noise_kind": ("confusion", "confusion"),
    "foreign": ("0.25", 0.25),
    "foreign_images": ("digits", "digits"),
    "epochs": ("7", 7),
    "max_steps": ("80", 80),
    "patience": ("0", 0),
    "batch_size": ("65", 65),
    "lr": ("1e-2", 0.01),  # to YAML 1.1 a text
    "optimizer": ("NAdam", "NAdam"),
    "weight_decay": ("5e-4", 0.0005),
    "optimizer_momentum": ("0.9", 0.9),
    "nesterov": ("yes", True),
    "beta1": ("0.8", 0.8),
    "beta2": ("0.9", 0.9),
    "eps": ("1e-7", 1e-7),
    "schedule": ("step", "step"),
    "decay_every": ("0.8", 0.8),
    "decay_factor": ("0.2", 0.2),
    "warmup_steps": ("5", 5),
    "dropout": ("0", 0.0),
    "small_images": ("yes", True),
    "weights_file": ("7.pt", "7.pt"),
    "sync_batch_norm": ("no", False),
    "precision": ("bf16", "bf16"),
    "compile": ("", True),  # a flag alone
    "keep": ("last", "last"),
    "holdout": ("50", 50),
    "order": ("paired", "paired"),
    "last_batch": ("drop", "drop"),
    "augment": ("weak", "weak"),
    "magnitude": ("0.5", 0.5),
    "flip": ("no", False),
    "mu": ("2", 2),
    "unlabeled_weight": ("2", 2.0),
    "ramp": ("0.5", 0.5),
    "threshold": ("9e-1", 0.9),
    "temperature": ("0", 0.0),
    "alignment": ("yes", True),
    "momentum": ("0.9", 0.9),
    "ema": ("0", 0.0),
    "num_workers": ("4", 4),
    "min_workers": ("1", 1),
    "full_methods": ("pass fixmatch", ["pass", "fixmatch"]),
    "save": ("all", "all"),
    "labels_file": ("labels.csv", "labels.csv"),
    "image_dir": ("images", "images"),
    "file_column": ("1", "1"),
    "label_column": ("kind", "kind"),
    "split_column": ("part", "part"),
    "header": ("no", False),
    "encoding": ("latin-1", "latin-1"),
    "unlabeled_marker": ("?", "?"),
    "test_fraction": ("0.25", 0.25),
    "test_seed": ("1", 1),
    "image_size": ("32 48", [32, 48]),
    "fit": ("pad", "pad"),
    "channels": ("1", 1),
    "max_bad_images": ("2", 2),
    "max_pixels": ("1000", 1000),
    "cache_limit": ("2.5", 2.5),
}


A_SEARCH: dict[str, object] = {
    "search": {"dropout": {"uniform": [0, 0.5]}},
    "samples": 2,
    "holdout": 60,
}
NEEDS: dict[str, dict[str, object]] = {
    **dict.fromkeys(OF_A_SEARCH, A_SEARCH),
    "scheduler": A_SEARCH | {"max_steps": 900},
    "grace_steps": A_SEARCH | {"scheduler": "median", "max_steps": 900},
    "search": {name: A_SEARCH[name] for name in ("samples", "holdout")},
    "noise_kind": {"label_noise": 0.2},
    "foreign_images": {"foreign": 0.5},
}
"""What a setting needs beside it."""


def test_every_setting_has_a_flag() -> None:
    assert FLAGS.keys() == set(KEYS)
    of_sgd, of_rounds = {"optimizer_momentum", "nesterov"}, {"selections", "rounds"}
    others = FLAGS.keys() - NEEDS.keys() - {"grid"}
    of_others = {"beta1", "beta2", "eps", "label_fractions", *TrialConfig().pools.__dataclass_fields__}
    for flags in (others - of_sgd - of_rounds, others - of_others):
        chosen = FLAGS if of_sgd.isdisjoint(flags) else FLAGS | {"optimizer": ("SGD", "SGD")}
        arguments = []
        for key in flags:
            arguments += ["--" + key.replace("_", "-"), *chosen[key][0].split()]
        read = sweep_settings(tune(*arguments).sweep)
        defaults = sweep_settings(SweepConfig())
        assert read == defaults | {key: chosen[key][1] for key in flags}


@pytest.mark.parametrize("key", sorted(FLAGS))
def test_a_flag_changes_its_setting_alone(key: str) -> None:
    text, value = FLAGS[key]
    # A hyperparameter is refused where nothing takes it.
    others: dict[str, Any] = {"methods": ["fixmatch"]} if key in HYPERPARAMETERS else {}
    others |= {name: [made] if name == "model" else made for name, made in TAKERS.get(key, {}).items()}
    if key in ("selections", "rounds"):
        others |= {"selections": ["random"], "rounds": [100]}
    if "model" in others:
        others["models"] = others.pop("model")
    others |= NEEDS.get(key, {})
    others.pop(key, None)
    arguments = ["--" + key.replace("_", "-"), *text.split()]
    for name, made in others.items():
        arguments += [
            "--" + name.replace("_", "-"),
            *map(str, made if isinstance(made, list) else [made]),
        ]
    read = sweep_settings(tune(*arguments).sweep)
    assert read == sweep_settings(SweepConfig()) | others | {key: value}


@given(valid_settings())
def test_any_sweep_can_be_said_in_flags(some: dict[str, object]) -> None:
    sweep = sweep_from_settings(some)
    arguments: list[str] = []
    for key, value in sweep_settings(sweep).items():
        flag = "--" + key.replace("_", "-")
        if isinstance(value, list):
            arguments += [flag, *map(str, value)]
        elif value is not None:
            arguments += [f"{flag}={value}"]
    assert tune(*arguments).sweep == sweep


def test_without_a_flag_it_is_the_default_study() -> None:
    command = tune()
    assert command == Command(sweep=SweepConfig())
    assert (command.results, command.address, command.data_dir) == ("results", None, None)
    assert not any((command.fresh, command.dry_run, command.verbose, command.retry_failed))


def test_the_flags_of_the_run() -> None:
    command = tune(
        *("--results", "s3://bucket/r", "--data-dir", "d", "--address", "10.0.0.1:6379"),
        *("--fresh", "--dry-run", "--verbose", "--retry-failed"),
    )
    assert command == Command(
        sweep=SweepConfig(),
        results="s3://bucket/r",
        data_dir=Path("d"),
        address="10.0.0.1:6379",
        fresh=True,
        dry_run=True,
        verbose=True,
        retry_failed=True,
    )


@pytest.mark.parametrize(
    ("environment", "arguments", "address"),
    [
        ("auto", (), "auto"),
        ("auto", ("--address", "host:1"), "host:1"),  # the flag is nearer
        ("", (), None),
    ],
)
def test_the_address_may_stand_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: str, arguments: tuple[str, ...], address: str | None
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", environment)
    assert tune(*arguments).address == address


def test_two_numbers_of_workers_are_the_fewest_and_the_most() -> None:
    assert tune("--num-workers", "1", "3").sweep.trial == TrialConfig.of(num_workers=3, min_workers=1)


def test_the_last_of_two_equal_flags_counts() -> None:
    assert tune("--seeds", "1", "2", "--seeds", "3").sweep.seeds == (3,)


def test_none_can_be_said() -> None:
    assert tune("--subset", "5", "--subset", "null").sweep.trial.data.subset is None


# ---- study files and --smoke ----


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "my_study.yaml"
    path.write_text("epochs: 4\nseeds: [1, 2]\nlr: 0.5")
    return path


def test_flags_override_the_study_file(study: Path) -> None:
    sweep = tune(str(study), "--epochs", "5", "--seeds", "3").sweep
    assert sweep == SweepConfig(name="my_study", seeds=(3,), trial=TrialConfig.of(epochs=5, lr=0.5))


def test_a_study_file_alone(study: Path) -> None:
    assert tune(str(study)).sweep == load_sweep(study)
    assert tune(str(study), "--name", "other").sweep.name == "other"
    assert tune("--epochs", "5", str(study)).sweep.trial == TrialConfig.of(epochs=5, lr=0.5)


def test_smoke_is_the_smoke_study() -> None:
    assert tune("--smoke").sweep == load_sweep(EXPERIMENTS / "smoke.yaml")


def test_smoke_shortens_a_study_and_flags_override_it(study: Path) -> None:
    sweep = tune(str(study), "--smoke", "--epochs", "1").sweep
    assert sweep == SweepConfig(
        name="smoke",
        label_fractions=(0.1,),
        seeds=(1, 2),
        trial=TrialConfig.of(epochs=1, subset=6000, lr=0.5),
    )


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        # The fault is the file's: its name is said
        ("epochs: 0", (), "{study}: epochs must be at least 1, got 0. The default is 10."),
        ("epochs: 0", ("--lr", "0.1"), "{study}: epochs must be at least 1, got 0. The default is 10."),
        ("epoch: 1", (), "{study}: unknown key 'epoch'. Did you mean epochs?"),
        (
            "",
            (),
            "{study}: a study must be lines of 'key: value', got nothing. "
            "Compare with experiments/label_fractions.yaml",
        ),
        # The fault is the flag's: the file is left out of it
        ("epochs: 1", ("--epochs", "0"), "epochs must be at least 1, got 0. The default is 10."),
        ("epochs: 1", ("--name", ""), "name must be made of .*"),
    ],
)
def test_what_is_wrong_is_blamed_on_the_file_or_the_flag(
    study: Path, content: str, arguments: tuple[str, ...], message: str
) -> None:
    study.write_text(content)
    with pytest.raises(ValueError) as refused:
        tune(str(study), *arguments)
    expected = message if ".*" in message else re.escape(message.replace("{study}", str(study)))
    assert re.match(expected, str(refused.value))


def test_a_flag_can_mend_a_study(study: Path) -> None:
    study.write_text("epochs: 0")
    assert tune(str(study), "--epochs", "1").sweep.trial.budget.epochs == 1


# ---- one trial ----


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), TrialConfig()),
        (("--label-fraction", "0.1"), TrialConfig.of(label_fraction=0.1)),
        (("--label-fraction", "1"), TrialConfig()),
        (("--label-fraction", "1e0"), TrialConfig()),  # to YAML 1.1 a text
        (("--seed", "5"), TrialConfig.of(seed=5, split_seed=5)),  # as in a sweep
        (("--seed", "5", "--split-seed", "2"), TrialConfig.of(seed=5, split_seed=2)),
        (("--model", "AdaptiveCNN", "--method", "pass"), TrialConfig.of(model="AdaptiveCNN")),
        (("--lr", "1e-2", "--epochs", "3"), TrialConfig.of(lr=0.01, epochs=3)),
        (
            ("--label-fraction", "0.1", "--method", "fixmatch", "--threshold", "0.9"),
            TrialConfig.of(label_fraction=0.1, method="fixmatch", threshold=0.9),
        ),
        (("--smoke",), TrialConfig.of(subset=6000, epochs=2)),
        (
            ("--smoke", "--label-fraction", "0.2", "--epochs", "1"),
            TrialConfig.of(label_fraction=0.2, subset=6000, epochs=1),
        ),
    ],
)
def test_the_one_trial_of_train(arguments: tuple[str, ...], expected: TrialConfig) -> None:
    assert train(*arguments).sweep.trials() == (expected.resolved(),)


def test_train_has_a_flag_for_every_setting_of_a_trial(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        train("--help")
    flags = set(re.findall(r"^  (--[a-z0-9-]+)", capsys.readouterr().out, re.MULTILINE))
    of_rounds = {"selection", "label_budgets"}
    fields = {"--" + name.replace("_", "-") for name in {*FIELDS, *FILE_FIELDS} - of_rounds}
    run = {"--results", "--data-dir", "--fresh", "--smoke", "--dry-run"}
    machine = {"--cpus-per-trial", "--gpus-per-trial", "--checkpoint-steps", "--time-limit", "--save"}
    assert flags == fields | run | machine | {"--name"}


def test_train_keeps_its_rows_apart() -> None:
    assert train().sweep.name == "train"
    assert train("--name", "2024-01-01").sweep.name == "2024-01-01"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "1"), "error: unknown flag '--seeds'. Did you mean --seed?\n"),
        (("study.yaml",), "error: unknown argument 'study.yaml'. See --help.\n"),
        (("--seed", "1", "2"), "error: unknown argument '2'. See --help.\n"),
        (("--address", "auto"), "error: unknown flag '--address'. "),
        (("--rounds", "9"), "error: --rounds makes several trials, one after another. Use python -m "),
        (("--selection", "margin"), "error: --selection makes several trials, one after another. "),
    ],
)
def test_what_train_does_not_take(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        train(*arguments)
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--method", "pas"),
            "method must be a known name or an import path such as package.module:Name, got "
            "'pas'. Did you mean pass?",
        ),
        (
            ("--label-fraction", "10"),
            r"label_fraction must be in \(0, 1\], got 10.0. Did you mean 0.10",
        ),
        (("--label-fraction", "all"), "label_fractions.0: .* valid number, .* got 'all'"),
        (("--seed", "true"), "seeds.0: must be a number, not true or false"),
    ],
)
def test_values_that_train_does_not_take(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(*arguments)


# ---- refusing ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Flags
        (("--epoch", "3"), "unknown flag '--epoch'. Did you mean --epochs?"),
        (("--labelfractions=0.1",), "unknown flag '--labelfractions=0.1'. Did you mean --label-fract"),
        (("--epochs3",), "unknown flag '--epochs3'. Did you mean --epochs?"),
        (("--zzz",), "unknown flag '--zzz'. See --help."),
        (("--zz\nz",), r"unknown flag '--zz\nz'. See --help."),
        (("-x",), "unknown flag '-x'. See --help."),
        (("--epoc", "3"), "unknown flag '--epoc'. Did you mean --epochs?"),  # no abbreviations
        (("a.yaml", "b.yaml"), "unknown argument 'b.yaml'. See --help."),
        (("--lr",), "argument --lr: expected at least one argument. See --help."),
        (("--lr", "-1e-3"), "argument --lr: expected at least one argument. See --help."),
        (("--seeds",), "argument --seeds: expected at least one argument. See --help."),
        (("--smoke=1",), "argument --smoke: ignored explicit argument '1'. See --help."),
        # Values
        (("--label-fractions", "0"), "label_fraction must be in (0, 1], got 0.0. 10 % is 0.1."),
        (
            ("--label-fractions", "1.5"),
            "label_fraction must be in (0, 1], got 1.5. Did you mean 0.015?",
        ),
        (("--label-fractions", "-0.1"), "label_fraction must be in (0, 1], got -0.1. 10 % is 0.1."),
        (("--label-fractions", "0.1,0.2"), "label_fractions.0: "),
        (("--seeds", "1,2"), "seeds.0: "),
        (("--seeds", "-1"), "seed must be at least 0, got -1. Try 0."),
        (("--seeds", "0", "0"), "seeds must be without repetition, got 0. Name it once."),
        (("--epochs", "0"), "epochs must be at least 1, got 0. The default is 10."),
        (("--epochs", "2.5"), "epochs: must be a whole number, got 2.5. See --help"),
        (("--epochs", "yes"), "epochs: must be a number, not true or false, got True."),
        (("--epochs", ""), "epochs: input should be a valid integer, got None. See --help"),
        (("--epochs", "[1"), "epochs: input should be a valid integer, unable to parse"),
        (("--epochs", "!!timestamp x"), "epochs: input should be a valid integer, unable to parse"),
        (("--epochs", "!!bool x"), "epochs: input should be a valid integer, unable to parse"),
        (("--epochs", "1\n2"), "epochs: input should be a valid integer, unable to parse"),
        (("--epochs", "[" * 5000), "epochs: input should be a valid integer, unable to parse"),
        (("--epochs", "9" * 5000), "epochs: unable to parse input string as an integer, exceeded"),
        (("--lr", "nan"), "lr must be in (0, 10), got nan. The default is 0.001."),
        (("--models", "adaptivecnn"), "model must be a known name or an import path such as "),
        (
            ("--methods", "pas"),
            "method must be a known name or an import path such as package.module:Name, got "
            "'pas'. Did you mean pass?",
        ),
        (
            ("--precision", "fp16"),
            "precision: input should be 'auto', 'fp32', 'bf16' or 'fp64', got 'fp16'.",
        ),
        (("--configs", "ful"), "configs.0: input should be 'full' or 'partial', got 'ful'."),
        (("--name", "a/b"), "name must be made of letters, digits, '-', '_' and '.', at most 100"),
        (("--cpus-per-trial", "0"), "cpus_per_trial must be more than 0, got 0.0. Try 1."),
        (("--num-workers", "1", "2", "3"), "num_workers must be a number or two, the fewest and the "),
        (("--num-workers", "3", "2"), "min_workers must be in [1, num_workers] = [1, 2], got 3. Try "),
        # Study files
        (("nowhere.yaml",), "nowhere.yaml: can't be read (No such file or directory). Is the path ri"),
        ((str(EXPERIMENTS),), f"{EXPERIMENTS}: can't be read (Is a directory). Is the path right?"),
        ((sys.executable,), f"{sys.executable}: not UTF-8 text (byte "),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["tune", *arguments, "--dry-run"])
    with pytest.raises(SystemExit, match="2"):
        run_main(tune_main)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1
    assert err.endswith("\n")
    assert len(err) < 400


def raising(error: BaseException) -> Callable[[], int]:
    def main() -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "code", "err"),
    [
        (lambda: 0, 0, ""),
        (lambda: 1, 1, ""),
        (raising(InputError("lr must be small")), 2, "error: lr must be small\n"),
        (raising(KeyboardInterrupt()), 130, "stopped; the same command resumes from here\n"),
    ],
)
def test_how_a_command_ends(
    capsys: pytest.CaptureFixture[str], main: Callable[[], int], code: int, err: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_main(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == err


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    with pytest.raises(KeyError, match="ours"):
        run_main(raising(KeyError("ours")))


# ---- the real command ----

WATCHED = """
import runpy, sys
sys.argv[0] = "tune"
try:
    runpy.run_module("ssl_runner.tune", run_name="__main__")
finally:
    heavy = {"torch", "ray", "pandas", "pyarrow"} & sys.modules.keys()
    print("heavy:", *sorted(heavy), file=sys.stderr)
"""


def watched(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m ssl_runner.tune`, whose last line of stderr says what was imported."""
    command: list[Any] = [sys.executable, "-c", WATCHED, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "code", "err"),
    [
        (("--help",), 0, ""),
        (("--dry-run",), 0, ""),
        (("--epoch", "3"), 2, "error: unknown flag '--epoch'. Did you mean --epochs?\n"),
        (("--epochs", "0"), 2, "error: epochs must be at least 1, got 0. The default is 10.\n"),
    ],
)
def test_help_and_a_refused_flag_wait_for_no_large_import(
    arguments: tuple[str, ...], code: int, err: str
) -> None:
    done = watched(*arguments)
    assert done.returncode == code
    assert done.stderr == err + "heavy:\n"


def test_help_names_every_flag_with_its_meaning_and_default() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ssl_runner.tune", "--help"], capture_output=True, text=True, check=True
    )
    text = " ".join(done.stdout.split())
    for field in (*FIELDS.values(), *dataclasses.fields(SweepConfig)):
        if field.name in KEYS:
            assert f"--{field.name.replace('_', '-')} " in text
            assert rule_of(field).help in text
    assert "(default: 0.01 0.05 0.1 0.25 0.5)" in text
    assert "full and 10 %: half a minute" in text


def test_a_dry_run_prints_the_trials_and_runs_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("--label-fractions", "0.1", "0.25", "--seeds", "7", "--max-steps", "80")
    monkeypatch.setattr(sys, "argv", ["tune", *arguments, "--dry-run"])
    with pytest.raises(SystemExit, match="0"):
        run_main(tune_main)
    out = capsys.readouterr().out
    for trial in tune(*arguments).sweep.trials():
        (line,) = (line for line in out.splitlines() if trial.settings_id in line)
        assert trial.description in line
        assert "80 steps" in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), ""),
        (("--configs", "partial", "--dataset", "x.csv"), ""),
        (("--dataset", "x.csv", "--full-methods", "pass"), ""),
        (("--dataset", "x.csv"), "full is trained with pass, fixmatch; all trials in paired order"),
        (("--labels-file", "x.csv"), "full is trained with pass, fixmatch; all trials in paired order"),
        (
            ("--dataset", "STL10", "--methods", "pass", "pi_model"),
            "full is trained with pass, pi_model",
        ),
    ],
)
def test_a_plan_says_what_depends_on_the_data(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    line: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["tune", *arguments, "--dry-run"])
    with pytest.raises(SystemExit, match="0"):
        run_main(tune_main)
    last = capsys.readouterr().out.splitlines()[-1]
    said = last.partition("where training images have no label, ")[2]
    assert said == line
