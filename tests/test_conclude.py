"""The answer in words: made-up tables whose answer is known, and where nothing may be claimed."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from ssl_runner.config import TrialConfig
from ssl_runner.report.__main__ import main
from ssl_runner.results import ResultsFolder
from ssl_runner.results.conclude import Mean, conclude, labels_worth, ratio, seeds_for_half
from tests.builders import frame_of, trial_row
from tests.conftest import Answer

# Differences between seeds: their mean is 0, and with five of them 95 % of means of this spread are
# within 2.776 * 0.00158 / √5 = 0.00196 of the truth.
NOISE = (-0.002, -0.001, 0.0, 0.001, 0.002)


def trials(
    accuracy: float,
    noise: Sequence[float] = (0.0,) * 5,
    figures: dict[str, Any] | None = None,
    **settings: Any,
) -> list[dict[str, Any]]:
    """A trial for each seed, off the accuracy by its noise."""
    rows = []
    for seed, off in enumerate(noise):
        config = TrialConfig.of(seed=seed, split_seed=seed, **settings).resolved()
        rows.append(trial_row(config, test_accuracy=accuracy + off, **figures or {}))
    return rows


def text_of(*groups: list[dict[str, Any]]) -> list[str]:
    return conclude(frame_of(*(row for group in groups for row in group)))


def a_study(n: int = 5) -> tuple[list[dict[str, Any]], ...]:
    """Full at 90 %; `pass` 6 points lower with 6,000 labels and 14 with 600; `fixmatch` gains 3.5
    points with 600, a quarter of that gap, and nothing with 6,000."""
    return (
        trials(0.90, NOISE[:n]),
        trials(0.84, NOISE[:n], label_fraction=0.1),
        trials(0.76, NOISE[:n], label_fraction=0.01),
        trials(0.795, [2 * off for off in NOISE[:n]], label_fraction=0.01, method="fixmatch"),
        trials(0.84, NOISE[:n][::-1], label_fraction=0.1, method="fixmatch"),
    )


# ---- what is said ----


def test_a_study_is_concluded_in_five_sentences_at_most() -> None:
    assert text_of(*a_study()) == [
        "Full reaches 90.0 % test accuracy with 60,000 labels; partial is 14.0 points (14.0 to 14.0) "
        "below with 600 labels and 6.0 points (6.0 to 6.0) below with 6,000.",
        "The unlabeled images help most with 600 labels: fixmatch reaches 79.5 %, 3.5 points (3.3 to "
        "3.7) above pass, and recovers 25 % (24 to 26 %) of the gap to full.",
        # 76 + 3.5 of the 8 points to 6,000 labels: 600 * 10 ** 0.4375.
        "That makes 600 labels worth 1,640: so many pass needs for the same accuracy (1,550 to 1,740; "
        "interpolated between 600 and 6,000).",
        "In brackets: 95 % intervals over 5 seeds, paired; 13 seeds would halve them.",
    ]


def test_one_seed_tells_what_was_and_claims_nothing() -> None:
    assert text_of(*a_study(1)) == [
        "Full reached 89.8 % test accuracy with 60,000 labels; partial was 14.0 points below with 600 "
        "labels and 6.0 points below with 6,000.",
        "In one seed, fixmatch was 3.3 points above pass with 600 labels.",
        "One seed can't tell what is chance: --seeds 0 1 2 3 4 gives each difference an interval.",
    ]


def test_the_default_study_says_what_fewer_labels_cost() -> None:
    fractions = {1.0: 0.9, 0.5: 0.899, 0.25: 0.88, 0.1: 0.85, 0.05: 0.82, 0.01: 0.75}
    rows = [trials(value, NOISE[:1], label_fraction=share) for share, value in fractions.items()]
    first, last = text_of(*rows)
    assert first == (
        "Full reached 89.8 % test accuracy with 60,000 labels; partial was 15.0 points below with 600 "
        "labels, 5.0 points below with 6,000 and 0.1 points below with 30,000."
    )
    assert last.startswith("One seed can't tell")


def test_where_the_interval_includes_0_nothing_is_claimed() -> None:
    opposite = NOISE[::-1]  # the pairs differ by twice the noise: the interval is ± 0.39 points
    near = trials(0.7605, opposite, label_fraction=0.01, method="fixmatch")
    first, second, *_ = text_of(trials(0.763, opposite), trials(0.76, NOISE, label_fraction=0.01), near)
    assert first == (
        "Full reaches 76.3 % test accuracy with 60,000 labels; partial is not told from it with 600 "
        "labels (-0.7 to +0.1 points)."
    )
    assert second == (
        "No method is told from pass: fixmatch with 600 labels comes nearest, +0.05 points (-0.34 to "
        "+0.44)."
    )
    words = " ".join(text_of(trials(0.763, opposite), trials(0.76, NOISE, label_fraction=0.01), near))
    assert "recovers" not in words
    assert "worth" not in words


def test_where_methods_harm_it_is_said() -> None:
    harmful = trials(0.82, NOISE, label_fraction=0.1, method="mean_teacher")
    last = "In brackets: 95 % intervals over 5 seeds, paired; 13 seeds would halve them."
    assert text_of(trials(0.84, NOISE, label_fraction=0.1), harmful) == [
        "No method is as good as pass: mean_teacher with 6,000 labels comes nearest, -2.0 points (-2.0 "
        "to -2.0).",
        last,
    ]
    *_, harm, certainty = text_of(*a_study(), harmful)
    assert harm == "With 6,000 labels mean_teacher is 2.0 points (2.0 to 2.0) below pass."
    assert certainty == last


def test_a_choice_of_images_is_compared_with_random_ones() -> None:
    def rounds(selection: str, accuracies: tuple[float, ...], noise: Sequence[float]) -> list[Any]:
        rows = []
        for count, accuracy in enumerate(accuracies, start=1):
            budgets = (100, 1000, 10000)[:count]
            text = " ".join(map(str, budgets))
            figures = {"labeled_images": budgets[-1]}
            own = noise if count > 1 else (0.0,) * len(noise)  # the first round is the same
            rows += trials(accuracy, own, figures, selection=selection, label_budgets=text)
        return rows

    random = rounds("random", (0.6, 0.7, 0.8), NOISE)
    margin = rounds("margin", (0.6, 0.75, 0.805), [2 * off for off in NOISE])
    sentences = text_of(random, margin)
    assert sentences == [
        # Half of the way to 10,000 labels: 1,000 * √10.
        "With 1,000 labels on images chosen by margin, 75.0 % are reached, 5.0 points (4.8 to 5.2) "
        "above random images, of which it takes 3,160 (3,020 to 3,310; interpolated between 1,000 and "
        "10,000).",
        "In brackets: 95 % intervals over 5 seeds, paired; 13 seeds would halve them.",
    ]
    one = text_of(*([row for row in each if row["seed"] == 0] for each in (random, margin)))
    assert one[0] == "In one seed, margin was 4.8 points above random images with 1,000 labels."


def test_finals_of_a_search_are_concluded_over_though_their_settings_differ() -> None:
    search = {"role": "final", "search_group": "g", "search": '{"search": {"lr": {"uniform": [0, 1]}}}'}
    rows = (
        trials(0.76, NOISE, search, label_fraction=0.01, lr=0.002),
        trials(0.80, NOISE, search, label_fraction=0.01, lr=0.03, method="fixmatch"),
    )
    assert text_of(*rows)[0].startswith("With 600 labels fixmatch reaches 80.0 %, 4.0 points")


# ---- what is not said ----


def test_nothing_to_compare_is_nothing_to_say() -> None:
    assert text_of() == []
    assert text_of(trials(0.9)) == []
    assert text_of(trials(0.9, label_fraction=0.1)) == []


def test_settings_that_vary_otherwise_are_named() -> None:
    rows = [trials(0.9, lr=lr, dropout=dropout) for lr in (0.001, 0.01) for dropout in (0.0, 0.25)]
    assert text_of(*rows, trials(0.8, label_fraction=0.1)) == [
        "Besides labels and methods, dropout and lr vary: the comparison has each combination, and no "
        "conclusion is drawn over them."
    ]


def test_a_method_s_own_settings_are_no_more_seeds() -> None:
    several = [
        trials(0.80, NOISE, label_fraction=0.1, method="fixmatch", unlabeled_weight=weight)
        for weight in (0.3, 1.0)
    ]
    assert text_of(trials(0.76, NOISE, label_fraction=0.1), *several) == [
        "Besides labels and methods, unlabeled weight varies: the comparison has each combination, and "
        "no conclusion is drawn over them."
    ]
    one_each = [
        trials(0.80, NOISE, label_fraction=share, method="fixmatch", unlabeled_weight=weight)
        for share, weight in ((0.1, 0.3), (0.2, 1.0))
    ]
    plain = [trials(0.76, NOISE, label_fraction=share) for share in (0.1, 0.2)]
    assert "over 5 seeds" in text_of(*plain, *one_each)[-1]


def test_several_sweeps_and_several_models() -> None:
    rows = [row | {"sweep": "t"} for row in trials(0.9)]
    assert text_of(rows, trials(0.8, label_fraction=0.1)) == [
        "These are several sweeps: --sweep NAME begins with what one of them says."
    ]
    better = [trials(0.95, model="AdaptiveCNN"), trials(0.9, model="AdaptiveCNN", label_fraction=0.1)]
    assert text_of(*better, *a_study())[0].startswith(
        "Of 2 models, AdaptiveCNN is the most accurate; of it: Full reaches 95.0 % test accuracy"
    )


def test_a_gain_beyond_what_pass_was_trained_with_is_refused() -> None:
    best = trials(0.95, NOISE, label_fraction=0.1, method="fixmatch")
    sentences = text_of(trials(0.9, NOISE), trials(0.84, NOISE, label_fraction=0.1), best)
    assert sentences[2] == (
        "How many labels that is worth can't be told: pass is not that accurate with 60,000 labels, "
        "the most it was trained with."
    )
    sentences = text_of(trials(0.84, NOISE, label_fraction=0.1), best)
    assert sentences[1] == (
        "How many labels that is worth can't be told: pass was not trained with more labels."
    )


# ---- the figures behind it ----


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8))
def test_a_mean_s_interval_is_student_s(values: list[float]) -> None:
    assume(np.std(values) > 1e-6)
    mean = Mean.of([*values, math.nan])
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (mean.low, mean.high) == pytest.approx((low, high))
    assert mean.n == len(values)
    assert mean.sign == (1 if low > 0 else -1 if high < 0 else 0)


def test_the_ratio_s_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Fieller's interval of a quarter, over 1,000 tables of five seeds."""
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        common = generator.normal(0, 0.004, 5)
        gaps = 0.08 + common + generator.normal(0, 0.01, 5)
        gains = 0.02 + common + generator.normal(0, 0.01, 5)
        found = ratio(gains, gaps)
        assert found is not None
        hits += found.low <= 0.25 <= found.high
    assert hits == pytest.approx(950, abs=3 * math.sqrt(1000 * 0.95 * 0.05))


def test_a_ratio_over_a_gap_that_may_be_0_has_no_interval() -> None:
    gaps = np.array([-0.01, 0.02, 0.0])
    assert ratio(np.array([0.01, 0.02, 0.01]), gaps) is None
    assert ratio(np.array([0.01]), np.array([0.05])) is None


@pytest.mark.parametrize("n", [2, 3, 5, 10, 30])
def test_the_seeds_named_halve_the_interval_and_one_less_does_not(n: int) -> None:
    def width(seeds: int) -> float:
        return float(stats.t.ppf(0.975, seeds - 1)) / math.sqrt(seeds)

    more = seeds_for_half(n)
    assert width(more) <= width(n) / 2 < width(more - 1)


def law(labels: float) -> float:
    return 0.94 - 0.12 * math.pow(labels / 1000, -0.4)


def reference(fractions: Sequence[float], noise: Sequence[float]) -> pd.DataFrame:
    rows = [trials(law(60000 * share), noise, label_fraction=share) for share in fractions]
    return frame_of(*(row for group in rows for row in group))


def test_a_curve_that_fits_is_read_rather_than_interpolated() -> None:
    frame = reference((0.01, 0.02, 0.05, 0.1, 0.5), (-0.0005, 0.0, 0.0005))
    gain = Mean(law(1500) - law(600), law(1400) - law(600), law(1650) - law(600), 3)
    worth = labels_worth(frame, "pass", 600, gain)
    assert (worth.labels, worth.low, worth.high) == pytest.approx((1500, 1400, 1650), rel=0.02)
    assert worth.how == "by the curve fitted through 600 to 30,000 labels"


def test_a_curve_that_does_not_fit_is_interpolated() -> None:
    frame = reference((0.01, 0.02, 0.05, 0.1, 0.5), (0.0, 0.0005))
    frame.loc[frame["label_fraction"] == 0.05, "test_accuracy"] -= 0.05  # no such law
    worth = labels_worth(frame, "pass", 600, Mean(0.01, 0.009, 0.011, 2))
    assert worth.how == "interpolated between 600 and 1,200"
    share = 0.01 / (law(1200) - law(600))
    assert worth.labels == pytest.approx(600 * 2**share, rel=0.01)


def test_an_upper_end_beyond_the_measured_is_said_to_be() -> None:
    worth = labels_worth(reference((0.01, 0.1), (0.0, 0.001)), "pass", 600, Mean(0.05, 0.01, 0.5, 2))
    assert math.isinf(worth.high)
    assert 600 < worth.low < worth.labels < 6000


# ---- where it stands ----


def test_the_report_begins_with_it(tmp_path: Path, call: Callable[..., Answer]) -> None:
    results = ResultsFolder(str(tmp_path))
    for row in (row for group in a_study() for row in group):
        results.write(row, [])
    page = tmp_path / "page.html"
    done = call(main, str(tmp_path), "--page", str(page))
    assert (done.returncode, done.stderr) == (0, "")
    said = text_of(*a_study())
    assert done.stdout.splitlines()[: len(said)] == said
    html = page.read_text()
    first = html.index(said[0])
    assert html.index("<h1>") < first < html.index("<h2>Comparison</h2>")
    for form in ("csv", "markdown"):  # which are for programs
        assert said[0] not in call(main, str(tmp_path), "--format", form).stdout
