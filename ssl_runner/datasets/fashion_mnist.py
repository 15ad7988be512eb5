"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): its files, found, checked and read."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ssl_runner.cache import CacheError, cache_folder, lock_cache
from ssl_runner.datasets import fetch
from ssl_runner.datasets.arrays import ImageArrays, ImageDataset
from ssl_runner.errors import DataError

Say = Callable[[str], None]
Files = dict[str, Path]  # where each of FILES is, unpacked or .gz

# SHA-256 of the unpacked files: Debian's .gz are packed differently, with the same content.
FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
RAW = Path("FashionMNIST", "raw")  # torchvision's layout: it can use our cache, and we can use its


class MissingError(DataError):
    """The files are missing, as opposed to damaged."""


def load_fashion_mnist(data_dir: Path | None, say: Say, fetch: bool = True) -> ImageDataset:
    """Fashion-MNIST from the first place that has it; see `find_files`.

    Raises:
        DataError: If no place has it, or the given folder's files are wrong.
    """
    files = find_files(data_dir, say, fetching=fetch)
    return ImageDataset("fashion_mnist", _read(files, "train"), _read(files, "t10k"))


def _read(files: Files, part: str) -> ImageArrays:
    # The digest has verified the content, so the headers (16 and 8 bytes) are skipped. (Importing
    # torchvision to read them would take longer than all the rest: 1.6 s of each start.)
    pixels = np.fromfile(files[f"{part}-images-idx3-ubyte"], dtype=np.uint8, offset=16)
    labels_N = np.fromfile(files[f"{part}-labels-idx1-ubyte"], dtype=np.uint8, offset=8)
    return ImageArrays(pixels.reshape(-1, 1, 28, 28), labels_N.astype(np.int64), CLASSES)


def find_files(data_dir: Path | None, say: Say, *, fetching: bool = True) -> Files:
    """The four files, unpacked and checked, from the first place that has them.

    If a folder is given (`data_dir`, or else SSL_RUNNER_DATA), only that one is searched. Otherwise:
    the cache, the folder of Debian's package and, if `fetching` is allowed, torchvision's download
    and Debian's archive.

    Raises:
        DataError: If the given folder lacks a file or has a wrong one; or if every place failed:
            what was tried, why it failed, and the commands that help.
    """
    cache = cache_folder("fashion_mnist")
    if data_dir is not None:
        return _use_folder(data_dir.expanduser(), cache, say)
    chosen = os.environ.get("SSL_RUNNER_DATA")
    if chosen:
        try:
            return _use_folder(Path(chosen).expanduser(), cache, say)
        except DataError as error:
            raise DataError(f"SSL_RUNNER_DATA: {error}") from error
    places: dict[str, Callable[[], Files]] = {
        "cache": lambda: _use_cache(cache, say),
        "Debian's package": lambda: _use_folder(fetch.DEBIAN_FOLDER, cache, say),
    }
    if fetching:
        places |= {
            "torchvision": lambda: _use_fetched(fetch.fetch_with_torchvision, cache, say),
            "Debian's archive": lambda: _use_fetched(fetch.fetch_with_apt, cache, say),
        }
    failures = []
    for place, use in places.items():
        try:
            return use()
        except CacheError:
            raise
        except DataError as error:
            failures.append(f"  {place}: {error}")
            if not isinstance(error, MissingError):
                say(f"Fashion-MNIST: not from {place}: {error}")
    raise DataError(
        "\n".join(
            (
                "Fashion-MNIST was not found and could not be fetched. Tried:",
                *failures,
                "Any one of these helps:",
                f"  sudo apt-get install {fetch.DEBIAN_PACKAGE}",
                f"  copy {', '.join(FILES)}, unpacked or .gz, to a folder X and pass --data-dir X",
            )
        )
    )


def _use_folder(folder: Path, cache: Path, say: Say) -> Files:
    """The files of a folder that is not ours: used in place, or unpacked into the cache."""
    files = locate(folder)
    if any(path.suffix == ".gz" for path in files.values()):
        return _keep(files, folder, cache, say)
    check(files)
    say(f"Fashion-MNIST: from {folder}")
    return files


def _use_cache(cache: Path, say: Say) -> Files:
    """The files of our own cache. A damaged one is set aside, so that another source can replace it."""
    while True:
        files = locate(cache)
        try:
            check(files)
        except DataError:
            with lock_cache(cache, say):
                _set_damaged_aside(files, say)
            continue
        if any(path.suffix == ".gz" for path in files.values()):
            return _keep(files, cache, cache, say)
        say(f"Fashion-MNIST: from the cache {cache}")
        return files


def _set_damaged_aside(files: Files, say: Say) -> None:
    for name, path in files.items():
        try:
            check({name: path})
        except DataError as error:
            path.replace(path.with_name(path.name + ".damaged"))
            say(f"{error} Set aside as {path.name}.damaged")


def _keep(files: Files, origin: Path, cache: Path, say: Say) -> Files:
    """Unpack a folder's files into the cache, unless it has them (checked by SHA-256)."""
    found, how = _whole(cache), "already unpacked in"
    if not found:
        with lock_cache(cache, say) as work:
            found = _whole(cache)
            if not found:
                found, how = _place(files, cache, work), "unpacked in"
    say(f"Fashion-MNIST: from {origin}, {how} {cache}")
    return found


def _use_fetched(way: Callable[[Path, Say], Path], cache: Path, say: Say) -> Files:
    """Download into the cache, unless another process has done so meanwhile."""
    with lock_cache(cache, say) as work:
        found = _whole(cache)
        if not found:
            found = _place(locate(way(work, say)), cache, work)
    say(f"Fashion-MNIST: from the cache {cache}")
    return found


def _place(files: Files, cache: Path, work: Path) -> Files:
    """Unpack and check all files, then rename them into the cache: what is there is complete."""
    raw = cache / RAW
    raw.mkdir(parents=True, exist_ok=True)
    ready = work / "ready"
    ready.mkdir()
    for name, path in files.items():
        with (ready / name).open("wb") as file:
            for chunk in _checked(name, path):
                file.write(chunk)
    return {name: (ready / name).replace(raw / name) for name in files}


def _whole(cache: Path) -> Files | None:
    """The cache's files if all are there, unpacked and correct."""
    files = {name: cache / RAW / name for name in FILES}
    try:
        check(files)
    except DataError:
        return None
    return files


def locate(folder: Path) -> Files:
    """Where in a folder each of the four files is.

    They may be unpacked or .gz, and stand in it directly or in torchvision's layout.

    Raises:
        MissingError: If one of them is not there; the message names the folder and the file.
    """
    try:
        if not folder.is_dir():
            raise MissingError(
                f"{folder}: must be a folder with Fashion-MNIST's four files, got no such folder. "
                "Is the path right?"
            )
        return {name: _locate_one(folder, name) for name in FILES}
    except OSError as error:
        raise _unreadable(folder, error) from error


def _locate_one(folder: Path, name: str) -> Path:
    for file in (name, f"{name}.gz"):
        for place in (folder / RAW, folder):
            if (place / file).is_file():
                return place / file
    raise MissingError(
        f"{folder}: must hold Fashion-MNIST's four files, unpacked or .gz, directly or in {RAW}, "
        f"but {name} is missing. Copy it there."
    )


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: can't be read ({error.strerror or error}). Check its permissions.")


def check(files: Files) -> None:
    """Raise a DataError unless every file has the expected content."""
    for name, path in files.items():
        for _ in _checked(name, path):
            pass


def _checked(name: str, path: Path) -> Iterator[bytes]:
    """A file's unpacked bytes in chunks; raises a DataError after the last if they are wrong."""
    sha256, size = hashlib.sha256(), 0
    for chunk in _chunks(path):
        sha256.update(chunk)
        size += len(chunk)
        yield chunk
    if sha256.hexdigest() != FILES[name]:
        raise DataError(
            f"{path}: must have the SHA-256 {FILES[name][:12]}… unpacked, got "
            f"{sha256.hexdigest()[:12]}… ({size:,} bytes). Cut short or damaged: copy it again."
        )


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = str(error).rstrip(".")
        raise DataError(
            f"{path}: must be a whole gzip file ({reason}). Cut short or damaged: copy it again."
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
