"""What each method gains along each question about the pools: made-up tables whose answer is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from ssl_runner.pools.classes import class_numbers, known_classes
from ssl_runner.report import words
from ssl_runner.report.__main__ import main
from ssl_runner.report.along_page import HEADING, along_parts
from ssl_runner.report.page import make_charts, render_page
from ssl_runner.results import ResultsFolder, gains_along
from ssl_runner.results.along import conclude_along, lines_along
from ssl_runner.results.compare import compared_rows, label_curve, plain_rows
from ssl_runner.results.conclude import conclude
from ssl_runner.study import load_sweep
from tests.builders import epoch_rows, frame_of, trial_row
from tests.conftest import Answer
from tests.test_conclude import NOISE, trials

EXPERIMENTS = Path(__file__).parent.parent / "experiments"

Rows = list[dict[str, Any]]

BASE: dict[str, Any] = {"label_fraction": 0.01, "order": "paired"}


def at(gains: dict[str, float], n: int = 5, figures: Any = None, **settings: Any) -> Rows:
    """`pass` at 80 %, and each method off it by its gain; both with the same noise, but for the last
    seed's, so that an interval is ± 0.14 points."""
    rows = trials(0.8, NOISE[:n], figures, **BASE, **settings)
    for method, gain in gains.items():
        noise = [*NOISE[: n - 1], NOISE[n - 1] + 0.0025 * (n > 1)]
        own = BASE | settings | {"method": method}
        rows += trials(0.8 + gain - 0.0005 * (n > 1), noise, figures, **own)
    return rows


def mismatched(share: float, gains: dict[str, float], n: int = 5) -> Rows:
    """The classes of the unlabeled pool, and what share of them is not labeled."""
    classes = {0.0: "0-3", 0.25: "0-2, 6", 0.5: "0-1, 6-7", 0.75: "0, 6-8", 1.0: "6-9"}[share]
    figures = {"class_mismatch": share}
    return at(gains, n, figures, labeled_classes="0-5", unlabeled_classes=classes)


HARM = {0.0: 0.014, 0.25: 0.002, 0.5: -0.004, 0.75: -0.01, 1.0: -0.021}
"""What fixmatch gains at each mismatch."""


def harm(n: int = 5) -> Rows:
    return [row for share, gain in HARM.items() for row in mismatched(share, {"fixmatch": gain}, n)]


def sentences(*groups: Rows) -> list[str]:
    return conclude_along(frame_of(*(row for group in groups for row in group)))


def test_a_sentence_says_both_ends_and_where_it_harms() -> None:
    (sentence,) = sentences(harm())
    assert sentence == (
        "Class mismatch: fixmatch gains 1.4 points (1.3 to 1.5) at 0 % and loses "
        "2.1 points (2.0 to 2.2) at 100 %, and harms from 50 % on."
    )


def test_one_seed_claims_nothing() -> None:
    (sentence,) = sentences(harm(n=1))
    assert sentence == (
        "Class mismatch: in one seed, fixmatch was 1.4 points above pass at 0 % "
        "and 2.1 points below pass at 100 %."
    )


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            {0.1: 0.001, 0.5: 0.0, 1.0: -0.001},
            "is not told from pass at 10 % (+0.10 points, -0.04 to +0.24) nor at 100 % (-0.10 "
            "points, -0.24 to +0.04)",
        ),
        (
            {0.1: 0.02, 0.5: 0.02, 1.0: 0.001},
            "gains 2.0 points (1.9 to 2.1) at 10 % and is not told from pass at 100 % (+0.10 points, "
            "-0.04 to +0.24), and surely gains up to 50 %",
        ),
        (
            {0.1: 0.001, 0.5: 0.02, 1.0: 0.03},
            "is not told from pass at 10 % (+0.10 points, -0.04 to +0.24) and gains 3.0 points (2.9 "
            "to 3.1) at 100 %, and surely gains from 50 % on",
        ),
        (
            {0.1: -0.02, 0.5: -0.02, 1.0: 0.02},
            "loses 2.0 points (1.9 to 2.1) at 10 % and gains 2.0 points (1.9 to 2.1) at 100 %, and "
            "harms up to 50 %",
        ),
        (
            {0.1: 0.02, 0.3: -0.02, 0.5: 0.02, 0.8: -0.02, 1.0: 0.02},
            "gains 2.0 points (1.9 to 2.1) at 10 % and 2.0 points (1.9 to 2.1) at 100 %, and "
            "harms at 30 % and 80 %",
        ),
        (
            {0.1: -0.02, 0.5: -0.02, 1.0: -0.03},
            "loses 2.0 points (1.9 to 2.1) at 10 % and 3.0 points (2.9 to 3.1) at 100 %, and "
            "harms at every value tried",
        ),
        (
            {0.1: 0.02, 0.5: 0.02, 1.0: 0.03},
            "gains 2.0 points (1.9 to 2.1) at 10 % and 3.0 points (2.9 to 3.1) at 100 %",
        ),
        # Harm at an end alone has been said.
        (
            {0.1: 0.02, 1.0: -0.02},
            "gains 2.0 points (1.9 to 2.1) at 10 % and loses 2.0 points (1.9 to 2.1) at 100 %",
        ),
    ],
)
def test_where_it_gains_and_harms(gains: dict[float, float], said: str) -> None:
    rows = [at({"fixmatch": gain}, unlabeled_fraction=share) for share, gain in gains.items()]
    (sentence,) = sentences(*rows)
    assert sentence == f"Share of the unlabeled images: fixmatch {said}."


def test_each_method_has_a_clause_and_each_axis_a_sentence() -> None:
    base = at({"fixmatch": 0.02, "freematch": 0.01})
    found = sentences(
        base,
        at({"fixmatch": 0.0, "freematch": -0.02}, foreign=0.5),
        at({"fixmatch": 0.03, "freematch": 0.01}, label_noise=0.2),
        at({"fixmatch": 0.02, "freematch": 0.01}, label_noise=0.2, noise_kind="confusion"),
        at({"fixmatch": 0.02, "freematch": 0.01}, labeled_imbalance=10),
        at({"fixmatch": 0.02, "freematch": 0.01}, labeled_imbalance=10, unlabeled_imbalance=10),
    )
    starts = [sentence.partition(": fixmatch ")[0] for sentence in found]
    assert starts == [
        "Long tail of both pools",
        "Long tail of the labeled pool",
        "Long tail of the unlabeled pool (labeled imbalance 10)",
        "Wrong labels (symmetric)",
        "Wrong labels (confusion)",
        "Foreign images (noise)",
    ]
    assert found[-1].endswith(
        "; freematch gains 1.0 points (0.9 to 1.1) at 0 % and loses 2.0 points (1.9 to 2.1) at 50 %."
    )
    assert found[0].startswith(
        "Long tail of both pools: fixmatch gains 2.0 points (1.9 to 2.1) at γ 1 and 2.0 points (1.9 to "
        "2.1) at γ 10; freematch gains"
    )
    assert "at 20 %" in found[3]


def test_the_table_is_paired_by_seed_and_by_value() -> None:
    own = table = gains_along(frame_of(*harm()))
    assert own["value"].tolist() == [*HARM]
    assert own["gain"].tolist() == pytest.approx([*HARM.values()])
    assert own["n"].tolist() == [5] * 5
    differences = [-0.0005] * 4 + [0.002]
    half = stats.t.ppf(0.975, 4) * stats.sem(differences)
    assert (own["high"] - own["gain"]).tolist() == pytest.approx([half] * 5)
    assert own["pass_accuracy"].tolist() == pytest.approx([0.8] * 5)
    assert own["accuracy"].tolist() == pytest.approx([0.8 + gain for gain in HARM.values()])
    assert set(table["axis"]) == {"class_mismatch"}


def test_a_method_with_fewer_seeds_does_not_decide_what_pass_has() -> None:
    """As in a study that was stopped in the middle."""
    whole = mismatched(0.0, {"fixmatch": 0.01}) + mismatched(1.0, {"fixmatch": 0.01})
    cut = [row for row in mismatched(0.0, {"pi_model": 0.01}, n=2) if row["method"] == "pi_model"]
    (alone,) = lines_along(frame_of(*whole))
    (line,) = lines_along(frame_of(*cut, *whole))
    assert [row[0] for row in words.gain_rows(line)] == ["pass, accuracy in %", "pi_model", "fixmatch"]
    assert words.gain_rows(line)[0] == words.gain_rows(alone)[0]
    (other,) = lines_along(
        frame_of(*mismatched(0.0, {"pi_model": 0.01}, n=2), *mismatched(1.0, {"pi_model": 0.01}))
    )
    assert words.gain_rows(other)[0][1] != words.gain_rows(alone)[0][1]


def test_without_pass_or_an_axis_there_is_nothing_to_say() -> None:
    assert sentences(at({"fixmatch": 0.02})) == []
    assert sentences(trials(0.9, NOISE), trials(0.8, NOISE, label_fraction=0.1)) == []
    alone = [row for row in harm() if row["method"] != "pass"]
    assert sentences(alone) == []
    assert gains_along(frame_of(*alone)).empty
    assert gains_along(frame_of()).empty


def test_other_settings_make_lines_of_their_own() -> None:
    rows = [
        *at({"fixmatch": 0.01}),
        *at({"fixmatch": 0.02}, foreign=0.5),
        *at({"fixmatch": 0.01}, max_steps=50),
        *at({"fixmatch": -0.02}, max_steps=50, foreign=0.5),
    ]
    lines = lines_along(frame_of(*rows))
    assert len(lines) == 2
    assert lines[1].about == "noise, max steps 50"
    assert [gain.value for gain in lines[1].points["gain"]] == pytest.approx([0.01, -0.02])


def test_the_answer_in_words_is_of_the_unchanged_pools() -> None:
    base = at({"fixmatch": 0.02})
    changed = at({"fixmatch": -0.05}, foreign=0.5) + at({"fixmatch": -0.01}, label_noise=0.3)
    plain, all_of_them = (conclude(frame_of(*rows)) for rows in (base, base + changed))
    assert all_of_them == [
        "With the pools as they are before anything is changed: " + plain[0],
        *plain[1:],
    ]
    frame = frame_of(*base, *changed)
    assert set(plain_rows(compared_rows(frame))["trial_id"]) == {row["trial_id"] for row in base}
    assert label_curve(frame)["n"].tolist() == [5, 5]


def test_rows_from_before_these_settings_are_unchanged_pools() -> None:
    older = frame_of(*at({"fixmatch": 0.02}))
    for name in ("unlabeled_fraction", "labeled_imbalance", "label_noise", "foreign", "class_mismatch"):
        older[name] = None
    newer = frame_of(*at({"fixmatch": -0.02}, foreign=0.5))
    both = pd.concat([older, newer], ignore_index=True)
    (sentence,) = conclude_along(both)
    assert sentence.startswith("Foreign images (noise): fixmatch gains 2.0 points (1.9 to 2.1) at 0 %")


# ---- terminal and page ----


def test_terminal_and_page_have_sentence_table_and_chart(
    call: Callable[..., Answer], tmp_path: Path
) -> None:
    rows = harm() + at({"fixmatch": 0.02}) + at({"fixmatch": -0.01}, foreign=0.5)
    results = ResultsFolder(str(tmp_path / "r"))
    for row in rows:
        results.write(row, [])
    answer = call(main, str(tmp_path / "r"))
    assert answer.returncode == 0, answer.stderr
    frame = frame_of(*rows)
    for sentence in conclude_along(frame):
        assert sentence in answer.stdout
    assert "+1.40 (+1.26 to +1.54)" in answer.stdout
    epochs = pd.DataFrame(
        [
            {"sweep": row["sweep"], "trial_id": row["trial_id"], **epoch}
            for row in rows
            for epoch in epoch_rows(1)
        ]
    )
    parts = along_parts(frame)
    assert [part.table.title for part in parts] == [
        "Class mismatch (labeled classes 0-5)",
        "Foreign images (noise)",
    ]
    assert parts[1].table.headings == ("method", "0 %", "50 %")
    assert parts[1].table.rows == (
        ("pass, accuracy in %", "80.00", "80.00"),
        ("fixmatch", "+2.00 (+1.86 to +2.14)", "-1.00 (-1.14 to -0.86)"),
    )
    page = render_page(frame, epochs)
    assert f"<h2>{HEADING}</h2>" in page
    charts = make_charts(frame, epochs)
    for number, part in enumerate(parts, start=1):
        assert part.sentence in page
        assert f'id="chart-along-{number}"' in page
        drawn = charts[f"along-{number}"]["datasets"].values()
        values = [point["value"] for points in drawn for point in points if "value" in point]
        assert values == ([*HARM] if number == 1 else [0.0, 0.5])
    assert HEADING not in render_page(frame_of(*at({"fixmatch": 0.02})), epochs)


def test_very_many_lines_are_not_all_shown() -> None:
    rows = []
    for steps in range(1, words.MOST_LINES + 3):
        rows += at({"fixmatch": 0.01}, n=1, max_steps=steps)
        rows += at({"fixmatch": 0.01}, n=1, max_steps=steps, foreign=0.5)
    frame = frame_of(*rows)
    assert len(lines_along(frame)) == words.MOST_LINES + 2
    assert len(along_parts(frame)) == words.MOST_LINES


# ---- the study ----


def test_the_study_asks_each_question_along_a_line_of_its_own() -> None:
    sweep = load_sweep(EXPERIMENTS / "when_it_harms.yaml")
    configs = sweep.trials()
    assert len(configs) == 27 * 4 * 3
    known = known_classes("0-4, 6", tuple("0123456789")).numbers
    rows = []
    for config in configs:
        mismatch = 0.0
        if config.pools.unlabeled_classes is not None:
            numbers = class_numbers("", config.pools.unlabeled_classes, "0123456789")
            assert len(numbers) == 4
            mismatch = len(set(numbers) - set(known or ())) / 4
        rows.append(trial_row(config, class_mismatch=mismatch))
    lines = lines_along(frame_of(*rows))
    assert [(line.title, sorted(set(line.points["value"]))) for line in lines] == [
        ("Share of the unlabeled images", [0.01, 0.03, 0.1, 0.3, 1.0]),
        ("Class mismatch (labeled classes 0-4, 6)", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("Long tail of both pools", [1.0, 10.0, 50.0]),
        ("Long tail of the labeled pool", [1.0, 10.0, 50.0]),
        ("Long tail of the unlabeled pool", [1.0, 10.0, 50.0]),
        ("Wrong labels (symmetric)", [0.0, 0.1, 0.2, 0.4]),
        ("Wrong labels (confusion)", [0.0, 0.2, 0.4]),
        ("Foreign images (digits)", [0.0, 0.25, 0.5, 0.75]),
        ("Foreign images (noise)", [0.0, 0.25, 0.5, 0.75]),
    ]
    assert all(len(line.points["method"].unique()) == 3 for line in lines)
    assert all(gain.n == 3 for line in lines for gain in line.points["gain"])
    names = {sweep.describe(config) for config in configs}
    assert len(names) == len(configs)
    assert "CNN partial 0.0101 fixmatch label_noise 0.1 noise_kind symmetric seed 2" in names
    assert "CNN partial 0.0101 seed 0" in names
