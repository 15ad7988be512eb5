"""From a trained model to a table to fill in, and from that to a data set with more labels."""

import csv
import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ssl_runner import asking
from ssl_runner.asking import features_of, of_length_one
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageArrays, ImageDataset, load_dataset
from ssl_runner.datasets.given_labels import place_by_index, read_labels
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import InputError
from ssl_runner.label_next.__main__ import main
from ssl_runner.label_next.asking import Question, ask
from ssl_runner.label_next.material import Asked, Known, known_labels, load_material
from ssl_runner.label_next.suspecting import out_of_fold
from ssl_runner.label_next.tables import csv_of
from ssl_runner.labels import UNLABELED
from ssl_runner.results import ResultsFolder
from ssl_runner.saved_model import SavedModel, load_model
from ssl_runner.selection import STRATEGIES, suspects
from ssl_runner.train import prepare
from tests.encoded import encoded_as
from tests.test_saved_model import SETTINGS, train

IMAGES, LABELED, TESTED = 300, 90, 30
"""Of the data set of files: training images, those of them with a label, and test images drawn."""


@pytest.fixture(scope="module")
def small(fashion_mnist: ImageDataset) -> ImageDataset:
    """The first real images, each with its label."""
    train, test = fashion_mnist.train, fashion_mnist.test
    return ImageDataset(
        "small",
        ImageArrays(train.images[:600], train.labels[:600], train.class_names),
        ImageArrays(test.images[:200], test.labels[:200], train.class_names),
    )


@pytest.fixture(scope="module")
def asked(small: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """Two models of trials that had 120 labels of the small data set."""
    results = ResultsFolder(str(tmp_path_factory.mktemp("results")))
    models = []
    for seed in (0, 1):
        config = TrialConfig.of(label_fraction=0.2, epochs=2, batch_size=20, seed=seed)
        trial = train(config, small, results)
        saved = load_model(trial.trial_id, results=results.location)
        models.append(Asked(trial.trial_id, saved, results.location))
    return models


def models_for(strategy: str, asked: list[Asked]) -> list[SavedModel]:
    """As many models as a strategy takes."""
    return [model.saved for model in asked][: 2 if strategy == "disagreement" else 1]


# ---- the choice ----


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_hidden_labels_are_not_read_and_labeled_images_not_chosen(
    strategy: str, small: ImageDataset, asked: list[Asked]
) -> None:
    known = known_labels(small, asked)
    assert len(known.labeled) == 120
    np.testing.assert_array_equal(known.candidates, np.flatnonzero(known.labels_N == UNLABELED))
    blanked = dataclasses.replace(
        small, train=dataclasses.replace(small.train, labels=known.labels_N), digest=""
    )
    without = known_labels(blanked, asked)
    np.testing.assert_array_equal(known.labels_N, without.labels_N)
    # Some images are neither labeled nor candidates, as where a trial used a subset.
    known, without = (Known(each.labels_N, each.candidates[1::2]) for each in (known, without))
    models, question = models_for(strategy, asked), Question(strategy, 50)
    choice, answers = ask(models, small.train.images, known, question)
    again, _ = ask(models, blanked.train.images, without, question)
    np.testing.assert_array_equal(choice.indices, again.indices)
    np.testing.assert_array_equal(choice.scores, again.scores)
    assert set(choice.indices) <= set(known.candidates)
    assert len(choice.indices) == len(set(choice.indices)) == 50
    # What the models think is said of the chosen images, in their order.
    pixels = torch.tensor(small.train.images[choice.indices]) / 255
    with torch.inference_mode():
        expected = [model.module(pixels).softmax(1).numpy() for model in models]
    np.testing.assert_allclose(answers.of_each, expected, atol=1e-4)  # float32, whatever the order


def test_a_model_of_eight_bits_does_not_choose_the_first_images(
    small: ImageDataset, asked: list[Asked]
) -> None:
    known, saved = known_labels(small, asked), asked[0].saved
    chosen = []
    for precision in ("bf16", "fp32"):
        model = SavedModel(saved.module, dataclasses.replace(saved.card, precision=precision))
        chosen.append(ask([model], small.train.images, known, Question("margin", 200))[0])
    np.testing.assert_array_equal(chosen[0].scores, chosen[1].scores)
    assert len(np.unique(chosen[0].scores)) > 190


def test_features_are_what_the_last_layer_gets(
    small: ImageDataset, asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = asked[0].saved
    saved = SavedModel(saved.module, dataclasses.replace(saved.card, precision="fp32"))
    places, done = np.arange(7, 507, 2), list[int]()
    whole = features_of(saved, small.train.images, places, done.append)
    layers = list(saved.module.classifier)  # type: ignore[arg-type]
    with torch.inference_mode():
        answers = saved.module(torch.tensor(small.train.images[places]) / 255)
        again = layers[-1](torch.from_numpy(whole))
    np.testing.assert_allclose(answers, again, atol=1e-4)
    monkeypatch.setattr(asking, "_AT_ONCE", 1)  # a batch at a time
    np.testing.assert_array_equal(whole, features_of(saved, small.train.images, places, done.append))
    assert done == [250, 125, 125]
    lengths = np.linalg.norm(of_length_one(np.vstack([whole, np.zeros((1, 128))])), axis=1)
    np.testing.assert_allclose(lengths, [1.0] * 250 + [0.0], atol=1e-5)


# ---- the circle, over a data set with a name ----


def fill_in(path: Path, label_of: Callable[[str], str], column: str) -> list[str]:
    """Write labels into a table, as a person would; returns what its images are called."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {""}
    for row in rows:
        row["label"] = label_of(row[column])
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return [row[column] for row in rows]


@pytest.fixture
def trained(fashion_mnist: ImageDataset, tmp_path: Path) -> tuple[Path, TrialConfig]:
    """A model of a trial of 300 labels, 300 other images in its pool."""
    results = ResultsFolder(str(tmp_path / "results"))
    config = TrialConfig.of(**SETTINGS)
    trial = train(config, fashion_mnist, results)
    return Path(results.location, "models", f"s--{trial.trial_id}.safetensors"), config


def test_the_circle_over_a_named_data_set(
    trained: tuple[Path, TrialConfig],
    fashion_mnist: ImageDataset,
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    model, config = str(trained[0]), trained[1]
    names, labels_N = fashion_mnist.train.class_names, fashion_mnist.train.labels
    answer = call(main, model, "--number", "20")
    assert answer.returncode == 0, answer.stderr
    assert "to_label.csv: 20 of 300 images of fashion_mnist to label next" in answer.stdout
    page = Path("to_label.html").read_text()
    assert page.count("<figure>") == 20
    assert "1 less the distance between the two likeliest classes" in page
    data = prepare(config, fashion_mnist)
    images = fill_in(Path("to_label.csv"), lambda index: names[labels_N[int(index)]], "index")
    asked_for = sorted(map(int, images))
    assert set(asked_for) <= set(data.unlabeled)
    (command,) = (line for line in answer.stdout.splitlines() if "--merge" in line)
    assert command.split() == [
        *("python", "-m", "ssl_runner.label_next", model, "--dataset", "fashion_mnist"),
        *("--merge", "to_label.csv", "--output", "labels_2.csv"),
    ]
    answer = call(main, *command.split()[3:])
    assert answer.returncode == 0, answer.stderr
    assert "20 labels added; 320 of 60,000 training images have one now" in answer.stdout
    assert "ssl_runner.tune --dataset fashion_mnist --labels-file labels_2.csv --name labels_2\n" in (
        answer.stdout
    )
    again = load_dataset("fashion_mnist", files=FileSettings(labels_file="labels_2.csv"))
    expected_N = data.targets_N.copy()
    expected_N[asked_for] = labels_N[asked_for]
    np.testing.assert_array_equal(again.train.labels, expected_N)
    np.testing.assert_array_equal(again.test.labels, fashion_mnist.test.labels)
    assert again.digest != fashion_mnist.digest
    # The next round asks for others, and needs no trial's row: what has a label is in the file.
    again_asked = known_labels(again, [])
    assert not set(again_asked.candidates) & {*asked_for, *data.labeled}


# ---- the circle, over files ----


@pytest.fixture
def files(fashion_mnist: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a table of real images in files, some of them with a label."""
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    (folder / "images, all").mkdir(parents=True)
    train = fashion_mnist.train
    rows = []
    for n in range(IMAGES + TESTED):
        name = f"images, all/{n:04d}.png"
        Image.fromarray(train.images[n][0]).save(folder / name)
        rows.append((name, train.class_names[train.labels[n]] if n < LABELED + TESTED else ""))
    (folder / "labels.csv").write_bytes(csv_of(("file", "label"), rows))
    return folder


def true_label(fashion_mnist: ImageDataset) -> Callable[[str], str]:
    """The label that a person would give a file."""
    train = fashion_mnist.train
    return lambda name: train.class_names[train.labels[int(Path(name).stem)]]


def model_of(files: Path, tmp_path: Path) -> str:
    """A model trained on the table's labels."""
    results = ResultsFolder(str(tmp_path / "results"))
    dataset = load_dataset(str(files / "labels.csv"))
    trial = train(TrialConfig.of(epochs=1, batch_size=20), dataset, results)
    return f"{results.location}/models/s--{trial.trial_id}.safetensors"


def test_the_circle_over_files(
    files: Path,
    fashion_mnist: ImageDataset,
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, model = str(files / "labels.csv"), model_of(files, tmp_path)
    monkeypatch.chdir(tmp_path)
    before = load_material(table, None, FileSettings(), print)
    answer = call(main, model, "--images", table, "--number", "25", "--strategy", "coreset")
    assert answer.returncode == 0, answer.stderr
    label_of = true_label(fashion_mnist)
    asked_for = fill_in(Path("to_label.csv"), label_of, "file")
    (command,) = (line for line in answer.stdout.splitlines() if "--merge" in line)
    answer = call(main, *command.split()[3:])
    assert answer.returncode == 0, answer.stderr
    after = load_material("labels_2.csv", None, FileSettings(image_dir=str(files)), print)
    assert f"ssl_runner.tune --dataset labels_2.csv --image-dir {files}" in answer.stdout
    # The same images in the same places, the same test images, and exactly those labels more.
    np.testing.assert_array_equal(before.dataset.train.images, after.dataset.train.images)
    np.testing.assert_array_equal(before.dataset.test.images, after.dataset.test.images)
    np.testing.assert_array_equal(before.dataset.test.labels, after.dataset.test.labels)
    places = [before.place_of(name) or 0 for name in asked_for]
    labels_N, names = before.dataset.train.labels.copy(), before.dataset.train.class_names
    assert (labels_N[places] == UNLABELED).all()
    labels_N[places] = [names.index(label_of(name)) for name in asked_for]
    np.testing.assert_array_equal(after.dataset.train.labels, labels_N)


def test_labels_that_a_trial_did_not_have_are_not_in_the_joined_table(
    files: Path, fashion_mnist: ImageDataset, call: Callable[..., Any], tmp_path: Path
) -> None:
    label_of = true_label(fashion_mnist)
    names = [f"images, all/{n:04d}.png" for n in range(IMAGES + TESTED)]
    table = files / "all.csv"
    table.write_bytes(csv_of(("file", "label"), [(name, label_of(name)) for name in names]))
    config = TrialConfig.of(epochs=1, batch_size=20, label_fraction=0.3)
    dataset = load_dataset(str(table))
    trial = train(config, dataset, ResultsFolder(str(tmp_path / "results")))
    labeled, filled = prepare(config, dataset).labeled, tmp_path / "filled.csv"
    common = (trial.trial_id, "--dataset", str(table), "--results", str(tmp_path / "results"))
    answer = call(main, *common, "--number", "10", "--output", str(filled))
    assert answer.returncode == 0, answer.stderr
    fill_in(filled, label_of, "file")
    output = files / "labels_2.csv"
    answer = call(main, *common, "--merge", str(filled), "--output", str(output))
    assert answer.returncode == 0, answer.stderr
    assert (
        f"ssl_runner.tune --dataset {output} --name labels_2\n" in answer.stdout
    )  # the images are beside it
    again = load_dataset(str(output))
    assert (again.train.labels != UNLABELED).sum() == len(labeled) + 10
    assert (again.train.labels[labeled] == dataset.train.labels[labeled]).all()


def test_images_in_parquet_files_are_named_by_row(
    fashion_mnist: ImageDataset,
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "cache"))
    images, table = fashion_mnist.train, tmp_path / "mine.parquet"
    columns = {
        "image": [encoded_as(Image.fromarray(images.images[n][0]), "PNG") for n in range(200)],
        "label": [str(images.labels[n]) if n % 2 else None for n in range(200)],
    }
    pq.write_table(pa.table(columns), table)
    results = ResultsFolder(str(tmp_path / "results"))
    trial = train(TrialConfig.of(epochs=1, batch_size=20), load_dataset(str(table)), results)
    output = tmp_path / "to_label.csv"
    ask = (trial.trial_id, "--dataset", str(table), "--results", results.location, "--number", "9")
    answer = call(main, *ask, "--output", str(output))
    assert answer.returncode == 0, answer.stderr
    assert "Write their labels into the column of mine.parquet itself" in answer.stdout
    names = fill_in(output, lambda name: "0", "file")
    rows = [int(re.findall(r"\d+", name)[-1]) for name in names]
    assert all(row % 2 == 0 for row in rows)  # those have no label
    merge = ("--dataset", str(table), "--merge", str(output), "--output", str(tmp_path / "new.csv"))
    refused(call(main, *merge), "got mine.parquet, with the images inside")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("images, all/0200.png", "Snaeker")], "got 'Snaeker' in line 2. Did you mean Sneaker?"),
        ([("0200.png", "Bag")], "each file must be that of a training image, got '0200.png'"),
        ([("images, all/0200.png", "")], "must have labels, got none"),
        (
            [("images, all/0200.png", "Bag"), ("images, all/0200.png", "Coat")],
            "must have one label, got 'Bag' and 'Coat' .* line 3",
        ),
        ([("LABELED", "OTHER")], "has the label '.*' already, got '.*'.* labels: --replace"),
    ],
)
def test_what_cannot_be_joined_is_refused(
    rows: list[tuple[str, str]],
    reason: str,
    files: Path,
    call: Callable[..., Any],
    tmp_path: Path,
) -> None:
    material = load_material(str(files / "labels.csv"), None, FileSettings(), print)
    train = material.dataset.train
    place = int(np.flatnonzero(train.labels != UNLABELED)[0])
    words = {"LABELED": material.name_of(place), "OTHER": train.class_names[train.labels[place] - 1]}
    filled, output = tmp_path / "filled.csv", tmp_path / "new.csv"
    filled.write_bytes(
        csv_of(("file", "label"), [[words.get(cell, cell) for cell in row] for row in rows])
    )
    merge = ("--dataset", str(files / "labels.csv"), "--merge", str(filled), "--output", str(output))
    refused(call(main, *merge), reason)
    assert not output.exists()
    if "--replace" in reason:
        answer = call(main, *merge, "--replace")
        assert "0 labels added, 1 changed" in answer.stdout
        again = load_material(str(output), None, FileSettings(image_dir=str(files)), print)
        assert again.dataset.train.labels[place] == (train.labels[place] - 1) % 10


def test_names_of_any_kind_come_back(tmp_path: Path) -> None:
    names = ["a,b", 'say "x"', " before", "after ", "semi;colon", "tab\tbed", "plain", "Größe"]
    path = tmp_path / "table.csv"
    path.write_bytes(csv_of(("file", "label"), [(name, "one") for name in names]))
    found = read_labels(path, "file", names.index, ("one",))
    assert found == dict.fromkeys(range(len(names)), 0)


# ---- labels by index ----


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("index,label\n60000,Bag\n", "each index must be that of a training image, got '60000'"),
        ("index,label\n-1,Bag\n", "got '-1' in line 2"),
        ("index,label\n1.0,Bag\n", "got '1.0' in line 2"),
        ("index,label\n1,8\n", "must be classes of the data set, got '8' in line 2. Known: T-shirt"),
        ("number,label\n1,Bag\n", "must have a column index"),
        ("index,name\n1,Bag\n", "must have a column of labels"),
        ("index,label\n1,\n", "must have labels, got none"),
        (None, r"can't be read \(No such file or directory\)\. Is the path right\?"),
    ],
)
def test_labels_by_index_that_are_none_are_refused(
    text: str | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=reason) as caught:
        load_dataset("fashion_mnist", files=FileSettings(labels_file=str(path)))
    assert len(str(caught.value).splitlines()) == 1


def test_labels_by_index_are_for_data_sets_with_a_name(files: Path) -> None:
    settings = FileSettings(labels_file="labels.csv")
    with pytest.raises(InputError, match="labels_file must be left out for .*, a path"):
        load_dataset(str(files / "labels.csv"), files=settings)


def test_an_index_is_a_whole_number() -> None:
    place_of = place_by_index(10)
    cases: Mapping[str, int | None] = {"0": 0, " 9 ": 9, "10": None, "": None, "٣": None, "1e0": None}
    assert {text: place_of(text) for text in cases} == cases


# ---- suspects ----


def test_flipped_labels_are_suspected(small: ImageDataset) -> None:
    labels_N = small.train.labels.copy()
    flipped = np.arange(0, 600, 10)
    labels_N[flipped] = (labels_N[flipped] + 5) % 10
    labels_N[1::2] = UNLABELED  # these are not judged
    noisy = dataclasses.replace(small, train=dataclasses.replace(small.train, labels=labels_N))
    said: list[str] = []
    config = TrialConfig.of(epochs=6, batch_size=20)
    labeled, probabilities = out_of_fold(config, noisy, 3, said.append)
    np.testing.assert_array_equal(labeled, np.arange(0, 600, 2))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert all("trained on 200 labels" in line and "of the other 100" in line for line in said)
    found = labeled[suspects(labels_N[labeled], probabilities).indices]
    right = np.isin(found, flipped).sum()
    # A fifth is flipped. A model of 200 noisy labels is right about six times in ten, or more.
    assert right >= 0.4 * len(found)
    assert right >= 0.5 * len(flipped)


def test_the_command_that_finds_suspects(
    files: Path, call: Callable[..., Any], tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    table, output = str(files / "labels.csv"), tmp_path / "suspects.csv"
    arguments = ("--suspect", "--dataset", table, "--epochs", "2", "--batch-size", "20", "--folds", "2")
    answer = call(main, *arguments, "--number", "5", "--output", str(output))
    assert answer.returncode == 0, answer.stderr
    assert "fold 2 of 2: trained on " in answer.stdout
    assert "labels of labels.csv are suspect; 5 listed" in answer.stdout
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    label_of = true_label(fashion_mnist)
    for row in rows:
        assert row["given"] == label_of(row["file"])
        assert row["suggested"] != row["given"]
        assert row["label"] == ""
    assert (tmp_path / "suspects.html").read_text().count("<figure>") == 5
    # Corrected as the models suggest, they come back as labels.
    suggested = {row["file"]: row["suggested"] for row in rows}
    fill_in(output, suggested.__getitem__, "file")
    corrected = tmp_path / "corrected.csv"
    merge = ("--merge", str(output), "--output", str(corrected))
    refused(call(main, "--dataset", table, *merge), "has the label .* already")
    answer = call(main, "--dataset", table, *merge, "--replace")
    assert "0 labels added, 5 changed" in answer.stdout, answer.stderr


# ---- bad input ----


def refused(answer: Any, reason: str) -> None:
    """The command ended with one line and exit code 2."""
    assert answer.returncode == 2, answer.stdout
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: ")
    with pytest.raises(InputError, match=reason):
        raise InputError(line)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "the models must be one or several, got 0. Name a file of results/models"),
        (("m", "--strategy", "margins"), "--strategy must be one of .*, got 'margins'. .* margin"),
        (("m", "--number", "0"), "--number must be at least 1, got 0"),
        (("m", "--seed", "-1"), "--seed must be at least 0, got -1"),
        (("--suspect", "--folds", "1"), r"folds must be in \[2, 60000\], .*, got 1"),
        (("--suspect", "--seed", "-1"), "seed must be at least 0, got -1"),
        (("m", "--strategy", "disagreement"), "models of disagreement must be several, got 1"),
        (("m", "m", "--strategy", "coreset"), "models of coreset must be one, got 2"),
        (("m", "--epochs", "3"), "--epochs must be left out without --suspect"),
        (("m", "--suspect"), "--suspect must have no model, got 'm'"),
        (("--suspect", "--merge", "a.csv"), "must not stand together"),
        (("--merge", "a.csv"), "--output must name the new table"),
        (("m", "--output", "there.csv"), "--output must not exist yet, got 'there.csv'"),
        (("m", "--page", "there.csv"), "--page must not exist yet, got 'there.csv'"),
        (("m.safetensors",), "m.safetensors: can't be read"),
        (("--merge", "there.csv", "--output", "new.csv"), "have training images without a label"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    reason: str,
    call: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("index,label\n1,Bag\n")
    refused(call(main, *arguments), reason)
    assert [path.name for path in tmp_path.iterdir()] == ["there.csv"]


def test_models_and_data_that_do_not_fit_are_refused(
    trained: tuple[Path, TrialConfig], files: Path, call: Callable[..., Any], tmp_path: Path
) -> None:
    model, table, output = str(trained[0]), str(files / "labels.csv"), str(tmp_path / "x.csv")
    few = tmp_path / "few.csv"
    lines = (files / "labels.csv").read_text().splitlines()
    few.write_text("\n".join(line for line in lines if not line.endswith("Bag")))
    size = ("--image-size", "32", "--output", output)
    refused(call(main, model, "--dataset", table, *size), r"images .* must be those of .*\(1, 32, 32\)")
    with_dir = ("--image-dir", str(files), "--output", output)
    refused(call(main, model, "--dataset", str(few), *with_dir), "classes must be those of few.csv")
    model = model_of(files, tmp_path)
    many = ("--number", "301", "--output", output)
    rule = "at most 210, the training images of labels.csv without a label, got 301. Try 210"
    refused(call(main, model, "--dataset", table, *many), f"--number must be {rule}")
    has_label = (line for line in lines if not line.endswith(","))
    (tmp_path / "all.csv").write_text("\n".join(has_label))
    whole = ("--dataset", str(tmp_path / "all.csv"), "--image-dir", str(files))
    results = ResultsFolder(str(tmp_path / "results"))
    dataset = load_dataset(whole[1], files=FileSettings(image_dir=str(files)))
    trial = train(TrialConfig.of(epochs=1, batch_size=20), dataset, results)
    answer = call(main, trial.trial_id, *whole, "--results", results.location, "--output", output)
    refused(answer, "all.csv must have training images without a label, got none")


def test_labels_that_are_known_to_nobody_are_refused(
    small: ImageDataset, asked: list[Asked], fashion_mnist: ImageDataset, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="must be of a trial on these data"):
        known_labels(fashion_mnist, asked)
    elsewhere = [dataclasses.replace(asked[0], results=str(tmp_path))]
    with pytest.raises(InputError, match="must have a row in .* Name its results folder: --results"):
        known_labels(small, elsewhere)
    assert isinstance(known_labels(small, asked[:1]), Known)
