"""The Parquet table: its columns, what is written and read back, and the comparison."""

import math
import re
import time
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ssl_runner.config import FIELDS, TrialConfig
from ssl_runner.identity import Trial
from ssl_runner.results import (
    EPOCHS,
    SCHEMA_VERSION,
    TRIALS,
    ResultsFolder,
    compare,
    label_curve,
    load_epochs,
    load_trials,
)
from ssl_runner.results.columns import PAGE, with_tables
from ssl_runner.results.schema import identity_columns
from ssl_runner.testing.processes import Runs
from tests.builders import epoch_rows, failed_row, frame_of, statuses, trial_row
from tests.test_config import trial_configs

ROOT = Path(__file__).parent.parent

TRIAL_COLUMNS = """
schema_version int64
sweep string
trial_id string
status string
error string
question string
dataset string
subset int64
config string
label_fraction double
split_seed int64
selection string
label_budgets string
holdout int64
unlabeled_fraction double
labeled_classes string
unlabeled_classes string
labeled_imbalance double
unlabeled_imbalance double
label_noise double
noise_kind string
foreign double
foreign_images string
model string
dropout double
small_images bool
weights_file string
sync_batch_norm bool
optimizer string
lr double
weight_decay double
optimizer_momentum double
nesterov bool
beta1 double
beta2 double
eps double
schedule string
decay_every double
decay_factor double
warmup_steps int64
method string
mu int64
unlabeled_weight double
ramp double
threshold double
temperature double
alignment bool
momentum double
ema double
seed int64
batch_size int64
order string
last_batch string
augment string
magnitude double
flip bool
epochs int64
max_steps int64
patience int64
keep string
precision string
compile bool
num_workers int64
min_workers int64
role string
search_group string
sample int64
holdout_labels int64
holdout_correct binary
search string
validation string
round int64
labeled_images int64
labeled_images_per_class list<element: int64>
flipped_labels int64
unlabeled_images int64
foreign_unlabeled_images int64
class_mismatch double
validation_images int64
test_images int64
test_images_left_out int64
images_left_out int64
left_out_why string
test_fraction double
next_images list<element: int64>
weights string
split_digest string
pools_digest string
settings_id string
data_digest string
sources string
epochs_run int64
best_epoch int64
train_loss double
train_accuracy double
validation_loss double
validation_accuracy double
validation_macro_accuracy double
student_validation_loss double
student_validation_accuracy double
unlabeled_loss double
confidence double
accepted_share double
pseudo_accuracy double
test_loss double
test_accuracy double
test_macro_accuracy double
student_test_loss double
student_test_accuracy double
test_accuracy_per_class list<element: double>
confusion list<element: list<element: int64>>
class_names list<element: string>
misclassified list<element: list<element: int64>>
rungs list<element: struct<steps: int64, validation_loss: double, validation_accuracy: double>>
steps int64
unlabeled_batches_skipped int64
images int64
unlabeled_images_seen int64
train_seconds double
evaluate_seconds double
cpu_seconds double
seconds double
images_per_second double
parameters int64
device string
precision_used string
world_size int64
threads int64
node string
started_at timestamp[us, tz=UTC]
ended_at timestamp[us, tz=UTC]
version string
python_version string
torch_version string
ray_version string
git_commit string
"""

EPOCH_COLUMNS = """
schema_version int64
sweep string
trial_id string
epoch int64
train_loss double
train_accuracy double
validation_loss double
validation_accuracy double
validation_macro_accuracy double
student_validation_loss double
student_validation_accuracy double
unlabeled_loss double
confidence double
accepted_share double
pseudo_accuracy double
steps int64
unlabeled_batches_skipped int64
images int64
unlabeled_images_seen int64
train_seconds double
evaluate_seconds double
images_per_second double
"""


def columns(schema: Any) -> list[str]:
    return [f"{field.name} {field.type}".replace("item: ", "element: ") for field in schema]


def test_the_page_has_every_column_with_its_type_and_meaning() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for heading, schema in (("trials", TRIALS), ("epochs", EPOCHS)):
        section = page.partition(f"## {heading}\n\n")[2].partition("\n\n")[0]
        rows = [line.strip("| ").split(" | ") for line in section.splitlines()[2:]]
        assert rows == [
            [f"`{field.name}`", str(field.type), field.metadata[b"meaning"].decode()]
            for field in schema
        ]
    assert with_tables(page) == page, "python -m ssl_runner.results.columns writes them again"


@pytest.mark.parametrize("page", ["README.md", "ssl_runner/results/README.md"])
def test_the_pages_ways_to_read_the_table_work(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = ResultsFolder("results")
    results.write(trial_row(TrialConfig()), epoch_rows(2))
    results.write(failed_row(TrialConfig.of(seed=1)), [])
    text = (ROOT / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(import pandas\n.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert len(names["trials"]) == 2


def test_duckdb_and_polars_read_the_same_rows(tmp_path: Path) -> None:
    results = ResultsFolder(str(tmp_path))
    configs = [TrialConfig(), TrialConfig.of(label_fraction=0.1, method="fixmatch").resolved()]
    for config in configs:
        results.write(trial_row(config), epoch_rows(2))
    results.write(failed_row(TrialConfig.of(seed=1)), [])
    expected = results.trials().sort_values("trial_id", ignore_index=True)
    files = f"{tmp_path}/trials/*.parquet"
    connection = duckdb.connect()
    asked = f"select * from '{files}' order by trial_id"
    by_duckdb = connection.sql(asked).to_arrow_table()
    by_polars = polars.read_parquet(files).sort("trial_id").to_arrow()
    for table in (by_duckdb, by_polars):
        assert table.select(TRIALS.names).cast(TRIALS).to_pandas().equals(expected)
    epochs = f"{tmp_path}/epochs/*.parquet"
    asked = "select avg(e.validation_loss) from '{}' e join '{}' using (trial_id) where method = 'pass'"
    (mean,) = connection.execute(asked.format(epochs, files)).fetchone() or (None,)
    connection.close()
    assert mean == pytest.approx(np.mean([row["validation_loss"] for row in epoch_rows(2)]))


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(str(tmp_path / "results"))


# ---- columns ----


def test_the_columns_are_what_they_were() -> None:
    assert columns(TRIALS) == TRIAL_COLUMNS.split("\n")[1:-1]
    assert columns(EPOCHS) == EPOCH_COLUMNS.split("\n")[1:-1]


def test_every_column_says_what_it_means() -> None:
    for schema in (TRIALS, EPOCHS):
        for field in schema:
            assert len(field.metadata[b"meaning"].decode()) > 3, field.name


def test_every_setting_has_its_column() -> None:
    config = TrialConfig.of(label_fraction=0.1, holdout=5000)
    row = identity_columns(Trial(config, "da"))
    assert row.keys() == FIELDS.keys() | {
        *("trial_id", "settings_id", "data_digest", "sources", "config", "validation"),
        "round",
    }
    assert row.keys() <= set(TRIALS.names)
    assert row["settings_id"] == config.settings_id
    assert (row["config"], row["validation"]) == ("partial", "holdout")


def test_a_full_row_fills_every_column() -> None:
    row = trial_row(TrialConfig(), error="none")
    assert row.keys() == set(TRIALS.names) - {"schema_version"}
    assert epoch_rows(1)[0].keys() == set(EPOCHS.names) - {"schema_version", "sweep", "trial_id"}


def test_the_meaning_travels_with_the_file(results: ResultsFolder) -> None:
    config = TrialConfig()
    results.write(trial_row(config), [])
    file = Path(results.root, "trials", f"s--{config.settings_id}.parquet")
    meaning = pq.read_schema(file).field("unlabeled_batches_skipped").metadata[b"meaning"]
    assert meaning == b"unlabeled batches that were skipped"


# ---- writing and reading ----


def same(read: Any, written: Any) -> bool:
    """Whether a value came back from pandas, where whole numbers with gaps become floats."""
    if written is None:
        return bool(pd.isna(read))
    if isinstance(written, list):
        return [list(part) if isinstance(part, np.ndarray) else part for part in read] == written
    return bool(read == written)


@pytest.mark.parametrize(
    "config",
    [
        TrialConfig(),
        TrialConfig.of(subset=6000, max_steps=940, label_fraction=0.1, holdout=1, seed=2**63 - 1),
    ],
)
@pytest.mark.parametrize("is_failed", [False, True])
def test_pandas_alone_reads_what_was_written(
    results: ResultsFolder, config: TrialConfig, is_failed: bool
) -> None:
    row = failed_row(config) if is_failed else trial_row(config)
    results.write(row, epoch_rows(0 if is_failed else 3))

    frame = pd.read_parquet(f"{results.root}/trials")
    assert list(frame.columns) == TRIALS.names
    (read,) = frame.to_dict("records")
    assert read["schema_version"] == SCHEMA_VERSION
    for name in TRIALS.names[1:]:
        assert same(read[name], row.get(name)), name
    pd.testing.assert_frame_equal(results.trials(), frame)
    pd.testing.assert_frame_equal(load_trials(results.root, "s"), frame)

    epochs = pd.read_parquet(f"{results.root}/epochs")
    assert list(epochs.columns) == EPOCHS.names
    assert len(epochs) == (0 if is_failed else 3)
    for read, written in zip(epochs.to_dict("records"), epoch_rows(3), strict=False):
        assert read == written | {
            "schema_version": SCHEMA_VERSION,
            "sweep": "s",
            "trial_id": config.settings_id,
        }
    pd.testing.assert_frame_equal(results.epochs(), epochs)
    pd.testing.assert_frame_equal(load_epochs(results.root), epochs)


@given(config=trial_configs, figures=st.dictionaries(st.sampled_from(["test_loss", "lr"]), st.floats()))
def test_any_config_fits_into_the_table(
    tmp_path_factory: pytest.TempPathFactory, config: TrialConfig, figures: dict[str, float]
) -> None:
    results = ResultsFolder(str(tmp_path_factory.getbasetemp() / "any"))
    results.write(trial_row(config) | figures, [])
    (read,) = pq.read_table(
        Path(results.root, "trials", f"s--{config.settings_id}.parquet")
    ).to_pylist()
    results.forget("s", [config.settings_id])
    figures.setdefault("lr", config.optimizer.lr)
    assert read["subset"] == config.data.subset
    for name, value in figures.items():
        assert read[name] == value or math.isnan(value)
    fields = {name: read[name] for name in config.flat() if name != "lr"}
    assert config.replace(**fields) == config


def test_rows_with_and_without_optional_values_stand_together(results: ResultsFolder) -> None:
    # Alone, the column of one would be of integers and that of the other of nothing.
    with_all = TrialConfig.of(subset=600, max_steps=5)
    results.write(trial_row(with_all), epoch_rows(1))
    results.write(failed_row(TrialConfig()), [])
    frame = pd.read_parquet(f"{results.root}/trials").set_index("trial_id")
    assert frame.loc[with_all.settings_id, "subset"] == 600
    assert frame["subset"].isna()[TrialConfig().settings_id]
    assert frame.loc[TrialConfig().settings_id, "test_accuracy_per_class"] is None
    assert dict(frame["status"]) == {
        with_all.settings_id: "finished",
        TrialConfig().settings_id: "failed",
    }


def test_a_trial_written_again_replaces_its_row(results: ResultsFolder) -> None:
    config = TrialConfig()
    results.write(failed_row(config), epoch_rows(5))
    results.write(trial_row(config, test_accuracy=0.9), epoch_rows(2))
    (row,) = results.trials().to_dict("records")
    assert (row["status"], row["test_accuracy"]) == ("finished", 0.9)
    assert results.trials()["error"].isna().all()
    assert list(results.epochs()["epoch"]) == [1, 2]


def test_the_same_trial_may_stand_in_two_sweeps(results: ResultsFolder) -> None:
    for sweep in ("one", "two"):
        results.write(trial_row(TrialConfig(), sweep=sweep), epoch_rows(1))
    assert sorted(results.trials()["sweep"]) == ["one", "two"]
    assert list(results.trials("two")["sweep"]) == ["two"]
    assert list(results.epochs("two")["sweep"]) == ["two"]
    assert list(results.trials("two").index) == [0]
    assert results.trials("three").empty


def test_an_empty_folder_has_no_rows_and_all_columns(results: ResultsFolder) -> None:
    assert statuses(results, "s") == {}
    for frame, schema in ((results.trials(), TRIALS), (results.epochs(), EPOCHS)):
        assert frame.empty
        assert list(frame.columns) == schema.names
    assert not Path(results.root).exists()  # reading made nothing


def test_nothing_is_half_written_when_the_table_does_not_take_a_row(results: ResultsFolder) -> None:
    config = TrialConfig()
    results.write(trial_row(config), epoch_rows(1))
    with pytest.raises(Exception, match="not a number"):
        results.write(trial_row(config, steps="not a number"), epoch_rows(1))
    assert results.trials()["steps"].tolist() == [94]


def test_many_processes_write_at_once(results: ResultsFolder, runs: Runs) -> None:
    script = """
import sys
from ssl_runner.config import FIELDS, TrialConfig
from ssl_runner.identity import Trial
from ssl_runner.results.schema import identity_columns
from ssl_runner.results import ResultsFolder
from tests.builders import epoch_rows, trial_row
for seed in range(5):
    for shared in (int(sys.argv[2]), 99):  # rows of one's own, and rows that all of them write
        config = TrialConfig.of(seed=seed, split_seed=shared)
        ResultsFolder(sys.argv[1]).write(trial_row(config), epoch_rows(2))
"""
    root = Path(__file__).parent.parent
    writers = [runs.start(results.root, str(number), code=script, cwd=root) for number in range(3)]
    while any(writer.process.poll() is None for writer in writers):
        frame = results.trials()  # a reader in the midst of it sees whole rows
        assert frame["trial_id"].is_unique
        assert set(frame["status"]) <= {"finished"}
        time.sleep(0.02)
    for writer in writers:
        writer.succeed()
    assert len(results.trials()) == 20
    assert len(results.epochs()) == 40
    assert {path.name for path in Path(results.root).iterdir()} == {"trials", "epochs"}
    assert not list(Path(results.root).rglob(".*"))


# ---- statuses, forgetting ----

# Each the beginning of the next, and of what the files are called.
PREFIXES = ("a", "a-", "a--b", "a--b--c")


@pytest.fixture
def prefixes(results: ResultsFolder) -> ResultsFolder:
    """Sweeps with awkward names: each has a trial of its own and one that they all have."""
    for number, sweep in enumerate(PREFIXES):
        results.write(trial_row(TrialConfig.of(seed=number), sweep=sweep), epoch_rows(1))
        results.write(failed_row(TrialConfig.of(seed=77), sweep=sweep), epoch_rows(1))
    return results


def test_statuses_are_those_of_the_named_sweep(prefixes: ResultsFolder) -> None:
    common = TrialConfig.of(seed=77).settings_id
    for number, sweep in enumerate(PREFIXES):
        own = TrialConfig.of(seed=number).settings_id
        assert statuses(prefixes, sweep) == {own: "finished", common: "failed"}
    for other in ("", "b", "a--", "a--b--"):
        assert statuses(prefixes, other) == {}


@pytest.mark.parametrize("sweep", PREFIXES)
def test_forgetting_touches_the_named_sweep_alone(prefixes: ResultsFolder, sweep: str) -> None:
    everyone = [TrialConfig.of(seed=seed).settings_id for seed in (0, 1, 2, 3, 77)]
    prefixes.forget(sweep, everyone)
    for frame in (prefixes.trials(), prefixes.epochs()):
        assert sorted(frame["sweep"]) == sorted([name for name in PREFIXES if name != sweep] * 2)
    prefixes.forget(sweep, everyone)  # there is nothing left to forget


def test_forgetting_touches_the_named_trials_alone(results: ResultsFolder) -> None:
    kept, forgotten = TrialConfig.of(seed=1), TrialConfig.of(seed=2)
    for config in (kept, forgotten):
        results.write(trial_row(config), epoch_rows(1))
    (Path(results.root) / "trials" / "mine.txt").write_text("mine")
    results.forget("s", [forgotten.settings_id, "0123456789"])
    assert list(results.trials()["trial_id"]) == [kept.settings_id]
    assert list(results.epochs()["trial_id"]) == [kept.settings_id]
    assert statuses(results, "s") == {kept.settings_id: "finished"}
    assert (Path(results.root) / "trials" / "mine.txt").exists()


def test_checkpoints_of_awkward_sweeps_are_apart(results: ResultsFolder) -> None:
    trial_id = TrialConfig().settings_id
    places = {results.checkpoints(sweep, trial_id) for sweep in PREFIXES}
    assert len(places) == len(PREFIXES)
    assert all(place.startswith(f"{results.root}/checkpoints/") for place in places)


def test_the_folder_of_checkpoints_goes_when_it_is_empty(results: ResultsFolder) -> None:
    results.tidy()  # there is none yet
    checkpoint = Path(results.checkpoints("s", "0123456789"), "1.pt")
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    results.tidy()
    assert checkpoint.exists()
    checkpoint.unlink()
    checkpoint.parent.rmdir()
    results.tidy()
    assert list(Path(results.root).iterdir()) == []


# ---- where it lies ----


def test_a_relative_folder_means_the_same_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results = ResultsFolder("results")
    monkeypatch.chdir("/")
    results.write(trial_row(TrialConfig()), [])
    assert results.location == str(tmp_path / "results")
    assert len(pd.read_parquet(tmp_path / "results" / "trials")) == 1


def test_a_file_uri_is_a_local_folder(tmp_path: Path) -> None:
    results = ResultsFolder(f"file://{tmp_path}/results")
    results.write(trial_row(TrialConfig()), [])
    assert len(pd.read_parquet(tmp_path / "results" / "trials")) == 1
    assert results.location == str(tmp_path / "results")


def test_a_folder_that_can_be_written_is_left_as_it_was(results: ResultsFolder) -> None:
    results.check_writable()
    assert list(Path(results.root).iterdir()) == []  # made, and empty


@pytest.mark.parametrize(
    ("place", "reason"), [("file", "(Not a directory|File exists)"), ("file/sub", "Not a directory")]
)
def test_a_folder_that_can_not_be_written(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "file").write_text("mine")
    results = ResultsFolder(str(tmp_path / place))
    with pytest.raises(
        ValueError,
        match=rf"^--results must be a writable folder, got '{tmp_path}/{place}' "
        rf"\(.*{reason}.*\)\. Choose another, or check its permissions\.$",
    ) as refused:
        results.check_writable()
    assert len(str(refused.value).splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


# ---- the comparison ----


def test_means_spreads_and_counts() -> None:
    full = [
        trial_row(TrialConfig.of(seed=seed), test_accuracy=accuracy, train_loss=loss, steps=steps)
        for seed, accuracy, loss, steps in ((0, 0.9, 1.0, 10), (1, 0.92, 2.0, 20), (2, 0.94, 6.0, 60))
    ]
    tenth = [
        trial_row(TrialConfig.of(seed=seed, label_fraction=0.1), test_accuracy=accuracy)
        for seed, accuracy in ((0, 0.85), (1, 0.85), (2, 0.91))
    ]
    table = compare(frame_of(*tenth, *full))  # best-labeled first, however they come
    assert table["config"].tolist() == ["full", "partial"]
    assert table["labeled_images"].tolist() == [60000, 6000]
    assert table["n"].tolist() == [3, 3]
    row = table.iloc[0]
    assert row["test_accuracy_mean"] == pytest.approx(0.92)
    assert row["test_accuracy_spread"] == pytest.approx(0.02)  # of a sample: n - 1
    assert row["train_loss_mean"] == pytest.approx(3.0)
    assert row["train_loss_spread"] == pytest.approx(math.sqrt(7.0))
    assert (row["steps"], row["images"], row["train_seconds"], row["seconds"]) == (30, 6000, 10, 12)
    for name, value in (
        ("train_accuracy", 0.9),
        ("validation_loss", 0.5),
        ("validation_accuracy", 0.8),
        ("test_loss", 0.75),
    ):
        assert row[f"{name}_mean"] == pytest.approx(value)
        assert row[f"{name}_spread"] == pytest.approx(0, abs=1e-12)


def test_the_difference_to_full_is_paired_by_seed() -> None:
    accuracies = {
        TrialConfig.of(seed=0): 0.9,
        TrialConfig.of(seed=1): 0.8,
        TrialConfig.of(seed=0, label_fraction=0.1): 0.85,
        TrialConfig.of(seed=1, label_fraction=0.1): 0.75,
        TrialConfig.of(seed=0, label_fraction=0.5): 0.9,
        TrialConfig.of(seed=2, label_fraction=0.5): 0.1,  # no full trial has its seed
    }
    rows = [trial_row(config, test_accuracy=accuracy) for config, accuracy in accuracies.items()]
    table = compare(frame_of(*rows)).set_index("label_fraction")
    assert dict(table["to_full_mean"]) == pytest.approx({1.0: 0.0, 0.5: 0.0, 0.1: -0.05})
    # Both tenths lose the same to their own full trial, though full itself is spread widely.
    assert table["to_full_spread"][0.1] == pytest.approx(0, abs=1e-12)
    assert table["test_accuracy_spread"][0.1] == pytest.approx(math.sqrt(0.005))
    assert dict(table["n"]) == {1.0: 2, 0.5: 2, 0.1: 2}


def methods_frame(seeds: int) -> pd.DataFrame:
    """Three methods at two fractions, and full, under so many seeds."""
    noise = np.random.default_rng(0).normal(0, 0.01, size=(seeds, 7)).tolist()
    rows = []
    for seed in range(seeds):
        configs = [TrialConfig.of(seed=seed, split_seed=seed)]
        configs += [
            TrialConfig.of(seed=seed, split_seed=seed, label_fraction=fraction, method=method)
            for fraction in (0.1, 0.01)
            for method in ("pass", "fixmatch", "pi_model")
        ]
        for config, error in zip(configs, noise[seed], strict=True):
            gain = 0.05 if config.unlabeled.method == "fixmatch" else 0.0
            accuracy = 0.7 + 0.2 * config.data.label_fraction + gain + error
            rows.append(trial_row(config.resolved(), test_accuracy=accuracy))
    return frame_of(*rows)


def test_methods_are_compared_with_pass_at_the_same_labels() -> None:
    frame = methods_frame(4)
    table = compare(frame)
    before = table.columns[: table.columns.get_loc("labeled_images")]
    # What each method brings along, order and thresholds and averaging, is no key.
    assert list(before) == ["model", "config", "label_fraction", "method"]
    found = list(zip(table["label_fraction"], table["method"], strict=True))
    listed = ["pass", "pi_model", "fixmatch"]
    assert found == [(1.0, "pass"), *((f, method) for f in (0.1, 0.01) for method in listed)]
    table = table.set_index(["label_fraction", "method"])
    accuracy = frame.set_index(["label_fraction", "method", "seed"])["test_accuracy"]
    for fraction in (0.1, 0.01):
        for method in ("fixmatch", "pi_model"):
            row = table.loc[(fraction, method)]  # type: ignore[index]
            pair = accuracy[fraction][method], accuracy[fraction]["pass"]
            interval = stats.ttest_rel(*pair).confidence_interval(0.95)
            assert row["to_pass_mean"] == pytest.approx((pair[0] - pair[1]).mean())
            assert (row["to_pass_low"], row["to_pass_high"]) == pytest.approx(tuple(interval))
            interval = stats.ttest_rel(pair[0], accuracy[1.0]["pass"]).confidence_interval(0.95)
            assert (row["to_full_low"], row["to_full_high"]) == pytest.approx(tuple(interval))


def test_one_pair_has_no_interval() -> None:
    table = compare(methods_frame(1))
    assert table["to_pass_mean"].notna().all()
    assert table[["to_pass_low", "to_pass_high", "to_full_low", "to_full_high"]].isna().all().all()


def test_a_method_s_setting_that_varies_within_it_is_a_key() -> None:
    rows = [trial_row(TrialConfig.of(label_fraction=0.1).resolved(), test_accuracy=0.5)]
    for threshold, accuracy in ((0.8, 0.6), (0.9, 0.7)):
        config = TrialConfig.of(label_fraction=0.1, method="fixmatch", threshold=threshold)
        rows.append(trial_row(config.resolved(), test_accuracy=accuracy))
    table = compare(frame_of(*rows))
    gains = table.set_index("threshold")["to_pass_mean"]
    assert (gains[0.8], gains[0.9]) == pytest.approx((0.1, 0.2))


def test_the_label_curve_ends_at_full_for_every_method() -> None:
    curve = label_curve(methods_frame(3))
    assert curve.columns.tolist() == [
        *("model", "method", "labeled_images", "test_accuracy_mean", "test_accuracy_spread", "n")
    ]
    for _, of_method in curve.groupby("method"):
        assert of_method["labeled_images"].tolist() == [600, 6000, 60000]
        assert of_method["n"].tolist() == [3, 3, 3]
    last = curve[curve["labeled_images"] == 60000]["test_accuracy_mean"]
    assert last.nunique() == 1
    only_full = label_curve(frame_of(trial_row(TrialConfig())))
    assert only_full[["method", "labeled_images", "n"]].to_numpy().tolist() == [["pass", 60000, 1]]


def test_one_trial_has_no_spread() -> None:
    (row,) = compare(frame_of(trial_row(TrialConfig()))).to_dict("records")
    assert row["n"] == 1
    assert row["test_accuracy_mean"] == 0.7
    assert math.isnan(row["test_accuracy_spread"])
    assert row["to_full_mean"] == 0
    assert math.isnan(row["to_full_spread"])


def test_without_a_full_trial_there_is_no_difference() -> None:
    (row,) = compare(frame_of(trial_row(TrialConfig.of(label_fraction=0.1)))).to_dict("records")
    assert math.isnan(row["to_full_mean"])
    assert row["test_accuracy_mean"] == 0.7
    failed_full = failed_row(TrialConfig())
    (row,) = compare(frame_of(trial_row(TrialConfig.of(label_fraction=0.1)), failed_full)).to_dict(
        "records"
    )
    assert math.isnan(row["to_full_mean"])


def test_full_is_counted_once_where_it_ran_with_several_split_seeds() -> None:
    rows = [
        trial_row(
            TrialConfig.of(split_seed=split_seed, label_fraction=fraction), test_accuracy=accuracy
        )
        for split_seed, fraction, accuracy in (
            (0, 1.0, 0.9),
            (7, 1.0, 0.9),
            (7, 0.1, 0.8),
            (8, 0.1, 0.7),
        )
    ]
    table = compare(frame_of(*rows)).set_index("config")
    assert table["n"]["partial"] == 2  # no row was doubled by the pairing
    assert table["to_full_mean"]["partial"] == pytest.approx(-0.15)


VARIED: list[tuple[str, Any, Any]] = [
    ("subset", 600, None),
    ("epochs", 10, 20),
    ("max_steps", None, 940),
    ("lr", 0.001, 0.01),
    ("order", "interleave", "shuffle"),
    ("holdout", 0, 5000),
    ("num_workers", 1, 2),
]


@pytest.mark.parametrize(("setting", "one", "other"), VARIED)
def test_a_setting_that_varies_is_a_key(setting: str, one: Any, other: Any) -> None:
    rows = []
    for value, loss_of_accuracy in ((one, 0.1), (other, 0.2)):
        config = TrialConfig.of(**{setting: value})
        rows.append(trial_row(config, test_accuracy=0.9))
        partial = config.replace(label_fraction=0.1)
        rows.append(trial_row(partial, test_accuracy=0.9 - loss_of_accuracy))
    table = compare(frame_of(*rows))
    before = table.columns[: table.columns.get_loc("labeled_images")]
    assert list(before) == ["model", "config", "label_fraction", "method", setting]
    assert table["n"].tolist() == [1, 1, 1, 1]
    found = {
        None if pd.isna(row[setting]) else row[setting]: round(row["to_full_mean"], 9)
        for row in table[table["config"] == "partial"].to_dict("records")
    }
    assert found == {one: -0.1, other: -0.2}  # each against the full trial with the same setting


def test_a_setting_that_does_not_vary_is_no_key() -> None:
    rows = [trial_row(TrialConfig.of(seed=seed, lr=0.5, subset=600)) for seed in (0, 1)]
    table = compare(frame_of(*rows))
    before = table.columns[: table.columns.get_loc("labeled_images")]
    assert list(before) == ["model", "config", "label_fraction", "method"]  # nor do the seeds


def test_a_setting_that_varies_among_failed_trials_alone_is_no_key() -> None:
    table = compare(frame_of(trial_row(TrialConfig()), failed_row(TrialConfig.of(lr=0.5))))
    assert "lr" not in table.columns
    assert table["n"].tolist() == [1]


def test_models_and_sweeps_are_compared_with_their_own_full_trial() -> None:
    accuracies = {
        ("a", "CNN", 1.0): 0.9,
        ("a", "CNN", 0.1): 0.8,
        ("a", "AdaptiveCNN", 1.0): 0.95,
        ("a", "AdaptiveCNN", 0.1): 0.75,
        ("a--b", "CNN", 1.0): 0.5,
        ("a--b", "CNN", 0.1): 0.2,
    }
    rows = []
    for (sweep, model, fraction), accuracy in accuracies.items():
        config = TrialConfig.of(model=model, label_fraction=fraction)
        rows.append(trial_row(config, sweep=sweep, test_accuracy=accuracy))
    table = compare(frame_of(*rows))
    keys = ["sweep", "model", "label_fraction"]
    assert table[keys].to_records(index=False).tolist() == [
        ("a", "AdaptiveCNN", 1.0),
        ("a", "AdaptiveCNN", 0.1),
        ("a", "CNN", 1.0),
        ("a", "CNN", 0.1),
        ("a--b", "CNN", 1.0),
        ("a--b", "CNN", 0.1),
    ]
    assert table["to_full_mean"].tolist() == pytest.approx([0, -0.2, 0, -0.1, 0, -0.3])


def test_comparing_does_not_change_the_frame() -> None:
    frame = frame_of(trial_row(TrialConfig()), trial_row(TrialConfig.of(label_fraction=0.1)))
    before = frame.copy(deep=True)
    compare(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_comparing_nothing(results: ResultsFolder) -> None:
    columns_of_one = compare(frame_of(trial_row(TrialConfig()))).columns
    for frame in (results.trials(), frame_of(failed_row(TrialConfig()))):
        table = compare(frame)
        assert table.empty
        assert list(table.columns) == list(columns_of_one)


def test_what_was_read_compares_as_what_was_written(results: ResultsFolder) -> None:
    rows = [
        trial_row(TrialConfig.of(seed=seed, label_fraction=fraction), test_accuracy=fraction - seed / 9)
        for seed in (0, 1)
        for fraction in (0.1, 1.0)
    ]
    for row in rows:
        results.write(row, [])
    written = compare(frame_of(*rows))
    pd.testing.assert_frame_equal(
        compare(pd.read_parquet(f"{results.root}/trials")), written, check_dtype=False
    )


def test_rows_from_before_a_setting_compare_with_those_that_have_it(results: ResultsFolder) -> None:
    for seed in (0, 1):
        results.write(trial_row(TrialConfig.of(seed=seed, label_fraction=0.1)), [])
    path = next(Path(results.root, "trials").iterdir())
    later = ["magnitude", "label_noise", "foreign", "unlabeled_fraction", "unlabeled_imbalance"]
    pq.write_table(pq.read_table(path).drop_columns(later), path)
    assert list(compare(results.trials())["n"]) == [2]
