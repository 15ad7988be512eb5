"""An entry of the cache made from files, each of them read once where all are alike."""

import hashlib
import itertools
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssl_runner.cache import lock_cache
from ssl_runner.datasets.arrays import digest_of
from ssl_runner.datasets.decoded.decode import Header, header
from ssl_runner.datasets.decoded.pool import DIGEST_BYTES, Found, Task, read_all
from ssl_runner.datasets.decoded.store import (
    BAD_IMAGES,
    IMAGES,
    LABELS,
    DamagedError,
    Entry,
    Meta,
    entries,
    find,
    finish,
    image_cache,
    key_of,
    make_room,
    map_images,
    open_entry,
    parts_of,
    remember,
)
from ssl_runner.datasets.listing.listing import Encoded
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError

# n = listed images, N = those of all parts, C = channels, H and W = height and width

_VERSION = 1
"""Of the pixels that equal files give. A new one makes all entries again."""

_GUESSED_FROM = 64
"""Images whose headers say what to expect of all."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """What an entry is to hold.

    Attributes:
        name: The data set's, for messages.
        encoded: The listed images, n of them.
        order_N: Which of them the entry holds: training, validation, then test images.
        labels_N: Their classes, int64.
        counts: Training, validation and test images; None: there is no validation part.
        class_names: Of the classes.
        files: How the images are read.
        compare: Given a digest of each listed image, empty where it is in no part or is bad, returns
            lines for the user; or raises a `DataError`, and no entry is made.
    """

    name: str
    encoded: Encoded
    order_N: npt.NDArray[np.int64]
    labels_N: npt.NDArray[np.int64]
    counts: tuple[int, int | None, int]
    class_names: tuple[str, ...]
    files: FileSettings
    compare: Callable[[npt.NDArray[np.bytes_]], tuple[str, ...]] = lambda digests_n: ()

    @cached_property
    def group(self) -> str:
        """Equal for all entries that differ in the content of the files only."""
        files = self.files
        settings = (files.image_size, files.fit, files.channels, files.max_pixels)
        known = json.dumps([_VERSION, settings, self.counts, self.class_names])
        return _hash(known.encode(), self.labels_N.tobytes())

    @cached_property
    def signature(self) -> str:
        """Changes whenever the files may have changed; no image is read for it."""
        return _hash(self.group.encode(), self.encoded.signature().encode(), self.order_N.tobytes())

    @cached_property
    def rows_n(self) -> npt.NDArray[np.int64]:
        """The row of each listed image, -1 where it is in no part."""
        rows = np.full(len(self.encoded), -1, np.int64)
        rows[self.order_N] = np.arange(len(self.order_N))
        return rows


def _hash(*parts: bytes) -> str:
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole.update(hashlib.blake2b(part).digest())
    return whole.hexdigest()


def find_or_make(wanted: Wanted, say: Callable[[str], None]) -> Entry:
    """The entry, from the cache or made now. One process makes it; another one waits, and uses it.

    Raises:
        DataError: If too many images are bad, or a process died; nothing is left of it in the cache
            then but the list of the bad images.
        CacheError: If the cache can't be written.
    """
    cache = image_cache()
    entry = _found(cache, wanted, say)
    if entry is None:
        with lock_cache(cache, say) as work:
            entry = _found(cache, wanted, lambda line: None) or _same_content(cache, work, wanted)
            if entry is None:
                entry = _make(cache, work, wanted, say)
    check_bad(wanted, entry.meta.bad)
    return entry


def _found(cache: Path, wanted: Wanted, say: Callable[[str], None]) -> Entry | None:
    try:
        return find(cache, wanted.signature)
    except DamagedError as error:
        say(f"{wanted.name}: decoded images in the cache are damaged ({error}): they are made again")
        return None


def _same_content(cache: Path, work: Path, wanted: Wanted) -> Entry | None:
    """An entry of files elsewhere, or of an earlier time, with the same content."""
    if not any(meta.group == wanted.group for _, meta in entries(cache)):
        return None
    task = Task(what="digests", max_pixels=wanted.files.max_pixels)
    found = read_all(wanted.encoded, wanted.rows_n, task, f"{wanted.name}: comparing")
    key = _key(wanted, found)
    try:
        entry = open_entry(cache / key)
    except DamagedError:
        return None
    if entry is not None:
        remember(cache, work, wanted.signature, key)
    return entry


def _key(wanted: Wanted, found: Found) -> str:
    return key_of(wanted.group, (found.digests[index] for index in wanted.order_N.tolist()))


def _make(cache: Path, work: Path, wanted: Wanted, say: Callable[[str], None]) -> Entry:
    """Make the entry; the cache is locked, and `work` is its folder for drafts."""
    draft = work / "entry"
    draft.mkdir()
    found, task = _decode(cache, draft, wanted)
    bad = {int(wanted.rows_n[index]): why for index, why in found.bad.items()}
    check_bad(wanted, bad)
    digests_n = np.zeros(len(wanted.encoded), f"S{DIGEST_BYTES}")
    good = [index for index in found.digests if index not in found.bad]
    digests_n[good] = [found.digests[index] for index in good]
    notes = wanted.compare(digests_n)
    kept_N = np.setdiff1d(np.arange(len(wanted.order_N)), np.fromiter(sorted(bad), np.int64))
    _compact(draft / IMAGES, kept_N, task.row_bytes)
    counts = _counts(wanted.counts, kept_N)
    if not counts[0] or not counts[2]:
        raise DataError(
            f"{wanted.name}: must have a training and a test image that can be decoded, got "
            f"{counts[0]} and {counts[2]}."
        )
    labels_N = wanted.labels_N[kept_N]
    shape = (len(kept_N), task.channels, *task.size)
    with (draft / IMAGES).open("rb") as file:
        images_NCHW = map_images(file.fileno(), draft / IMAGES, shape)
    train, validation, test = parts_of(images_NCHW, labels_N, counts, wanted.class_names)
    meta = Meta(
        shape=shape,
        counts=counts,
        class_names=wanted.class_names,
        digest=digest_of(train, test, validation),
        group=wanted.group,
        bad=bad,
        notes=notes,
    )
    np.save(draft / LABELS, labels_N)
    meta.write(draft)
    key = _key(wanted, found)
    finish(cache, draft, key)
    remember(cache, work, wanted.signature, key)
    for line in conversions(wanted.name, found, task):
        say(line)
    entry = open_entry(cache / key)
    assert entry is not None, "it was made just now, under the lock"
    return entry


def _decode(cache: Path, draft: Path, wanted: Wanted) -> tuple[Found, Task]:
    """Decode all images into a file, in the size and with the channels that were asked for.

    Where none were asked for, the commonest size and the channels that suit all are known only once
    all images are. A few headers tell: if they are alike, their size is tried, and all is decoded
    again only if others turn out to be more common; if they differ, all headers are read first.
    """
    files, title = wanted.files, f"{wanted.name}: decoding"
    expected = _glance(wanted)
    sizes_differ = files.image_size is None and len(expected.sizes) != 1
    kinds_differ = files.channels is None and bool(expected.gray) == bool(expected.colours)
    if sizes_differ or kinds_differ:
        task = Task(what="headers", max_pixels=files.max_pixels)
        expected = read_all(wanted.encoded, wanted.rows_n, task, f"{wanted.name}: looking")
    while True:
        task = Task(
            what="pixels",
            max_pixels=files.max_pixels,
            size=_size(files, expected),
            channels=_channels(files, expected),
            fit=files.fit,
            path=draft / IMAGES,
        )
        _reserve(cache, draft, len(wanted.order_N) * task.row_bytes, files.cache_limit)
        found = read_all(wanted.encoded, wanted.rows_n, task, title)
        if (task.size, task.channels) == (_size(files, found), _channels(files, found)):
            return found, task
        # What is found depends on neither, so that the next round is the last.
        expected = found


def _size(files: FileSettings, found: Found) -> tuple[int, int]:
    if files.image_size is None:
        return found.commonest_size
    return files.image_size[0], files.image_size[-1]


def _channels(files: FileSettings, found: Found) -> int:
    return files.channels or (3 if found.colours else 1)


def _glance(wanted: Wanted) -> Found:
    """The headers of a few images here and there."""
    found = Found()
    chunks = wanted.encoded.chunks()
    some = [chunks[place] for place in np.unique(np.linspace(0, len(chunks) - 1, 4).astype(int))]
    for chunk in some:
        images = zip(chunk, wanted.encoded.read(chunk), strict=False)
        for index, data in itertools.islice(images, _GUESSED_FROM // len(some)):
            head = header(data, wanted.files.max_pixels)
            if wanted.rows_n[index] >= 0 and isinstance(head, Header):
                found.count(head)
    return found


def _reserve(cache: Path, draft: Path, size: int, limit: float) -> None:
    """An empty file of a size, if the disk has room for it and more entries than the limit allows are
    gone."""
    make_room(cache, draft.parent, size, limit * 1e9)
    with (draft / IMAGES).open("wb") as file:
        free = shutil.disk_usage(cache).free
        if free < size:
            raise OSError(f"the decoded images need {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        file.truncate(size)


def _compact(path: Path, kept_N: npt.NDArray[np.int64], row_bytes: int) -> None:
    """Close the gaps that the bad images left in a file of rows."""
    with path.open("r+b") as file:
        for row, kept in enumerate(kept_N.tolist()):
            if row != kept:
                os.pwrite(
                    file.fileno(), os.pread(file.fileno(), row_bytes, kept * row_bytes), row * row_bytes
                )
        file.truncate(len(kept_N) * row_bytes)


def _counts(
    counts: tuple[int, int | None, int], kept_N: npt.NDArray[np.int64]
) -> tuple[int, int | None, int]:
    """How many images of each part are kept."""
    ends = np.cumsum([count or 0 for count in counts])
    train, validation, test = np.bincount(np.searchsorted(ends, kept_N, "right"), minlength=3).tolist()
    return train, None if counts[1] is None else validation, test


def conversions(name: str, found: Found, task: Task) -> list[str]:
    """Lines that say which images are not as they were, of all that were found."""
    kinds = Counter(found.converted)
    turned = kinds.pop("rotated", 0)
    said = [f"{count:,} {kind}" for kind, count in sorted(kinds.items())]
    if task.channels == 1 and found.colours:
        said.append(f"{found.colours:,} coloured")
    lines = [f"{name}: converted: {', '.join(said)} images"] if said else []
    if task.channels == 3 and found.gray:
        lines.append(
            f"{name}: {found.gray:,} of {found.gray + found.colours:,} images are gray: made RGB"
        )
    if turned:
        lines.append(f"{name}: {turned:,} images turned as their EXIF data say")
    other = sum(found.sizes.values()) - found.sizes[task.size]
    if other:
        height, width = task.size
        lines.append(
            f"{name}: {other:,} images of other sizes brought to {height}×{width} ({task.fit})"
        )
    return lines


def check_bad(wanted: Wanted, bad: Mapping[int, str]) -> None:
    """List bad images in a file, and refuse them if there are more than may be left out.

    Args:
        bad: Why each is bad, by its row.

    Raises:
        DataError: If there are more than `max_bad_images`.
    """
    if not bad:
        return
    why_of = {int(wanted.order_N[row]): why for row, why in bad.items()}
    list_bad(wanted.name, wanted.encoded, why_of, bad_list(wanted), wanted.files.max_bad_images)


def list_bad(name: str, encoded: Encoded, bad: Mapping[int, str], path: Path, most: int) -> None:
    """List bad images in a file, and refuse them if there are too many.

    Args:
        name: The data set's, for messages.
        encoded: The images.
        bad: Why each is bad, by its place among them.
        path: The file.
        most: How many may be bad.

    Raises:
        DataError: If there are more.
    """
    named = [f"{encoded.name_of(place)} ({why})" for place, why in sorted(bad.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in named), encoding="utf-8")
    if len(named) > most:
        raise DataError(
            f"{name}: images that can't be decoded must be at most max_bad_images = "
            f"{most:,}, got {len(named):,}: {', '.join(named[:3])}"
            f"{', …' if len(named) > 3 else ''} (all of them: {path}). Repair or remove them, or leave "
            f"them out: --max-bad-images {len(named)}."
        )


def bad_list(wanted: Wanted) -> Path:
    """The file in which the bad images are listed, each with the reason."""
    return place_of_list(wanted.name, wanted.signature)


def place_of_list(name: str, signature: str) -> Path:
    """Where the bad images of files in a certain state are listed."""
    plain = re.sub(r"[^\w.-]+", "_", name)
    return image_cache() / BAD_IMAGES / f"{plain}-{signature[:8]}.txt"
