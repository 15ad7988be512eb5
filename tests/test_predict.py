"""`python -m ssl_runner.predict`: answers from every kind of source, figures beside slow versions."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import vl_convert
from PIL import Image
from rich.console import Console

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.datasets.decoded.pool import usable_cpus
from ssl_runner.predict.__main__ import main
from ssl_runner.predict.answers import answers_of
from ssl_runner.predict.images import EncodedImages, Wish
from ssl_runner.predict.judging import Tally
from ssl_runner.predict.tables import print_judgement
from ssl_runner.report import charts
from ssl_runner.results import ResultsFolder
from ssl_runner.train import TrialData, prepare
from ssl_runner.train.__main__ import main as train_main
from tests.conftest import Answer
from tests.encoded import encoded_as
from tests.test_saved_model import train

Call = Callable[..., Answer]

SMALL: dict[str, Any] = {"subset": 600, "label_fraction": 0.5, "epochs": 1, "batch_size": 50}
CONFIGS: dict[str, dict[str, Any]] = {
    "whole": {"label_fraction": 0.1, "epochs": 1, "max_steps": 40, "holdout": 300},  # all test images
    "other": SMALL | {"seed": 1, "holdout": 100},
    "on_test": SMALL,
    "wide": SMALL | {"model": "AdaptiveCNN"},
}


@pytest.fixture(scope="module")
def results(fashion_mnist: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> ResultsFolder:
    """A results folder with a model of each of `CONFIGS`."""
    folder = ResultsFolder(str(tmp_path_factory.mktemp("results")))
    for settings in CONFIGS.values():
        train(TrialConfig.of(**settings), fashion_mnist, folder)
    return folder


def model_of(results: ResultsFolder, name: str) -> str:
    """The file of a model."""
    settings_id = TrialConfig.of(**CONFIGS[name]).resolved().settings_id
    rows = results.trials()
    (weights,) = rows.loc[rows["settings_id"] == settings_id, "weights"]
    return f"{results.location}/{weights}"


def row_of(results: ResultsFolder, model: str) -> pd.Series:
    rows = results.trials()
    (row,) = (row for _, row in rows.iterrows() if model.endswith(row["weights"]))
    found: pd.Series = row
    return found


def probabilities(frame: pd.DataFrame) -> np.ndarray:
    """Columns of probabilities, (N, K)."""
    return frame[[name for name in frame.columns if name.startswith("p_")]].to_numpy(np.float64)


def data_of(model: str, dataset: ImageDataset) -> TrialData:
    """What a model's trial used."""
    return prepare(TrialConfig.of(**CONFIGS[model]).resolved(), dataset)


def png(pixels_CHW: np.ndarray) -> bytes:
    return encoded_as(Image.fromarray(pixels_CHW[0]), "PNG")


# ---- what is written ----


def test_the_test_images_give_the_row_s_accuracy(
    results: ResultsFolder, call: Call, tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    model, output = model_of(results, "whole"), tmp_path / "answers.parquet"
    done = call(main, model, "fashion_mnist", "--part", "test", "--output", str(output))
    assert done.returncode == 0, done.stderr
    assert "share of the test images" not in done.stderr
    frame, row = pd.read_parquet(output), row_of(results, model)
    names = list(fashion_mnist.test.class_names)
    assert (frame["label"] == frame["class"]).mean() == row["test_accuracy"]
    counts = pd.crosstab(frame["label"], frame["class"]).reindex(index=names, columns=names)
    assert counts.fillna(0).to_numpy().tolist() == [list(line) for line in row["confusion"]]
    assert f"10,000 labeled images: accuracy {row['test_accuracy']:.4f}, log loss" in done.stdout
    assert frame["index"].tolist() == list(range(10_000))
    assert frame["label"].tolist() == [names[k] for k in fashion_mnist.test.labels]

    p = probabilities(frame)  # float32 of the file: seven digits
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert frame["class"].tolist() == [names[k] for k in p.argmax(axis=1)]
    assert frame["confidence"].to_numpy() == pytest.approx(p.max(axis=1), abs=1e-6)
    ordered = np.sort(p, axis=1)
    assert frame["margin"].to_numpy() == pytest.approx(ordered[:, -1] - ordered[:, -2], abs=1e-6)
    entropy = -(p * np.log(p.clip(1e-30))).sum(axis=1)
    assert frame["entropy"].to_numpy() == pytest.approx(entropy, abs=1e-4)
    assert "disagreement" not in frame
    loss = -np.log(p[np.arange(len(p)), fashion_mnist.test.labels]).mean()
    assert loss == pytest.approx(row["test_loss"], rel=1e-4)
    said = json.loads(pq.read_schema(output).metadata[b"ssl_runner"])
    assert said["trials"] == [row["trial_id"]]
    # Without --part, a data set by name means its test images.
    call(main, model, "fashion_mnist", "--output", str(tmp_path / "again.csv"))
    assert pd.read_csv(tmp_path / "again.csv")["class"].tolist() == frame["class"].tolist()


@pytest.mark.parametrize(("part", "is_said"), [((), True), (("--part", "unlabeled"), False)])
def test_a_row_of_fewer_test_images_is_named(
    part: tuple[str, ...], is_said: bool, results: ResultsFolder, call: Call, tmp_path: Path
) -> None:
    model = model_of(results, "other")
    done = call(main, model, "fashion_mnist", *part, "--output", str(tmp_path / "answers.csv"))
    assert done.returncode == 0, done.stderr
    trial_id = row_of(results, model)["trial_id"]
    said = f"trial {trial_id} was tested on a share of the test images (--subset 600): the accuracy"
    assert (said in done.stderr) == is_said


def test_a_trial_of_files_gives_its_row_s_accuracy(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fashion_mnist: ImageDataset
) -> None:
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for place in range(120):
        name = fashion_mnist.train.class_names[fashion_mnist.train.labels[place]].replace("/", " ")
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place}.png").write_bytes(png(fashion_mnist.train.images[place]))
    trained = call(
        train_main, "--dataset", "data", "--epochs", "3", "--batch-size", "20", "--cpus-per-trial", "1"
    )
    assert trained.returncode == 0, trained.stderr
    (model,) = Path("results/models").iterdir()
    done = call(main, str(model), "data", "--part", "test", "--output", "answers.csv", "--calibrate")
    assert done.returncode == 0, done.stderr
    frame, row = pd.read_csv("answers.csv"), ResultsFolder("results").trials().iloc[0]
    assert len(frame) == row["test_images"]
    assert (frame["label"] == frame["class"]).mean() == row["test_accuracy"]
    assert "validated on the test images" in done.stderr
    # By the trial's id, whose file is in ./results.
    again = call(main, str(row["trial_id"]), "data", "--output", "all.csv")
    assert again.returncode == 0, again.stderr
    assert len(pd.read_csv("all.csv")) == 120


def test_several_models_answer_by_the_mean(
    results: ResultsFolder, call: Call, tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    models = [model_of(results, name) for name in ("whole", "other", "wide")]
    each = []
    arguments = ("fashion_mnist", "--part", "validation")
    picture = tmp_path / "pictures"
    picture.mkdir()
    for place in range(40):
        (picture / f"{place}.png").write_bytes(png(fashion_mnist.test.images[place]))
    for number, model in enumerate(models):
        output = tmp_path / f"{number}.parquet"
        assert call(main, model, str(picture), "--output", str(output)).returncode == 0
        each.append(pd.read_parquet(output))
    done = call(main, *models, str(picture), "--output", str(tmp_path / "all.parquet"))
    assert done.returncode == 0, done.stderr
    frame = pd.read_parquet(tmp_path / "all.parquet")
    mean = np.mean([probabilities(one) for one in each], axis=0)
    assert probabilities(frame) == pytest.approx(mean, abs=1e-6)
    other = np.mean([one["class"] != frame["class"] for one in each], axis=0)
    assert frame["disagreement"].to_numpy() == pytest.approx(other, abs=1e-6)
    assert other.max() > 0  # they do disagree
    # Their trials were validated on different images.
    done = call(main, *models, *arguments, "--output", str(tmp_path / "no.csv"))
    assert done.returncode == 2
    assert "must have the same validation images" in done.stderr


# ---- where images come from ----


def write_sources(root: Path, dataset: ImageDataset, count: int) -> dict[str, tuple[str, ...]]:
    """The first test images in every kind of source, and the arguments that name each."""
    images, labels, names = dataset.test.images[:count], dataset.test.labels, dataset.test.class_names
    sorted_, flat = root / "sorted", root / "flat" / "below"
    flat.mkdir(parents=True)
    files, texts = [], [names[labels[place]] for place in range(count)]
    for place in range(count):
        content = png(images[place])
        # A class with a slash in its name can't be a folder's.
        folder = sorted_ / ("unlabeled" if "/" in texts[place] else texts[place])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place:03d}.png").write_bytes(content)
        (flat / f"{place:03d}.png").write_bytes(content)
        files.append(f"below/{place:03d}.png")
    (root / "flat" / "zzz.png").write_bytes(png(images[0]))  # so that `below` is no class
    pd.DataFrame({"file": files}).to_csv(root / "flat" / "files.csv", index=False)
    pd.DataFrame({"file": files, "label": texts}).to_json(
        root / "flat" / "labels.jsonl", orient="records", lines=True
    )
    pngs = [png(image) for image in images]
    pd.DataFrame({"image": pngs}).to_parquet(root / "images.parquet")
    pd.DataFrame({"image": pngs, "label": texts}).to_parquet(root / "labeled.parquet")
    return {
        "folders of classes": (str(sorted_),),
        "folder": (str(root / "flat"),),
        "table": (str(root / "flat" / "files.csv"),),
        "table with labels": (str(root / "flat" / "labels.jsonl"),),
        "Parquet": (str(root / "images.parquet"),),
        "Parquet with labels": (str(root / "labeled.parquet"),),
        "image": (str(flat / "000.png"),),
    }


def test_every_source_gives_the_same_answers(
    results: ResultsFolder, call: Call, tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    count, model = 30, model_of(results, "whole")
    expected = tmp_path / "expected.parquet"
    call(main, model, "fashion_mnist", "--output", str(expected))
    of_arrays = pd.read_parquet(expected)[:count]
    places = re.compile(r"(\d+)(?:\.png)?$")  # a file's number, or a row's
    for kind, arguments in write_sources(tmp_path, fashion_mnist, count).items():
        output = tmp_path / f"{kind}.parquet"
        done = call(main, model, *arguments, "--output", str(output))
        assert done.returncode == 0, (kind, done.stderr)
        frame = pd.read_parquet(output)
        frame = frame[~frame["path"].str.startswith("zzz")]
        assert len(frame) == (1 if kind == "image" else count), kind
        found = [int(match[1]) for match in map(places.search, frame["path"]) if match]
        assert sorted(found) == list(range(len(frame))), kind
        same = of_arrays.iloc[found]
        assert frame["class"].tolist() == same["class"].tolist(), kind
        # Batches of another number of images may sum up in another order: 3,136 products in float32.
        assert probabilities(frame) == pytest.approx(probabilities(same), abs=1e-4), kind
        assert ("label" in frame) == ("label" in kind or "classes" in kind), kind
        assert ("accuracy" in done.stdout) == ("label" in frame), kind
        if "label" in frame:
            known = frame["label"].notna()
            assert known.sum() == count if "labels" in kind else known.sum() < count
            assert frame["label"][known].tolist() == same["label"][known.tolist()].tolist()


def test_the_parts_of_what_it_was_trained_on(
    results: ResultsFolder, call: Call, tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    model, data = model_of(results, "other"), data_of("other", fashion_mnist)
    expected = {"labeled": data.labeled, "unlabeled": data.unlabeled, "validation": np.arange(100)}
    for part, places in expected.items():
        output = tmp_path / f"{part}.parquet"
        done = call(main, model, "fashion_mnist", "--part", part, "--output", str(output))
        assert done.returncode == 0, done.stderr
        assert pd.read_parquet(output)["index"].tolist() == places.tolist()
    labels = pd.read_parquet(tmp_path / "validation.parquet")["label"]
    assert labels.tolist() == [data.classes[k] for k in data.validation[1]]
    # Two models: what neither was taught.
    both = (model, model_of(results, "on_test"))
    output = tmp_path / "both.parquet"
    call(main, *both, "fashion_mnist", "--part", "unlabeled", "--output", str(output))
    other = data_of("on_test", fashion_mnist)
    taught = {*data.labeled.tolist(), *other.labeled.tolist()}
    seen = {*data.unlabeled.tolist(), *other.unlabeled.tolist()}
    assert pd.read_parquet(output)["index"].tolist() == sorted(seen - taught)


def test_a_table_s_labeled_and_unlabeled_images(
    results: ResultsFolder, call: Call, tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    for place in range(4):
        (tmp_path / f"{place}.png").write_bytes(png(fashion_mnist.test.images[place]))
    table = tmp_path / "t.csv"
    table.write_text("file,label\n0.png,Bag\n1.png,\n2.png,Coat\n3.png,\n")
    for part, files in (("labeled", ["0.png", "2.png"]), ("unlabeled", ["1.png", "3.png"])):
        output = tmp_path / f"{part}.csv"
        call(main, model_of(results, "other"), str(table), "--part", part, "--output", str(output))
        assert pd.read_csv(output)["path"].tolist() == files


# ---- what is converted, and what is bad ----


def test_images_of_another_size_are_converted_and_said(
    results: ResultsFolder, call: Call, tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    folder, model = tmp_path / "images", model_of(results, "other")
    folder.mkdir()
    for place in range(3):
        (folder / f"{place}.png").write_bytes(png(fashion_mnist.test.images[place]))
    large = Image.fromarray(fashion_mnist.test.images[3, 0]).resize((56, 56)).convert("RGB")
    large.save(folder / "3.png")
    done = call(main, model, str(folder), "--output", str(tmp_path / "a.csv"))
    assert done.returncode == 0
    assert "images: converted: 1 coloured images" in done.stderr
    assert "images: 1 images of other sizes brought to 28×28 (crop)" in done.stderr
    assert len(pd.read_csv(tmp_path / "a.csv")) == 4
    done = call(main, model, str(folder), "--strict", "--output", str(tmp_path / "b.csv"))
    assert done.returncode == 2
    assert (
        "must be 28×28 and gray, as the model takes them, got 56×56 and coloured: 3.png" in done.stderr
    )
    assert not (tmp_path / "b.csv").exists()
    # The same of arrays: the digits are 8×8.
    digits = (model, "digits", "--ignore-labels", "--output", str(tmp_path / "c.csv"))
    done = call(main, *digits, "--strict")
    assert done.returncode == 2
    assert "got 8×8 and gray: all of " in done.stderr
    done = call(main, *digits)
    assert done.returncode == 0, done.stderr
    assert "images of other sizes brought to 28×28" in done.stderr


def test_bad_images_are_counted_listed_and_refused(
    results: ResultsFolder,
    call: Call,
    tmp_path: Path,
    fashion_mnist: ImageDataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "cache"))
    folder, model = tmp_path / "images", model_of(results, "other")
    folder.mkdir()
    for place in range(8):
        content = png(fashion_mnist.test.images[place])
        (folder / f"{place}.png").write_bytes(content[:60] if place in (2, 5) else content)
    output = tmp_path / "a.csv"
    arguments = (model, str(folder), "--output", str(output))
    done = call(main, *arguments, "--max-bad-images", "1")
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "must be at most max_bad_images = 1, got 2: 2.png (" in last
    assert "--max-bad-images 2." in last
    assert not output.exists()
    assert sorted(tmp_path.glob(".*")) == []  # no draft either
    done = call(main, *arguments, "--max-bad-images", "2")
    assert done.returncode == 0
    (line,) = (line for line in done.stderr.splitlines() if "are left out: " in line)
    listed = Path(line.partition("are left out: ")[2]).read_text()
    assert [entry.partition(" ")[0] for entry in listed.splitlines()] == ["2.png", "5.png"]
    kept = [f"{place}.png" for place in range(8) if place not in (2, 5)]
    assert pd.read_csv(output)["path"].tolist() == kept


class Counted:
    """Encoded images that count how many were read (see `Encoded`)."""

    def __init__(self, content: bytes, count: int) -> None:
        self.content, self.count, self.read_so_far = content, count, 0

    def __len__(self) -> int:
        return self.count

    def signature(self) -> str:
        return ""

    def chunks(self) -> Sequence[range]:
        return [range(self.count)]

    def read(self, chunk: range) -> Iterator[bytes]:
        for _ in chunk:
            self.read_so_far += 1
            yield self.content

    def name_of(self, index: int) -> str:
        return str(index)


def test_few_images_are_in_memory_at_a_time(fashion_mnist: ImageDataset) -> None:
    most = 64 * (2 * usable_cpus() + 2) + 500  # those of the threads, one in hand, and the block
    count = 4 * most
    encoded = Counted(png(fashion_mnist.test.images[0]), count)
    images = EncodedImages("many", encoded, np.arange(count), np.full(count, -1))
    ahead, places = [], []
    for rows, pixels in images.read(Wish((1, 28, 28)), 500):
        assert len(pixels) <= 500
        assert (pixels == fashion_mnist.test.images[0]).all()
        places += rows.tolist()
        ahead.append(encoded.read_so_far - len(places))
    assert places == list(range(count))
    assert max(ahead) <= most


# ---- what is said of it ----


def test_of_many_classes_the_most_frequent_confusions_are_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = np.array([0] * 5 + [1] * 3 + [2, -1])
    predicted = np.array([3, 3, 3, 0, 0, 4, 4, 1, 2, 9])
    tally = Tally(13)
    for part in (slice(0, 4), slice(4, None)):  # a tally of blocks is that of all
        tally.add(labels[part], answers_of([5.0 * np.eye(13)[predicted[part]]]))
    judgement = tally.judge()
    assert judgement is not None
    assert (judgement.images, judgement.accuracy) == (9, 4 / 9)
    assert judgement.reliability.counts.sum() == 9
    print_judgement(judgement, None, [f"class {k}" for k in range(13)], Console(width=120))
    lines = [line.split("│")[1:4] for line in capsys.readouterr().out.splitlines() if "class " in line]
    pairs = [[cell.strip() for cell in line] for line in lines if len(line) == 3]
    assert pairs == [["class 0", "class 3", "3"], ["class 1", "class 4", "2"]]
    assert Tally(2).judge() is None


def test_the_reliability_diagram_holds_the_bins() -> None:
    bins = pd.DataFrame(
        {
            "configuration": ["plain", "plain", "calibrated"],
            "confidence": [0.3, 0.8, 0.6],
            "accuracy": [0.2, 0.7, 0.65],
            "images": [10, 90, 100],
        }
    )
    spec = charts.reliability_chart(bins)
    assert bins.to_dict("records") in spec["datasets"].values()
    picture = vl_convert.vegalite_to_svg(json.dumps(spec).replace("currentColor", "#000"))
    assert "mean confidence" in picture
    assert "calibrated" in picture


# ---- calibration ----


def test_a_temperature_is_fitted_on_the_validation_images(
    results: ResultsFolder, call: Call, tmp_path: Path
) -> None:
    model, page = model_of(results, "other"), tmp_path / "page.html"
    plain, output = tmp_path / "plain.parquet", tmp_path / "calibrated.parquet"
    call(main, model, "fashion_mnist", "--output", str(plain))
    done = call(
        main, model, "fashion_mnist", "--output", str(output), "--calibrate", "--page", str(page)
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "100 validation images" in line)
    figures = [float(cell) for cell in line.split("│")[3:8]]
    temperature, _, _, loss_before, loss_after = figures
    assert loss_after <= loss_before
    assert abs(temperature - 1) > 0.01  # else the rest shows nothing
    one, other = pd.read_parquet(plain), pd.read_parquet(output)
    assert one["class"].tolist() == other["class"].tolist()
    scaled = np.log(probabilities(one).clip(1e-12)) / temperature
    scaled = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    assert probabilities(other) == pytest.approx(scaled, abs=1e-3)
    assert "before calibration: accuracy" in done.stdout
    said = json.loads(pq.read_schema(output).metadata[b"ssl_runner"])
    assert said["temperatures"] == [pytest.approx(temperature, abs=1e-4)]
    html = page.read_text(encoding="utf-8")
    assert "before calibration" in html
    assert '"reliability"' in html
    assert '"confusion"' in html
    # Without its row, or its data, nobody knows on which images.
    copied = tmp_path / "alone.safetensors"
    copied.write_bytes(Path(model).read_bytes())
    alone = (
        str(copied),
        "fashion_mnist",
        "--results",
        str(tmp_path),
        "--output",
        str(tmp_path / "c.csv"),
    )
    done = call(main, *alone, "--calibrate")
    assert done.returncode == 2
    assert "must be in the results folder, got none" in done.stderr


def test_figures_on_the_images_that_it_was_fitted_on_are_said_to_be(
    results: ResultsFolder, call: Call, tmp_path: Path
) -> None:
    model = model_of(results, "on_test")
    arguments = (model, "fashion_mnist", "--output", str(tmp_path / "a.csv"))
    done = call(main, *arguments, "--calibrate")
    assert done.returncode == 0
    assert "was validated on the test images" in done.stderr


def test_a_temperature_is_fitted_on_given_images(
    results: ResultsFolder, call: Call, tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    sources = write_sources(tmp_path, fashion_mnist, 40)
    model, output = model_of(results, "other"), tmp_path / "a.csv"
    arguments = (model, *sources["folder"], "--output", str(output))
    done = call(main, *arguments, "--calibrate-on", *sources["table with labels"])
    assert done.returncode == 0, done.stderr
    assert "40 of labels.jsonl" in done.stdout
    done = call(main, *arguments, "--force", "--calibrate-on", *sources["table"])
    assert done.returncode == 2
    assert "--calibrate-on must name labeled images, got none" in done.stderr


def test_a_page_without_labels_says_so(
    results: ResultsFolder, call: Call, tmp_path: Path, fashion_mnist: ImageDataset
) -> None:
    image, page = tmp_path / "<i>.png", tmp_path / "page.html"
    image.write_bytes(png(fashion_mnist.test.images[0]))
    output = ("--output", str(tmp_path / "a.csv"))
    done = call(main, model_of(results, "other"), str(image), *output, "--page", str(page))
    assert done.returncode == 0, done.stderr
    html = page.read_text(encoding="utf-8")
    assert "No image has a label" in html
    assert "&lt;i&gt;.png" in html


# ---- bad input ----


def test_bad_input_is_one_line_and_nothing_is_overwritten(
    results: ResultsFolder,
    call: Call,
    tmp_path: Path,
    fashion_mnist: ImageDataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = model_of(results, "other")
    Path("short.safetensors").write_bytes(Path(model).read_bytes()[:500])
    Path("1.png").write_bytes(png(fashion_mnist.test.images[0]))
    Path("taken.csv").write_text("mine")
    Path("t.csv").write_text("file,label\n1.png,Hat\n")
    Path("labels.csv").write_text("file,label\n1.png,Bag\n")
    Path("empty").mkdir()
    out = ("--output", "a.csv")
    for arguments, line in (
        ((model, *out), "the following arguments are required: IMAGES"),
        (("short.safetensors", "1.png", *out), "must be a whole .safetensors file"),
        ((model, model, *out), "the images must come last"),
        ((model, "1.png", "--output", "taken.csv"), "--output must not exist yet, got 'taken.csv'"),
        ((model, "1.png", *out, "--page", "taken.csv"), "--page must not exist yet, got 'taken.csv'"),
        ((model, "1.png", "--output", "a.xlsx"), "--output must end in .parquet or .csv, got 'a.xlsx'"),
        ((model, "1.png", "--output", "taken.csv/a.csv"), "--output must be a writable path"),
        ((model, "2.png", *out), "data must be a file or folder that exists"),
        ((model, "fashion_mnits", *out), "Did you mean fashion_mnist?"),
        ((model, "empty", *out), "must have images"),
        ((model, "t.csv", *out), "labels must be classes of the model ('T-shirt/top', "),
        ((model, "t.csv", *out), "got 'Hat'. Rename them, or take the images as unlabeled"),
        ((model, "digits", *out), "labels must be classes of the model"),
        ((model, "labels.csv", "--part", "unlabeled", *out), "must be an image to answer, got none of"),
        ((model, "1.png", "--image-size", "20", *out), "image_size must be left out, since the model"),
        ((model, "1.png", "--part", "nothing", *out), "invalid choice: 'nothing'"),
        ((model, "1.png", "--stritc", *out), "unknown flag '--stritc'. Did you mean --strict?"),
    ):
        done = call(main, *arguments)
        assert done.returncode == 2, arguments
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: "), done.stderr
        assert line in last
        assert "Traceback" not in done.stderr
    assert Path("taken.csv").read_text() == "mine"
    names = {"short.safetensors", "1.png", "taken.csv", "t.csv", "labels.csv", "empty"}
    assert {path.name for path in Path().iterdir()} == names
    assert call(main, model, "t.csv", "--ignore-labels", *out).returncode == 0
    assert call(main, model, "1.png", "--output", "taken.csv", "--force").returncode == 0
    assert len(pd.read_csv("taken.csv")) == 1


def test_models_of_other_classes_do_not_answer_together(
    results: ResultsFolder, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = call(train_main, "--dataset", "digits", "--epochs", "1", "--cpus-per-trial", "1")
    assert trained.returncode == 0, trained.stderr
    (digits,) = map(str, Path("results/models").iterdir())
    done = call(main, model_of(results, "other"), digits, "digits", "--output", "a.csv")
    assert done.returncode == 2
    assert "models must have the same class names to answer together" in done.stderr
