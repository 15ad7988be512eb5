"""Which column of a table holds what, and what its texts mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_runner.datasets.listing.listing import Part
from ssl_runner.errors import DataError, shown

Texts = list[str | None]

USUAL = {
    "file": (
        *("file", "files", "filename", "file_name", "filepath", "file_path", "path"),
        *("image", "images", "image_file", "image_name", "image_filename", "imagename"),
        *("image_path", "imagepath", "img", "img_name", "img_path"),
    ),
    "label": (
        *("label", "labels", "class", "classes", "class_name", "classname", "class_label"),
        *("target", "targets", "category"),
    ),
    "split": (*("split", "part", "partition", "set", "subset", "is_train", "is_training", "train"),),
}
"""The names by which each column is found, in lower case with underscores."""

PARTS: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The words for the parts, in lower case: in a column, and as names of folders and files."""

WITHOUT_LABELS = ("unlabeled", "unlabelled")
"""The words for training images without a label, in lower case, as names of folders and files."""

_IS_TRAIN: dict[str, Part] = {"true": "train", "1": "train", "false": "test", "0": "test"}


@dataclass(frozen=True, eq=False)
class Table:
    """A table whose columns are read as text when they are asked for.

    Attributes:
        path: Its file.
        names: What its columns are called; their positions, if it has no header.
        texts: The values of the column at a position, None where there is none.
        place: Where a row stands, for a message: "line 17".
        class_names: What the whole numbers in the column at a position mean, where the file says so.
    """

    path: Path
    names: tuple[str, ...]
    texts: Callable[[int], Texts]
    place: Callable[[int], str]
    class_names: Callable[[int], tuple[str, ...] | None] = lambda _: None


def position_of(where: Path, names: Sequence[str], what: str, given: str) -> int:
    """The position of the column that the user names, by its name or by its position.

    Args:
        where: The table.
        names: Its columns.
        what: What the column is for: "file", "label" or "split".
        given: A name; or a position from 0, or from -1 backwards.

    Raises:
        DataError: If there is none, or there are several.
    """
    found = [position for position, name in enumerate(names) if name == given]
    try:
        position = int(given)
    except ValueError:
        position = len(names)
    if not found and -len(names) <= position < len(names):
        return position % len(names)
    if len(found) != 1:
        rule = "one of its columns" if not found else "the name of one column only"
        raise DataError(
            f"{where}: --{what}-column must be {rule}, got {shown(given)}. {_columns(names)}"
            + (" Name it by its position, from 0." if found else "")
        )
    return found[0]


def find_column(where: Path, names: Sequence[str], what: str) -> int | None:
    """The position of the column that has a usual name; None: no column has.

    Raises:
        DataError: If several have.
    """
    plain = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in names]
    found = [position for position, name in enumerate(plain) if name in USUAL[what]]
    if len(found) > 1:
        raise DataError(
            f"{where}: must have one column that is named as one of {what}s usually is, got "
            f"{', '.join(shown(names[position]) for position in found)}. Name the one that is meant: "
            f"--{what}-column {names[found[0]]}."
        )
    return found[0] if found else None


def column_for(
    where: Path, names: Sequence[str], what: str, given: str | None, needed: bool = True
) -> int | None:
    """The position of a column: the one that is given, or else found by its name; None: there is none.

    Raises:
        DataError: If there is none that is given or needed, or there are several.
    """
    position = (
        find_column(where, names, what) if given is None else position_of(where, names, what, given)
    )
    if position is None and needed:
        raise missing_column(where, names, what)
    return position


def missing_column(where: Path, names: Sequence[str], what: str) -> DataError:
    """What to raise where no column has a usual name."""
    return DataError(
        f"{where}: must have a column of {what}s, got none that is named {', '.join(USUAL[what][:3])}… "
        f"{_columns(names)} Name it: --{what}-column, by name or by position from 0 (a table whose "
        "first line is data needs --header no)."
    )


def _columns(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"Its columns are: {', '.join(shown(name) for name in names[:most])}{more}."


def clean_labels(texts: Texts, marker: str | None) -> Texts:
    """Labels without spaces around them; None where there is none, or the marker of none."""
    nothing = {None, "", None if marker is None else marker.strip()}
    distinct = {text: None if text is None else text.strip() for text in set(texts)}
    meaning = {text: None if label in nothing else label for text, label in distinct.items()}
    return [meaning[text] for text in texts]


def parts_of(table: Table, position: int) -> list[Part]:
    """The part that each row names, by a word or by a boolean (true: train, false: test).

    Raises:
        DataError: For the first row that names none.
    """
    texts, name = table.texts(position), table.names[position]
    words = {text: (text or "").strip().lower() for text in set(texts)}
    meaning: dict[str | None, Part] = {}
    for text, word in words.items():
        if word in PARTS:
            meaning[text] = PARTS[word]
        elif word in _IS_TRAIN and not any(part in name.lower() for part in ("test", "val")):
            meaning[text] = _IS_TRAIN[word]
    if len(meaning) < len(words):
        row = next(row for row, text in enumerate(texts) if text not in meaning)
        raise DataError(
            f"{table.path}: column {shown(name)} must say train, validation or test, or else true for "
            f"train and false for test, got {shown(texts[row] or '')} in {table.place(row)}. "
            "Correct it, or name another column: --split-column."
        )
    return [meaning[text] for text in texts]
