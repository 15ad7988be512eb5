"""How far a search is, as a terminal and a pipe show it while it runs, and as `--watch` reads it."""

import io
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ssl_runner.config import TrialConfig
from ssl_runner.identity import Trial
from ssl_runner.report import words
from ssl_runner.report.terminal import MOST_STANDINGS, print_as, standings_table, watch
from ssl_runner.results import ResultsFolder
from ssl_runner.results.standings import Standing, standings
from ssl_runner.testing.processes import HANG
from ssl_runner.tune.progress import SweepProgress
from tests.builders import frame_of, trial_row
from tests.test_search_results import of_lr

ended = st.tuples(
    st.sampled_from(["finished", "stopped", "failed"]),
    st.none() | st.floats(0, 1, allow_nan=False) | st.just(float("nan")),
)


@given(st.lists(ended, max_size=8), st.sampled_from(["validation_loss", "validation_accuracy"]))
def test_the_best_is_of_those_that_finished(
    samples: list[tuple[str, float | None]], objective: str
) -> None:
    one = Standing("g", 8, objective)
    for number, (status, value) in enumerate(samples):
        one.add(number, status, value)
    figures = [
        value
        for status, value in samples
        if status == "finished" and value is not None and value == value
    ]
    pick = max if objective == "validation_accuracy" else min
    assert one.best == (pick(figures) if figures else None)
    assert one.ended == len(samples)
    if figures:
        assert one.best_sample is not None
        assert samples[one.best_sample] == ("finished", one.best)


def test_the_rows_say_how_far_each_search_is() -> None:
    rows = of_lr()[:3] + of_lr(method="fixmatch")
    rows[1] |= {"status": "stopped"}
    found = [words.standing(one) for one in standings(frame_of(*rows))]
    assert found == [
        "CNN partial 0.01: best holdout accuracy so far 75.00% (sample 2), 2 of 5 samples left",
        "CNN partial 0.01 fixmatch: best holdout accuracy so far 87.50% (sample 4), all 5 samples done",
    ]
    failed = [row | {"status": "failed", "validation_accuracy": None} for row in of_lr()[:1]]
    assert [words.standing(one) for one in standings(frame_of(*failed))] == [
        "CNN partial 0.01: none has finished yet, 4 of 5 samples left"
    ]


# ---- while a sweep runs ----


def sample_trials() -> list[Trial]:
    """Two samples of each of two groups."""
    return [
        Trial(
            TrialConfig.of(label_fraction=0.1, method=method, lr=0.001 * (1 + sample)).resolved(),
            "da",
            place={"role": "search", "search_group": f"CNN {method}", "sample": sample},
        )
        for method in ("pass", "fixmatch")
        for sample in (0, 1)
    ]


def progress(trials: list[Trial], *, terminal: bool) -> tuple[SweepProgress, io.StringIO]:
    """A progress that knows of another sample of `pass` from before."""
    known = Standing("CNN pass", 3, "validation_loss")
    known.add(7, "finished", 0.5)
    others = [known, Standing("CNN fixmatch", 2, "validation_loss")]
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=terminal, color_system=None)
    work = {trial.trial_id: 10 for trial in trials}
    return SweepProgress(trials, work, console, lambda config: "a trial", others), file


def test_a_pipe_gets_a_line_for_each_sample() -> None:
    trials = sample_trials()
    made, file = progress(trials, terminal=False)
    with made:
        for trial, loss in zip(trials, (0.75, 0.25, 0.7, None), strict=True):
            made.started(trial.trial_id)
            figures = {} if loss is None else {"validation_loss": loss, "validation_accuracy": 0.9}
            status, error = ("failed", "it broke") if loss is None else ("finished", None)
            made.end(trial.trial_id, status, error, figures)
    lines = [line for line in file.getvalue().splitlines() if "CNN" in line]
    assert lines == [
        "CNN pass: best holdout loss so far 0.5000 (sample 7), 1 of 3 samples left",
        "CNN pass: best holdout loss so far 0.2500 (sample 1), all 3 samples done",
        "CNN fixmatch: best holdout loss so far 0.7000 (sample 0), 1 of 2 samples left",
        "CNN fixmatch: best holdout loss so far 0.7000 (sample 0), all 2 samples done",
    ]


def test_samples_that_follow_from_others_count_when_they_are_found() -> None:
    trials = sample_trials()[2:]
    made, file = progress([], terminal=False)
    with made:
        for number in (0, 1):
            made.expect(f"CNN fixmatch {number}", 10)
        made.found("CNN fixmatch 0", trials[0], 10)
        made.started(trials[0].trial_id)
        made.end(trials[0].trial_id, "finished", None, {"validation_loss": 0.5})
        made.found("CNN fixmatch 1")  # it was met before: nothing is to run
    assert "CNN fixmatch: best holdout loss so far 0.5000 (sample 0), 1 of 2 samples left" in (
        file.getvalue().splitlines()
    )
    assert made.standings["CNN fixmatch"].ended == 2


def test_a_terminal_has_a_table_below_the_running_trials() -> None:
    trials = sample_trials()
    made, _ = progress(trials, terminal=True)
    made.started(trials[0].trial_id)
    made.end(trials[1].trial_id, "finished", None, {"validation_loss": 0.25})
    file = io.StringIO()
    Console(file=file, width=120).print(made._table())
    rows = [line.split() for line in file.getvalue().splitlines()]
    assert ["search", "best", "holdout", "loss", "sample", "samples", "left"] in rows
    assert ["CNN", "pass", "0.2500", "1", "1", "of", "3"] in rows
    assert ["CNN", "fixmatch", "–", "–", "2", "of", "2"] in rows


def test_trials_of_no_search_are_followed_as_before() -> None:
    trial = Trial(TrialConfig().resolved(), "da")
    file = io.StringIO()
    made = SweepProgress([trial], {trial.trial_id: 1}, Console(file=file, width=120))
    with made:
        made.started(trial.trial_id)
        made.end(trial.trial_id, "finished", None)
    assert file.getvalue().splitlines() == ["CNN full seed 0: finished, 1 of 1 trials done"]


def test_very_many_searches_fit_a_screen_those_that_run_first() -> None:
    found = [Standing(f"done {n}", 1, "validation_loss", ended=1) for n in range(30)]
    found.append(Standing("running", 2, "validation_loss", ended=1))
    file = io.StringIO()
    console = Console(file=file, width=120)
    for part in standings_table(found):
        console.print(part)
    lines = file.getvalue().splitlines()
    assert len(lines) == MOST_STANDINGS + 3
    assert lines[2].split()[0] == "running"
    assert lines[-1] == f"and {31 - MOST_STANDINGS} more searches"
    assert standings_table([]) == []


def test_the_report_says_how_far_a_search_is_that_has_no_finals_yet() -> None:
    def printed(*rows: dict[str, Any]) -> str:
        file = io.StringIO()
        print_as("table", frame_of(*rows), Console(file=file, width=150))
        return file.getvalue()

    rows = of_lr()[:3] + of_lr(method="fixmatch")
    lines = [f"  {words.standing(one)}" for one in standings(frame_of(*rows))]
    assert printed(*rows).splitlines() == ["no finals to compare yet:", *lines]
    final = trial_row(TrialConfig.of(label_fraction=0.01, method="fixmatch")) | {
        "role": "final",
        "search_group": rows[-1]["search_group"],
        "search": rows[-1]["search"],
    }
    said = printed(*rows, final)
    assert lines[0] in said
    assert lines[1] not in said
    assert "no finals" not in printed(*of_lr(method="fixmatch"), final)
    assert "no finals" not in printed(trial_row(TrialConfig()))


def test_watch_follows_a_search(tmp_path: Path) -> None:
    results, rows, file = ResultsFolder(str(tmp_path)), of_lr(method="fixmatch")[:2], io.StringIO()
    expected = [
        f"CNN partial 0.01 fixmatch: best holdout accuracy so far {best}, {left} of 5 samples left"
        for best, left in (("50.00% (sample 0)", 4), ("75.00% (sample 1)", 3))
    ]

    def run_sweep() -> None:
        """Write each row once the one before is said; then the sweep has ended."""
        with FileLock(tmp_path / ".s.lock"):
            began.set()
            for row, line in zip(rows, expected, strict=True):
                results.write(row, [])
                while line not in file.getvalue():
                    time.sleep(0.01)

    began = threading.Event()
    sweep = threading.Thread(target=run_sweep, daemon=True)
    sweep.start()
    assert began.wait(HANG)
    watch(results, "s", Console(file=file, width=150), seconds=0.01)
    sweep.join()
    lines = file.getvalue().splitlines()
    assert [line for line in lines if "samples left" in line] == expected
