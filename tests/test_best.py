"""`report --best`: the best trials by their validation images, and the command that runs each again."""

import csv
import io
import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ssl_runner.command import parse
from ssl_runner.config import TrialConfig
from ssl_runner.report.__main__ import main
from ssl_runner.report.rerun import command_of_trial
from ssl_runner.results import ResultsFolder
from ssl_runner.results.ranking import best_trials
from ssl_runner.train.__main__ import main as train
from tests.builders import failed_row, frame_of, trial_row
from tests.conftest import Answer
from tests.test_config import trial_configs
from tests.test_search_results import LR, OF_LR, REACHED, of_lr, samples

Report = Callable[..., Answer]


@pytest.fixture
def report(call: Callable[..., Answer]) -> Report:
    return partial(call, main)


def config_of_command(command: str) -> TrialConfig:
    """The one trial that a command runs."""
    words = shlex.split(command)
    assert words[:2] == ["python", "-m"]
    single = words[2] == "ssl_runner.train"
    assert single or words[2] == "ssl_runner.tune"
    (config,) = parse("again", "", words[3:], single=single).sweep.trials(has_unlabeled=True)
    return config


# ---- which are the best ----


def test_without_a_search_validation_ranks_and_never_the_test() -> None:
    rows = [
        trial_row(TrialConfig.of(seed=n), validation_accuracy=accuracy, test_accuracy=1 - accuracy)
        for n, accuracy in enumerate((0.5, 0.75, 0.625))
    ]
    rows.append(failed_row(TrialConfig.of(seed=7)))
    found = best_trials(frame_of(*rows), 2)
    assert found.rows["seed"].tolist() == [1, 2]
    assert (found.by, found.of, found.left_out) == ("validation_accuracy", 3, 0)


def test_of_a_search_its_samples_are_ranked_by_what_it_is_for() -> None:
    losses = (0.5, 0.4, 0.1, 0.3, 0.2)
    rows = samples([{"lr": lr} for lr in LR], REACHED, OF_LR, record={"objective": "loss"})
    rows = [row | {"validation_loss": loss} for row, loss in zip(rows, losses, strict=True)]
    rows[2] |= {"status": "stopped"}
    final = trial_row(TrialConfig.of(lr=0.5), validation_loss=0.0, role="final")
    found = best_trials(frame_of(final, *rows), 10)
    assert found.rows["lr"].tolist() == [LR[4], LR[3], LR[1], LR[0]]
    assert (found.by, found.of, found.left_out) == ("validation_loss", 4, 1)
    assert found.settings == ("lr",)


def test_equal_accuracies_are_ranked_by_their_loss() -> None:
    rows = [trial_row(TrialConfig.of(seed=n), validation_loss=loss) for n, loss in enumerate((2, 1, 3))]
    assert best_trials(frame_of(*rows), 3).rows["seed"].tolist() == [1, 0, 2]


def test_searches_for_different_figures_are_not_ranked_together() -> None:
    by_loss = samples([{"lr": 0.5}], [0.5], OF_LR, sweep="t", record={"objective": "loss"})
    with pytest.raises(ValueError, match="must be of searches for one figure, got validation_accuracy"):
        best_trials(frame_of(*of_lr(), *by_loss), 1)


# ---- the command that runs one again ----


@settings(max_examples=150)
@given(trial_configs, st.sampled_from([1, 1, 3]), st.none() | st.just(2))
def test_the_command_of_a_trial_runs_the_same_trial(
    config: TrialConfig, workers: int, fewest: int | None
) -> None:
    least = fewest if workers > 1 else None
    config = config.replace(dataset="digits", num_workers=workers, min_workers=least).resolved()
    assume(not (config.network.sync_batch_norm and config.compute.compile))  # refused
    command = command_of_trial(frame_of(trial_row(config)).to_dict("records")[0])
    again = config_of_command(command)
    assert again.resolved() == config, command
    assert again.settings_id == config.settings_id


def test_the_command_of_a_round_runs_the_rounds_before_it_too() -> None:
    config = TrialConfig.of(selection="margin", label_budgets="100 300", seed=4, lr=0.002).resolved()
    (row,) = frame_of(trial_row(config.replace(split_seed=4))).to_dict("records")
    command = command_of_trial(row)
    assert command == (
        "python -m ssl_runner.tune --configs partial --name s-again --full-methods pass "
        "--selections margin --rounds 100 300 --lr 0.002 --seeds 4"
    )
    again = parse("again", "", shlex.split(command)[3:]).sweep.trials()
    assert [trial.data.label_budgets for trial in again] == ["100", "100 300"]
    assert again[-1].settings_id == config.replace(split_seed=4).settings_id


def test_the_command_names_only_what_is_needed() -> None:
    row = trial_row(TrialConfig.of(label_fraction=0.01, method="fixmatch", lr=0.002, seed=3).resolved())
    # A column with nulls is of floats: another row has no budget in steps.
    frame = frame_of(row | {"split_seed": 3, "max_steps": 500}, trial_row(TrialConfig()))
    assert command_of_trial(frame.to_dict("records")[0]) == (
        "python -m ssl_runner.train --label-fraction 0.01 --split-seed 3 --lr 0.002 "
        "--method fixmatch --seed 3 --max-steps 500"
    ).replace(" --split-seed 3", "")
    assert command_of_trial(frame.to_dict("records")[1]) == "python -m ssl_runner.train"


@pytest.mark.slow
def test_the_printed_command_trains_the_same_trial(
    tmp_path: Path, call: Callable[..., Answer], report: Report
) -> None:
    """On real images: a sample of a search, run again by what the report says."""
    first, again = tmp_path / "first", tmp_path / "again"
    asked = ("--subset", "300", "--label-fraction", "0.5", "--holdout", "60", "--epochs", "1")
    given = ("--method", "pi_model", "--lr", "0.00213457", "--unlabeled-weight", "3.25")
    done = call(train, *asked, *given, "--results", str(first), "--cpus-per-trial", "1")
    assert done.returncode == 0, done.stderr
    printed = report(str(first), "--best", "1")
    assert (printed.returncode, printed.stderr) == (0, "")
    (command,) = re.findall(r"^1: (python -m ssl_runner\.train .*)$", printed.stdout, re.MULTILINE)
    assert "--lr 0.00213457" in command
    done = call(train, *shlex.split(command)[3:], "--results", str(again), "--cpus-per-trial", "1")
    assert done.returncode == 0, done.stderr
    rows = [ResultsFolder(str(folder)).trials() for folder in (first, again)]
    assert rows[0]["trial_id"].tolist() == rows[1]["trial_id"].tolist()
    assert rows[0]["validation_loss"].tolist() == rows[1]["validation_loss"].tolist()


# ---- what is printed ----


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    results = ResultsFolder(str(tmp_path / "results"))
    for row in of_lr(method="fixmatch"):
        results.write(row, [])
    return results


def test_the_table_has_the_best_first_with_what_varies(results: ResultsFolder, report: Report) -> None:
    done = report(results.root, "--best", "2")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    rows = [line.split() for line in lines if re.match(r"\s*[12] +[0-9a-f]{10}", line)]
    assert [row[2:] for row in rows] == [
        ["CNN", "partial", "0.01", "fixmatch", str(lr), "0.500", f"{100 * accuracy:.2f}", "94", "12.0"]
        for lr, accuracy in ((0.003, 0.875), (0.03, 0.75))
    ]
    assert "The 2 best of 5 samples by holdout accuracy." in " ".join(done.stdout.split())
    assert lines[-2].startswith("1: python -m ssl_runner.train --label-fraction 0.01 ")
    assert config_of_command(lines[-2].partition(": ")[2]).settings_id == rows[0][1]


def test_csv_and_markdown_have_the_commands_too(results: ResultsFolder, report: Report) -> None:
    done = report(results.root, "--best", "3", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["lr"] for row in rows] == ["0.003", "0.03", "0.001"]
    assert [config_of_command(row["command"]).settings_id for row in rows] == [
        row["trial_id"] for row in rows
    ]
    done = report(results.root, "--best", "3", "--format", "markdown")
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in cells}) == 1
    assert [row[1] for row in cells[2:]] == [row["trial_id"] for row in rows]
    assert [row[-1].strip("`") for row in cells[2:]] == [row["command"] for row in rows]


def test_where_the_test_images_validate_it_is_said(tmp_path: Path, report: Report) -> None:
    results = ResultsFolder(str(tmp_path))
    results.write(trial_row(TrialConfig()), [])
    results.write(trial_row(TrialConfig.of(dataset="labels.csv"), sweep="mine"), [])
    done = report(str(tmp_path), "--best", "5")
    text = " ".join(done.stdout.split())
    assert "The 2 best of 2 trials by validation accuracy. Their validation images are the test" in text
    assert "--dataset labels.csv: rows do not keep the folder" in text
    assert re.search(r"mine +[0-9a-f]{10}", done.stdout)
    done = report(str(tmp_path), "--best", "5", "--sweep", "s")
    assert "mine" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--best", "0"), "--best must be at least 1, got 0. Try 5."),
        (("--best", "-3"), "--best must be at least 1, got -3. Try 5."),
        (("--best", "two"), "argument --best: invalid int value: 'two'. See --help."),
        (("--best",), "argument --best: expected one argument. See --help."),
        (("--bst", "3"), "unknown flag '--bst'. Did you mean --best?"),
        (("--best", "3", "--sweep", "t"), "there must be a finished trial to compare, got none in "),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    results: ResultsFolder, report: Report, arguments: tuple[str, ...], message: str
) -> None:
    done = report(results.root, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_only_failed_trials_have_no_best(tmp_path: Path, report: Report) -> None:
    results = ResultsFolder(str(tmp_path))
    results.write(failed_row(TrialConfig()), [])
    done = report(str(tmp_path), "--best", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --best must be of trials that have finished, got none of 1.")
