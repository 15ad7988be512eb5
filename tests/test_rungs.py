"""Evaluated within an epoch, and perhaps told to stop there: nothing else changes."""

import dataclasses
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.identity import Trial, identify
from ssl_runner.results import TRIALS, ResultsFolder
from ssl_runner.train import FitResult, Rungs, Stopped, TrialData, evaluate, fit, prepare
from ssl_runner.trial import RunContext, finish_trial, run_trial
from tests.ranks import group, over_ranks, small
from tests.test_train import CPU, assert_same_bits, ignore, untimed

Figures = Sequence[dict[str, Any]]


class WithNorm(nn.Sequential):
    """It has a state beside its weights, which training moves and evaluation must not, and draws
    random numbers."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, dropout: float) -> None:
        super().__init__(
            *(nn.Conv2d(channels, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Flatten(), nn.Linear(4 * 13 * 13, classes)),
        )


PLAIN = TrialConfig.of(
    subset=600, label_fraction=0.5, holdout=100, epochs=3, batch_size=25, precision="fp32", patience=0
)
CONFIGS = {
    "pass": PLAIN.replace(order="paired", subset=300),
    "everything": PLAIN.replace(
        subset=300,
        method="freematch",
        model=f"{__name__}:WithNorm",
        ema=0.9,
        augment="weak",
        patience=1,
    ),
}
EPOCH = 4
"""Steps of an epoch: 200 images are left, 100 of them without a label."""


@pytest.fixture(scope="module", params=CONFIGS)
def trial(request: pytest.FixtureRequest, fashion_mnist: ImageDataset) -> tuple[TrialConfig, TrialData]:
    config = CONFIGS[request.param]
    return config, small(prepare(config, fashion_mnist))


def run(trial: tuple[TrialConfig, TrialData], **arguments: Any) -> FitResult:
    config, data = trial
    return fit(config, data, device=CPU, **{"report": ignore} | arguments)


def assert_same(one: FitResult, other: FitResult) -> None:
    """But for the time that they took."""
    assert_same_bits(one.weights, other.weights)
    assert untimed(one.history) == untimed(other.history)
    assert one.best_epoch == other.best_epoch
    assert (one.validation, one.test) == (other.validation, other.test)
    assert (one.student_validation, one.student_test) == (other.student_validation, other.student_test)


@pytest.fixture(scope="module")
def without(trial: tuple[TrialConfig, TrialData]) -> FitResult:
    return run(trial)


@given(steps=st.frozensets(st.integers(0, 3 * EPOCH + 2)))
@settings(max_examples=12)
def test_rungs_change_no_bit(
    trial: tuple[TrialConfig, TrialData], without: FitResult, steps: frozenset[int]
) -> None:
    asked: list[list[int]] = []

    def goes_on(rungs: Figures) -> bool:
        asked.append([rung["steps"] for rung in rungs])
        torch.manual_seed(99)  # whoever is asked may draw random numbers
        return True

    result = run(trial, rungs=Rungs(steps, goes_on))
    assert_same(result, without)
    reached = sorted(step for step in steps if step < without.progress.steps)
    assert [rung["steps"] for rung in result.progress.rungs] == reached
    assert asked == [reached[: n + 1] for n in range(len(reached))]
    assert without.progress.rungs == []


def test_a_rung_s_figures_are_those_of_a_training_that_ends_there(
    trial: tuple[TrialConfig, TrialData],
) -> None:
    config, data = trial
    found = run(trial, rungs=Rungs(frozenset(range(1, 7)))).progress.rungs
    for steps, rung in enumerate(found, start=1):
        ends_there = config.replace(max_steps=steps, keep="last")
        expected = fit(ends_there, data, device=CPU, report=ignore).validation
        assert rung == {
            "steps": steps,
            "validation_loss": expected.loss,
            "validation_accuracy": expected.accuracy,
        }
    assert len(found) == 6


def test_a_rung_costs_one_evaluation_and_none_where_an_epoch_ends(
    trial: tuple[TrialConfig, TrialData], monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluations(steps: frozenset[int]) -> int:
        count = 0

        def counting(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            return evaluate(*arguments, **named)

        with monkeypatch.context() as patched:
            patched.setattr("ssl_runner.train.loop.evaluate", counting)
            run(trial, rungs=Rungs(steps))
        return count

    usual = evaluations(frozenset())
    assert evaluations(frozenset({EPOCH})) == usual
    assert evaluations(frozenset({1, EPOCH, EPOCH + 1})) == usual + 2


@pytest.mark.parametrize("at", [1, EPOCH, EPOCH + 2])
def test_a_training_that_is_told_to_stop_stops_there(
    trial: tuple[TrialConfig, TrialData], without: FitResult, at: int
) -> None:
    config, data = trial
    untouched = dataclasses.replace(data, test=("no test image", "is looked at"))  # type: ignore[arg-type]
    rungs = Rungs(frozenset({1, EPOCH, EPOCH + 2}), lambda rungs: rungs[-1]["steps"] < at)
    with pytest.raises(Stopped, match=f"stopped after {at} steps") as stopped:
        run((config, untouched), rungs=rungs)
    progress = stopped.value.progress
    assert progress.steps == progress.rungs[-1]["steps"] == at
    assert untimed(progress.history) == untimed(without.history[: at // EPOCH])
    assert progress.images == 25 * at
    assert progress.train_seconds > 0
    assert progress.evaluate_seconds > 0
    assert stopped.value.precision == "fp32"
    assert stopped.value.parameters == without.parameters


def test_a_run_that_was_cut_passes_the_same_rungs(
    trial: tuple[TrialConfig, TrialData], without: FitResult
) -> None:
    states: list[bytes] = []

    def keep(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append(buffer.getvalue())

    steps = frozenset({2, 3, EPOCH, EPOCH + 1})
    whole = run(trial, rungs=Rungs(steps), report=keep, checkpoint_steps=1)
    assert len(states) > EPOCH
    for saved in states:
        resume = torch.load(io.BytesIO(saved), weights_only=True)
        passed = len(resume["progress"]["rungs"])
        asked: list[int] = []

        def goes_on(rungs: Figures, asked: list[int] = asked) -> bool:
            asked.append(len(rungs))
            return True

        again = run(trial, rungs=Rungs(steps, goes_on), resume=resume)
        assert_same(again, without)
        assert again.progress.rungs == whole.progress.rungs
        assert asked == list(range(passed + 1, len(steps) + 1))  # each is asked once
        unwatched = run(trial, resume=torch.load(io.BytesIO(saved), weights_only=True))
        assert_same(unwatched, without)


def test_a_state_from_before_there_were_rungs_is_resumed(
    trial: tuple[TrialConfig, TrialData], without: FitResult
) -> None:
    one_epoch: list[bytes] = []

    def keep_first(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        del state["progress"]["rungs"]
        buffer = io.BytesIO()
        torch.save(state, buffer)
        one_epoch.append(buffer.getvalue())

    run(trial, report=keep_first)
    resume = torch.load(io.BytesIO(one_epoch[0]), weights_only=True)
    assert_same(run(trial, resume=resume, rungs=Rungs(frozenset({EPOCH + 1}))), without)


def test_what_is_not_finite_fails_at_a_rung_as_at_an_epoch_s_end(fashion_mnist: ImageDataset) -> None:
    config = PLAIN.replace(model="tests.models:Diverging")
    data = prepare(config, fashion_mnist)
    errors = []
    for rungs in (None, Rungs(frozenset({2}), lambda rungs: pytest.fail("it was asked"))):
        with pytest.raises(FloatingPointError) as raised:
            fit(config, data, device=CPU, report=ignore, rungs=rungs)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


# ---- the row ----


def rows_of(
    trial: Trial, dataset: ImageDataset, results: ResultsFolder, rungs: Rungs | None, **more: Any
) -> dict[str, Any]:
    """Run a trial without Ray, and read its row."""
    context = RunContext(
        sweep="s", threads=1, checkpoints=results.checkpoints("s", trial.trial_id), **more
    )
    rows = run_trial(trial, dataset, context, lambda metrics: None, device=CPU, rungs=rungs)
    finish_trial(results, rows, context)
    (row,) = results.trials("s").to_dict("records")
    return {str(name): value for name, value in row.items()}


OF_THE_DATA = ("test_fraction", "test_images_left_out")
OF_THE_TEST = [name for name in TRIALS.names if "test_" in name and name not in OF_THE_DATA]


def test_a_stopped_trial_is_a_row(tmp_path: Path, fashion_mnist: ImageDataset) -> None:
    results = ResultsFolder(str(tmp_path))
    (trial,) = identify([CONFIGS["everything"]], fashion_mnist.digest)
    rungs = Rungs(frozenset({2, EPOCH + 1}), lambda rungs: len(rungs) < 2)
    models = f"{tmp_path}/models"
    row = rows_of(trial, fashion_mnist, results, rungs, models=models)
    assert row["status"] == "stopped"
    assert (row["steps"], row["epochs_run"], row["images"]) == (EPOCH + 1, 1, 25 * (EPOCH + 1))
    assert [rung["steps"] for rung in row["rungs"]] == [2, EPOCH + 1]
    last = row["rungs"][-1]
    assert row["validation_loss"] == last["validation_loss"]
    assert row["validation_accuracy"] == last["validation_accuracy"]
    for name in (*OF_THE_TEST, "confusion", "misclassified", "weights", "best_epoch", "error"):
        assert row[name] is None or row[name] != row[name], name
    assert row["labeled_images"] == row["validation_images"] == 100
    assert row["seconds"] >= row["train_seconds"] > 0
    assert not Path(models).exists()
    (epoch,) = results.epochs("s").to_dict("records")
    assert (epoch["trial_id"], epoch["epoch"], epoch["steps"]) == (trial.trial_id, 1, EPOCH)
    # A finished one names the rungs that it has passed; one without a scheduler has none.
    row = rows_of(trial, fashion_mnist, results, Rungs(frozenset({2})), models=models)
    assert row["status"] == "finished"
    assert [rung["steps"] for rung in row["rungs"]] == [2]
    without = rows_of(trial, fashion_mnist, results, None)
    assert list(without["rungs"]) == []
    assert without["test_accuracy"] == row["test_accuracy"]


def test_a_trial_that_fails_keeps_its_rungs(tmp_path: Path, fashion_mnist: ImageDataset) -> None:
    """They are what its rivals were judged by: also those from before it was cut."""
    results = ResultsFolder(str(tmp_path))
    (trial,) = identify([PLAIN], fashion_mnist.digest)

    def breaking_at(last: int) -> Rungs:
        def goes_on(rungs: Figures) -> bool:
            if len(rungs) == last:
                raise OSError("nobody answers") if last == 2 else RuntimeError("nobody answers")
            return True

        return Rungs(frozenset({2, 4, 7}), goes_on)

    with pytest.raises(OSError, match="nobody answers"):
        rows_of(trial, fashion_mnist, results, breaking_at(2), checkpoint_steps=3)
    row = rows_of(trial, fashion_mnist, results, breaking_at(3), checkpoint_steps=3)
    assert row["status"] == "failed"
    assert row["error"] == "RuntimeError: nobody answers"
    assert [rung["steps"] for rung in row["rungs"]] == [2, 4, 7]


# ---- over ranks ----


def watched(
    rank: int, world_size: int, config: TrialConfig, data: TrialData, steps: frozenset[int], last: int
) -> tuple[Any, ...]:
    """A training over all ranks, which only the first one is asked about."""

    def goes_on(rungs: Figures) -> bool:
        assert rank == 0, "one rank is asked"
        return bool(rungs[-1]["steps"] < last)

    try:
        result = fit(
            config, data, device=CPU, report=ignore, group=group(), rungs=Rungs(steps, goes_on)
        )
    except Stopped as stopped:
        return stopped.progress.steps, stopped.progress.rungs, untimed(stopped.progress.history)
    return result.progress.steps, result.progress.rungs, untimed(result.history), result.weights


def asked(
    rank: int, world_size: int, config: TrialConfig, data: TrialData, at: int | None
) -> tuple[list[int], FitResult]:
    """A training over all ranks, of which only the last is told to report, when it asks for the
    `at`-th time; and the steps after which this one has reported in mid-epoch."""
    reported, times = list[int](), itertools.count(1)

    def report(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        if metrics is None:
            reported.append(state["progress"]["steps"])

    def is_asked() -> bool:
        return next(times) == at and rank == world_size - 1

    config = config.replace(epochs=12)
    told = None if at is None else is_asked
    return reported, fit(config, data, device=CPU, report=report, group=group(), is_asked=told)


def several(rank: int, world_size: int, *works: tuple[Any, ...]) -> list[Any]:
    return [work(rank, world_size, *arguments) for work, *arguments in works]


def test_all_ranks_pass_a_rung_report_and_stop_together(
    tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    config = CONFIGS["everything"].replace(sync_batch_norm=True, patience=0)
    data = small(prepare(config, fashion_mnist))
    steps, never = frozenset({1, 3, EPOCH, EPOCH + 1}), 10**9
    works: tuple[tuple[Any, ...], ...] = (
        (watched, config, data, frozenset(), never),
        (watched, config, data, steps, never),
        (watched, config, data, steps, EPOCH),
        (watched, config, data, steps, 3),
        (asked, config, data, None),
        (asked, config, data, 3),
    )
    for ranks in (over_ranks(2, tmp_path, several, *works), over_ranks(3, tmp_path, several, *works)):
        for without, with_rungs, at_the_end, within, unasked, one_is_asked in ranks:
            assert (unasked[0], one_is_asked[0]) == ([], [30])  # the third of every tenth step
            assert_same_bits(unasked[1].weights, one_is_asked[1].weights)
            assert untimed(unasked[1].history) == untimed(one_is_asked[1].history)
            assert_same_bits(without[3], with_rungs[3])
            assert without[2] == with_rungs[2]
            assert [rung["steps"] for rung in with_rungs[1]] == sorted(steps)
            assert at_the_end[0] == EPOCH
            assert at_the_end[2] == without[2][:1]
            assert within[0] == 3
            assert within[1] == with_rungs[1][:2]
            assert within[2] == []
            assert with_rungs[1] == ranks[0][1][1]  # the same on every rank
