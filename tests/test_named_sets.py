"""Data sets by name, beside Fashion-MNIST: torchvision's small sets, and scikit-learn's digits.

The files of torchvision's sets are written here, in their own formats and with a few images, and read
by torchvision's own classes. The MD5s that those expect are replaced by those of what was written.
"""

import bz2
import gzip
import hashlib
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

from ssl_runner.datasets import DataError, ImageDataset, fetch, load_dataset
from ssl_runner.datasets.__main__ import main
from ssl_runner.datasets.torchvision_sets import SETS
from ssl_runner.labels import UNLABELED
from tests.conftest import Answer

NOWHERE = "http://127.0.0.1:9/"  # nothing listens there
COUNTS = {"train": 12, "test": 5, "unlabeled": 7}
CIFAR_TRAIN_FILES = 5
FILMED = ("CIFAR10", "CIFAR100", "SVHN", "STL10")  # sets of three channels
NAMES = [name for name in SETS if not name.startswith("EMNIST-")] + ["EMNIST-letters"]
IDX_SETS = ["MNIST", "KMNIST", "EMNIST", "EMNIST-letters", "QMNIST"]

every_set = pytest.mark.parametrize("name", NAMES)


# ---------------------------------------------------------------------------------------------------
# The files, as their makers write them
# ---------------------------------------------------------------------------------------------------


def classes_of(name: str) -> int:
    return {"EMNIST": 47, "EMNIST-letters": 26, "CIFAR100": 100}.get(name, 10)


def made_up(name: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) and labels of a part, as they should be loaded."""
    side = {"USPS": 16, "STL10": 96}.get(name, 32 if name in FILMED else 28)
    random = np.random.default_rng([*name.encode(), len(part)])
    shape = (COUNTS[part], 3 if name in FILMED else 1, side, side)
    labels = np.arange(COUNTS[part]) * 7 % classes_of(name)
    if part == "unlabeled":
        labels[:] = UNLABELED
    return random.integers(0, 256, shape, dtype=np.uint8), labels


def idx(array: np.ndarray) -> bytes:
    """An array in the IDX format, of bytes or of 32-bit integers, big-endian."""
    code = {1: 8, 4: 12}[array.itemsize]
    header = bytes([0, 0, code, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def files_of(name: str) -> dict[str, bytes]:
    """All files of a set, unpacked, by their place below torchvision's root."""
    parts = {part: made_up(name, part) for part in ("train", "test")}
    base = name.partition("-")[0]
    files: dict[str, bytes] = {}
    for part, (images, labels) in parts.items():
        if base in ("MNIST", "KMNIST"):
            stem = f"{base}/raw/{'train' if part == 'train' else 't10k'}"
            files[f"{stem}-images-idx3-ubyte"] = idx(images[:, 0])
            files[f"{stem}-labels-idx1-ubyte"] = idx(labels.astype(np.uint8))
        elif base == "QMNIST":  # eight columns, the class first
            files[f"{base}/raw/qmnist-{part}-images-idx3-ubyte"] = idx(images[:, 0])
            rows = np.stack([labels, *[labels + 100] * 7], axis=1)
            files[f"{base}/raw/qmnist-{part}-labels-idx2-int"] = idx(rows.astype(np.int32))
        elif base == "EMNIST":  # rows and columns swapped; letters counted from 1
            stem = f"{base}/raw/emnist-{name.partition('-')[2] or 'balanced'}-{part}"
            files[f"{stem}-images-idx3-ubyte"] = idx(images[:, 0].swapaxes(1, 2))
            from_one = labels + (name == "EMNIST-letters")
            files[f"{stem}-labels-idx1-ubyte"] = idx(from_one.astype(np.uint8))
        elif base == "USPS":  # libsvm's text: classes from 1, pixels in [-1, 1]
            rows_of_text = [
                f"{label + 1} " + " ".join(f"{i + 1}:{x:.6f}" for i, x in enumerate(row))
                for label, row in zip(labels, (images.reshape(-1, 256) + 0.5) / 127.5 - 1, strict=True)
            ]
            name_of_part = "usps.bz2" if part == "train" else "usps.t.bz2"
            files[name_of_part] = bz2.compress("\n".join(rows_of_text).encode())
        elif base == "STL10":  # columns first; classes from 1
            files[f"stl10_binary/{part}_X.bin"] = images.swapaxes(2, 3).tobytes()
            files[f"stl10_binary/{part}_y.bin"] = (labels + 1).astype(np.uint8).tobytes()
    if base == "STL10":
        images, _ = made_up(name, "unlabeled")
        files["stl10_binary/unlabeled_X.bin"] = images.swapaxes(2, 3).tobytes()
        files["stl10_binary/class_names.txt"] = "\n".join(f"thing {i}" for i in range(10)).encode()
    if base.startswith("CIFAR"):
        files |= cifar_files(base, parts)
    return files


def cifar_files(name: str, parts: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, bytes]:
    """Pickles of rows and labels; CIFAR-10's training images are in five."""
    few = name == "CIFAR10"
    folder, key = ("cifar-10-batches-py", "labels") if few else ("cifar-100-python", "fine_labels")
    files = {}
    for part, (images, labels) in parts.items():
        pieces = np.array_split(
            np.arange(len(labels)), CIFAR_TRAIN_FILES if few * part == "train" else 1
        )
        for number, piece in enumerate(pieces, 1):
            file = part if not few else "test_batch" if part == "test" else f"data_batch_{number}"
            rows = {"data": images[piece].reshape(len(piece), -1), key: labels[piece].tolist()}
            files[f"{folder}/{file}"] = pickle.dumps(rows)
    meta = {"label_names" if few else "fine_label_names": [f"c{i}" for i in range(classes_of(name))]}
    files[f"{folder}/{'batches.meta' if few else 'meta'}"] = pickle.dumps(meta)
    return files


def svhn_files(folder: Path) -> dict[str, bytes]:
    """Matlab's files: the images' number last, and the digit 0 as class 10."""
    files = {}
    for part in ("train", "test"):
        images, labels = made_up("SVHN", part)
        path = folder / f"{part}_32x32.mat"
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        scipy.io.savemat(path, {"X": images.transpose(2, 3, 1, 0), "y": y})
        files[path.name] = path.read_bytes()
        path.unlink()
    return files


def write(files: dict[str, bytes], folder: Path, flat: bool = False) -> Path:
    for file, content in files.items():
        path = folder / (Path(file).name if flat else file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, bytes]]:
    """Makes a set's files, and has torchvision expect their MD5s."""

    def make(name: str) -> dict[str, bytes]:
        files = svhn_files(tmp_path) if name == "SVHN" else files_of(name)
        of = getattr(datasets, name.partition("-")[0])
        sums = {Path(file).name: md5(content) for file, content in files.items()}
        for listing in ("train_list", "test_list"):
            if hasattr(of, listing):
                renewed = [[file, sums[file]] for file, _ in getattr(of, listing)]
                monkeypatch.setattr(of, listing, renewed)
        if hasattr(of, "meta"):
            monkeypatch.setattr(of, "meta", of.meta | {"md5": sums[of.meta["filename"]]})
        if hasattr(of, "split_list"):
            renewed_parts = {
                part: [NOWHERE + file, file, sums.get(file)]
                for part, (_, file, _) in of.split_list.items()
            }
            monkeypatch.setattr(of, "split_list", renewed_parts)
        return files

    return make


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, bytes]]:
    """Packs a set's files as they are downloaded, and has torchvision expect those MD5s."""

    def pack(name: str, files: dict[str, bytes], url: str = NOWHERE) -> dict[str, bytes]:
        of = getattr(datasets, name.partition("-")[0])
        if hasattr(of, "split_list"):
            parts = {p: [url + file, file, digest] for p, (_, file, digest) in of.split_list.items()}
            monkeypatch.setattr(of, "split_list", parts)
            return files
        if hasattr(of, "resources") and "EMNIST" not in name:
            packed = {f"{Path(file).name}.gz": gzip.compress(x) for file, x in files.items()}
            if name == "QMNIST":
                entries = [(url + file, md5(x)) for file, x in packed.items()]
                parts = {part: entries[i : i + 2] for part, i in (("train", 0), ("test", 2))}
                monkeypatch.setattr(of, "resources", parts)
            else:
                monkeypatch.setattr(of, "resources", [(f, md5(x)) for f, x in packed.items()])
                monkeypatch.setattr(of, "mirrors", [NOWHERE, url])
            return packed
        unpacked = write(files, tmp_path / "to-pack")
        if name.startswith("EMNIST"):
            archive = tmp_path / "gzip.zip"
            with zipfile.ZipFile(archive, "w") as zipped:
                for file, content in files.items():
                    zipped.writestr(f"gzip/{Path(file).name}.gz", gzip.compress(content))
            monkeypatch.setattr(of, "md5", md5(archive.read_bytes()))
        else:
            archive = tmp_path / of.filename
            with tarfile.open(archive, "w:gz") as tar:
                tar.add(unpacked / of.base_folder, of.base_folder)
            monkeypatch.setattr(of, "tgz_md5", md5(archive.read_bytes()))
        shutil.rmtree(unpacked)
        monkeypatch.setattr(of, "url", url + archive.name)
        return {archive.name: archive.read_bytes()}

    return pack


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test has an empty cache, and no other place with data."""
    monkeypatch.setenv("SSL_RUNNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSL_RUNNER_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


def is_what_was_written(dataset: ImageDataset, name: str) -> None:
    images, labels = made_up(name, "train")
    if name == "STL10":
        more, without = made_up(name, "unlabeled")
        images, labels = np.concatenate((images, more)), np.concatenate((labels, without))
    assert np.array_equal(dataset.train.images, images)
    assert np.array_equal(dataset.train.labels, labels)
    images, labels = made_up(name, "test")
    assert np.array_equal(dataset.test.images, images)
    assert np.array_equal(dataset.test.labels, labels)
    assert dataset.name == name
    assert len(dataset.train.class_names) == classes_of(name)


# ---------------------------------------------------------------------------------------------------
# A folder of one's own
# ---------------------------------------------------------------------------------------------------


@every_set
@pytest.mark.parametrize("flat", [False, True])
def test_unpacked_files_are_read_in_place(
    name: str, flat: bool, make: Any, tmp_path: Path, cache_root: Path
) -> None:
    folder = write(make(name), tmp_path / "mine", flat)
    said: list[str] = []
    is_what_was_written(load_dataset(name, folder, said.append), name)
    assert said == [f"{name}: from {folder}"]
    assert not cache_root.exists()


def test_the_class_names_are_torchvisions(make: Any, tmp_path: Path) -> None:
    for name, first in {
        "MNIST": "0 - zero",
        "KMNIST": "o",
        "EMNIST": "0",
        "EMNIST-letters": "a",
        "CIFAR10": "c0",
        "SVHN": "0",
        "STL10": "thing 0",
    }.items():
        folder = write(make(name), tmp_path / name)
        assert load_dataset(name, folder, fetch=False).train.class_names[0] == first


@every_set
def test_packed_files_are_unpacked_into_the_cache_once(
    name: str, make: Any, pack: Any, tmp_path: Path, cache_root: Path
) -> None:
    files = make(name)
    folder = write(pack(name, files), tmp_path / "mine")
    is_what_was_written(load_dataset(name, folder), name)
    if name in ("USPS", "SVHN"):  # which are read as they are downloaded
        return
    cache = cache_root / name.partition("-")[0]
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}
    assert {path.relative_to(cache).as_posix() for path in kept} == {*files, ".lock", "sha256.json"}
    is_what_was_written(load_dataset(name, folder), name)
    said: list[str] = []
    is_what_was_written(load_dataset(name, say=said.append), name)
    assert said == [f"{name}: from the cache {cache}"]
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items() if path.suffix)


@every_set
def test_a_file_cut_short_is_one_line(name: str, make: Any, tmp_path: Path) -> None:
    files = make(name)
    for file, content in files.items():
        if file.endswith(".txt"):
            continue
        folder = write(files | {file: content[: len(content) - 3]}, tmp_path / "mine")
        with pytest.raises(DataError) as raised:
            load_dataset(name, folder)
        assert len(str(raised.value).splitlines()) == 1
        assert str(folder) in str(raised.value)
        assert "ut short or damaged: copy" in str(raised.value)


@every_set
def test_a_packed_file_with_another_digest_is_refused(
    name: str, make: Any, pack: Any, tmp_path: Path, cache_root: Path
) -> None:
    packed = pack(name, make(name))
    file = next(iter(packed))
    folder = write(packed | {file: packed[file][:-1] + b"!"}, tmp_path / "mine")
    with pytest.raises(DataError, match=f"{file} must have the MD5 .* that torchvision knows, got"):
        load_dataset(name, folder)
    assert not list(cache_root.rglob("*ubyte"))


@every_set
def test_a_missing_file_is_named(name: str, make: Any, tmp_path: Path) -> None:
    files = make(name)
    missing = next(iter(files))
    folder = write(files, tmp_path / "mine")
    (folder / missing).unlink()
    message = f"{folder} must hold .* but {Path(missing).name} is missing. Copy it there"
    with pytest.raises(DataError, match=message):
        load_dataset(name, folder)
    with pytest.raises(DataError, match="nowhere must hold .* but is no folder. Is the path right?"):
        load_dataset(name, tmp_path / "nowhere")


def test_the_variable_names_the_folder_too(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_RUNNER_DATA", str(write(make("KMNIST"), tmp_path / "mine")))
    is_what_was_written(load_dataset("KMNIST"), "KMNIST")
    with pytest.raises(DataError, match="SSL_RUNNER_DATA: .*mine must hold train-images"):
        load_dataset("MNIST")


# ---------------------------------------------------------------------------------------------------
# The cache and the download
# ---------------------------------------------------------------------------------------------------


@every_set
def test_downloaded_once_from_a_host_that_answers(
    name: str, make: Any, pack: Any, serve: Callable[[Path], str], tmp_path: Path, cache_root: Path
) -> None:
    files = make(name)
    (tmp_path / "served").mkdir()
    packed = pack(name, files, serve(tmp_path / "served"))
    write(packed, tmp_path / "served")
    said: list[str] = []
    is_what_was_written(load_dataset(name, say=said.append), name)
    assert "downloading http://127.0.0.1" in said[0]
    shutil.rmtree(tmp_path / "served")
    is_what_was_written(load_dataset(name), name)


@pytest.mark.parametrize("name", ["CIFAR10", "MNIST", "USPS"])
def test_a_damaged_cache_is_replaced_or_named(
    name: str, make: Any, pack: Any, serve: Callable[[Path], str], tmp_path: Path, cache_root: Path
) -> None:
    files = make(name)
    (tmp_path / "served").mkdir()
    write(pack(name, files, serve(tmp_path / "served")), tmp_path / "served")
    load_dataset(name)
    file = next(iter(files))
    changed = cache_root / name / file
    changed.write_bytes(files[file][:-1] + bytes([files[file][-1] ^ 1]))  # of the same size
    said: list[str] = []
    is_what_was_written(load_dataset(name, say=said.append), name)
    assert "not from the cache" in said[0]
    changed.write_bytes(files[file][:-1])
    shutil.rmtree(tmp_path / "served")
    with pytest.raises(DataError, match=f"{name} is damaged in the cache .* could not be fetched"):
        load_dataset(name)


@every_set
def test_what_can_not_be_downloaded_is_said_in_a_line(
    name: str, make: Any, pack: Any, cache_root: Path, call: Callable[..., Answer]
) -> None:
    packed = pack(name, make(name))
    done = call(main, name)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {name} is not in the cache and could not be fetched ({NOWHERE}")
    assert "Connection refused" in line
    folder = cache_root / name.partition("-")[0]
    assert f"Put {', '.join(packed)} in {folder}, or pass --data-dir" in line
    with pytest.raises(DataError, match="must hold"):
        load_dataset(name, fetch=False)


@pytest.mark.parametrize("name", SETS)
def test_of_every_set_it_is_known_what_is_downloaded_from_where(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With torchvision's own URLs and digests, none of which is asked for here."""
    asked: list[str] = []

    def unreachable(url: str, seconds: float) -> str:
        asked.append(url)
        return "not from here"

    monkeypatch.setattr(fetch, "why_unreachable", unreachable)
    with pytest.raises(DataError, match=f"{name} is not in the cache .*not from here.* Put .* in "):
        load_dataset(name)
    assert asked
    assert all(url.startswith("http") for url in asked)


# ---------------------------------------------------------------------------------------------------
# Names, the digits, the command
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "guess"),
    [("mnist", "MNIST"), ("CIFAR-10", "CIFAR10"), ("EMNIST-leters", "EMNIST-letters")],
)
def test_names_are_torchvisions_with_a_guess(name: str, guess: str) -> None:
    with pytest.raises(ValueError, match=f"got '{name}'. Did you mean {guess}?"):
        load_dataset(name)


def test_neither_library_is_imported_before_it_is_needed() -> None:
    code = "import sys, ssl_runner.datasets.load; print({'sklearn', 'torchvision'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert printed.strip() == "set()"


def test_the_digits() -> None:
    from sklearn.datasets import load_digits

    said: list[str] = []
    digits = load_dataset("digits", say=said.append)
    assert said == ["digits: from scikit-learn, 300 of 1,797 drawn as test images"]
    assert digits.test_fraction == 1 / 6
    assert digits.train.class_names == tuple("0123456789")
    assert digits.train.images.shape == (1497, 1, 8, 8)
    assert np.bincount(digits.test.labels).tolist() == [30, 30, 30, 31, 30, 30, 30, 30, 29, 30]
    original = load_digits()
    both = np.concatenate((digits.train.images, digits.test.images))[:, 0]
    # All of the original's images, once each, at values 0, 16, …, 112, 128, 143, …, 255.
    assert sorted(image.tobytes() for image in both) == sorted(
        np.array([round(v * 255 / 16) for v in image.flat], dtype=np.uint8).tobytes()
        for image in original.images
    )
    assert load_dataset("digits").digest == digits.digest


def test_the_digits_without_their_package_or_with_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="data_dir must be left out for digits"):
        load_dataset("digits", tmp_path)
    for module in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # as Python marks what can't be imported
    with pytest.raises(
        DataError, match=r"not installed. Install it: pip install 'ssl_runner\[digits\]'"
    ):
        load_dataset("digits")


def test_the_command_counts_the_images_without_a_label(
    make: Any, tmp_path: Path, call: Callable[..., Answer]
) -> None:
    folder = write(make("STL10"), tmp_path / "mine")
    arguments = ("STL10", "--data-dir", str(folder), "--label-fraction", "1")
    done = call(main, *arguments, "--picture", str(tmp_path / "x.png"))
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("│")[1:5]] for line in done.stdout.splitlines()]
    assert ["thing 0", "2", "2", "1"] in rows
    assert ["(no label)", "7", "0", "0"] in rows
    assert ["all", "19", "12", "5"] in rows


def test_the_command_says_that_the_digits_test_images_were_drawn(
    tmp_path: Path, call: Callable[..., Answer]
) -> None:
    done = call(main, "digits", "--picture", str(tmp_path / "x.png"))
    assert done.returncode == 0, done.stderr
    assert "test: a share of 0.1667 of the labeled images, drawn by class" in done.stdout
