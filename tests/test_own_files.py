"""Own image files from end to end: the same rows as the built-in set, shared by trials, on the page."""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.write_files import main as write_files
from ssl_runner.cache import cache_folder
from ssl_runner.config import SweepConfig, TrialConfig
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.datasets.__main__ import main as describe
from ssl_runner.datasets.decoded.store import clear, handle_of
from ssl_runner.datasets.load import LOADERS
from ssl_runner.datasets.settings import DATASETS, FileSettings, is_path
from ssl_runner.errors import DataError, InputError
from ssl_runner.labels import UNLABELED
from ssl_runner.report.page import find_dataset
from ssl_runner.split import split_labels
from ssl_runner.study import load_sweep
from ssl_runner.suited import suited
from ssl_runner.testing.processes import Runs
from ssl_runner.testing.tables import tables
from ssl_runner.tune.cluster import Cluster
from ssl_runner.tune.sharing import NodeMap, opened, share
from tests.builders import frame_of, trial_row


def quiet(line: str) -> None:
    pass


SMALL = 1000
"""Images of each part that are written out for most of these tests."""

PATHS = {"csv": "labels.csv", "folders": "", "parquet": ""}
"""What names each layout, in its folder."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of its own for decoded images, with the Fashion-MNIST of the person's own."""
    folder = tmp_path_factory.mktemp("cache")
    load_dataset("fashion_mnist", say=quiet)
    (folder / "fashion_mnist").symlink_to(cache_folder("fashion_mnist"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_RUNNER_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The first images of Fashion-MNIST in each layout, by the script that the README names."""
    folder = tmp_path_factory.mktemp("written")
    for layout in PATHS:
        with pytest.MonkeyPatch.context() as patch:
            arguments = [str(folder / layout), "--layout", layout, "--images", str(SMALL)]
            patch.setattr("sys.argv", ["write_files", *arguments])
            write_files()
    return {layout: folder / layout / path for layout, path in PATHS.items()}


def loaded(path: Path, **settings: Any) -> ImageDataset:
    return load_dataset(str(path), say=quiet, files=FileSettings(**settings))


@pytest.mark.parametrize("layout", PATHS)
def test_files_hold_what_was_written(
    layout: str, written: dict[str, Path], fashion_mnist: ImageDataset
) -> None:
    dataset = loaded(written[layout])
    train, test = fashion_mnist.train, fashion_mnist.test
    labels = np.full(SMALL, UNLABELED)
    kept = split_labels(train.labels[:SMALL], 0.1, split_seed=0)
    labels[kept] = train.labels[kept]
    assert np.array_equal(dataset.train.images, train.images[:SMALL])
    assert np.array_equal(dataset.train.labels, labels)
    assert np.array_equal(dataset.test.images, test.images[:SMALL])
    assert np.array_equal(dataset.test.labels, test.labels[:SMALL])
    assert dataset.validation is None
    assert dataset.train.class_names[0] == "0 T-shirt-top"
    assert (dataset.left_out, dataset.test_fraction) == (0, None)


def test_equal_files_are_equal_data_whatever_they_are_called(
    written: dict[str, Path], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "MNIST"  # a known set's name, which decides nothing here
    shutil.copytree(written["csv"].parent, elsewhere)
    datasets = [*map(loaded, written.values()), loaded(elsewhere / "labels.csv")]
    assert len({dataset.digest for dataset in datasets}) == 1
    names = [dataset.name for dataset in datasets]
    assert names == ["labels.csv", "folders/", "parquet/", "labels.csv"]
    ids = set()
    for dataset, path in zip(datasets, [*written.values(), elsewhere / "labels.csv"], strict=True):
        sweep = SweepConfig(trial=TrialConfig.of(dataset=str(path)))
        suitable, _ = suited(sweep, dataset)
        assert str(path.parent) not in suitable.trial.data.dataset
        ids.add(tuple(trial.settings_id for trial in suitable.trials(dataset.has_unlabeled)))
    assert len(ids) == 1


def test_every_named_set_is_known_by_name() -> None:
    assert set(LOADERS) == set(DATASETS)
    assert [is_path(name) for name in ("MNIST", "MNIST/", "digits", "a.csv", "module:function")] == [
        *(False, True, False, True, False)
    ]


# ---- how it reaches the trials ----


def test_trials_map_the_files_that_this_machine_has_decoded(written: dict[str, Path]) -> None:
    dataset = loaded(written["csv"])
    sweep = SweepConfig(trial=TrialConfig.of(dataset=str(written["csv"])))
    small = Cluster(nodes={"a": {"object_store_memory": 1e6}}, scratch=None, to_come=[])
    large = Cluster(nodes={"a": {"object_store_memory": 1e12}}, scratch=None, to_come=[])
    # On a cluster it is mapped where the object store is small for it; here, always.
    for cluster, is_local in ((small, False), (large, True)):
        shared = share(dataset, sweep, cluster, is_local)
        assert isinstance(shared, NodeMap)
        again = opened(shared)
        assert again.digest == dataset.digest
        assert np.array_equal(again.train.images, dataset.train.images)
        handle = handle_of(again)
        assert handle is not None
        assert handle.folder == shared.mapped.folder


def test_a_node_without_the_decoded_images_decodes_them(
    written: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "one"))
    dataset = loaded(written["csv"])
    handle = handle_of(dataset)
    assert handle is not None
    shared = NodeMap(handle, str(written["csv"]), FileSettings(), dataset.digest)
    expected = dataset.train.images.copy()
    shutil.rmtree(tmp_path / "one")
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "other"))
    again = shared.open()
    assert np.array_equal(again.train.images, expected)
    assert list((tmp_path / "other").rglob("meta.json"))
    with pytest.raises(DataError, match="the same files on every node, got data with the digest"):
        dataclasses.replace(shared, digest="0" * 16).open()
    with pytest.raises(DataError, match="must be a file or folder that exists"):
        dataclasses.replace(shared, path=str(tmp_path / "labels.csv")).open()


# ---- what is shown ----


def test_the_page_finds_the_images_by_their_content(written: dict[str, Path]) -> None:
    dataset = loaded(written["csv"])
    rows = frame_of(trial_row(TrialConfig.of(dataset="labels.csv"), data_digest=dataset.digest))
    found = find_dataset(rows)
    assert found is not None
    assert found.digest == dataset.digest
    assert found.train.class_names == dataset.train.class_names
    assert find_dataset(rows.assign(data_digest="0" * 16)) is None


def test_a_data_set_is_described_before_it_is_used(
    written: dict[str, Path], call: Callable[..., Any], tmp_path: Path
) -> None:
    picture = ("--picture", str(tmp_path / "images.png"))
    done = call(describe, str(written["csv"]), *picture, "--image-size", "14", "--channels", "3")
    assert done.returncode == 0, done.stderr
    assert "images: 14×14, 3 channels, uint8" in done.stdout
    assert "(no label)" in done.stdout
    assert "0 T-shirt-top" in done.stdout
    for arguments, line in (
        ((str(written["csv"].with_name("lables.csv")),), "Did you mean labels.csv?"),
        ((str(written["csv"]), "--label-column", "lable"), "got 'lable'"),
        ((str(written["csv"]), "--image-dir", str(tmp_path)), "2,000"),
        (("fashion_mnist", "--image-size", "14"), "image_size must be left out for 'fashion_mnist'"),
        ((str(written["csv"]), "--data-dir", str(tmp_path)), "data_dir must be left out for"),
    ):
        done = call(describe, *arguments, *picture)
        assert done.returncode == 2, arguments
        assert line in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_study_file_may_say_how_files_are_read(tmp_path: Path, written: dict[str, Path]) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"dataset:\n  path: {written['csv']}\n  image_size: 14\n  fit: pad\n")
    sweep = load_sweep(study)
    assert sweep.trial.data.dataset == str(written["csv"])
    assert sweep.files == FileSettings(image_size=(14,), fit="pad")
    for text, line in (
        ("dataset: {image_dir: x}", "dataset must have a path among its keys, got ['image_dir']"),
        ("dataset: {path: x.csv, lr: 1}", "unknown key 'lr' of dataset. "),
        ("dataset: {path: x.csv, fit: pad}\nfit: crop", "fit is given twice, beside dataset and in it"),
        ("dataset: {path: x.csv, fit: squeeze}", "fit: input should be 'crop', 'pad' or 'stretch'"),
    ):
        study.write_text(text)
        with pytest.raises(InputError) as refused:
            load_sweep(study)
        assert line in str(refused.value)


# ---- the whole way ----


@pytest.mark.slow
def test_seventy_thousand_files_give_the_rows_of_the_built_in_set_to_the_bit(
    tmp_path: Path, runs: Runs
) -> None:
    runs.start("experiments.write_files", str(tmp_path / "images")).succeed()
    common = ("ssl_runner.tune", "--epochs", "1", "--precision", "fp32", "--log", "--methods", "pass")
    built_in, own = tmp_path / "built-in", tmp_path / "own"
    partial = ("--configs", "partial", "--label-fractions", "0.1", "--results", str(built_in))
    runs.start(*common, *partial).succeed()
    full = ("--configs", "full", "--full-methods", "pass", "--results", str(own))
    dataset = ("--dataset", str(tmp_path / "images" / "labels.csv"))
    said = runs.start(*common, *full, *dataset).succeed()
    assert "54,000 of 60,000 training images have no label" in " ".join(said.split())
    (expected,), epochs = tables(built_in)
    (row,), own_epochs = tables(own)
    named = {"trial_id", "settings_id", "dataset", "data_digest", "config", "label_fraction"}
    # Of images without a label it isn't known whether their classes are among the labeled ones.
    named |= {"class_names", "weights", "class_mismatch"}
    assert {name for name in expected if expected[name] != row[name]} <= named
    assert (row["dataset"], row["labeled_images"]) == ("'labels.csv'", "6000")
    assert (row["class_mismatch"], expected["class_mismatch"]) == ("nan", "0.0")
    for one, other in zip(epochs, own_epochs, strict=True):
        assert {name for name in one if one[name] != other[name]} == {"trial_id"}
    page = (own / "label_fractions.html").read_text()
    assert "0 T-shirt-top" in page
    assert page.count("data:image/png;base64,") > 20
    # The second start finds the images decoded, and the trial done.
    again = runs.start(*common, *full, *dataset).succeed()
    assert "1 of 1 trials are in" in " ".join(again.split())


@pytest.mark.slow
def test_the_default_study_of_the_digits(tmp_path: Path, runs: Runs) -> None:
    results = tmp_path / "results"
    runs.start("ssl_runner.tune", "--dataset", "digits", "--results", str(results)).succeed()
    rows = pd.read_parquet(results / "trials").set_index("label_fraction")
    assert (rows["status"] == "finished").all()
    assert rows["labeled_images"].sort_index().tolist() == [16, 76, 150, 375, 751, 1497]
    assert rows["test_fraction"].tolist() == pytest.approx([1 / 6] * 6)
    accuracies = rows["test_accuracy"].sort_index().tolist()
    assert accuracies[0] < 0.9 < accuracies[-1]


def test_the_cache_is_cleared_by_a_command(
    written: dict[str, Path], call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path))
    loaded(written["csv"])
    done = call(describe, "--clear")
    assert done.returncode == 0
    assert f"from {tmp_path}" in done.stdout
    assert clear().size == 0
