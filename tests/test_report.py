"""What is printed of a results folder, on a terminal and over a pipe."""

import io
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from ssl_runner.command import run_main
from ssl_runner.config import TrialConfig
from ssl_runner.report.__main__ import main
from ssl_runner.report.terminal import print_comparison
from ssl_runner.results import ResultsFolder
from ssl_runner.testing.processes import Runs
from tests.builders import epoch_rows, failed_row, frame_of, trial_row
from tests.conftest import Answer

Report = Callable[..., Answer]


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    """Full and a tenth under two seeds, in sweep `s`; and one trial in sweep `other`."""
    results = ResultsFolder(str(tmp_path / "results"))
    for seed, full, tenth in ((0, 0.91, 0.86), (1, 0.93, 0.86)):
        for fraction, accuracy in ((1.0, full), (0.1, tenth)):
            config = TrialConfig.of(seed=seed, split_seed=seed, label_fraction=fraction)
            results.write(trial_row(config.resolved(), test_accuracy=accuracy), epoch_rows(1))
    results.write(trial_row(TrialConfig().resolved(), sweep="other", test_accuracy=0.4321), [])
    return results


@pytest.fixture
def report(call: Callable[..., Answer]) -> Report:
    """The command, its output no terminal."""
    return partial(call, main)


def printed(*rows: dict[str, object], width: int = 200, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_comparison(frame_of(*rows), console)
    assert console.width == width  # as it was
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def words(output: str, beginning: str) -> list[str]:
    """The words of the one line that begins so."""
    start = beginning.split()
    (line,) = (line for line in output.splitlines() if line.split()[: len(start)] == start)
    return line.split()


def test_over_a_pipe_it_holds_the_numbers(results: ResultsFolder, report: Report) -> None:
    done = report(results.root, "--sweep", "s")
    assert (done.returncode, done.stderr) == (0, "")
    assert "s: why?" in done.stdout
    assert "Validation on: test." in " ".join(done.stdout.split())
    # model, config, fraction, method, labels; train loss and acc, val loss and acc, test acc; ...
    # The differences are -5 and -7 points; Student's t with one degree of freedom is wide.
    losses = "0.250 ± 0.000 90.00 ± 0.00 0.500 ± 0.000 80.00 ± 0.00"
    full = f"CNN full 1 pass 60,000 {losses} 92.00 ± 1.41* – 94 12.0 2"
    tenth = f"CNN partial 0.1 pass 6,000 {losses} 86.00 ± 0.00 -6.00 (-18.71 to +6.71) 94 12.0 2"
    assert words(done.stdout, "CNN full") == full.split()
    assert words(done.stdout, "CNN partial") == tenth.split()
    assert "43.21" not in done.stdout  # the other sweep's
    assert "\x1b" not in done.stdout  # no colors for a file


def test_without_a_name_all_sweeps_are_compared(results: ResultsFolder, report: Report) -> None:
    done = report(results.root)
    assert done.returncode == 0
    assert "other, s: why?" in done.stdout
    assert "43.21" in done.stdout
    assert "92.00 ± 1.41" in done.stdout


@pytest.mark.parametrize("width", [20, 80, 145, 300])
def test_no_figure_is_cut_however_narrow_it_is(width: int) -> None:
    rows = [
        trial_row(
            TrialConfig.of(
                seed=seed, label_fraction=fraction, lr=lr, model="my_package.models:SomeLongName"
            ),
            test_accuracy=fraction * 0.9 - seed / 100,
        )
        for seed in (0, 1)
        for fraction in (1.0, 0.5)
        for lr in (0.001, 0.01)
    ]
    output = printed(*rows, width=width)
    assert "…" not in output
    whole = printed(*rows, width=1000)
    assert output.split() == whole.split()
    assert output.count("my_package.models:SomeLongName") == 4
    assert output.count("89.50 ± 0.71") == 4  # two in the table, two beside the bars


def test_a_setting_left_out_is_a_dash_and_a_large_number_is_whole() -> None:
    rows = [
        trial_row(TrialConfig()),
        trial_row(TrialConfig.of(subset=1234567)),
        trial_row(TrialConfig.of(label_fraction=0.1, subset=600)),  # has no full one to differ from
    ]
    output = printed(*rows)
    assert words(output, "CNN partial")[4] == "600"
    assert re.search(r"full +1 +pass +– ", output)
    assert re.search(r"full +1 +pass +1234567 ", output)
    assert "to" not in words(output, "model config")  # nothing has anything to differ from


def test_failed_trials_are_listed_with_their_reason() -> None:
    config = TrialConfig.of(label_fraction=0.1, seed=7)
    long = "it broke [bold]here[/red] :smile: " + "and there " * 50
    output = printed(trial_row(TrialConfig()), failed_row(config, error=long), width=80)
    assert words(output, "CNN full")[-1] == "1"
    failed = f"failed: {config.settings_id} (CNN partial 0.1 seed 7): {long}"
    assert failed.rstrip() in (line.rstrip() for line in output.splitlines())


def test_when_all_failed_they_are_listed_all_the_same(tmp_path: Path, report: Report) -> None:
    results = ResultsFolder(str(tmp_path))
    results.write(failed_row(TrialConfig()), [])
    done = report(str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"1 of 1 trials failed:\nfailed: {TrialConfig().settings_id} (CNN full 1 seed 0): it broke\n"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_names_that_look_like_markup_stay_what_they_are(terminal: bool) -> None:
    row = trial_row(TrialConfig.of(label_fraction=0.1)) | {"model": "a:[bold]", "sweep": "[/red]"}
    other = trial_row(TrialConfig.of(label_fraction=0.1, lr=0.5)) | {
        "model": "pkg:smile:",
        "sweep": "s",
    }
    output = printed(row, other, terminal=terminal)
    for name in ("a:[bold]", "pkg:smile:", "[/red], s: why?"):
        assert name in output


def test_validation_images_of_both_kinds_are_named() -> None:
    rows = [trial_row(TrialConfig()), trial_row(TrialConfig.of(holdout=5000))]
    assert "Validation on: holdout, test." in " ".join(printed(*rows).split())


def test_a_picture_holds_what_was_printed(
    results: ResultsFolder, tmp_path: Path, report: Report
) -> None:
    done = report(results.root, "--sweep", "s", "--svg", str(tmp_path / "picture.svg"))
    assert done.returncode == 0
    picture = (tmp_path / "picture.svg").read_text().replace("&#160;", " ")
    assert picture.startswith("<svg")
    assert "92.00 ± 1.41" in picture


# ---- bad input ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("{folder}/nowhere",),
            "there must be a finished trial to compare, got none in '{folder}/nowhere'. "
            "Run ssl_runner.tune first.",
        ),
        (("{folder}",), "there must be a finished trial to compare, got none in '{folder}'. Run "),
        (("{folder}/a_file",), "there must be a finished trial to compare, got none in '{folder}/a_f"),
        (
            ("{folder}/results", "--sweep", "s-"),
            "there must be a finished trial to compare, got none in '{folder}/results' of sweep 's-'.",
        ),
        (("ftp://x/y",), "the location must be a folder or a URI such as s3://bucket/results, got "),
        (("--swep", "s"), "unknown flag '--swep'. Did you mean --sweep?"),
        (("a", "b"), "unknown argument 'b'. See --help."),
        (("--sweep",), "argument --sweep: expected one argument. See --help."),
        (
            ("{folder}/results", "--svg", "{folder}/no/x.svg"),
            "--svg must be a writable path, got '{folder}/no/x.svg' (No such file or "
            "directory). Choose another.",
        ),
        (
            ("{folder}/broken",),
            "{folder}/broken/trials/x.parquet: not a file of this program's results (",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    results: ResultsFolder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    folder = Path(results.root).parent
    (folder / "a_file").write_text("")
    (folder / "broken" / "trials").mkdir(parents=True)
    (folder / "broken" / "trials" / "x.parquet").write_text("not Parquet")
    filled = [argument.replace("{folder}", str(folder)) for argument in arguments]
    monkeypatch.setattr(sys, "argv", ["report", *filled])
    with pytest.raises(SystemExit, match="2"):
        run_main(main)
    err = capsys.readouterr().err
    assert err.startswith("error: " + message.replace("{folder}", str(folder)))
    assert len(err.splitlines()) == 1
    assert not (folder / "nowhere").exists()


def test_the_real_command_over_an_empty_folder(tmp_path: Path, runs: Runs) -> None:
    done = runs.start("ssl_runner.report", str(tmp_path))
    done.end()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: there must be a finished trial to compare, got none in '{tmp_path}'. "
        "Run ssl_runner.tune first.\n"
    )


# ---- the label curve, and other baselines ----


def test_the_bars_are_as_long_as_the_accuracies_are_high() -> None:
    rows = [
        trial_row(TrialConfig.of(label_fraction=fraction), test_accuracy=accuracy)
        for fraction, accuracy in ((0.01, 0.74), (0.1, 0.82), (1.0, 0.90))
    ]
    lines = printed(*rows).splitlines()
    first = next(n for n, line in enumerate(lines) if "the bars begin at 70%" in line)
    bars = [line.count("█") for line in lines[first + 1 : first + 4]]
    assert bars == pytest.approx([10, 30, 50], abs=1)  # 4, 12 and 20 points above 70 %
    assert [line.split()[0] for line in lines[first + 1 : first + 4]] == ["600", "6,000", "60,000"]
    assert "the bars" not in printed(rows[0])  # one point is no curve


def test_one_seed_says_that_it_is_one() -> None:
    rows = [trial_row(TrialConfig.of(label_fraction=fraction)) for fraction in (0.1, 1.0)]
    text = " ".join(printed(*rows).split())
    assert "one seed each, so no standard deviation and no interval can be given" in text
    assert "±" not in text


def test_another_baseline_is_compared_with(results: ResultsFolder, report: Report) -> None:
    for seed, accuracy in ((0, 0.88), (1, 0.88)):
        config = TrialConfig.of(seed=seed, split_seed=seed, label_fraction=0.1, method="fixmatch")
        results.write(trial_row(config.resolved(), test_accuracy=accuracy), epoch_rows(1))
    done = report(results.root, "--sweep", "s", "--baseline", "fixmatch")
    assert (done.returncode, done.stderr) == (0, "")
    row = words(done.stdout, "CNN partial 0.1 pass")
    assert "-2.00 (-2.00 to -2.00)" in " ".join(row)
    done = report(results.root, "--sweep", "s", "--format", "csv", "--baseline", "full")
    assert "to_full_mean" in done.stdout
    assert "to_pass_mean" not in done.stdout
    done = report(results.root, "--sweep", "s", "--baseline", "fixmach")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: the baseline must be one of full, pass, fixmatch, got 'fixmach'."
    )
