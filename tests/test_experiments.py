"""Every study tells its story at its head, and runs as it says."""

import re
import shlex
from pathlib import Path

import pytest

from ssl_runner.command import parse
from ssl_runner.config import SweepConfig
from ssl_runner.study import load_settings, load_sweep

STUDIES = sorted((Path(__file__).parent.parent / "experiments").glob("*.yaml"))

every_study = pytest.mark.parametrize("study", STUDIES, ids=[path.stem for path in STUDIES])


def head(study: Path) -> list[str]:
    """The comment before the first setting, line by line, without its marks."""
    lines = study.read_text(encoding="utf-8").splitlines()
    comment = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    return [line.removeprefix("#").strip() for line in comment]


def told(study: Path, beginning: str) -> str:
    """What a line of the head says after its beginning."""
    (line,) = (line for line in head(study) if line.startswith(beginning))
    return line.removeprefix(beginning).strip()


def test_the_studies_are_there() -> None:
    assert {path.stem for path in STUDIES} >= {
        *("full_vs_partial", "label_fractions", "adaptive_cnn", "data_parallel", "methods", "smoke")
    }


@every_study
def test_it_loads_and_is_called_as_its_file(study: Path) -> None:
    assert load_sweep(study).name == study.stem
    assert "name:" in study.read_text(encoding="utf-8")
    assert load_sweep(study).trials()


@every_study
def test_its_head_names_the_question_and_what_was_expected(study: Path) -> None:
    question = " ".join(head(study)[: head(study).index("")])
    assert re.search(r"\?|: ", question), "a question, or what is set against what"
    assert len(told(study, "Expected before the run:")) > 20


@every_study
def test_its_command_runs_it(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(study.parent.parent)
    command = re.split(r"\s+\(", told(study, "Run:"))[0]
    interpreter, flag, module, *arguments = shlex.split(command)
    assert (interpreter, flag, module) == ("python", "-m", "ssl_runner.tune")
    assert parse("tune", "", arguments).sweep == load_sweep(study)


@every_study
def test_it_says_how_long_it_takes(study: Path) -> None:
    assert re.match(r"(about|under) \d+ (seconds|minutes|hours) on ", told(study, "Takes:"))


def test_the_default_study_says_what_the_defaults_are() -> None:
    study = next(path for path in STUDIES if path.stem == SweepConfig().name)
    assert load_sweep(study) == SweepConfig()
    assert load_settings(study)["label_fractions"] == [0.01, 0.05, 0.1, 0.25, 0.5]
