"""What the page and the terminal have of a search: its charts in a real browser, and its sentences."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from ssl_runner.config import TrialConfig
from ssl_runner.report.__main__ import main
from ssl_runner.report.charts import Spec
from ssl_runner.report.page import make_charts, render_page, save_figures
from ssl_runner.report.search_charts import MOST_LINES, MOST_PARALLEL, parallel_chart, setting_chart
from ssl_runner.report.search_page import search_parts
from ssl_runner.results import EPOCHS, ResultsFolder
from ssl_runner.results.search_history import searches
from tests.builders import frame_of, trial_row
from tests.conftest import Answer
from tests.test_page import chromium as chromium  # a fixture
from tests.test_page import epochs_of, opened
from tests.test_search_results import samples

DOMAINS: dict[str, Any] = {
    "lr": {"log_uniform": [0.0001, 0.1]},
    "batch_size": {"choice": [32, 64]},
    "augment": {"choice": ["none", "weak"]},
}
OF_FIXMATCH: dict[str, Any] = DOMAINS | {"threshold": {"uniform": [0.8, 0.95]}}
NONE = pd.DataFrame(columns=EPOCHS.names)


def reached(lr: float, augment: str) -> float:
    """What a sample reaches: the learning rate decides the most."""
    return round(0.8 - 0.05 * abs(math.log10(lr) + 2.5) + 0.01 * (augment == "weak"), 4)


def search(count: int, method: str = "pass", **settings: Any) -> list[dict[str, Any]]:
    """A search's rows; every fourth sample is stopped, and it has the bits of a holdout."""
    generator = np.random.default_rng(count)
    values: list[dict[str, Any]] = []
    for n in range(count):
        augment = ("none", "weak")[n % 2]
        lr = float(f"{10 ** generator.uniform(-4, -1):.6g}")
        values.append({"lr": lr, "batch_size": (32, 64)[n // 2 % 2], "augment": augment})
        if method == "fixmatch":
            values[-1]["threshold"] = round(float(generator.uniform(0.8, 0.95)), 4)
    figures = [reached(each["lr"], each["augment"]) for each in values]
    domains = OF_FIXMATCH if method == "fixmatch" else DOMAINS
    rows = samples(values, figures, domains, method=method, **settings)
    for n, row in enumerate(rows):
        bits = np.zeros(600, dtype=np.uint8)
        bits[generator.permutation(600)[: round(600 * figures[n])]] = 1
        row |= {"holdout_correct": np.packbits(bits).tobytes(), "validation_images": 600}
        if n % 4 == 3:
            row |= {"status": "stopped", "steps": 40, "validation_accuracy": figures[n] - 0.1}
    return rows


def finals(of: dict[str, Any], **figures: Any) -> list[dict[str, Any]]:
    """The finals of a search's row, and the settings as they stood, under two seeds."""
    place = {name: of[name] for name in ("search_group", "search", "holdout_labels")}
    settings = {"label_fraction": of["label_fraction"], "method": of["method"], "holdout": 600}
    rows = []
    for seed in (0, 1):
        for role, lr in (("final", 0.003), ("default", 0.001)):
            config = TrialConfig.of(seed=seed, split_seed=seed, lr=lr, **settings).resolved()
            gain = 0.02 if role == "final" else 0.0
            known = {"test_accuracy": 0.75 + gain + 0.01 * seed, "role": role}
            rows.append(trial_row(config) | place | known | figures)
    return rows


def study() -> list[dict[str, Any]]:
    """Two methods, 20 and 24 samples of each, and their finals."""
    first, second = search(20), search(24, "fixmatch")
    for row in second:
        row["search"] = json.dumps(json.loads(row["search"]) | {"untuned": True})
    return [*first, *second, *finals(first[0]), *finals(second[0])]


def points_of(chart: Spec) -> list[dict[str, Any]]:
    """The rows of a chart's data that are samples."""
    return [row for rows in chart["datasets"].values() for row in rows if "sample" in row]


# ---- the charts' data ----


def test_each_sample_is_a_line_through_every_axis() -> None:
    (one,) = searches(frame_of(*search(20)))
    chart = parallel_chart(one)
    lines = points_of(chart)
    assert [line["sample"] for line in lines] == list(range(20))
    assert [line["status"] for line in lines].count("stopped") == 5
    for line, row in zip(lines, one.samples.to_dict("records"), strict=True):
        assert line["lr (log)"] == pytest.approx(_share(one.samples["lr"], row["lr"]), abs=1e-4)
        assert line["batch size"] == (row["batch_size"] == 64)
        assert line["augment"] == (row["augment"] == "weak")
        assert 0 <= line["holdout accuracy"] <= 1
        assert line["reached"] == pytest.approx(row["validation_accuracy"])
        assert line["settings"] == (
            f"lr {row['lr']:.6g}, batch_size {row['batch_size']}, augment {row['augment']}"
        )
    ticks = [row for rows in chart["datasets"].values() for row in rows if "label" in row]
    labels = {axis: [t["label"] for t in ticks if t["axis"] == axis] for axis in chart_axes(ticks)}
    assert set(labels["lr (log)"]) <= {"0.0001", "0.0003", "0.001", "0.003", "0.01", "0.03", "0.1"}
    assert len(labels["lr (log)"]) >= 4
    assert labels["batch size"] == ["32", "64"]
    assert labels["augment"] == ["none", "weak"]
    assert all(label.endswith("%") for label in labels["holdout accuracy"])
    assert all(-1e-9 <= tick["place"] <= 1 + 1e-9 for tick in ticks)


def _share(values: pd.Series, value: float) -> float:
    low, high = math.log(values.min()), math.log(values.max())
    return (math.log(value) - low) / (high - low)


def chart_axes(ticks: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(tick["axis"] for tick in ticks))


def test_a_setting_that_another_rules_out_has_a_place_of_its_own() -> None:
    domains = {
        "optimizer": {"choice": ["Adam", "SGD"]},
        "optimizer_momentum": {"uniform": [0.5, 0.9]},
    }
    values: list[dict[str, Any]] = [
        {"optimizer": "Adam"},
        *({"optimizer": "SGD", "optimizer_momentum": m} for m in (0.5, 0.9)),
    ]
    (one,) = searches(frame_of(*samples(values, (0.5, 0.6, 0.7), domains)))
    assert [line["optimizer momentum"] for line in points_of(parallel_chart(one))] == [0, 0.1, 1]
    points = points_of(setting_chart([one], "optimizer_momentum"))
    assert [point["value"] for point in points] == [0.5, 0.9]


def test_losses_over_magnitudes_are_on_a_logarithmic_axis() -> None:
    def y_scale(losses: tuple[float, ...]) -> str:
        rows = samples([{"lr": 0.001 * n} for n in (1, 2, 3)], (0, 0, 0), {"lr": {"uniform": [0, 1]}})
        record = json.dumps({"search": {"lr": {"uniform": [0, 1]}}})
        changed = [
            row | {"validation_loss": loss, "search": record}
            for row, loss in zip(rows, losses, strict=True)
        ]
        (one,) = searches(frame_of(*changed))
        text = json.dumps(setting_chart([one], "lr")["spec"])
        return "log" if '"type": "log"' in text else "linear"

    assert y_scale((0.4, 0.5, 80.0)) == "log"
    assert y_scale((0.4, 0.5, 0.8)) == "linear"


def test_the_charts_of_a_study() -> None:
    charts = make_charts(frame_of(*study()), NONE)
    assert {name for name in charts if name.startswith("search")} == {
        *("search-history-samples", "search-history-seconds", "search-importance"),
        *("search-lr", "search-batch_size", "search-augment", "search-threshold"),
        *("search-parallel-1", "search-parallel-2"),
    }
    (best,) = charts["search-history-samples"]["datasets"].values()
    last = max((row for row in best if row["configuration"] == "CNN partial 0.01"), key=_sample)
    done = [row for row in search(20) if row["status"] == "finished"]
    assert last["best"] == max(row["validation_accuracy"] for row in done)
    assert (last["samples"], last["steps"]) == (20, 15 * 94 + 5 * 40)


def _sample(row: dict[str, Any]) -> int:
    return int(row["sample"])


def test_without_a_search_the_page_says_nothing_of_one() -> None:
    frame = frame_of(trial_row(TrialConfig()))
    assert search_parts(frame) == []
    assert 'class="search"' not in render_page(frame, NONE)


# ---- its sentences ----


def test_the_choice_says_what_it_cost() -> None:
    (part,) = search_parts(frame_of(*study()))
    assert part.sentences == (
        "The settings were chosen among 20 to 24 samples for each of 2 configurations by 600 holdout "
        f"labels: 44 trials, {33 * 94 + 11 * 40:,} steps, 8:48 min in all.",
        "Trials that were stopped early, and so can't be chosen: 11.",
    )
    tuning, holdouts = part.tables
    change = ("75.50 ± 0.71", "77.50 ± 0.71", "+2.00 (+2.00 to +2.00)", "2")
    assert tuning.rows == (("CNN partial 0.01", *change), ("CNN partial 0.01 fixmatch", *change))
    assert [row[:3] for row in holdouts.rows[:5]] == [
        ("CNN partial 0.01", f"{labels}", "15") for labels in (50, 100, 200, 400, 600)
    ]
    assert holdouts.rows[4][3] == "100%"


def test_a_holdout_of_more_labels_than_the_training_is_named() -> None:
    rows = [row | {"holdout_labels": 5000, "labeled_images": 100} for row in search(4)]
    (part,) = search_parts(frame_of(*rows))
    assert part.sentences[-1] == (
        "The holdout has more labels than the training: 5,000 beside 100. With so few labels in all, "
        "the settings can't be chosen like this."
    )
    both = frame_of(*rows, *search(4, "fixmatch"))
    assert (
        "more labels than the training in 1 of 2 configurations" in search_parts(both)[0].sentences[-1]
    )


def test_importance_is_named_or_refused_with_the_reason() -> None:
    (part,) = search_parts(frame_of(*study(), *search(4, label_fraction=0.1)))
    notes = "\n".join(part.notes)
    assert "Importance: fANOVA (Optuna" in notes
    assert "from 15 to 18 finished samples of each search" in notes
    assert (
        "No importance for CNN partial 0.1: 3 finished samples of 3 searched settings; it takes 12 to "
        "tell."
    ) in notes


def test_two_sweeps_have_a_part_each() -> None:
    frame = frame_of(*search(4), *search(4, sweep="t"))
    parts = search_parts(frame)
    assert [part.heading for part in parts] == ["Search of s", "Search of t"]
    assert len({one.name for part in parts for one in part.charts}) == 2 * len(parts[0].charts)


@pytest.mark.slow
def test_5000_samples_make_a_page_that_stays_small_and_says_what_is_left_out() -> None:
    frame = frame_of(*search(5000))
    html = render_page(frame, NONE)
    assert len(html) < 5e6
    assert (
        f"At most {MOST_LINES} samples of a search are drawn one by one, of up to 5,000: the best 40, "
        "and others evenly spread over it."
    ) in html
    (one,) = searches(frame)
    drawn = {line["sample"] for line in points_of(parallel_chart(one))}
    assert len(drawn) == MOST_LINES
    done = one.samples[one.samples["status"] == "finished"]
    assert set(done.nlargest(40, "validation_accuracy", keep="first")["sample"]) <= drawn
    assert {0, 4999} <= drawn


def test_many_searches_are_drawn_in_part() -> None:
    fractions = [0.01 * (1 + n) for n in range(MOST_PARALLEL + 3)]
    rows = [row for fraction in fractions for row in search(2, label_fraction=fraction)]
    (part,) = search_parts(frame_of(*rows))
    assert sum("parallel" in one.name for one in part.charts) == MOST_PARALLEL
    of = len(fractions)
    note = f"The first {MOST_PARALLEL} of {of} searches are drawn with all settings side by side."
    assert note in part.notes


# ---- a terminal ----


def test_the_comparison_is_of_finals_alone_and_says_so(
    tmp_path: Path, call: Callable[..., Answer]
) -> None:
    results = ResultsFolder(str(tmp_path))
    for row in study():
        results.write(row, [])
    done = call(main, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert (
        "Only finals are compared: the settings, chosen among 20 to 24 samples on 600 holdout labels, "
        "trained again under fresh seeds."
    ) in text
    assert "77.50 ± 0.71" in text
    compared, _, tuning = text.partition("what tuning changed")
    assert "75.50" not in compared  # as the settings stood
    assert "75.50" in tuning


# ---- a real browser, and pictures ----


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (375, True)])
def test_the_charts_are_drawn_in_a_browser(
    chromium: webdriver.Chrome, tmp_path: Path, width: int, dark: bool
) -> None:
    rows = study()
    page = tmp_path / "s.html"
    page.write_text(render_page(frame_of(*rows), epochs_of(rows)), encoding="utf-8")
    opened(chromium, page, width, dark)
    assert chromium.get_log("browser") == []  # type: ignore[no-untyped-call]
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width

    def drawn(selector: str) -> int:
        return len(chromium.find_elements(By.CSS_SELECTOR, selector))

    lines = ".mark-line path:not([d='']):not([d*='NaN'])"
    assert drawn(f"#chart-search-parallel-1 {lines}") == 20
    assert drawn(f"#chart-search-parallel-1 {lines}[stroke-dasharray]") == 5
    assert drawn(f"#chart-search-parallel-2 {lines}") == 24
    assert drawn(f"#chart-search-history-samples {lines}") == 2
    assert drawn("#chart-search-importance .mark-rect path[aria-roledescription='bar']") == 3 + 4
    # Both methods' panels; stopped samples are points of their own.
    assert drawn("#chart-search-lr path[aria-roledescription='circle']") == 15 + 18
    assert drawn("#chart-search-lr path[aria-roledescription='point']") == 5 + 6
    assert drawn("#chart-search-threshold path[aria-roledescription='circle']") == 18
    # No label is cut, and none has a number that nobody writes.
    texts = [each.text for each in chromium.find_elements(By.CSS_SELECTOR, ".search svg text")]
    odd = [text for text in texts if "…" in text or "e+" in text or "NaN" in text]
    assert odd == []
    sizes = chromium.find_elements(By.CSS_SELECTOR, "#chart-search-batch_size .role-axis-label text")
    assert {"32", "64"} <= {each.text for each in sizes}
    color = chromium.execute_script(
        "return getComputedStyle(document.querySelector('#chart-search-lr .role-title-text text, "
        "#chart-search-lr .role-title text')).fill"
    )
    shade = np.mean([int(n) for n in color.removeprefix("rgb(").rstrip(")").split(",")[:3]])
    assert (shade > 128) == dark


@pytest.mark.slow
def test_a_browser_has_nothing_to_warn_of_where_none_or_all_were_stopped(
    chromium: webdriver.Chrome, tmp_path: Path
) -> None:
    page = tmp_path / "s.html"
    everyone, nobody = search(6), search(6, "fixmatch")
    for status, rows in (("stopped", everyone), ("finished", nobody)):
        for row in rows:
            row["status"] = status
    for shown in (everyone, nobody, everyone + nobody):
        page.write_text(render_page(frame_of(*shown), NONE), encoding="utf-8")
        opened(chromium, page)
        assert chromium.get_log("browser") == []  # type: ignore[no-untyped-call]
        lines = chromium.find_elements(By.CSS_SELECTOR, "[id^=chart-search-parallel] .mark-line path")
        assert len(lines) == len(shown)


@pytest.mark.slow
def test_the_charts_become_pictures(tmp_path: Path) -> None:
    files = save_figures(frame_of(*study()), NONE, tmp_path)
    made = {path.name for path in files if path.name.startswith("search-parallel")}
    assert made == {f"search-parallel-{n}.{suffix}" for n in (1, 2) for suffix in ("svg", "png")}
    text = (tmp_path / "search-parallel-1.svg").read_text()
    assert "holdout accuracy" in text
    assert "NaN" not in text
