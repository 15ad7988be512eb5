"""How many labels are needed: the fit on curves that are known, and where it is refused."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ssl_runner.config import TrialConfig
from ssl_runner.report.__main__ import main
from ssl_runner.results import LabelCurve, ResultsFolder
from tests.builders import frame_of, trial_row
from tests.conftest import Answer

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.25)


def truth(labels: float) -> float:
    return 0.94 - 0.12 * math.pow(labels / 1000, -0.4)


def rows_of(noise: float, seeds: int, fractions: tuple[float, ...]) -> list[dict[str, Any]]:
    """Trials along a known curve."""
    generator = np.random.default_rng(1)
    rows = []
    for seed in range(seeds):
        for fraction in fractions:
            accuracy = truth(60000 * fraction) + generator.normal(0, noise)
            config = TrialConfig.of(seed=seed, split_seed=seed, label_fraction=fraction)
            rows.append(trial_row(config, test_accuracy=accuracy))
    return rows


def trials(noise: float, seeds: int = 4, fractions: tuple[float, ...] = FRACTIONS) -> pd.DataFrame:
    return frame_of(*rows_of(noise, seeds, fractions))


def test_a_curve_without_noise_is_found_again() -> None:
    curve = LabelCurve.fit(trials(1e-6))
    assert curve.best.tolist() == pytest.approx([0.94, 0.12, 0.4], rel=1e-3)
    assert curve.accuracy(60000).value == pytest.approx(truth(60000), abs=1e-5)
    needed = curve.labels_needed(0.92)
    assert truth(needed.value) == pytest.approx(0.92, abs=1e-5)
    assert needed.low <= needed.value <= needed.high


def test_the_interval_holds_the_truth_and_widens_with_the_noise() -> None:
    narrow, wide = (LabelCurve.fit(trials(noise)).accuracy(60000) for noise in (0.002, 0.01))
    for estimate in (narrow, wide):
        assert estimate.low < truth(60000) < estimate.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 2


def test_full_is_a_point_of_every_method_s_curve() -> None:
    full = trial_row(TrialConfig(), test_accuracy=truth(60000))
    frame = pd.concat([trials(0.001), frame_of(full)])
    assert LabelCurve.fit(frame).labels[-1] == 60000
    with pytest.raises(ValueError, match="must have 4 numbers of labels or more, got 1 with method"):
        LabelCurve.fit(frame, "fixmatch")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (trials(0.001, fractions=FRACTIONS[:3]), "must have 4 numbers of labels or more, got 3 with"),
        (
            frame_of(
                *(
                    trial_row(TrialConfig.of(model=model, label_fraction=fraction))
                    for model in ("CNN", "AdaptiveCNN")
                    for fraction in FRACTIONS
                )
            ),
            "must be of one model, got AdaptiveCNN, CNN",
        ),
    ],
)
def test_what_cannot_carry_it_is_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelCurve.fit(frame)


@pytest.mark.parametrize("target", [0.945, 1.0, 0.0, -1.0, float("nan")])
def test_a_target_that_the_curve_does_not_reach_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match=r"--target must be in \(0, 0.9\d+\), below the interval"):
        LabelCurve.fit(trials(0.001)).labels_needed(target)


def test_the_command_marks_it_as_an_extrapolation(tmp_path: Path, call: Callable[..., Answer]) -> None:
    results = ResultsFolder(str(tmp_path))
    for row in rows_of(0.001, 4, FRACTIONS):
        results.write(row, [])
    done = call(main, str(tmp_path), "--target", "0.92", "--labels", "30000")
    assert done.returncode == 0
    lines = done.stdout.splitlines()[-3:]
    assert lines[0].startswith("extrapolation, fitted on 600 to 15,000 labels: accuracy = 0.9")
    assert all(line.endswith("an extrapolation, not a measurement") for line in lines[1:])
    assert f"at 30,000 labels: {truth(30000):.1%}"[:-2] in lines[1]
    for arguments, error in (
        (("--target", "0.99"), "error: --target must be in (0, 0.9"),
        (("--labels", "0"), "error: --labels must be at least 1, got 0. Try 10000."),
        (("--target", "high"), "error: argument --target: invalid float value: 'high'"),
    ):
        refused = call(main, str(tmp_path), *arguments)
        assert refused.returncode == 2
        assert refused.stderr.startswith(error)
