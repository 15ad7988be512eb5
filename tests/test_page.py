"""The page in a real browser, opened from disk with the network cut; and what it does with odd rows."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from ssl_runner.command import parse
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageArrays, ImageDataset
from ssl_runner.report.charts import MOST_CURVES
from ssl_runner.report.page import make_charts, render_page, save_figures
from ssl_runner.report.rerun import command_of
from ssl_runner.results import EPOCHS
from ssl_runner.testing.processes import HANG
from tests.builders import epoch_rows, failed_row, frame_of, sweep_settings, trial_row

SVG = "http://www.w3.org/2000/svg"
NASTY = '<script>document.title = "broken"</script>'
CLASSES = (NASTY, "shoe")


def pictured() -> ImageDataset:
    """Three images each of two classes, to be trained on and to be tested on."""
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    arrays = ImageArrays(images, np.array([0, 1, 0, 1, 0, 1]), CLASSES)
    return ImageDataset("small", arrays, arrays)


def epochs_of(rows: list[dict[str, Any]], count: int = 3) -> pd.DataFrame:
    """Epochs for each of these trials."""
    identity = [{"sweep": row["sweep"], "trial_id": row["trial_id"]} for row in rows]
    made = [own | epoch for own in identity for epoch in epoch_rows(count)]
    return pd.DataFrame(made, columns=EPOCHS.names)


def study() -> list[dict[str, Any]]:
    """Full, and two methods at three fractions, under two seeds; and one trial that failed."""
    rows = []
    for seed in (0, 1):
        configs = [TrialConfig.of(seed=seed, split_seed=seed)]
        configs += [
            TrialConfig.of(seed=seed, split_seed=seed, label_fraction=fraction, method=method)
            for fraction in (0.01, 0.1, 0.5)
            for method in ("pass", "fixmatch")
        ]
        for config in configs:
            accuracy = 0.7 + 0.2 * config.data.label_fraction + 0.01 * seed
            known: dict[str, Any] = {
                "misclassified": [[3, 0], [4, 1]],
                "question": NASTY,
                "class_names": list(CLASSES),
                "data_digest": pictured().digest,
            }
            rows.append(trial_row(config.resolved(), test_accuracy=accuracy, **known))
    config = TrialConfig.of(seed=2, split_seed=2, model="a.b:C")
    failed = failed_row(config, error=f"it broke {NASTY}")
    return [*rows, failed | {"data_digest": pictured().digest}]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = study()
    path = tmp_path_factory.mktemp("page") / "s.html"
    path.write_text(render_page(frame_of(*rows), epochs_of(rows), pictured()), encoding="utf-8")
    assert path.stat().st_size < 5e6
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")  # the network is cut
    options.binary_location = str(shutil.which("chromium"))
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


def opened(driver: webdriver.Chrome, page: Path, width: int = 1200, dark: bool = False) -> None:
    """Open the page at a width and in a color scheme, and wait until every chart is drawn."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver.get(page.as_uri())
    charts = len(driver.find_elements(By.CLASS_NAME, "chart"))
    WebDriverWait(driver, HANG).until(
        lambda _: driver.execute_script("return document.body.dataset.drawn") == str(charts)
    )


def wait_for_picture(driver: webdriver.Chrome, figure: WebElement) -> None:
    """Wait until a figure's image of 8 × 8 pixels is drawn: that is when it comes into sight."""
    driver.execute_script("arguments[0].scrollIntoView()", figure)
    picture = figure.find_element(By.TAG_NAME, "img")
    WebDriverWait(driver, HANG).until(lambda _: picture.get_property("naturalWidth") == 8)


def first_column(driver: webdriver.Chrome) -> list[str]:
    cells = driver.find_elements(By.CSS_SELECTOR, "#comparison tbody td:first-child")
    return [cell.text for cell in cells]


@pytest.mark.slow
def test_a_person_opens_the_page_sorts_the_table_and_hides_a_curve(
    chromium: webdriver.Chrome, page: Path
) -> None:
    opened(chromium, page)
    assert chromium.title == f"s: {NASTY}"  # a text, and not executed
    assert "it broke <script>" in chromium.find_element(By.CLASS_NAME, "failed").text

    figures = chromium.find_elements(By.TAG_NAME, "figure")
    captions = [figure.text for figure in figures]
    assert captions == [
        NASTY,
        NASTY,
        "shoe",
        "shoe",
        f"shoe, taken for {NASTY}",
        f"{NASTY}, taken for shoe",
    ]
    for figure in figures:
        wait_for_picture(chromium, figure)

    names = first_column(chromium)
    assert names[0] == "CNN full"
    assert len(names) == 7
    head = chromium.find_elements(By.CSS_SELECTOR, "#comparison th")[1]
    button = head.find_element(By.TAG_NAME, "button")
    button.click()
    assert head.get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.ENTER)  # by keyboard too
    assert head.get_attribute("aria-sort") == "ascending"
    assert first_column(chromium)[-1] == "CNN full"
    assert first_column(chromium) != names

    def lines() -> int:
        """Lines drawn in the first learning curve."""
        return len(
            chromium.find_elements(
                By.CSS_SELECTOR, "#chart-train_loss .mark-line path:not([d='']):not([d*='NaN'])"
            )
        )

    assert lines() == 7
    box = chromium.find_element(By.CSS_SELECTOR, "#shown input[value='CNN full']")
    box.send_keys(Keys.SPACE)
    WebDriverWait(chromium, HANG).until(lambda _: lines() == 6)
    box.click()
    WebDriverWait(chromium, HANG).until(lambda _: lines() == 7)
    assert chromium.get_log("browser") == []  # type: ignore[no-untyped-call]


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [375, 1200])
def test_it_is_readable_on_a_phone_and_in_the_dark(
    chromium: webdriver.Chrome, page: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    opened(chromium, page, width, dark)
    # Only the tables and charts scroll sideways, the page does not.
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
    for chart in chromium.find_elements(By.CSS_SELECTOR, "[data-shrinks]"):
        wide = chromium.execute_script(
            "return arguments[0].scrollWidth - arguments[0].clientWidth", chart
        )
        assert wide <= 0, chart.get_attribute("id")
    colors = chromium.execute_script(
        "const style = getComputedStyle(document.body);"
        "const label = document.querySelector('#chart-labels .role-axis-label text');"
        "return [style.color, style.backgroundColor, getComputedStyle(label).fill]"
    )
    text, ground, label = (np.mean([int(n) for n in re.findall(r"\d+", c)[:3]]) for c in colors)
    assert (text > ground) == dark
    assert abs(text - ground) > 150
    assert abs(label - text) < 5  # the charts follow
    assert chromium.save_screenshot(str(tmp_path / "page.png"))
    assert chromium.get_log("browser") == []  # type: ignore[no-untyped-call]


def test_one_trial_alone_says_that_there_is_no_spread() -> None:
    row = trial_row(TrialConfig())
    html = render_page(frame_of(row), epochs_of([row]))
    assert "one seed each, so no standard deviation and no interval can be given" in html
    assert "0 failed" not in html


def test_only_failed_trials_make_a_page_of_their_errors() -> None:
    row = failed_row(TrialConfig(), error="the weights are tired")
    html = render_page(frame_of(row), epochs_of([]))
    assert "the weights are tired" in html
    assert "<h2>Comparison</h2>" not in html


def test_classes_of_different_data_sets_are_not_mixed() -> None:
    rows = [trial_row(TrialConfig()), trial_row(TrialConfig.of(dataset="a:b"), data_digest="other")]
    charts = make_charts(frame_of(*rows), epochs_of(rows))
    assert "classes" not in charts
    assert "train_loss" in charts


def test_the_charts_hold_the_figures() -> None:
    rows = study()
    charts = make_charts(frame_of(*rows), epochs_of(rows))
    (name,) = charts["train_loss"]["datasets"]
    points = {(p["configuration"], p["epoch"]): p for p in charts["train_loss"]["datasets"][name]}
    assert len(points) == 7 * 3
    assert points["CNN partial 0.1 fixmatch", 2]["mean"] == 0.5
    assert points["CNN full", 3]["n"] == 2
    nothing = epochs_of(rows).assign(unlabeled_loss=np.nan)
    assert "unlabeled_loss" not in make_charts(frame_of(*rows), nothing)


def test_very_many_trials_make_a_page_that_stays_small() -> None:
    """10,000 trials of 100 epochs, in 200 configurations."""
    rows = [
        trial_row(TrialConfig.of(seed=seed, split_seed=seed, lr=0.001 * (1 + lr)))
        for seed in range(50)
        for lr in range(200)
    ]
    identity = pd.DataFrame([{"sweep": row["sweep"], "trial_id": row["trial_id"]} for row in rows])
    one = pd.DataFrame(
        epoch_rows(100), columns=[name for name in EPOCHS.names if name in epoch_rows(1)[0]]
    )
    epochs = identity.merge(one, how="cross")
    html = render_page(frame_of(*rows), epochs)
    assert len(html) < 5e6
    assert f"The first {MOST_CURVES} of 200 configurations are drawn." in html


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--configs", "partial", "--label-fractions", "0.01", "0.1", "--seeds", "0", "3"),
        ("--methods", "pass", "fixmatch", "pi_model", "--ema", "0.9", "--order", "paired", "--mu", "2"),
        ("--methods", "fixmatch", "--threshold", "0.8", "--max-steps", "100", "--flip", "false"),
        ("--split-seeds", "7", "8", "--models", "CNN", "AdaptiveCNN", "--num-workers", "2"),
        ("--name", "a b".replace(" ", "-"), "--lr", "0.01", "--subset", "600", "--holdout", "60"),
    ],
)
def test_the_command_on_the_page_runs_the_same_trials(arguments: tuple[str, ...]) -> None:
    sweep = parse("tune", "", arguments).sweep
    rows = frame_of(*(trial_row(trial, sweep=sweep.name) for trial in sweep.trials()))
    words = command_of(rows).split()
    assert words[:3] == ["python", "-m", "ssl_runner.tune"]
    again = parse("tune", "", words[3:]).sweep
    assert again.name == sweep.name
    ids = [{trial.settings_id for trial in one.trials()} for one in (sweep, again)]
    assert ids[0] == ids[1], (sweep_settings(sweep), words)


def test_every_chart_becomes_a_picture(tmp_path: Path) -> None:
    rows = study()
    files = save_figures(frame_of(*rows), epochs_of(rows), tmp_path / "figures")
    assert {path.suffix for path in files} == {".svg", ".png"}
    for path in files:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG" if path.suffix == ".png" else b"<svg")
        assert b"currentColor" not in content
    assert json.dumps(SVG).encode() in (tmp_path / "figures" / "labels.svg").read_bytes()
