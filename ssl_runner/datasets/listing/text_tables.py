"""Tables of text, as columns: comma- or tab-separated values, or a JSON object per line."""

import csv
import io
import json
import math
from pathlib import Path

from ssl_runner.datasets.listing.columns import Table, Texts
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError, InputError, shown


def read_text_table(path: Path, files: FileSettings) -> Table:
    """Read a `.csv`, `.tsv` or `.jsonl` file whole.

    Raises:
        InputError: If there is no such encoding.
        DataError: If the file can't be read, is not in that encoding, or is no such table.
    """
    text = _decoded(path, files.encoding)
    if path.suffix.lower() == ".jsonl":
        return _json_lines(path, text)
    return _separated(path, text, files.header)


def _decoded(path: Path, encoding: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    place, got = 0, ""
    try:
        text = content.decode(encoding)
        if "\0" in text:
            place, got = text.index("\0"), "a zero byte"
    except UnicodeDecodeError as error:
        place, got = error.start, f"byte 0x{content[error.start]:02x}"
        text = content[:place].decode(encoding, "replace")
    except (LookupError, UnicodeError):
        raise InputError(
            f"encoding must be one that Python knows, such as utf-8, latin-1 or utf-16, got "
            f"{shown(encoding)}. Try --encoding utf-8."
        ) from None
    if got:
        line = text[:place].count("\n") + 1
        raise DataError(
            f"{path}: must be text in {encoding}, got {got} in line {line} (byte {place:,}). "
            f"Try {_other_encoding(content, encoding)}, or save it as UTF-8."
        )
    return text.removeprefix("\ufeff")  # the byte order mark that some programs put first


def _other_encoding(content: bytes, encoding: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "--encoding utf-16"
    if b"\0" in content[:100]:
        return "--encoding utf-16-le" if content[1:2] == b"\0" else "--encoding utf-16-be"
    is_utf_8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    return "--encoding latin-1" if is_utf_8 else "--encoding utf-8"


def unreadable(path: Path, error: OSError) -> DataError:
    """What to raise for a file that isn't there, or that the system does not let us read."""
    hint = "Is the path right?" if isinstance(error, FileNotFoundError) else "Check its permissions."
    return DataError(f"{path}: can't be read ({error.strerror or error}). {hint}")


def _separated(path: Path, text: str, has_header: bool) -> Table:
    import pandas as pd

    separator = _separator(path, text)
    try:
        frame = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,  # the header is a row like others, so that no name is changed
            dtype=str,
            na_filter=False,  # a class may be called NA or null
            skipinitialspace=True,
        ).fillna("")
    except pd.errors.EmptyDataError:
        raise _no_rows(path) from None
    except pd.errors.ParserError as error:
        reason = str(error).strip().partition("C error: ")[2] or str(error)
        words = {",": "commas", ";": "semicolons", "\t": "tabs"}[separator]
        raise DataError(
            f"{path}: must have the same number of columns in every line, separated by {words}: "
            f"{' '.join(reason.split())}. Put a text that holds the separator in quotes."
        ) from None
    header = 1 if has_header else 0
    if len(frame) == header:
        raise _no_rows(path)
    first: list[str] = frame.iloc[0].tolist()
    names = [name.strip() if has_header else str(column) for column, name in enumerate(first)]
    return Table(
        path=path,
        names=tuple(names),
        texts=lambda column: frame[column].tolist()[header:],
        place=lambda row: f"line {_line_of(text, separator, row + header)}",
    )


def _separator(path: Path, text: str) -> str:
    """Tab in a `.tsv`; in a `.csv` the comma, or what is used where numbers have a decimal comma."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    first = text.lstrip().partition("\n")[0]
    return next((sign for sign in (",", ";", "\t") if sign in first), ",")


def _line_of(text: str, separator: str, row: int) -> int:
    """The line, from 1, in which a row begins: rows may hold line breaks, and lines may be blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    begins = 1
    for record in reader:
        if record and row == 0:
            break
        row -= bool(record)
        begins = reader.line_num + 1
    return begins


def _no_rows(path: Path) -> DataError:
    return DataError(f"{path}: must have a row for each image, got none. Is it the right file?")


def _json_lines(path: Path, text: str) -> Table:
    columns: dict[str, Texts] = {}
    lines: list[int] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.isspace():
            continue
        row = len(lines)
        for name, value in _json_object(path, line, number).items():
            column = columns.setdefault(name, [])
            column.extend([None] * (row - len(column)))
            column.append(_json_text(value))
        lines.append(number)
    if not lines:
        raise _no_rows(path)
    for column in columns.values():
        column.extend([None] * (len(lines) - len(column)))
    names = tuple(columns)
    return Table(
        path=path,
        names=names,
        texts=lambda column: columns[names[column]],
        place=lambda row: f"line {lines[row]}",
    )


def _json_object(path: Path, line: str, number: int) -> dict[str, object]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DataError(
            f"{path}: must have a JSON object in each line, got {shown(line.strip())} in line "
            f"{number}. "
            'Write each row as {"file": "a.png", "label": "cat"}.'
        )
    return found


def _json_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)
