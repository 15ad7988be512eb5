"""From a path that the user names to a listing of its images."""

import os
from collections.abc import Callable
from pathlib import Path

from ssl_runner.datasets.listing.folders import IMAGES, list_any_folder, list_folder
from ssl_runner.datasets.listing.listing import Listing
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError, InputError, did_you_mean, shown

TABLES = (".csv", ".tsv", ".jsonl", ".parquet")

_INSTEAD = {
    **dict.fromkeys(
        (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"), "Unpack it."
    ),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "Save it as .csv."),
    ".txt": "If its columns are separated by commas, rename it to .csv; if by tabs, to .tsv.",
    ".json": "Write one JSON object per line, as .jsonl.",
    **dict.fromkeys(
        (".npy", ".npz", ".pt", ".h5"), "Load it in a function: --dataset module:function."
    ),
}


def list_images(
    path: Path, files: FileSettings, say: Callable[[str], None], need_labels: bool = True
) -> Listing:
    """List the images of a table of files, of Parquet files with the images inside, or of a folder.

    Args:
        path: A `.csv`, `.tsv`, `.jsonl` or `.parquet` file, or a folder.
        files: How it is read.
        say: Called with each line for the user.
        need_labels: Whether a table must have a column of labels, and a folder one for each class.

    Raises:
        InputError: If a setting does not fit what the path is.
        DataError: If there is no such path, or nothing at it that can be listed: what, and what helps.
    """
    from ssl_runner.datasets.listing.parquet import holds_images, list_parquet
    from ssl_runner.datasets.listing.tables import list_table

    named = path.expanduser().absolute()
    path = named.resolve() if named.name in ("", "..") else named
    suffix = path.suffix.lower()
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:  # too long, below a locked folder, or with a zero byte
        raise DataError(
            f"{shown(str(path))}: data must be a file or folder that can be read "
            f"({getattr(error, 'strerror', None) or error}). Is the path right?"
        ) from None
    if is_folder:
        if parquet := _parquet_below(path):
            _refuse_unused(
                files, ("image_dir", "header", "encoding"), f"{path.name}, Parquet files with images"
            )
            return list_parquet(path, parquet, files, say, need_labels)
        unused = ("image_dir", "file_column", "label_column", "split_column", "header", "encoding")
        _refuse_unused(files, unused, f"the folder {path.name}, which is no table")
        return (list_folder if need_labels else list_any_folder)(path, files, say)
    if not is_there:
        raise _missing(path)
    if suffix not in TABLES or not path.is_file():
        fix = _INSTEAD.get(suffix, "Name a table of files and labels, or a folder of images.")
        raise DataError(
            f"{path}: data must be a table ({', '.join(TABLES)}) or a folder, got "
            f"{shown(path.name)}. {fix}"
        )
    if suffix == ".parquet":
        _refuse_unused(files, ("header", "encoding"), f"{path.name}, which is not text")
        if holds_images(path, files.file_column):
            _refuse_unused(files, ("image_dir",), f"{path.name}, which has the images inside")
            return list_parquet(path, (), files, say, need_labels)
    return list_table(path, files, say, need_labels)


def _parquet_below(folder: Path) -> list[str]:
    """The Parquet files in a folder and those below it; none if images are there as well."""
    found: list[str] = []
    for above, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if any(name.lower().endswith(IMAGES) for name in names):
            return []
        found += [
            (Path(above) / name).relative_to(folder).as_posix()
            for name in names
            if name.lower().endswith(".parquet") and not name.startswith(".")
        ]
    return found


def _refuse_unused(files: FileSettings, names: tuple[str, ...], what: str) -> None:
    usual = FileSettings()
    for name in names:
        value = getattr(files, name)
        if value != getattr(usual, name):
            raise InputError(
                f"{name} must be left out for {what}, got {shown(value)}. Leave out "
                f"--{name.replace('_', '-')}."
            )


def _missing(path: Path) -> DataError:
    above = next(folder for folder in path.parents if folder.is_dir())
    try:
        there = sorted(entry.name for entry in above.iterdir() if not entry.name.startswith("."))
    except OSError:
        there = []
    lost = path.relative_to(above).parts[0]
    hint = did_you_mean(lost, there[:20]) if there else "There is nothing that can be listed."
    return DataError(
        f"{path}: data must be a file or folder that exists, got no {shown(lost)} in {above}. {hint}"
    )
