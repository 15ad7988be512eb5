"""torchvision's small data sets by name: their files found, checked, and read by its own classes."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssl_runner.cache import CacheError, cache_folder, lock_cache
from ssl_runner.datasets import fetch
from ssl_runner.datasets.arrays import ImageArrays, ImageDataset
from ssl_runner.datasets.fashion_mnist import MissingError
from ssl_runner.errors import DataError
from ssl_runner.labels import UNLABELED

# N = images, C = channels, H and W = height and width, K = classes

Say = Callable[[str], None]
Arguments = Mapping[str, Any]  # what torchvision's class is called with for a part

_BY_FLAG: dict[str, Arguments] = {"train": {"train": True}, "test": {"train": False}}
_BY_SPLIT: dict[str, Arguments] = {"train": {"split": "train"}, "test": {"split": "test"}}


@dataclass(frozen=True)
class _Set:
    """How one of torchvision's classes is asked for a part, and how its `data` is laid out.

    EMNIST's files hold each image with rows and columns swapped (WH); it is turned upright.
    """

    layout: Literal["HW", "WH", "HWC", "CHW"] = "HW"
    parts: Mapping[str, Arguments] = field(default_factory=lambda: _BY_FLAG)


def _emnist(split: str) -> _Set:
    return _Set("WH", {part: {"split": split, **flag} for part, flag in _BY_FLAG.items()})


SETS = {
    "MNIST": _Set(),
    "KMNIST": _Set(),
    "QMNIST": _Set(),
    "EMNIST": _emnist("balanced"),
    **{
        f"EMNIST-{split}": _emnist(split)
        for split in ("byclass", "bymerge", "balanced", "letters", "digits", "mnist")
    },
    "USPS": _Set(),
    "CIFAR10": _Set("HWC"),
    "CIFAR100": _Set("HWC"),
    "SVHN": _Set("CHW", _BY_SPLIT),
    "STL10": _Set("CHW", {**_BY_SPLIT, "unlabeled": {"split": "unlabeled"}}),
}
"""By torchvision's name; of EMNIST also its other splits."""

# In our cache: the SHA-256 of the unpacked files of which torchvision knows no digest, taken when they
# were unpacked from an archive of which it knows one.
_DIGESTS = "sha256.json"


@dataclass(frozen=True)
class _Files:
    """What torchvision reads and what it downloads; paths are relative to its root folder.

    Attributes:
        unpacked: What its class reads, with the MD5, or None where torchvision knows none.
        packed: What it downloads, with the MD5.
        urls: Where each packed file comes from: any of these does.
    """

    unpacked: dict[str, str | None]
    packed: dict[str, str]
    urls: dict[str, tuple[str, ...]]


def _files_of(name: str) -> _Files:
    class_name, known = name.partition("-")[0], SETS[name]
    torchvision_class = _class_of(name)
    if hasattr(torchvision_class, "tgz_md5"):  # an archive that holds one folder
        of = torchvision_class
        listed = [*of.train_list, *of.test_list]
        if hasattr(of, "meta"):
            listed.append((of.meta["filename"], of.meta["md5"]))
        else:
            listed.append((of.class_names_file, None))
        unpacked = {f"{of.base_folder}/{file}": md5 for file, md5 in listed}
        return _Files(unpacked, {of.filename: of.tgz_md5}, {of.filename: (of.url,)})
    if hasattr(torchvision_class, "split_list"):  # one file for each part, read as it is
        listed = [torchvision_class.split_list[part] for part in ("train", "test")]
        packed = {file: md5 for _, file, md5 in listed}
        return _Files(dict(packed), packed, {file: (url,) for url, file, _ in listed})
    raw = f"{class_name}/raw"
    if class_name == "EMNIST":
        split = known.parts["train"]["split"]
        kinds = ("images-idx3", "labels-idx1")
        read = [f"{raw}/emnist-{split}-{part}-{kind}-ubyte" for part in known.parts for kind in kinds]
        archive = f"{raw}/{Path(torchvision_class.url).name}"
        return _Files(
            dict.fromkeys(read), {archive: torchvision_class.md5}, {archive: (torchvision_class.url,)}
        )
    resources, mirrors = torchvision_class.resources, torchvision_class.mirrors
    if isinstance(resources, dict):  # QMNIST, whose entries are whole URLs
        resources, mirrors = [*resources["train"], *resources["test"]], ("",)
    packed = {f"{raw}/{Path(file).name}": md5 for file, md5 in resources}
    urls = {f"{raw}/{Path(file).name}": tuple(m + file for m in mirrors) for file, _ in resources}
    return _Files(dict.fromkeys(file.removesuffix(".gz") for file in packed), packed, urls)


def _class_of(name: str) -> Any:
    from torchvision import datasets  # 1.6 s: only when one of its sets is asked for

    return getattr(datasets, name.partition("-")[0])


def load_torchvision(name: str, data_dir: Path | None, say: Say, fetch: bool = True) -> ImageDataset:
    """One of `SETS`, read by torchvision's own class.

    If a folder is given (`data_dir`, or else SSL_RUNNER_DATA), only that one is searched: its files may
    be unpacked or as they are downloaded, and stand in it directly or where torchvision puts them.
    Otherwise: the cache and, if `fetch` allows it, torchvision's download.

    Every digest that torchvision knows is checked: of downloaded files always, of unpacked ones for
    CIFAR, SVHN, STL10 and USPS. Of unpacked MNIST, KMNIST, EMNIST and QMNIST it knows none: our cache's
    are compared with what was unpacked from files with the right digests; in another folder, only their
    sizes must fit.

    Raises:
        DataError: If no place has the files, or the given folder's files are wrong.
    """
    files, cache = _files_of(name), cache_folder(name.partition("-")[0])
    if data_dir is not None:
        return _read_folder(name, files, data_dir.expanduser(), cache, say)
    chosen = os.environ.get("SSL_RUNNER_DATA")
    if chosen:
        try:
            return _read_folder(name, files, Path(chosen).expanduser(), cache, say)
        except DataError as error:
            raise DataError(f"SSL_RUNNER_DATA: {error}") from error
    try:
        return _read_folder(name, files, cache, cache, say)
    except CacheError:
        raise
    except MissingError:
        if not fetch:
            raise
        is_damaged, why = False, "is not in the cache"
    except DataError as error:
        if not fetch:
            raise
        is_damaged, why = True, f"is damaged in the cache ({error})"
        say(f"{name}: not from the cache: {error}")
    with lock_cache(cache, say) as work:
        if is_damaged or not _located(cache, files.unpacked):  # another process may have fetched it
            try:
                _download(name, files, work, say)
            except DataError as error:
                raise DataError(
                    f"{name} {why} and could not be fetched ({error}). Put {_names(files.packed)} in "
                    f"{cache}, or pass --data-dir with a folder that has them."
                ) from error
            _place(files, work, cache)
    return _read_folder(name, files, cache, cache, say)


def _located(folder: Path, wanted: Mapping[str, object]) -> dict[str, Path] | None:
    """Where each wanted file is, in torchvision's place or in the folder itself; None: not all are."""
    found = {}
    for file in wanted:
        for place in (folder / file, folder / Path(file).name):
            if place.is_file():
                found[file] = place
                break
        else:
            return None
    return found


def _read_folder(name: str, files: _Files, folder: Path, cache: Path, say: Say) -> ImageDataset:
    """The data of a folder: read in place, or unpacked into the cache first."""
    place = f"the cache {folder}" if folder == cache else str(folder)
    found = _located(folder, files.unpacked)
    if found is not None:
        with _as_root(found, folder) as root:
            dataset = _read(name, files, root, folder)
        say(f"{name}: from {place}")
        return dataset
    packed = _located(folder, files.packed)
    if packed is None:
        raise _missing(files, folder)
    for file, path in packed.items():
        _check_md5(path, files.packed[file])
    with lock_cache(cache, say) as work:
        whole = _read_whole(name, files, cache)
        if whole is None:
            for file, path in packed.items():
                (work / file).parent.mkdir(parents=True, exist_ok=True)
                (work / file).symlink_to(path.absolute())
            _unpack(name, work)  # which finds what it would download
            _place(files, work, cache)
            whole = _read(name, files, cache, cache)
    say(f"{name}: from {place}, unpacked in {cache}")
    return whole


def _read_whole(name: str, files: _Files, cache: Path) -> ImageDataset | None:
    """The cache's data if they are all there and right."""
    if not _located(cache, files.unpacked):
        return None
    try:
        return _read(name, files, cache, cache)
    except DataError:
        return None


def _names(files: Iterable[str]) -> str:
    names = [Path(file).name for file in files]
    return ", ".join(names[:4]) + ", …" * (len(names) > 4)


def _missing(files: _Files, folder: Path) -> MissingError:
    """What a folder should hold, and the first thing that is not there."""
    wanted = _names(files.packed)
    if files.packed.keys() != files.unpacked.keys():
        wanted += f", or unpacked {_names(files.unpacked)}"
    if not folder.is_dir():
        return MissingError(f"{folder} must hold {wanted}, but is no folder. Is the path right?")
    part = next((kind for kind in (files.packed, files.unpacked) if _any(folder, kind)), files.packed)
    missing = next(file for file in part if not _located(folder, {file: None}))
    return MissingError(
        f"{folder} must hold {wanted}, directly or as torchvision places them, but "
        f"{Path(missing).name} is missing. Copy it there."
    )


def _any(folder: Path, wanted: Mapping[str, object]) -> bool:
    return any(_located(folder, {file: None}) for file in wanted)


@contextmanager
def _as_root(found: Mapping[str, Path], folder: Path) -> Iterator[Path]:
    """A root folder as torchvision expects it: the folder itself, or links to its files."""
    if all(path == folder / file for file, path in found.items()):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ssl_runner-") as work:
        for file, path in found.items():
            link = Path(work, file)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.absolute())
        yield Path(work)


def _download(name: str, files: _Files, work: Path, say: Say) -> None:
    """Download with torchvision and unpack; a host that does not answer is known in seconds."""
    for urls in files.urls.values():
        url = fetch.first_reachable({url: url for url in urls})
        say(f"{name}: downloading {url}")
    fetch.download(partial(_unpack, name, work))


def _unpack(name: str, root: Path) -> None:
    """Let torchvision unpack, and download what isn't there."""
    for arguments in SETS[name].parts.values():
        _class_of(name)(str(root), download=True, **arguments)


def _place(files: _Files, work: Path, cache: Path) -> None:
    """Rename what was unpacked into the cache, with the digests that torchvision does not know."""
    digests = _known_digests(cache)
    for path in sorted(work.rglob("*")):
        file = path.relative_to(work).as_posix()
        if not path.is_file() or (file in files.packed and file not in files.unpacked):
            continue
        if files.unpacked.get(file) is None:
            digests[file] = _sha256(path)
        (cache / file).parent.mkdir(parents=True, exist_ok=True)
        path.replace(cache / file)
    (work / _DIGESTS).write_text(json.dumps(digests), encoding="utf-8")
    (work / _DIGESTS).replace(cache / _DIGESTS)


def _known_digests(cache: Path) -> dict[str, str]:
    try:
        known: dict[str, str] = json.loads((cache / _DIGESTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_md5(path: Path, expected: str) -> None:
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
    if md5 != expected:
        raise DataError(
            f"{path} must have the MD5 {expected[:12]}… that torchvision knows, got {md5[:12]}…. "
            "Cut short or damaged: copy it again."
        )


def _read(name: str, files: _Files, root: Path, folder: Path) -> ImageDataset:
    """Read the parts with torchvision's class, which checks the digests it knows (but not USPS's)."""
    if name == "USPS":
        for file, expected in files.packed.items():
            _check_md5(root / file, expected)
    for file, sha256 in _known_digests(folder).items():
        if file in files.unpacked and _sha256(root / file) != sha256:
            raise DataError(
                f"{folder / file} is damaged: it has changed since it was unpacked. Delete it."
            )
    arrays = {}
    for part, arguments in SETS[name].parts.items():
        try:
            arrays[part] = _arrays(_class_of(name)(str(root), **arguments), SETS[name].layout)
        except Exception as error:  # whatever a parser meets in a damaged file
            for file, md5 in files.unpacked.items():
                if md5 is not None:
                    _check_md5(root / file, md5)
            raise DataError(
                f"{folder}: {name}'s {part} files can't be read ({type(error).__name__}: "
                f"{' '.join(str(error).split())}). Cut short or damaged: copy them again."
            ) from error
    return ImageDataset(name, _joined(arrays["train"], arrays.get("unlabeled")), arrays["test"])


def _arrays(part: Any, layout: str) -> ImageArrays:
    """A part as torchvision's class holds it, as contiguous uint8 (N, C, H, W)."""
    images = np.asarray(part.data)
    if layout == "WH":
        images = images.swapaxes(1, 2)
    if layout in ("HW", "WH"):
        images = images[:, None]
    if layout == "HWC":
        images = images.transpose(0, 3, 1, 2)
    labels = np.asarray(part.targets if hasattr(part, "targets") else part.labels, dtype=np.int64)
    if labels.ndim == 2:  # QMNIST: the class, then what is known of the writer
        labels = labels[:, 0].copy()
    names = tuple(getattr(part, "classes", map(str, range(10))))  # SVHN's and USPS's have no names
    if names[0] == "N/A":  # EMNIST's letters are counted from 1
        names, labels = names[1:], labels - 1
    return ImageArrays(np.ascontiguousarray(images), labels, names)


def _joined(labeled: ImageArrays, unlabeled: ImageArrays | None) -> ImageArrays:
    if unlabeled is None:
        return labeled
    assert (unlabeled.labels == UNLABELED).all()
    return ImageArrays(
        np.concatenate((labeled.images, unlabeled.images)),
        np.concatenate((labeled.labels, unlabeled.labels)),
        labeled.class_names,
    )
