"""Many small files become a few large ones: no reader ever sees a row twice or misses one."""

import contextlib
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from ssl_runner import storage
from ssl_runner.config import TrialConfig
from ssl_runner.errors import InputError
from ssl_runner.results import ResultsFolder, compaction, load_epochs, load_trials
from ssl_runner.results.__main__ import main
from ssl_runner.testing.processes import Runs
from ssl_runner.testing.tables import tables
from ssl_runner.tune import concluding
from ssl_runner.tune.__main__ import main as tune
from tests.builders import epoch_rows, failed_row, trial_row
from tests.conftest import SWEEP, Answer

CONFIGS = [TrialConfig.of(seed=seed) for seed in range(12)]


def row_of(seed: int, sweep: str = "s", **figures: object) -> dict[str, object]:
    """A row of no round."""
    return trial_row(CONFIGS[seed], sweep, round=None, next_images=None, **figures)


def write(results: ResultsFolder, *seeds: int, sweep: str = "s") -> None:
    for seed in seeds:
        results.write(row_of(seed, sweep), epoch_rows(2))


def names(results: ResultsFolder, folder: str = "trials") -> list[str]:
    """Everything in a data set's folder, hidden files too."""
    return sorted(path.name for path in Path(results.root, folder).iterdir())


def is_tidy(results: ResultsFolder) -> bool:
    """Whether nothing but results is in the folder."""
    return {path.name for path in Path(results.root).iterdir()} <= {"trials", "epochs", "models"}


@pytest.fixture
def results(tmp_path: Path) -> ResultsFolder:
    return ResultsFolder(str(tmp_path / "results"))


# ---- the rows stay as they are ----

# What is done to a folder: the operation, its sweep and its trial.
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("ab"), st.integers(0, 11)),
        st.tuples(st.just("forget"), st.sampled_from("ab"), st.integers(0, 11)),
        st.tuples(st.just("change"), st.sampled_from("ab"), st.integers(0, 11)),
        st.tuples(st.just("compact"), st.just(""), st.just(0)),
    ),
    max_size=30,
)


@settings(max_examples=25)
@given(OPERATIONS, st.sampled_from([1, 30_000, compaction.LARGEST]))
def test_a_folder_that_is_compacted_now_and_then_has_the_same_rows(
    tmp_path_factory: pytest.TempPathFactory, operations: list[tuple[str, str, int]], largest: int
) -> None:
    folder = tmp_path_factory.mktemp("r")
    one, other = (ResultsFolder(str(folder / name)) for name in ("one", "other"))
    there: set[tuple[str, int]] = set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "LARGEST", largest)
        for what, sweep, seed in operations:
            trial_id = CONFIGS[seed].settings_id
            for results in (one, other):
                if what == "write" and (sweep, seed) not in there:
                    write(results, seed, sweep=sweep)
                elif what == "forget":
                    results.forget(sweep, [trial_id])
                elif what == "change" and (sweep, seed) in there:
                    values = {"weights": None, "role": "search", "sample": seed}
                    results.write_columns(sweep, {trial_id: values})
                elif what == "compact" and results is one and there:
                    results.compact()
            there |= {(sweep, seed)} if what == "write" else set()
            there -= {(sweep, seed)} if what == "forget" else set()
        assert len(one.trials()) == len(there)
        for frames in (
            (one.trials(), other.trials()),
            (one.epochs(), other.epochs()),
            (one.trials("a"), other.trials("a")),
        ):
            pd.testing.assert_frame_equal(*frames)
        for name in "ab":
            ids = {(row.trial_id, row.settings_id, row.ended_at) for row in other.known(name)}
            assert {(row.trial_id, row.settings_id, row.ended_at) for row in one.known(name)} == ids
            for config in CONFIGS:
                trial_id = config.settings_id
                assert one.status(name, trial_id) == other.status(name, trial_id)
                assert one.config(name, trial_id) == other.config(name, trial_id)
        assert not there or is_tidy(one)
    shutil.rmtree(folder)


def test_many_files_become_one(results: ResultsFolder) -> None:
    write(results, *range(6))
    write(results, 1, 2, sweep="t")
    results.write(*failed(7))
    trials, epochs = results.trials(), results.epochs()
    done = results.compact()
    assert {name: (of.before, of.after) for name, of in done.items()} == {
        "trials": (9, 1),
        "epochs": (9, 1),
    }
    pd.testing.assert_frame_equal(results.trials(), trials)
    pd.testing.assert_frame_equal(results.epochs(), epochs)
    # Whoever reads the files without this program sees the same rows.
    plain = pd.read_parquet(f"{results.root}/trials").sort_values(["sweep", "trial_id"])
    assert list(plain["trial_id"]) == list(trials["trial_id"])
    write(results, 8)
    assert len(names(results)) == 2
    assert results.compact()["trials"].after == 1  # the old large file is not full
    assert set(results.trials()["seed"]) == {*range(6), 7, 8}
    assert is_tidy(results)


def failed(seed: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    return failed_row(CONFIGS[seed]) | {"round": None, "next_images": None}, []


def test_a_full_file_is_not_written_anew(
    results: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "LARGEST", 1)
    write(results, 0, 1, 2)
    results.compact()
    assert len(names(results)) == 3  # each row fills a file
    before = {path: path.stat().st_ino for path in Path(results.root, "trials").iterdir()}
    results.compact()
    assert {path: path.stat().st_ino for path in Path(results.root, "trials").iterdir()} == before


def test_rows_that_are_replaced_or_of_another_version_stay_in_their_files(
    results: ResultsFolder,
) -> None:
    shutil.copytree(Path(__file__).parent / "results_v2", results.root)
    old = names(results)
    write(results, 0, 1)
    results.write(trial_row(CONFIGS[2], round=0), epoch_rows(2))
    trials, epochs = results.trials(), results.epochs()
    results.compact()
    pd.testing.assert_frame_equal(results.trials(), trials)
    pd.testing.assert_frame_equal(results.epochs(), epochs)
    of_a_round = f"s--{CONFIGS[2].settings_id}.parquet"
    assert {*old, of_a_round} == {name for name in names(results) if "compacted" not in name}
    assert of_a_round in names(results, "epochs")  # it is replaced with the row
    results.write(trial_row(CONFIGS[2], round=0), epoch_rows(3))
    assert len(results.trials()) == len(trials)
    assert len(results.epochs()) == len(epochs) + 1


def test_a_model_that_is_not_kept_is_not_named_any_more(results: ResultsFolder) -> None:
    models = Path(results.root, "models")
    models.mkdir(parents=True)
    for seed in range(3):
        name = f"s--{CONFIGS[seed].settings_id}.safetensors"
        (models / name).touch()
        results.write(row_of(seed, weights=f"models/{name}"), [])
    results.compact()
    kept = CONFIGS[1].settings_id
    assert results.keep_models("s", {kept}) == 1
    named = results.trials().set_index("trial_id")["weights"].dropna()
    assert named.to_dict() == {kept: f"models/s--{kept}.safetensors"}
    assert [path.name for path in models.iterdir()] == [f"s--{kept}.safetensors"]
    results.remove_leftovers("s", ())
    assert len(list(models.iterdir())) == 1
    with pytest.raises(FileNotFoundError, match=f"s has no row of {CONFIGS[5].settings_id}"):
        results.write_columns("s", {CONFIGS[5].settings_id: {"weights": None}})


def test_the_same_command_finds_its_trials_and_compacts_many(
    tmp_path: Path,
    undisturbed: Path,
    call: Callable[..., Answer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(undisturbed, tmp_path / "results")
    results = ResultsFolder(str(tmp_path / "results"))
    for most, files in ((4, 3), (3, 1), (3, 1)):
        monkeypatch.setattr(concluding, "MANY_FILES", most)
        answer = call(tune, *SWEEP[1:], "--results", results.root)
        assert answer.returncode == 0, answer.stderr
        assert ("3 of 3 trials are in" in answer.stdout, len(names(results))) == (True, files)
        assert tables(Path(results.root)) == tables(undisturbed)


# ---- readers, writers and deaths meanwhile ----


class Steps:
    """Calls a function before each change to the file system, while it is on. An audit hook can
    not be taken away."""

    def __init__(self, look: Callable[[], None]) -> None:
        self.look, self.is_on, self.seen = look, False, set[str]()
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: object) -> None:
        if self.is_on and event in (
            "open",
            "os.link",
            "os.mkdir",
            "os.rename",
            "os.remove",
            "os.rmdir",
        ):
            self.is_on = False
            self.seen.add(event)
            self.look()
            self.is_on = True


def test_at_each_of_its_steps_a_reader_sees_every_row_once(results: ResultsFolder) -> None:
    write(results, *range(5))
    results.compact()
    write(results, *range(5, 9))
    results.write(trial_row(CONFIGS[9], round=0), epoch_rows(2))
    moments = []

    def look() -> None:
        trials, epochs = (pd.read_parquet(f"{results.root}/{name}") for name in ("trials", "epochs"))
        moments.append((sorted(trials["seed"]), len(epochs)))

    steps = Steps(look)
    steps.is_on = True
    results.compact()
    steps.is_on = False
    assert {"open", "os.link", "os.remove", "os.rmdir"} <= steps.seen
    assert moments == [([*range(10)], 20)] * len(moments)


WRITER = """
import sys
from ssl_runner.results import ResultsFolder
from tests.test_compaction import write
results = ResultsFolder(sys.argv[1])
for turn in range(int(sys.argv[2])):
    write(results, 8, 9, 10, 11, sweep=f"t{turn}")
    results.compact()
"""


def test_a_reader_never_sees_a_row_twice_or_misses_one(
    results: ResultsFolder, tmp_path: Path, runs: Runs
) -> None:
    write(results, *range(8))
    expected = sorted((config.settings_id, 1) for config in CONFIGS[:8])
    writer = runs.start(results.root, "15", code=WRITER)
    plain = own = 0
    while writer.process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # it has listed files that were compacted since
            frame = pd.read_parquet(f"{results.root}/trials", columns=["sweep", "trial_id"])
            counts = frame[frame["sweep"] == "s"]["trial_id"].value_counts()
            assert sorted(counts.items()) == expected
            plain += 1
        counts = load_trials(results.root, "s")["trial_id"].value_counts()
        assert sorted(counts.items()) == expected
        assert len(load_epochs(results.root, "s")) == 16
        own += 1
    writer.succeed()
    assert plain
    assert own
    assert len(results.trials()) == 8 + 4 * 15
    assert len(names(results)) == 1


def test_killed_in_the_middle_nothing_is_lost(results: ResultsFolder, runs: Runs) -> None:
    write(results, *range(8))
    rows = pd.read_parquet(f"{results.root}/trials").sort_values("trial_id", ignore_index=True)
    moments, kills = random.Random(0), 0
    for turn in range(12):
        write(results, 8, sweep=f"t{turn}")
        run = runs.start("ssl_runner.results", "compact", results.root)
        working = compaction.working_folder(results.root, ("trials", "epochs")[turn % 2])
        while run.process.poll() is None and not working.exists():
            time.sleep(0.0005)
        time.sleep(moments.uniform(0, 0.01))
        if run.process.poll() is None:
            runs.kill()
            kills += 1
        run.end()
        frame = pd.read_parquet(f"{results.root}/trials")
        of_s = frame[frame["sweep"] == "s"].sort_values("trial_id", ignore_index=True)
        pd.testing.assert_frame_equal(of_s, rows)
        assert len(frame) == 9 + turn
        assert len(results.epochs()) == 2 * (9 + turn)
    assert kills
    with results.lock_sweep("s"):  # the lock of a dead process is free
        results.remove_leftovers("s", ())
    results.compact()
    assert is_tidy(results)
    assert len(names(results)) == 1


# ---- what is refused ----


def test_not_while_a_sweep_is_running(results: ResultsFolder) -> None:
    write(results, 0, 1)
    with (
        results.lock_sweep("other"),
        pytest.raises(InputError, match="no other process may be running a sweep"),
    ):
        results.compact()
    with results.lock_sweep("own"):
        assert results.compact(running="own")["trials"].after == 1
    with (
        FileLock(Path(results.root, ".compacting")),
        pytest.raises(InputError, match="or compacting it"),
    ):
        results.compact()


def test_a_folder_that_cannot_be_exchanged_stays_as_it_is(
    results: ResultsFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(one: Path, other: Path) -> None:
        raise OSError(22, "Invalid argument")

    write(results, 0, 1)
    before = names(results), names(results, "epochs")
    monkeypatch.setattr(storage, "_exchange", refuse)
    with pytest.raises(InputError, match=r"can't be compacted \(Invalid argument\)"):
        results.compact()
    assert (names(results), names(results, "epochs")) == before
    assert is_tidy(results)


def test_an_object_store_is_refused(results: ResultsFolder) -> None:
    results.filesystem = fs.SubTreeFileSystem(results.root, fs.LocalFileSystem())
    with pytest.raises(InputError, match="only a local folder can be compacted"):
        results.compact()


def test_a_file_that_is_not_of_the_results_is_named(results: ResultsFolder) -> None:
    write(results, 0, 1)
    strange = Path(results.root, "trials", "notes--x.parquet")
    strange.write_text("hello")
    with pytest.raises(InputError, match=f"{strange}: not a file of this program's results"):
        results.compact()
    assert len(names(results)) == 3


def test_the_command(results: ResultsFolder, call: Callable[..., Answer]) -> None:
    write(results, 0, 1, 2)
    answer = call(main, "compact", results.root)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert f"{results.root}/trials: 3 files before, 1 now" in answer.stdout
    for arguments, said in (
        (
            ("compact", f"{results.root}/nowhere"),
            "must be a folder of results, got one without trials/",
        ),
        (("pack",), "invalid choice: 'pack'"),
    ):
        answer = call(main, *arguments)
        assert answer.returncode == 2
        assert said in answer.stderr
        assert answer.stderr.count("\n") == 1
