"""Who goes on at a rung, as Ray's schedulers see it: within one group, whatever the others do."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_runner.tune.scheduling import Referee, Rule

ASHA = Rule("asha", grace_steps=10, reduction=3, objective="accuracy")
MEDIAN = Rule("median", grace_steps=10, reduction=3, objective="loss")


def rung(steps: int, accuracy: float, loss: float | None = None) -> dict[str, Any]:
    loss = 1 - accuracy if loss is None else loss
    return {"steps": steps, "validation_accuracy": accuracy, "validation_loss": loss}


def reached(rule: Rule, below: int) -> list[int]:
    return [steps for steps in range(below) if steps in rule.steps]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ASHA, [10, 30, 90, 270, 810]),
        (Rule("asha", 1, 10, "loss"), [1, 10, 100]),
        (Rule("asha", 10, 2.5, "loss"), [10, 25, 63, 157, 391, 977]),  # 62.5, 156.25, … rounded up
        (Rule("asha", 999, 1.5, "loss"), [999]),
        (Rule("asha", 1000, 2, "loss"), []),
        (Rule("median", 300, 3, "loss"), [300, 600, 900]),
    ],
)
def test_where_the_rungs_are(rule: Rule, expected: list[int]) -> None:
    assert reached(rule, 1000) == expected


@given(grace=st.integers(1, 2000), reduction=st.sampled_from([1.5, 2, 2.5, 3, 4, 10]))
@settings(max_examples=60)
def test_ray_has_its_rungs_where_ours_are(grace: int, reduction: float) -> None:
    """At each of our rungs the worse of two stops: the first one there always goes on."""
    rule = Rule("asha", grace, reduction, "accuracy")
    referee = Referee(rule)
    good, bad = [], []
    for steps in sorted(set(rule.steps))[:9]:  # type: ignore[call-overload]
        good.append(rung(steps, 0.9))
        bad.append(rung(steps, 0.1))
        assert referee.goes_on("g", "good", good)
        assert not referee.goes_on("g", "bad", bad)


def quantile(values: list[float], share: float) -> float:
    """The value below which a share of the values lies, interpolated linearly between two of them."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


class SlowAsha:
    """The stopping variant of ASHA as its paper has it, for one group: at each rung those that are at
    least as good as the best 1/reduction of all that came before go on."""

    def __init__(self, reduction: float) -> None:
        self.reduction = reduction
        self.at: Mapping[int, list[float]] = defaultdict(list)

    def goes_on(self, steps: int, value: float) -> bool:
        before = self.at[steps]
        goes = not before or value >= quantile(before, 1 - 1 / self.reduction) - 1e-12
        before.append(value)
        return goes


@st.composite
def walks(draw: st.DrawFn) -> list[tuple[str, int, float]]:
    """Trials of two groups that come to their rungs in any order: trial, number of the rung, value."""
    turns = draw(st.lists(st.sampled_from([f"{g}{n}" for g in "ab" for n in range(6)]), max_size=50))
    at: dict[str, int] = defaultdict(int)
    found = []
    for trial in turns:
        # Thousandths: no two sums of theirs are so near that the last bit decides.
        found.append((trial, at[trial], draw(st.integers(0, 1000)) / 1000))
        at[trial] += 1
    return found


def replayed(referee: Referee, steps: list[int], walk: list[tuple[str, int, float]]) -> list[bool]:
    """What it answers to trials that stop when they are told to."""
    passed: dict[str, list[Any]] = defaultdict(list)
    answers, stopped = [], set()
    for trial, number, value in walk:
        if trial in stopped or number >= len(steps):
            continue
        passed[trial].append(rung(steps[number], value))
        answers.append(referee.goes_on(trial[0], trial, passed[trial]))
        if not answers[-1]:
            stopped.add(trial)
    return answers


@given(walk=walks(), reduction=st.sampled_from([2, 3, 4]))
@settings(max_examples=60)
def test_asha_answers_as_a_slow_one_and_the_groups_apart(
    walk: list[tuple[str, int, float]], reduction: int
) -> None:
    rule = Rule("asha", 5, reduction, "accuracy")
    steps = sorted(reached(rule, 6000))[:5]
    answers = replayed(Referee(rule), steps, walk)
    slow = {group: SlowAsha(reduction) for group in "ab"}
    stopped: set[str] = set()
    expected = []
    for trial, number, value in walk:
        if trial not in stopped and number < len(steps):
            expected.append(slow[trial[0]].goes_on(steps[number], value))
            if not expected[-1]:
                stopped.add(trial)
    assert answers == expected


@given(walk=walks(), rule=st.sampled_from([ASHA, MEDIAN]))
@settings(max_examples=60)
def test_the_order_of_the_questions_decides_the_answers_and_nothing_else_does(
    walk: list[tuple[str, int, float]], rule: Rule
) -> None:
    steps = reached(rule, 100)[:3]
    np.random.seed(1)
    one = replayed(Referee(rule), steps, walk)
    np.random.seed(2)
    assert replayed(Referee(rule), steps, walk) == one
    # What the other group does is nothing to this one.
    alone = [(trial, number, value) for trial, number, value in walk if trial[0] == "a"]
    taken = [
        answer
        for answer, (trial, *_) in zip(one, asked(steps, walk, one), strict=True)
        if trial[0] == "a"
    ]
    assert replayed(Referee(rule), steps, alone) == taken


def asked(
    steps: list[int], walk: list[tuple[str, int, float]], answers: list[bool]
) -> list[tuple[str, int, float]]:
    """Of a walk, the questions that were asked."""
    stopped: set[str] = set()
    found, rest = [], iter(answers)
    for question in walk:
        if question[0] not in stopped and question[1] < len(steps):
            found.append(question)
            if not next(rest):
                stopped.add(question[0])
    return found


@given(walk=walks(), cut=st.integers(0, 50), rule=st.sampled_from([ASHA, MEDIAN]))
@settings(max_examples=100)
def test_a_new_referee_goes_on_where_the_old_one_was(
    walk: list[tuple[str, int, float]], cut: int, rule: Rule
) -> None:
    """What ended before is known from the rows; what was under way tells its rungs when it asks."""
    steps = reached(rule, 100)[:3]
    old = Referee(rule)
    answers = replayed(old, steps, walk[:cut])
    passed: dict[str, list[Any]] = defaultdict(list)
    stopped = set()
    for (trial, number, value), goes in zip(asked(steps, walk[:cut], answers), answers, strict=True):
        passed[trial].append(rung(steps[number], value))
        if not goes:
            stopped.add(trial)
    new = Referee(rule, [(trial[0], trial, rungs) for trial, rungs in passed.items()])
    for trial, number, value in walk[cut:]:
        if trial not in stopped and number < len(steps):
            passed[trial].append(rung(steps[number], value))
            goes = old.goes_on(trial[0], trial, passed[trial])
            assert new.goes_on(trial[0], trial, passed[trial]) == goes
            if not goes:
                stopped.add(trial)


def test_a_question_that_is_asked_again_has_the_same_answer() -> None:
    """As by a trial whose process died after it had asked."""
    referee = Referee(ASHA)
    assert referee.goes_on("g", "first", [rung(10, 0.5)])
    assert referee.goes_on("g", "better", [rung(10, 0.6)])
    assert referee.goes_on("g", "first", [rung(10, 0.5)])
    assert not referee.goes_on("g", "worse", [rung(10, 0.4)])
    assert not referee.goes_on("g", "worse", [rung(10, 0.4)])


def test_a_trial_that_resumes_is_a_rival_at_the_rungs_that_it_passed_before() -> None:
    for known in ([], [("g", "ended", [rung(10, 0.9)])]):
        referee = Referee(ASHA, known)
        if not known:
            assert referee.goes_on("g", "resumed", [rung(10, 0.9), rung(30, 0.5)])
        assert not referee.goes_on("g", "worse", [rung(10, 0.8)])
        assert referee.goes_on("g", "better", [rung(10, 0.95)])


def test_a_bad_method_s_best_trial_has_no_rival_in_a_good_one_s() -> None:
    referee = Referee(ASHA)
    for n in range(9):
        referee.goes_on("good", f"good{n}", [rung(10, 0.9)])
    assert referee.goes_on("bad", "best of the bad", [rung(10, 0.2)])
    assert not referee.goes_on("good", "the same there", [rung(10, 0.2)])


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_loss_that_is_not_finite_never_goes_on(scheduler: Any, value: float) -> None:
    referee = Referee(Rule(scheduler, 10, 3, "loss"))
    assert not referee.goes_on("g", "t", [rung(10, 0.5, loss=value)])
    assert referee.goes_on("g", "u", [rung(10, 0.5, loss=9.0)])  # and is no rival


def test_the_median_needs_three_others_and_takes_a_trial_at_its_best() -> None:
    referee = Referee(MEDIAN)
    for n, loss in enumerate((0.1, 0.2, 0.3)):
        assert referee.goes_on("g", str(n), [rung(10, 0.0, loss)])
    assert not referee.goes_on("g", "worse", [rung(10, 0.0, 0.21)])
    assert referee.goes_on("g", "as good", [rung(10, 0.0, 0.2)])
    # At its best it is still better than the median of the averages, whatever it is now.
    for n, loss in enumerate((0.1, 0.2, 0.3)):
        assert referee.goes_on("g", str(n), [rung(10, 0.0, loss), rung(20, 0.0, loss)])
    assert referee.goes_on("g", "as good", [rung(10, 0.0, 0.2), rung(20, 0.0, 9.0)])


def test_figures_at_steps_that_are_no_rungs_do_not_count() -> None:
    """As those of a search whose scheduler has been changed."""
    referee = Referee(ASHA, [("g", "old", [rung(17, 0.99), rung(29, 0.99)])])
    assert referee.goes_on("g", "new", [rung(10, 0.1)])
    assert referee.goes_on("g", "new", [rung(10, 0.1), rung(30, 0.1)])
