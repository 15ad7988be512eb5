"""What a trial is: its id, what changes it, and rows of the same settings under another identity."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ssl_runner.config import FIELDS, GROUPS, TrialConfig
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial, identify
from ssl_runner.imports import source_digests
from ssl_runner.results import load_trials, newest
from ssl_runner.results.matching import KnownTrial, match
from ssl_runner.tune.__main__ import main
from tests.conftest import Answer

ROOT = Path(__file__).parent.parent

# Frozen: a trial that was run has this id for ever. A new setting joins with the value under which a
# trial is what it was before; a default that changes keeps the old one as its neutral value.
SETTINGS_IDS: list[tuple[dict[str, Any], str]] = [
    ({}, "44136fa355"),
    ({"label_fraction": 0.1}, "2e9639d4d3"),
    ({"label_fraction": 0.1, "seed": 3, "split_seed": 3}, "d92c776adf"),
    ({"model": "AdaptiveCNN", "dropout": 0.5}, "6087d9d226"),
    ({"method": "pseudo_label", "label_fraction": 0.01}, "94933dc548"),
    ({"method": "pi_model", "label_fraction": 0.01}, "3bcf01057a"),
    ({"method": "mean_teacher", "label_fraction": 0.01}, "c1f0ac2a3a"),
    ({"method": "fixmatch", "label_fraction": 0.01}, "31ed7466fa"),
    ({"method": "fixmatch", "label_fraction": 0.01, "threshold": 0.9, "mu": 2}, "ed07f2a712"),
    ({"method": "freematch", "label_fraction": 0.01}, "2e8205a0bf"),
    ({"method": "my_module:Mine", "label_fraction": 0.01, "ema": 0.9}, "6962763178"),
    ({"order": "paired", "augment": "weak", "flip": False, "keep": "last"}, "c51414ba7f"),
    ({"max_steps": 5000, "patience": 0, "batch_size": 32, "lr": 0.003}, "dc68017565"),
    ({"subset": 6000, "holdout": 500, "precision": "fp32", "compile": True}, "f8422c50c8"),
    ({"dataset": "my_module:my_data", "last_batch": "drop", "epochs": 3}, "47b8773749"),
]


@pytest.mark.parametrize(("settings", "settings_id"), SETTINGS_IDS)
def test_the_ids_of_trials_are_what_they_were(settings: dict[str, Any], settings_id: str) -> None:
    assert TrialConfig.of(**settings).settings_id == settings_id


@pytest.mark.parametrize("settings", [{"num_workers": 4}, {"num_workers": 3, "min_workers": 1}])
def test_workers_are_where_a_trial_runs_and_not_what_it_is(settings: dict[str, Any]) -> None:
    assert TrialConfig.of(**settings).settings_id == TrialConfig().settings_id


def test_the_names_of_settings_are_unique_over_the_groups() -> None:
    names = [name for group in GROUPS.values() for name in group.__dataclass_fields__]
    assert sorted(names) == sorted(FIELDS)
    config = TrialConfig.of(lr=0.5, method="fixmatch", subset=7)
    assert TrialConfig.of(**config.flat()) == config
    assert list(config.flat()) == list(FIELDS)


def test_the_data_and_the_source_are_part_of_it() -> None:
    config = TrialConfig()
    ids = {
        Trial(config, data, sources).trial_id
        for data in ("d1", "d2")
        for sources in ((), ("m 1",), ("m 2",), ("m 1", "n 1"))
    }
    assert len(ids) == 8
    trial = Trial(config.resolved(), "d1", ("m 1",))
    assert Trial.from_plain(trial.plain()) == trial


# ---- a setting more is one line ----

LINE = '    weight_noise: Real = setting(0.0, "noise in the weights, a test", least=0, below=1)\n'

CHECKS = """
import sys
from ssl_runner.config import TrialConfig
from ssl_runner.results import TRIALS
from ssl_runner.results.schema import identity_columns
from ssl_runner.identity import Trial
from ssl_runner.study import sweep_from_settings
from tests.test_identity import SETTINGS_IDS
for settings, settings_id in SETTINGS_IDS:
    assert TrialConfig.of(**settings).settings_id == settings_id
changed = TrialConfig.of(weight_noise=0.5)
assert changed.settings_id != TrialConfig().settings_id
assert TRIALS.field("weight_noise").metadata[b"meaning"] == b"noise in the weights, a test"
assert identity_columns(Trial(changed, "d"))["weight_noise"] == 0.5
assert sweep_from_settings({"weight_noise": 0.25}).trial.optimizer.weight_noise == 0.25
"""


def test_a_setting_more_is_one_line_in_one_file(tmp_path: Path) -> None:
    """Flag, study key, check, column and identity come with the line; no old id changes."""
    shutil.copytree(ROOT / "ssl_runner", tmp_path / "ssl_runner")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    path = tmp_path / "ssl_runner" / "train" / "settings.py"
    text = path.read_text(encoding="utf-8")
    place = text.index("    lr: Real")
    path.write_text(text[:place] + LINE + text[place:], encoding="utf-8")
    python = [sys.executable, "-c", CHECKS]
    done = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = run(tmp_path, "ssl_runner.tune", "--help")
    assert "--weight-noise WEIGHT_NOISE" in told.stdout
    refused = run(tmp_path, "ssl_runner.tune", "--weight-noise", "2.0")
    assert refused.returncode == 2
    assert refused.stderr == "error: weight_noise must be in [0, 1), got 2.0. The default is 0.0.\n"


# ---- source ----


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder: a module, a package that it imports, and a file that neither needs."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_top.py").write_text(
        "import torch\nfrom mine_pkg.layers import N\nclass M: n = N\n"
    )
    package = tmp_path / "mine_pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("def late():\n    from .sizes import S\n    return S\nN = 1\n")
    (package / "sizes.py").write_text("S = 2\n")
    (tmp_path / "mine_other.py").write_text("O = 3\n")
    return tmp_path


def test_the_source_is_the_module_and_what_it_imports_of_its_own_folder(own_code: Path) -> None:
    digests = source_digests("mine_top:M")
    names = [line.partition(" ")[0] for line in digests]
    assert names == ["mine_pkg", "mine_pkg.layers", "mine_pkg.sizes", "mine_top"]
    assert digests == source_digests("mine_top:M")
    (own_code / "mine_other.py").write_text("O = 4\n")
    assert source_digests("mine_top:M") == digests
    (own_code / "mine_pkg" / "sizes.py").write_text("S = 20\n")
    changed = set(source_digests("mine_top:M")) ^ set(digests)
    assert {line.partition(" ")[0] for line in changed} == {"mine_pkg.sizes"}


def test_this_package_and_installed_ones_do_not_count() -> None:
    names = [line.partition(" ")[0] for line in source_digests("tests.models:Method")]
    assert "tests.models" in names
    assert not [name for name in names if name.startswith(("ssl_runner", "torch"))]
    installed = [line.partition(" ")[0] for line in source_digests("filelock:FileLock")]
    assert "filelock" in installed
    assert {name.partition(".")[0] for name in installed} == {"filelock"}
    assert source_digests("math:pi") == ()


def test_a_trial_of_built_in_parts_has_no_source() -> None:
    (built_in, own) = identify([TrialConfig(), TrialConfig.of(model="tests.models:Linear")], "d")
    assert built_in.sources == ()
    assert any(line.startswith("tests.models ") for line in own.sources)
    with pytest.raises(InputError, match="tests.models has no 'Nothing'"):
        identify([TrialConfig.of(model="tests.models:Nothing")], "d")


# ---- rows that are there ----

CONFIG = TrialConfig().resolved()
TRIAL = Trial(CONFIG, "d2", ("m 2",))


def known(**changes: Any) -> KnownTrial:
    values: dict[str, Any] = {
        "trial_id": "0",
        "settings_id": CONFIG.settings_id,
        "data_digest": "d2",
        "sources": ("m 2",),
        "status": "finished",
        "ended_at": datetime(2024, 1, 1, tzinfo=UTC),
    }
    return KnownTrial(**values | changes)


@pytest.mark.parametrize(
    ("row", "differs"),
    [
        (known(), ""),
        (known(data_digest=None, sources=None), ""),  # an older version's row does not say
        (known(data_digest="d1"), "the data (digest d1, now d2)"),
        (known(sources=("m 1",)), "the source of m"),
        (known(sources=("m 2", "n 1")), "the source of n"),
        (known(sources=()), "the source of m"),
        (known(data_digest="d1", sources=("m 1",)), "the data (digest d1, now d2) and the source of m"),
    ],
)
def test_what_differs_is_said(row: KnownTrial, differs: str) -> None:
    assert row.differs(TRIAL) == differs
    matches = match([TRIAL], [row])
    assert matches.status(TRIAL) == (None if differs else "finished")
    assert matches.changed == ({differs: 1} if differs else {})
    assert matches.older == ([row] if differs else [])


def test_of_several_rows_the_newest_of_the_same_identity_counts() -> None:
    later = datetime(2024, 1, 2, tzinfo=UTC)
    rows = [
        known(trial_id="a"),
        known(trial_id="b", status="failed", ended_at=later),
        known(trial_id="c", data_digest="d1", ended_at=later),
        known(trial_id="d", settings_id="another", ended_at=later),
    ]
    for order in (rows, rows[::-1]):
        matches = match([TRIAL], order)
        assert matches.rows[TRIAL.trial_id].trial_id == "b"
        assert [row.trial_id for row in matches.older] == ["c"]
        assert matches.changed == {}
    exact = known(trial_id=TRIAL.trial_id)
    assert match([TRIAL], [*rows, exact]).rows[TRIAL.trial_id] == exact


# ---- whole commands ----


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a person's folder, which is where their modules are looked for."""
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


DATA = """
import numpy as np
from ssl_runner.datasets import ImageArrays, ImageDataset

def make():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = random.integers(0, 100, (60, 1, 8, 8)).astype(np.uint8) + (labels * SHIFT)[
        :, None, None, None
    ].astype(np.uint8)
    arrays = ImageArrays(images, labels, ("dark", "bright"))
    return ImageDataset("own", arrays, arrays)
"""

MODEL = """
from torch import nn

class Mine(nn.Sequential):
    def __init__(self, channels, size, classes, dropout):
        super().__init__(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own_data.py").write_text(f"SHIFT = 20\n{DATA}")
    (tmp_path / "own_model.py").write_text(MODEL)
    return tmp_path


TRAIN = (
    *("ssl_runner.train", "--dataset", "own_data:make", "--model", "own_model:Mine", "--epochs", "2"),
    *("--batch-size", "10", "--results", "results", "--name", "own"),
)


def change_data(folder: Path) -> None:
    (folder / "own_data.py").write_text(f"SHIFT = 100\n{DATA}")


def change_model(folder: Path) -> None:
    (folder / "own_model.py").write_text(f"{MODEL}\n# the same once more\n")


def test_changed_data_or_code_is_another_trial_and_the_old_row_stays(folder: Path) -> None:
    assert run(folder, *TRAIN).returncode == 0
    again = run(folder, *TRAIN)
    assert "epoch 1" not in again.stdout  # nothing changed: its row is there
    for count, (change, said) in enumerate(
        (
            (change_data, "the data (digest "),
            (change_model, "the source of own_model changed"),
        ),
        start=2,
    ):
        before = load_trials(str(folder / "results"))
        change(folder)
        changed = run(folder, *TRAIN)
        assert changed.returncode == 0, changed.stderr
        assert f"it has a row from before {said}" in changed.stdout
        assert "epoch 2 of 2" in changed.stdout
        rows = load_trials(str(folder / "results"))
        assert len(rows) == count
        kept = rows[rows["trial_id"].isin(before["trial_id"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(kept, before)
        (new,) = newest(rows).to_dict("records")
        assert new["trial_id"] not in set(before["trial_id"])
    report = run(folder, "ssl_runner.report", "results", "--format", "csv")
    assert len(report.stdout.splitlines()) == 2
    assert report.stderr == (
        "2 of 3 trials are left out: their data or source code has changed since (--all-versions shows "
        "them)\n"
    )
    shown = run(folder, "ssl_runner.report", "results", "--format", "csv", "--all-versions")
    assert len(shown.stdout.splitlines()) == 4
    assert shown.stderr == ""


def test_the_main_command_says_what_changed_before_it_runs(folder: Path) -> None:
    """The same for the sweep, without training anything: the rows are there, and the data changed."""
    tune = ("ssl_runner.tune", *TRAIN[1:3], "--models", *TRAIN[4:], "--configs", "full", "--log")
    assert run(folder, *TRAIN).returncode == 0
    assert "1 of 1 trials are in results already" in run(folder, *tune).stdout
    change_data(folder)
    refused = run(folder, *tune, "--cpus-per-trial", "10000")
    assert "1 of 1 trials have rows from before the data (digest " in refused.stdout
    assert "they run again, and the old rows are kept" in refused.stdout
    assert refused.returncode == 2
    assert len(load_trials(str(folder / "results"))) == 1


def test_rows_of_version_2_are_matched_and_skipped(
    tmp_path: Path, fashion_mnist: object, call: Callable[..., Answer]
) -> None:
    """A results folder as the release before settings ids left it; its command has nothing to do."""
    results = tmp_path / "results"
    shutil.copytree(ROOT / "tests" / "results_v2", results)
    command = (
        *("--results", str(results), "--subset", "300", "--epochs", "1"),
        *("--batch-size", "30", "--name", "v2", "--precision", "fp32", "--log"),
    )
    models = ("--models", "CNN", "tests.models:Linear", "tests.models:Raising")
    full = call(main, *command, *models, "--configs", "full")
    assert "3 of 3 trials are in" in full.stdout
    assert full.returncode == 1  # one of them failed, as its row says
    partial = ("--configs", "partial", "--label-fractions", "0.2", "--methods", "fixmatch")
    assert "1 of 1 trials are in" in call(main, *command, *partial).stdout
    rows = load_trials(str(results))
    assert len(rows) == len(newest(rows)) == 4
    finished = rows[rows["status"] == "finished"]
    assert finished["unlabeled_batches_skipped"].notna().all()
    assert finished["misclassified"].map(len).min() > 0
    own = rows["model"].str.contains(":")
    assert rows[own]["sources"].isna().all()  # not known, so taken for unchanged
    assert (rows[~own]["sources"] == "").all()
    other = call(main, *command, "--configs", "full", "--lr", "0.5", "--cpus-per-trial", "10000")
    assert "already" not in other.stdout
    assert other.returncode == 2
