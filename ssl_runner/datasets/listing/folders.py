"""Images in folders named after their classes, as a listing."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssl_runner.datasets.listing.columns import PARTS, WITHOUT_LABELS
from ssl_runner.datasets.listing.file_images import FileImages, Inside
from ssl_runner.datasets.listing.listing import Listing, Part
from ssl_runner.datasets.listing.natural import Key, natural_key
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError, shown

IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
"""How the names of images end, in lower case."""

NOT_AN_IMAGE, NO_CLASS = "not an image by its name", "in no class folder"

Say = Callable[[str], None]
Group = tuple[str, str | None, Part | None]  # a folder, relative to the root; its label; its part


def list_folder(root: Path, files: FileSettings, say: Say) -> Listing:
    """The images in torchvision's `ImageFolder` layout: `train/CLASS/…`, `test/CLASS/…`, or `CLASS/…`.

    A folder `unlabeled` beside the classes, or beside `train`, holds training images without a label.
    Images are in the natural order of their file names, whichever folders they are in: numbered files
    keep their order in every layout.

    Args:
        root: The folder.
        files: How it is read.
        say: Called with each line for the user.

    Raises:
        DataError: If it has no images in such folders, or a symlink leads out of it.
    """
    inside = Inside(root)
    left_out: Counter[str] = Counter()
    found = [
        (name, folder, label, part)
        for top, label, part in _groups(inside, left_out)
        for folder, name in _images_below(inside, top, left_out)
    ]
    if not found:
        raise _no_images(root, left_out)
    _sort(found)
    marker = files.unlabeled_marker
    labels = [None if label == marker else label for _, _, label, _ in found]
    # All or none: a group's part is None only if the folder has no parts.
    parts = [part for _, _, _, part in found if part is not None] or None
    labeled = len(labels) - labels.count(None)
    reasons = "".join(f", {count:,} left out: {reason}" for reason, count in left_out.items())
    say(f"{root.name}: {len(labels):,} images, {labeled:,} of them labeled{reasons}")
    return Listing(
        name=root.name,
        encoded=FileImages(root, [f"{folder}/{name}" for name, folder, _, _ in found]),
        labels=labels,
        parts=parts,
        left_out=dict(left_out),
    )


def list_any_folder(root: Path, files: FileSettings, say: Say) -> Listing:
    """The images below a folder: labeled by their folders, unless some lie directly in it. Then its
    folders are no classes, and no image has a label.

    Args:
        root, files, say: As for `list_folder`.

    Raises:
        DataError: As `list_folder` does.
    """
    inside = Inside(root)
    if not any(name.lower().endswith(IMAGES) for name in _entries(inside, "")[1]):
        return list_folder(root, files, say)
    left_out: Counter[str] = Counter()
    found = [(name, folder) for folder, name in _images_below(inside, "", left_out)]
    _sort(found)
    say(
        f"{root.name}: {len(found):,} images, none of them labeled: some lie directly in it, so "
        "that its folders are no classes"
    )
    return Listing(
        name=root.name,
        encoded=FileImages(root, [f"{folder}/{name}" if folder else name for name, folder in found]),
        labels=[None] * len(found),
        parts=None,
        left_out=dict(left_out),
    )


def _sort(found: list[Any]) -> None:
    """Sort images by their names, then by their folders: the first two of each entry."""
    keys: dict[str, Key] = {folder: natural_key(folder) for _, folder, *_ in found}
    found.sort(key=lambda image: (natural_key(image[0]), keys[image[1]]))


def _entries(inside: Inside, folder: str) -> tuple[list[str], list[str]]:
    """The folders and files directly in a folder, hidden ones left out.

    Raises:
        DataError: If the folder can't be read, or one of them is a symlink out of the root.
    """
    folders, names = [], []
    try:
        with os.scandir(inside.root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    inside.real(f"{folder}/{entry.name}" if folder else entry.name)
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.is_file():
                    names.append(entry.name)
    except OSError as error:
        raise DataError(
            f"{inside.root / folder}: can't be read ({error.strerror or error}). Check its permissions."
        ) from None
    return sorted(folders), sorted(names)


def _groups(inside: Inside, left_out: Counter[str]) -> Iterator[Group]:
    """The folders of classes, and those of images without a label."""
    tops = _class_folders(inside, "", left_out)
    words = {top: PARTS[top.lower()] for top in tops if top.lower() in PARTS}
    # A class may be called "train" too: a part has folders of its own.
    parts = {top: part for top, part in words.items() if _entries(inside, top)[0]}
    if not parts:
        yield from _classes("", tops, None)
        return
    for top in tops:
        if top in words:
            yield from _classes(top, _class_folders(inside, top, left_out), words[top])
        elif top.lower() in WITHOUT_LABELS:
            yield top, None, "train"
        else:
            raise DataError(
                f"{inside.root}: beside {next(iter(parts))}/ there must be only train, validation, "
                f"test and unlabeled, got the folder {shown(top)}. Move it into one of them."
            )


def _class_folders(inside: Inside, folder: str, left_out: Counter[str]) -> list[str]:
    folders, names = _entries(inside, folder)
    for name in names:
        left_out[NO_CLASS if name.lower().endswith(IMAGES) else NOT_AN_IMAGE] += 1
    return folders


def _classes(above: str, folders: list[str], part: Part | None) -> Iterator[Group]:
    for name in folders:
        label = None if name.lower() in WITHOUT_LABELS else name
        yield (f"{above}/{name}" if above else name), label, part


def _images_below(
    inside: Inside, top: str, left_out: Counter[str], above: tuple[Path, ...] = ()
) -> Iterator[tuple[str, str]]:
    """Folder and name of every image in a folder and in those below it."""
    real = inside.real(top)
    if real in above:
        return  # a symlink to a folder that it is in
    folders, names = _entries(inside, top)
    for name in names:
        if name.lower().endswith(IMAGES):
            yield top, name
        else:
            left_out[NOT_AN_IMAGE] += 1
    for folder in folders:
        yield from _images_below(inside, f"{top}/{folder}" if top else folder, left_out, (*above, real))


def _no_images(root: Path, left_out: Counter[str]) -> DataError:
    tables = sorted(
        path.name for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".jsonl")
    )
    got = ", ".join(f"{count:,} files {reason}" for reason, count in left_out.items()) or "no files"
    fix = (
        f"Name the table of labels instead: {root / tables[0]}."
        if tables
        else "Sort the images into a folder for each class, or name a table of files and labels."
    )
    return DataError(
        f"{root}: must have images ({', '.join(IMAGES[:3])}…) in folders named after their "
        f"classes, got {got}. {fix}"
    )
