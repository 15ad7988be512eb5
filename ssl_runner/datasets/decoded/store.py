"""The cache of decoded images: complete entries only, found by the files' state or by their content."""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ssl_runner.cache import cache_folder, lock_cache
from ssl_runner.datasets.arrays import ImageArrays, ImageDataset
from ssl_runner.datasets.decoded.mapped import ImageMap, map_of
from ssl_runner.errors import DataError

# N = images of an entry, training, validation and test images in this order, C, H, W as ever

IMAGES, LABELS, META = "images", "labels.npy", "meta.json"
"""The files of an entry: raw uint8 (N, C, H, W), int64 (N,), and a `Meta`, whose time is that of the
entry's last use."""

SIGNATURES, BAD_IMAGES = "signatures", "bad"
"""Folders beside the entries: which entry belongs to files in a certain state; lists of bad images."""


def image_cache() -> Path:
    """The folder of the cache."""
    return cache_folder("images")


@dataclass(frozen=True, kw_only=True)
class Meta:
    """What an entry holds, beside images and labels.

    Attributes:
        shape: (N, C, H, W).
        counts: Training, validation and test images; None: there is no validation part.
        class_names: Of the classes, K of them.
        digest: That of the `ImageDataset`.
        group: Equal for all entries that differ in the content of the files only.
        bad: The images that were left out: their row if they had stayed, and why.
        notes: Lines for the user.
    """

    shape: tuple[int, int, int, int]
    counts: tuple[int, int | None, int]
    class_names: tuple[str, ...]
    digest: str
    group: str
    bad: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the images."""
        return int(np.prod(self.shape, dtype=np.int64))

    def write(self, folder: Path) -> None:
        """Write it into an entry."""
        (folder / META).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def read(folder: Path) -> "Meta":
        """Read it from an entry.

        Raises:
            OSError, ValueError, TypeError, KeyError: If it isn't there, or damaged.
        """
        values: dict[str, Any] = json.loads((folder / META).read_text(encoding="utf-8"))
        lists = {name: tuple(values[name]) for name in ("shape", "counts", "class_names", "notes")}
        bad = {int(row): why for row, why in values["bad"].items()}
        return Meta(**values | lists | {"bad": bad})


class Entry(NamedTuple):
    """An entry in use: while its images are mapped, it is not removed."""

    folder: Path
    meta: Meta
    images_NCHW: npt.NDArray[np.uint8]
    labels_N: npt.NDArray[np.int64]

    def parts(self) -> tuple[ImageArrays, ImageArrays | None, ImageArrays]:
        """Its training, validation and test images, views of the map."""
        return parts_of(self.images_NCHW, self.labels_N, self.meta.counts, self.meta.class_names)


def parts_of(
    images_NCHW: npt.NDArray[np.uint8],
    labels_N: npt.NDArray[np.int64],
    counts: tuple[int, int | None, int],
    class_names: tuple[str, ...],
) -> tuple[ImageArrays, ImageArrays | None, ImageArrays]:
    """The arrays cut into training, validation and test images; None where there is no validation."""
    starts = np.cumsum([0, *(count or 0 for count in counts)])
    train, validation, test = (
        ImageArrays(images_NCHW[first:last], labels_N[first:last], class_names)
        for first, last in pairwise(starts)
    )
    return train, None if counts[1] is None else validation, test


class DamagedError(Exception):
    """An entry is there, but not as it was made."""


def open_entry(folder: Path) -> Entry | None:
    """Open an entry without a lock on the cache, and hold it as long as its images are mapped.

    Returns:
        The entry; None: there is none.

    Raises:
        DamagedError: If its files don't fit together.
    """
    try:
        # A map keeps its file open, and with it this lock, which `remove_entry` respects.
        with (folder / IMAGES).open("rb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_SH)
            meta = Meta.read(folder)
            labels_N = np.load(folder / LABELS)
            found = os.fstat(file.fileno())
            if found.st_size != meta.size or labels_N.shape != meta.shape[:1]:
                raise DamagedError(
                    f"{folder / IMAGES} has {found.st_size:,} bytes instead of {meta.size:,}"
                )
            images_NCHW = map_images(file.fileno(), folder / IMAGES, meta.shape)
        if (folder / IMAGES).stat().st_ino != found.st_ino:
            return None  # removed before the lock was there
        with suppress(OSError):  # another user's
            os.utime(folder / META)
    except FileNotFoundError as error:
        if folder.exists():
            raise DamagedError(f"{error.filename} is not there") from None
        return None
    except (ValueError, TypeError, KeyError, EOFError) as error:
        raise DamagedError(f"{folder}: {error}") from None
    labels_N.flags.writeable = False
    return Entry(folder, meta, images_NCHW, labels_N)


def map_images(file: int, path: Path, shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """The images in an open file, mapped read-only."""
    mapped = ImageMap(file, 0, prot=mmap.PROT_READ)
    mapped.path = path
    return np.ndarray(shape, np.uint8, buffer=mapped)


# --- Which entry belongs to which files


def find(cache: Path, signature: str) -> Entry | None:
    """The entry that belongs to files in a certain state, or None.

    Raises:
        DamagedError: If it is damaged.
    """
    try:
        key = (cache / SIGNATURES / signature).read_text(encoding="utf-8")
    except OSError:
        return None
    return open_entry(cache / key)


def remember(cache: Path, work: Path, signature: str, key: str) -> None:
    """Say which entry belongs to files in a certain state. `work`: a folder for drafts."""
    put(work, cache / SIGNATURES / signature, key)


def put(work: Path, path: Path, text: str) -> None:
    """Write a file of the cache whole, drafted in the folder `work`."""
    path.parent.mkdir(exist_ok=True)
    draft = work / path.name
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def entries(cache: Path) -> Iterator[tuple[Path, Meta]]:
    """All entries of a cache whose description can be read."""
    for path in sorted(cache.glob(f"*/{META}")):
        if not path.parent.name.startswith("tmp-"):
            with suppress(OSError, ValueError, TypeError, KeyError):
                yield path.parent, Meta.read(path.parent)


def key_of(group: str, digests: Iterator[bytes]) -> str:
    """The name of an entry, from all that decides it: its group, and the content of its files."""
    key = hashlib.blake2b(group.encode(), digest_size=16)
    for digest in digests:
        key.update(digest)
    return key.hexdigest()


def finish(cache: Path, draft: Path, key: str) -> None:
    """Put a drafted entry in its place. It is on the disk before it can be found."""
    for path in (*draft.iterdir(), draft):
        _sync(path)
    place = cache / key
    if place.exists():  # damaged
        place.rename(draft.parent / "damaged")
    draft.rename(place)
    _sync(cache)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


# --- What is removed


def remove_entry(folder: Path, work: Path) -> bool:
    """Remove an entry, unless a process has it in use. Returns whether it was removed.

    It needs the lock on the cache, whose folder for drafts is `work`.
    """
    with suppress(FileNotFoundError), (folder / IMAGES).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks: a removed file stays for those who map it
            pass
        _remove(folder, work)
        return True
    _remove(folder, work)
    return True


def _remove(folder: Path, work: Path) -> None:
    """At once, so that no half of it is ever found."""
    gone = work / f"gone-{folder.name}"
    folder.rename(gone)
    shutil.rmtree(gone)


def make_room(cache: Path, work: Path, needed: int, limit: float) -> None:
    """Remove the entries that were not used for longest, until all take at most `limit` bytes with
    `needed` more. Those in use stay, even beyond the limit. It needs the lock on the cache."""
    kept = [
        (folder.joinpath(META).stat().st_mtime_ns, folder, meta.size) for folder, meta in entries(cache)
    ]
    total = sum(size for _, _, size in kept)
    for _, folder, size in sorted(kept):
        if total + needed <= limit:
            break
        if remove_entry(folder, work):
            total -= size
    _forget_removed(cache)


def _forget_removed(cache: Path) -> None:
    for signature in (cache / SIGNATURES).glob("*"):
        if not (cache / signature.read_text(encoding="utf-8")).is_dir():
            signature.unlink()


class Cleared(NamedTuple):
    """What was removed from the cache: bytes; and how many entries stay, because they are in use."""

    size: int
    in_use: int


def clear() -> Cleared:
    """Remove all decoded images that no process uses.

    Raises:
        CacheError: If the cache can't be written.
    """
    cache = image_cache()
    if not cache.exists():
        return Cleared(0, 0)
    with lock_cache(cache, print) as work:
        before = _size_of(cache)
        shutil.rmtree(cache / BAD_IMAGES, ignore_errors=True)
        folders = [path for path in cache.iterdir() if path.is_dir()]
        ours = [path for path in folders if path != work and path.name != SIGNATURES]
        in_use = sum(not remove_entry(path, work) for path in ours)
        _forget_removed(cache)
        return Cleared(before - _size_of(cache), in_use)


def _size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- For other processes


@dataclass(frozen=True, kw_only=True)
class MappedDataset:
    """A data set of the cache, small to send: another process of this machine maps the same file.

    Attributes:
        folder: The entry.
        name, left_out, left_out_why, test_fraction: As in `ImageDataset`.
    """

    folder: str
    name: str
    left_out: int = 0
    left_out_why: str = ""
    test_fraction: float | None = None

    def open(self) -> ImageDataset:
        """Map it.

        Raises:
            DataError: If the entry is not there any more, or is damaged.
        """
        try:
            entry = open_entry(Path(self.folder))
        except DamagedError as error:
            raise DataError(f"decoded images are damaged: {error}. Start again.") from None
        if entry is None:
            raise DataError(
                f"{self.folder}: decoded images must stay while they are used, but they are gone. "
                "Start again: they are made again."
            )
        return self.dataset(entry)

    def dataset(self, entry: Entry) -> ImageDataset:
        """The data set that an open entry holds."""
        train, validation, test = entry.parts()
        return ImageDataset(
            self.name,
            train,
            test,
            entry.meta.digest,
            validation,
            self.left_out,
            self.left_out_why,
            self.test_fraction,
        )


def find_content(digest: str, name: str) -> ImageDataset | None:
    """The data set of this digest, if its images are in the cache."""
    for folder, meta in entries(image_cache()):
        if meta.digest == digest:
            with contextlib.suppress(DataError):
                return MappedDataset(folder=str(folder), name=name).open()
    return None


def handle_of(dataset: ImageDataset) -> MappedDataset | None:
    """What to send to another process in place of a mapped data set; None: it is not mapped."""
    mapped = map_of(dataset.train.images)
    if mapped is None:
        return None
    return MappedDataset(
        folder=str(mapped.path.parent),
        name=dataset.name,
        left_out=dataset.left_out,
        left_out_why=dataset.left_out_why,
        test_fraction=dataset.test_fraction,
    )
