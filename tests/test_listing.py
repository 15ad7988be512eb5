"""From what a user names to a listing: tables, folders and Parquet files, right and wrong ones."""

import json
import os
import pickle
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ssl_runner.datasets.listing.file_images import CHUNK, FileImages
from ssl_runner.datasets.listing.listing import Encoded, Listing
from ssl_runner.datasets.listing.named_path import list_images
from ssl_runner.datasets.listing.parquet_images import LEAST_ROWS, MOST_PIECES, ParquetImages
from ssl_runner.datasets.listing.parts import assign
from ssl_runner.datasets.settings import FileSettings
from ssl_runner.errors import DataError, InputError

# --- What the tests write and read


def png(value: int) -> bytes:
    """A small gray image that is told from others by its value."""
    file = BytesIO()
    Image.fromarray(np.full((2, 3), value % 256, np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_images(folder: Path, *names: str) -> Path:
    """Images 0, 1, 2, … under these names."""
    for value, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(value))
    return folder


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def listed(path: Path, say: Any = lambda line: None, **options: Any) -> Listing:
    listing = list_images(path, FileSettings(**options), say)
    assert len(listing.encoded) == len(listing.labels)
    assert listing.parts is None or len(listing.parts) == len(listing.labels)
    return listing


def refusal(path: Path, **options: Any) -> str:
    """The one line with which a path is refused."""
    with pytest.raises(InputError) as caught:
        listed(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names_of(listing: Listing) -> list[str]:
    return [listing.encoded.name_of(index) for index in range(len(listing.encoded))]


def contents(encoded: Encoded) -> list[bytes]:
    return [content for chunk in encoded.chunks() for content in encoded.read(chunk)]


def check_chunks(encoded: Encoded) -> None:
    """The chunks are all images in order, each gives as many as it has, and so does a copy."""
    chunks = encoded.chunks()
    assert [index for chunk in chunks for index in chunk] == list(range(len(encoded)))
    copy = pickle.loads(pickle.dumps(encoded))
    for chunk in chunks:
        assert len(list(encoded.read(chunk))) == len(chunk)
    assert contents(copy) == contents(encoded)
    assert copy.signature() == encoded.signature()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Four images, and one further down."""
    return write_images(tmp_path / "pets", "a.png", "b.png", "c.png", "d.png", "more/e.png")


# --- Tables


ROWS = "a.png,cat\nb.png,dog\nc.png,\nmore/e.png,cat\n"


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("t.csv", "file,label\n" + ROWS, {}),
        ("t.CSV", "label,file\ncat,a.png\ndog,b.png\n,c.png\ncat,more/e.png\n", {}),
        ("t.csv", "Image Path,weight,Class\na.png,1,cat\nb.png,2,dog\nc.png,3,\nmore/e.png,4,cat", {}),
        ("t.csv", "id,x\n" + ROWS, {"file_column": "id", "label_column": "x"}),
        ("t.csv", "id,x\n" + ROWS, {"file_column": "0", "label_column": "-1"}),
        # A name goes before a position.
        ("t.csv", "1,0\n" + ROWS, {"file_column": "1", "label_column": "0"}),
        ("t.csv", ROWS, {"header": False, "file_column": "0", "label_column": "1"}),
        ("t.csv", "file;label\n" + ROWS.replace(",", ";"), {}),
        ("t.tsv", "file\tlabel\n" + ROWS.replace(",", "\t"), {}),
        # Spaces around values, quotes, blank lines, Windows' line ends, a missing last column.
        ("t.csv", 'file, label\n\n"a.png", "cat"\nb.png,  dog \nc.png\n\nmore/e.png,cat', {}),
        ("t.csv", ("file,label\n" + ROWS).replace("\n", "\r\n"), {}),
        ("t.csv", "file,label\n" + ROWS.replace("c.png,", "c.png,?"), {"unlabeled_marker": "?"}),
        # The same file under another name for it.
        ("t.csv", "file,label\n./a.png,cat\nb.png,dog\nc.png,\nmore/.//e.png,cat\n", {}),
        (
            "t.jsonl",
            '{"file": "a.png", "label": "cat"}\n\n{"label": "dog", "file": "b.png"}\n'
            '{"file": "c.png"}\n{"file": "more/e.png", "label": "cat", "box": [1, {"x": 2}]}\n',
            {},
        ),
        (
            "t.jsonl",
            '{"file": "a.png", "label": "cat"}\n{"file": "b.png", "label": "dog"}\n'
            '{"file": "c.png", "label": null}\n{"file": "more/e.png", "label": " cat"}',
            {"file_column": "0", "label_column": "1"},
        ),
    ],
)
def test_a_table_of_text(pets: Path, name: str, text: str, options: dict[str, Any]) -> None:
    path = write(pets / name, text)
    found = listed(path, **options)
    assert found.name == name
    assert names_of(found) == ["a.png", "b.png", "c.png", "more/e.png"]
    assert found.labels == ["cat", "dog", None, "cat"]
    assert found.parts is None
    assert found.left_out == {}
    assert found.class_names is None
    assert contents(found.encoded) == [png(0), png(1), png(2), png(4)]
    check_chunks(found.encoded)


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", ""), ("utf-8", "\ufeff"), ("utf-16", ""), ("utf-16-le", "\ufeff"), ("latin-1", "")],
)
def test_encodings(tmp_path: Path, encoding: str, mark: str) -> None:
    write_images(tmp_path, "größe.png", "b.png")
    text = f"{mark}file,label\ngröße.png,schön\nb.png,häßlich\n"
    found = listed(write(tmp_path / "t.csv", text, encoding), encoding=encoding)
    assert names_of(found) == ["größe.png", "b.png"]
    assert found.labels == ["schön", "häßlich"]
    text = f'{mark}{{"file": "größe.png", "label": "schön"}}\n'
    assert names_of(listed(write(tmp_path / "t.jsonl", text, encoding), encoding=encoding)) == [
        "größe.png"
    ]


@pytest.mark.parametrize(
    ("written", "encoding", "message"),
    [
        (
            "latin-1",
            "utf-8",
            "text in utf-8, got byte 0xf6 in line 3 (byte 27). Try --encoding latin-1",
        ),
        ("utf-16", "utf-8", "text in utf-8, got byte 0xff in line 1 (byte 0). Try --encoding utf-16,"),
        (
            "utf-16-le",
            "ascii",
            "text in ascii, got byte 0xf6 in line 3 (byte 54). Try --encoding utf-16-le",
        ),
        ("utf-8", "ascii", "text in ascii, got byte 0xc3 in line 3 (byte 27). Try --encoding utf-8"),
        (
            "utf-8",
            "utf8x",
            "encoding must be one that Python knows, such as utf-8, latin-1 or utf-16, got",
        ),
        (
            "utf-8",
            "base64",
            "encoding must be one that Python knows, such as utf-8, latin-1 or utf-16, got",
        ),
        ("utf-8", "undefined", "encoding must be one that Python knows"),
    ],
)
def test_a_wrong_encoding_is_named(pets: Path, written: str, encoding: str, message: str) -> None:
    path = write(pets / "t.csv", "file,label\na.png,cat\nb.png,ö\n", written)
    assert message in refusal(path, encoding=encoding)


def test_utf_16_that_passes_as_ascii_is_seen(pets: Path) -> None:
    path = write(pets / "t.csv", "file,label\na.png,cat\n", "utf-16-le")
    assert "got a zero byte in line 1 (byte 1). Try --encoding utf-16-le" in refusal(path)


def test_classes_stay_text(pets: Path) -> None:
    rows = "a.png,NA\nb.png,null\nc.png,007\nd.png,1.0\nmore/e.png,None\n"
    assert listed(write(pets / "t.csv", "file,label\n" + rows)).labels == [
        "NA",
        "null",
        "007",
        "1.0",
        "None",
    ]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (["cat", "", None, " ", "dog"], ["cat", None, None, None, "dog"]),
        ([3, 10, None, -1, 0], ["3", "10", None, "-1", "0"]),
        ([3.0, 0.5, None, float("nan"), 1e300], ["3", "0.5", None, None, str(int(1e300))]),
        ([True, False, None, True, True], ["true", "false", None, "true", "true"]),
        ([2**62, 1, None, 3, 4], [str(2**62), "1", None, "3", "4"]),
    ],
)
def test_numbers_are_texts(pets: Path, values: list[Any], labels: list[str | None]) -> None:
    files = ["a.png", "b.png", "c.png", "d.png", "more/e.png"]
    rows = [{"file": file, "label": label} for file, label in zip(files, values, strict=True)]
    lines = "\n".join(json.dumps(row) for row in rows)
    assert listed(write(pets / "t.jsonl", lines)).labels == labels
    pq.write_table(pa.table({"file": files, "label": values}), pets / "t.parquet")
    assert listed(pets / "t.parquet").labels == labels


def test_a_parquet_table_of_files(pets: Path) -> None:
    frame = pd.DataFrame(
        {
            "path": ["b.png", "a.png", "more/e.png"],
            "label": pd.Categorical(["x", None, "y"]),
            "split": ["train", "train", "test"],
        }
    )
    frame.to_parquet(pets / "t.parquet")
    found = listed(pets / "t.parquet")
    assert names_of(found) == ["b.png", "a.png", "more/e.png"]
    assert found.labels == ["x", None, "y"]
    assert found.parts == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("column", "words", "parts"),
    [
        ("split", "train test Validation VAL", ["train", "test", "validation", "validation"]),
        ("set", "training TESTING valid dev", ["train", "test", "validation", "validation"]),
        ("is_train", "True False true FALSE", ["train", "test", "train", "test"]),
        ("train", "1 0 0 1", ["train", "test", "test", "train"]),
    ],
)
def test_the_split_column(pets: Path, column: str, words: str, parts: list[str]) -> None:
    rows = zip("abcd", words.split(), strict=True)
    text = f"file,label,{column}\n" + "".join(f"{name}.png,cat,{word}\n" for name, word in rows)
    assert listed(write(pets / "t.csv", text)).parts == parts
    renamed = write(pets / "u.csv", text.replace(column, "where", 1))
    assert listed(renamed).parts is None
    assert listed(renamed, split_column="-1").parts == parts


def test_the_image_folder(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "lists/t.csv", "file,label\na.png,cat\n")
    lines: list[str] = []
    assert names_of(listed(path, lines.append, image_dir=str(pets))) == ["a.png"]
    assert lines == [f"t.csv: 1 images in {pets}, 1 of them labeled (columns 'file', 'label')"]
    monkeypatch.chdir(tmp_path)
    found = listed(Path("lists/t.csv"), image_dir="pets")
    monkeypatch.chdir("/")
    assert contents(found.encoded) == [png(0)]


def test_rows_that_say_the_same_twice_are_counted(pets: Path) -> None:
    path = write(pets / "t.csv", "file,label\na.png,cat\nb.png,\n./a.png,cat\na.png,cat\nb.png,\n")
    found = listed(path)
    assert names_of(found) == ["a.png", "b.png"]
    assert found.labels == ["cat", None]
    assert found.left_out == {"listed twice": 3}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "must have a row for each image, got none"),
        ("file,label\n", {}, "must have a row for each image, got none"),
        (
            "x,label\na.png,cat",
            {},
            "a column of files, got none that is named file, files, filename… Its columns are: "
            "'x', 'label'. Name it: --file-column",
        ),
        ("a.png,cat", {"header": False}, "a column of files, got none.*Its columns are: '0', '1'"),
        ("file,y\na.png,cat", {}, "a column of labels, got none that.*Its columns are: 'file', 'y'"),
        (
            "file,path,label\na,b,c",
            {},
            "one column that is named as one of files usually is, got 'file', 'path'. Name the "
            "one that is meant: --file-column file",
        ),
        ("file,label,split,set\na,b,c,d", {}, "as one of splits usually is, got 'split', 'set'"),
        (
            "file,label\na,b",
            {"file_column": "f"},
            "--file-column must be one of its columns, got 'f'. Its columns are: 'file', 'label'",
        ),
        (
            "file,label\na,b",
            {"label_column": "2"},
            "--label-column must be one of its columns, got '2'",
        ),
        (
            "file,label\na,b",
            {"label_column": "-3"},
            "--label-column must be one of its columns, got '-3'",
        ),
        (
            "file,label\na,b",
            {"split_column": "s"},
            "--split-column must be one of its columns, got 's'",
        ),
        (
            "f,f,label\na,b,c",
            {"file_column": "f"},
            "--file-column must be the name of one column only, got 'f'. Its columns are: 'f', "
            "'f', 'label'. Name it by its position",
        ),
        (
            "file,label\na.png,cat\n\nb.png,cat,dog\n",
            {},
            "the same number of columns in every line, separated by commas: Expected 2 fields in "
            "line 4, saw 3",
        ),
        ("file,label\na.png,cat\n,dog\n", {}, "every row must name a file, got none in line 3"),
        (
            'file,label\na.png,"a\ncat"\n\n" ",dog\n',
            {},
            "every row must name a file, got none in line 5",
        ),
        (
            "file,label,split\na.png,cat,train\n\nb.png,cat,both\n",
            {},
            "column 'split' must say train, validation or test, or else true for train and false "
            "for test, got 'both' in line 4",
        ),
        ("file,label,split\na.png,cat,\n", {}, "column 'split' must say.*got '' in line 2"),
        ("file,label,is_test\na.png,cat,true\n", {"split_column": "is_test"}, "got 'true' in line 2"),
        (
            "file,label\n../pets/a.png,cat",
            {},
            "in the image folder, without `..`, got '../pets/a.png' in line 2. Name a folder that "
            "holds all of them: --image-dir",
        ),
        ("file,label\nmore/../a.png,cat", {}, r"without `..`, got 'more/../a.png' in line 2"),
        ("file,label\na.png,cat\nmore/..,cat", {}, r"without `..`, got 'more/..' in line 3"),
        (
            "file,label\n/etc/passwd,cat",
            {},
            "relative to the image folder, got '/etc/passwd' in line 2. Cut the folder off, and "
            "name it: --image-dir",
        ),
        (
            "file,label\na.png,cat\nx.png,cat\ny,\nz/z.png,\nw,",
            {},
            r"must be in .*pets, got 4 of 5 that are not there: 'x.png', 'y', 'z/z.png', ….",
        ),
        (
            "file,label\ne.png,cat",
            {},
            "got 1 of 1 that are not there: 'e.png'. Try --image-dir .*/pets/more.",
        ),
        ("file,label\nmore\\e.png,cat", {}, r"not there: .*e.png'. Write / between folders"),
        ("file,label\nmore,cat", {}, "got 1 of 1 that are not there: 'more'"),
        (
            "file,label\na.png,cat\nb.png,cat\n./a.png,dog",
            {},
            "a file must have one label, got 'cat' and 'dog' for 'a.png' in line 2 and line 4. "
            "Delete the wrong row",
        ),
        (
            "file,label\na.png,cat\na.png,",
            {},
            "a file must have one label, got 'cat' and '' for 'a.png'",
        ),
        ("file,label,split\na.png,cat,train\na.png,cat,test", {}, "one part, got 'train' and 'test'"),
        (
            "file,label\na.png,cat",
            {"image_dir": "/no/such"},
            "--image-dir must be a folder, got '/no/such'",
        ),
    ],
)
def test_a_wrong_table_is_refused(pets: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(")) as caught:
        listed(write(pets / "t.csv", text), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a row for each image, got none"),
        (
            '{"file": "a.png", "label": "cat"}\n["b.png"]',
            "a JSON object in each line, got '[\"b.png\"]' in line 2",
        ),
        ('\n{"file": "a.png", "label": "cat"', "a JSON object in each line, got"),
        ("[" * 100_000, "a JSON object in each line, got"),
        ('{"file": "a.png"}', "a column of labels, got none"),
        ('\n{"file": "a.png", "label": "cat"}\n\n{"label": "cat"}', "name a file, got none in line 4"),
        ('{"file": ["a.png"], "label": "cat"}', "got 1 of 1 that are not there"),
    ],
)
def test_wrong_json_lines_are_refused(pets: Path, text: str, message: str) -> None:
    assert message in refusal(write(pets / "t.jsonl", text))


def test_a_nearly_right_image_folder_is_suggested(pets: Path) -> None:
    path = write(pets.parent / "t.csv", "file,label\na.png,cat")
    assert refusal(path, image_dir=str(pets.parent / "pest")).endswith("Did you mean pets?")
    assert "Try --image-dir " + str(pets) in refusal(path)


def test_symlinks_may_stay_in_the_folder_and_not_leave_it(pets: Path, tmp_path: Path) -> None:
    outside = write_images(tmp_path / "outside", "x.png")
    (pets / "inner.png").symlink_to("more/e.png")
    (pets / "again").symlink_to("more")
    found = listed(write(pets / "t.csv", "file,label\ninner.png,cat\nagain/e.png,dog\n"))
    assert contents(found.encoded) == [png(4), png(4)]

    (pets / "out.png").symlink_to(outside / "x.png")
    (pets / "away").symlink_to(outside)
    (pets / "up.png").symlink_to("../outside/x.png")
    for name in ("out.png", "away/x.png", "up.png"):
        message = refusal(write(pets / "t.csv", f"file,label\na.png,cat\n{name},dog\n"))
        assert (
            f"images must lie in this folder, got {name.partition('/')[0]!r}, a symlink to " in message
        )
        assert str(outside) in message
    # The folder itself may be reached by one.
    (tmp_path / "link").symlink_to(pets)
    path = write(tmp_path / "t.csv", "file,label\na.png,cat\n")
    assert contents(listed(path, image_dir=str(tmp_path / "link")).encoded) == [png(0)]


def test_symlinks_to_nothing_and_to_themselves_are_no_files(pets: Path) -> None:
    (pets / "gone.png").symlink_to("nothing.png")
    (pets / "loop.png").symlink_to("loop.png")
    path = write(pets / "t.csv", "file,label\ngone.png,cat\nloop.png,dog\nloop.png/x,\n")
    assert "got 3 of 3 that are not there: 'gone.png', 'loop.png'" in refusal(path)


def test_names_that_no_system_takes_are_no_files(pets: Path) -> None:
    rows = [
        {"file": name, "label": "cat"} for name in ("x" * 300, "a.png\0", "x\0/a.png", "y" * 300 + "/a")
    ]
    path = write(pets / "t.jsonl", "\n".join(json.dumps(row) for row in rows))
    assert "got 4 of 4 that are not there: 'xxx" in refusal(path)
    assert "must be a folder" in refusal(path, image_dir="x" * 300)
    assert "must be a folder" in refusal(path, image_dir="x\0")


def test_a_pipe_is_not_waited_for(pets: Path) -> None:
    os.mkfifo(pets / "pipe.png")
    assert "got 1 of 1 that are not there" in refusal(write(pets / "t.csv", "file,label\npipe.png,cat"))


def test_a_million_rows(tmp_path: Path) -> None:
    # Each of a thousand files a thousand times: they take no disk, and each row is looked at.
    names = [f"{folder}/{number}.png" for folder in range(20) for number in range(50)]
    write_images(tmp_path, *names)
    rows = [f"{name},class {at % 7}\n" for at, name in enumerate(names)]
    path = write(tmp_path / "t.csv", "file,label\n" + "".join(rows) * 1000)
    found = listed(path)
    assert names_of(found) == names
    assert found.labels == [f"class {at % 7}" for at in range(1000)]
    assert found.left_out == {"listed twice": 999_000}
    with path.open("a") as file:
        file.write("0/0.png,class 1\n")
    assert "'class 0' and 'class 1' for '0/0.png' in line 2 and line 1000002" in refusal(path)


# --- Images in files


def test_a_changed_file_changes_the_signature(pets: Path) -> None:
    images = FileImages(pets, ["a.png", "more/e.png"])
    before = images.signature()
    assert FileImages(pets, ["a.png", "more/e.png"]).signature() == before
    assert FileImages(pets, ["more/e.png", "a.png"]).signature() != before
    times = (pets / "a.png").stat()
    (pets / "a.png").write_bytes(png(0)[::-1])
    os.utime(pets / "a.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert images.signature() != before  # of the same size and time: the change time differs
    changed = images.signature()
    (pets / "a.png").unlink()
    assert images.signature() not in (before, changed)


def test_what_cannot_be_read_is_empty(pets: Path) -> None:
    images = FileImages(pets, ["a.png", "gone.png", "more", "b.png"])
    assert contents(images) == [png(0), b"", b"", png(1)]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)))
def test_any_names_come_back(names: list[str]) -> None:
    images = pickle.loads(pickle.dumps(FileImages(Path("x"), names)))
    assert [images.name_of(index) for index in range(len(images))] == names


def test_names_that_are_no_text_come_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    write_images(tmp_path / "cat", name, "b.png")
    found = listed(tmp_path)
    assert Counter(names_of(found)) == Counter([f"cat/{name}", "cat/b.png"])
    assert Counter(contents(found.encoded)) == Counter([png(0), png(1)])


def test_many_files_are_small_to_send() -> None:
    images = FileImages(Path("x"), (f"train/class {at % 10}/{at:07}.png" for at in range(100_000)))
    assert len(pickle.dumps(images)) < 30 * len(images)
    chunks = images.chunks()
    assert [chunks[0], chunks[-1]] == [range(CHUNK), range(len(images) // CHUNK * CHUNK, len(images))]
    assert sum(map(len, chunks)) == len(images)


# --- Folders


LAYOUTS = {
    "parts": [
        *("train/cat/1.png", "train/dog/2.png", "train/unlabeled/3.png", "test/dog/4.png"),
        *("test/cat/10.png", "validation/cat/11.png"),
    ],
    "unlabeled at the top": [
        *("Train/cat/1.png", "Train/dog/2.png", "Unlabeled/x/3.png", "test/dog/a/b/4.png"),
        *("test/cat/10.png", "val/cat/11.png"),
    ],
}


@pytest.mark.parametrize("names", LAYOUTS.values(), ids=list(LAYOUTS))
def test_folders_with_parts(tmp_path: Path, names: list[str]) -> None:
    write_images(tmp_path, *names)
    found = listed(tmp_path)
    assert found.name == tmp_path.name
    assert names_of(found) == names
    assert found.labels == ["cat", "dog", None, "dog", "cat", "cat"]
    assert found.parts == ["train", "train", "train", "test", "test", "validation"]
    assert contents(found.encoded) == [png(value) for value in range(6)]
    check_chunks(found.encoded)


def test_folders_of_classes_alone(tmp_path: Path) -> None:
    names = [
        "cat/1.png",
        "dog/2.PNG",
        "unlabeled/3.jpeg",
        "cat/sub/10.png",
        "train/10.png",
        "dog/b.gif",
    ]
    write_images(tmp_path, *names)
    found = listed(tmp_path)  # here, a train is a class
    assert names_of(found) == names
    assert found.labels == ["cat", "dog", None, "cat", "train", "dog"]
    assert found.parts is None
    assert listed(tmp_path, unlabeled_marker="train").labels == ["cat", "dog", None, "cat", None, "dog"]


def test_numbered_files_keep_their_order_in_every_layout(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    classes, known, test = rng.integers(0, 3, 40), rng.random(40) < 0.5, np.arange(40) >= 30
    found = []
    for layout in ("parts", "top", "flat"):
        for at in range(40):
            part = {"flat": "", "top": "train/", "parts": "train/"}[layout]
            if test[at] and layout != "flat":
                part = "test/"
            label = f"class {classes[at]}" if known[at] or test[at] else "unlabeled"
            top = "" if layout == "top" and label == "unlabeled" else part
            write_images(tmp_path / layout / top / label, f"{at}.png")
        found.append(listed(tmp_path / layout))
    for other in found:
        assert [Path(name).stem for name in names_of(other)] == [str(at) for at in range(40)]
        assert other.labels == found[0].labels
    assert found[0].parts == found[1].parts == ["train"] * 30 + ["test"] * 10


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    write_images(tmp_path, "train/cat/1.png", "train/dog/2.png", "train/loose.png", "top.jpg")
    write_images(tmp_path, "train/cat/.hidden.png", ".git/x/y.png", "train/.cache/z.png")
    for name in ("README.md", "train/labels.txt", "train/cat/Thumbs.db", "train/dog/2.png.json"):
        write(tmp_path / name, "x")
    lines: list[str] = []
    found = listed(tmp_path, lines.append)
    assert names_of(found) == ["train/cat/1.png", "train/dog/2.png"]
    assert found.left_out == {"not an image by its name": 4, "in no class folder": 2}
    assert lines == [
        f"{tmp_path.name}: 2 images, 2 of them labeled, 4 left out: not an image by its name, "
        "2 left out: in no class folder"
    ]


def test_test_images_in_no_class_folder_are_said_to_be_missing(tmp_path: Path) -> None:
    write_images(tmp_path, "train/cat/1.png", "train/dog/2.png", "train/cat/3.png", "train/dog/4.png")
    write_images(tmp_path, "test/1.png", "validation/cat/1.png")
    found = listed(tmp_path)
    assert found.left_out == {"in no class folder": 1}
    with pytest.raises(DataError, match="must have a labeled test image, got none"):
        assign(found, FileSettings())


def test_symlinked_folders(tmp_path: Path) -> None:
    data = (
        write_images(tmp_path / "data", "train/cat/1.png", "train/dog/2.png", "shared/x/3.png").parent
        / "data"
    )
    (data / "train/cat/again").symlink_to("../../train/cat")  # a loop
    (data / "train/dog/extra").symlink_to("../../shared/x")
    (data / "shared").rename(data / ".shared")
    (data / "train/dog/extra").unlink()
    (data / "train/dog/extra").symlink_to("../../.shared/x")
    assert names_of(listed(data)) == ["train/cat/1.png", "train/dog/2.png", "train/dog/extra/3.png"]
    outside = write_images(tmp_path / "outside", "4.png")
    for place, target in (
        ("train/cow", outside),
        ("train/cat/9.png", outside / "4.png"),
        ("test", outside),
    ):
        (data / place).symlink_to(target)
        assert f"images must lie in this folder, got {place!r}, a symlink to {target}" in refusal(data)
        (data / place).unlink()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            [],
            "must have images (.png, .jpg, .jpeg…) in folders named after their classes, got no "
            "files. Sort",
        ),
        (
            ["1.png", "2.png"],
            "got 2 files in no class folder. Sort the images into a folder for each class",
        ),
        (["cat/1.txt", "dog/x/2.doc"], "got 2 files not an image by its name"),
        (["images/x.txt", "labels.csv"], "Name the table of labels instead: "),
        (
            ["train/cat/1.png", "extra/cat/1.png"],
            "only train, validation, test and unlabeled, got the folder 'extra'",
        ),
    ],
)
def test_a_wrong_folder_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    write_images(tmp_path, *files)
    assert message in refusal(tmp_path)


# --- Parquet with the images inside


NAMES = ["b", "a", "c"]


def hugging_face(
    names: list[str] = NAMES, label: str = "label", image: str = "image"
) -> dict[str, str]:
    """The metadata of a schema as `datasets` writes it."""
    features = {label: {"names": names, "_type": "ClassLabel"}, image: {"_type": "Image"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def structs(values: range) -> Any:
    return [{"bytes": png(value), "path": f"{value}.png"} for value in values]


def write_parquet(path: Path, columns: dict[str, Any], metadata: Any = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, path, **options)
    return path


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), "struct"])
@pytest.mark.parametrize("rows", [1, 4, 100])  # of a row group
def test_images_in_a_parquet_file(tmp_path: Path, kind: Any, rows: int) -> None:
    images = (
        structs(range(10)) if kind == "struct" else pa.array([png(value) for value in range(10)], kind)
    )
    labels = [0, 1, None, 2, -1, 0, 1, 0, 1, 2]
    path = write_parquet(
        tmp_path / "x.parquet", {"image": images, "label": labels}, hugging_face(), row_group_size=rows
    )
    lines: list[str] = []
    found = listed(path, lines.append)
    assert found.name == "x.parquet"
    assert found.labels == ["b", "a", None, "c", None, "b", "a", "b", "a", "c"]
    assert found.class_names == ("b", "a", "c")
    assert found.parts is None
    assert contents(found.encoded) == [png(value) for value in range(10)]
    assert names_of(found)[3] == "x.parquet, row 3"
    assert max(map(len, found.encoded.chunks())) == min(rows, 10)
    assert lines == ["x.parquet: 10 images in 1 Parquet files, 8 of them labeled"]
    check_chunks(found.encoded)


def test_a_parquet_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    for values in (range(5), range(5, 10)):
        columns = {"image": pa.array(map(png, values)), "label": [0, 1, 0, 1, 0]}
        path = write_parquet(tmp_path / "new", columns).replace(tmp_path / "x.parquet")
        assert contents(listed(path).encoded) == [png(value) for value in values]


def test_names_of_classes_in_plain_metadata(tmp_path: Path) -> None:
    images = pa.array([png(0), png(1)])
    for key in ("names", "class_names"):
        own = {key: json.dumps(["x", "y"])}
        schema = pa.schema([("image", pa.binary()), pa.field("label", pa.int8(), metadata=own)])
        path = write_parquet(tmp_path / "x.parquet", {"image": images, "label": [1, 0]})
        pq.write_table(pa.table([images, pa.array([1, 0], pa.int8())], schema=schema), path)
        assert listed(path).class_names == ("x", "y")
        assert listed(path).labels == ["y", "x"]
        write_parquet(path, {"image": images, "label": [1, 0]}, own)
        assert listed(path).labels == ["y", "x"]
    # Metadata that mean something else are no names.
    for other in ({"names": "{"}, {"names": "[1, 2]"}, {"huggingface": "{}"}, {"huggingface": "["}):
        write_parquet(path, {"image": images, "label": [1, -1]}, other)
        assert listed(path).class_names is None
        assert listed(path).labels == ["1", "-1"]


def test_columns_of_images_and_labels(tmp_path: Path) -> None:
    one, two = pa.array([png(0), png(1)]), pa.array([png(2), png(3)])
    columns = {
        "thumb": one,
        "image": two,
        "coarse": [0, 1],
        "kind": ["x", ""],
        "is_train": [True, False],
    }
    path = write_parquet(tmp_path / "x.parquet", columns, hugging_face(["p", "q"], label="coarse"))
    found = listed(path)  # by its usual name; and the one column whose numbers have names
    assert contents(found.encoded) == [png(2), png(3)]
    assert found.labels == ["p", "q"]
    assert found.parts == ["train", "test"]
    found = listed(path, file_column="thumb", label_column="3")
    assert contents(found.encoded) == [png(0), png(1)]
    assert found.labels == ["x", None]
    assert found.class_names is None


@pytest.mark.parametrize(
    "names",
    [
        [
            "train-00000-of-00002.parquet",
            "train-00001-of-00002.parquet",
            "test-00000.parquet",
            "unlabeled.parquet",
        ],
        ["train/0.parquet", "train/1.parquet", "test/0.parquet", "unlabeled/0.parquet"],
        [
            "data/train-2.parquet",
            "data/train-10.parquet",
            "data/TEST.parquet",
            "data/unlabeled_1.parquet",
        ],
    ],
)
def test_a_folder_of_parquet_files(tmp_path: Path, names: list[str]) -> None:
    for at, name in enumerate(names):
        images = structs(range(10 * at, 10 * at + 3))
        write_parquet(tmp_path / name, {"image": images, "label": [0, 1, None]}, hugging_face())
    write(tmp_path / "README.md", "x")
    write(tmp_path / ".hidden/x.parquet", "x")
    found = listed(tmp_path)
    by_file = Counter(name.partition(", ")[0] for name in names_of(found))
    assert by_file == Counter(names * 3)
    for name, label, part, content in zip(
        names_of(found), found.labels, found.parts or (), contents(found.encoded), strict=True
    ):
        file, _, row = name.partition(", row ")
        at = names.index(file)
        assert part == ["train", "train", "test", "train"][at]
        assert label == (None if at == 3 else ["b", "a", None][int(row)])
        assert content == png(10 * at + int(row))
    assert [name for name in names_of(found) if "train" in name] == [
        f"{name}, row {row}" for name in names[:2] for row in range(3)
    ]
    check_chunks(found.encoded)


def test_files_that_name_no_parts(tmp_path: Path) -> None:
    for name, first in (("2.parquet", 0), ("10.parquet", 2)):
        columns = {
            "image": structs(range(first, first + 2)),
            "label": ["x", "y"],
            "split": ["train", "test"],
        }
        write_parquet(tmp_path / name, columns)
    found = listed(tmp_path)
    assert contents(found.encoded) == [png(value) for value in range(4)]
    assert found.parts == ["train", "test"] * 2


def test_a_large_row_group_is_read_in_pieces(tmp_path: Path) -> None:
    count = LEAST_ROWS * 2 + 10
    images = pa.array([b"image %d" % at if at % 1000 else None for at in range(count)], pa.binary())
    path = write_parquet(tmp_path / "x.parquet", {"image": images, "label": ["a"] * count})
    found = listed(path)
    assert [len(chunk) for chunk in found.encoded.chunks()] == [LEAST_ROWS, LEAST_ROWS, 10]
    assert contents(found.encoded) == [b"image %d" % at if at % 1000 else b"" for at in range(count)]
    check_chunks(found.encoded)
    huge = ParquetImages(tmp_path, ["x.parquet"], "image", [[LEAST_ROWS * MOST_PIECES * 100, 1]])
    assert len(huge.chunks()) == MOST_PIECES + 1
    assert len(pickle.dumps(huge)) < 2000


def test_a_row_group_is_not_read_all_at_once(tmp_path: Path) -> None:
    images = pa.array([np.random.default_rng(0).bytes(20_000)] * 4000)
    path = write_parquet(
        tmp_path / "x.parquet",
        {"image": images, "label": ["a"] * 4000},
        compression=None,
        use_dictionary=False,
    )
    encoded = listed(path).encoded
    before = pa.total_allocated_bytes()
    reading = encoded.read(encoded.chunks()[0])
    most = max(pa.total_allocated_bytes() - before for _ in reading)
    assert 0 < most < path.stat().st_size / 2


def test_damaged_rows_are_empty_and_the_others_come(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.bytes(1000) for _ in range(40)]
    columns = {"image": pa.array(images), "label": ["a"] * 40}
    path = write_parquet(
        tmp_path / "x.parquet", columns, row_group_size=10, use_dictionary=False, compression="zstd"
    )
    encoded = listed(path).encoded
    before = encoded.signature()
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[at : at + 100] = bytes(100)
    path.write_bytes(content)
    assert contents(pickle.loads(pickle.dumps(encoded))) == images[:10] + [b""] * 10 + images[20:]
    assert encoded.signature() != before
    path.unlink()
    assert encoded.signature() != before


@pytest.mark.parametrize(
    ("columns", "metadata", "options", "message"),
    [
        ({"image": [b"x"], "y": [1]}, None, {}, "a column of labels, got none that.*'image', 'y'"),
        ({"image": [b"x"], "label": [[1]]}, None, {}, "must hold texts or numbers, got the type list"),
        (
            {"a": [b"x"], "b": [b"x"], "label": [1]},
            None,
            {},
            "a column of files, got none.*'a', 'b', 'label'",
        ),
        (
            {"image": [b"x"], "label": [3]},
            hugging_face(),
            {},
            "numbers in [0, 3), one for each class.*got 3",
        ),
        ({"image": [b"x"], "label": [0]}, hugging_face(["a", "a"]), {}, "must differ, got 'a' twice"),
        (
            {"image": [b"x"], "label": [0]},
            None,
            {"image_dir": "."},
            "image_dir must be left out for x.parquet",
        ),
        (
            {"image": [b"x"], "label": [0]},
            None,
            {"header": False},
            "header must be left out for x.parquet",
        ),
        (
            {"image": [b"x"], "label": [0]},
            None,
            {"file_column": "z"},
            "--file-column must be one of.*'label'",
        ),
        ({"image": [b"x"], "label": [0], "split": ["x"]}, None, {}, "must say train.*got 'x' in row 0"),
        (
            {"image": [{"bytes": None, "path": "a.png"}], "label": [0]},
            None,
            {},
            "column 'image' must hold the images' bytes, got none in any row",
        ),
        (
            {
                "image": pa.array(
                    [{"path": "a.png"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
                ),
                "label": [0],
            },
            None,
            {},
            "column 'image' must hold the images' bytes, got none in any row",
        ),
        (
            {"image": pa.array([], pa.binary()), "label": pa.array([], pa.int8())},
            None,
            {},
            "a row for each image",
        ),
        (
            {"file": pa.array([], pa.string()), "label": pa.array([], pa.int8())},
            None,
            {},
            "a row for each image",
        ),
    ],
)
def test_a_wrong_parquet_file_is_refused(
    tmp_path: Path, columns: dict[str, Any], metadata: Any, options: dict[str, Any], message: str
) -> None:
    path = write_parquet(tmp_path / "x.parquet", columns, metadata)
    pattern = message.replace("[0, 3)", r"\[0, 3\)")
    with pytest.raises(InputError, match=pattern) as caught:
        listed(path, **options)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    def refused(name: str, columns: dict[str, Any], metadata: Any = None) -> str:
        path = write_parquet(tmp_path / name, columns, metadata)
        message = refusal(tmp_path)
        path.unlink()
        return message

    good = {"image": [b"x"], "label": [0]}
    write_parquet(tmp_path / "train.parquet", good, hugging_face())
    assert "all must (train-, validation-, test- or unlabeled-), got 'more.parquet'" in refused(
        "more.parquet", good
    )
    assert "the same classes, got other names in 'train.parquet' than in 'test.parquet'" in refused(
        "test.parquet", good, hugging_face(["x", "y"])
    )
    (tmp_path / "train.parquet").rename(tmp_path / "1.parquet")
    with_split = good | {"split": ["test"]}
    assert (
        "all or none name parts in a column, got one in '2.parquet' and none in '1.parquet'"
        in refused("2.parquet", with_split, hugging_face())
    )
    (tmp_path / "1.parquet").rename(tmp_path / "train.parquet")
    assert "in the same column, got 'img', 'image'" in refused(
        "test.parquet", {"img": [b"x"], "label": [0]}
    )
    assert "must have a column of bytes, or of {bytes, path}, with the images" in refused(
        "test.parquet", {"file": ["x"], "label": [0]}
    )
    write(tmp_path / "test.parquet", "PAR1 nonsense")
    assert "must be a whole Parquet file" in refusal(tmp_path)


# --- What else may be named


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("data.zip", "Unpack it."),
        ("data.tar.gz", "Unpack it."),
        ("list.csv.gz", "Unpack it."),
        ("list.txt", "rename it to .csv; if by tabs, to .tsv."),
        ("list.xlsx", "Save it as .csv."),
        ("list.json", "as .jsonl."),
        ("data.npz", "--dataset module:function."),
        ("a.png", "Name a table of files and labels, or a folder of images."),
        ("nothing", "Name a table of files and labels, or a folder of images."),
    ],
)
def test_another_file_is_refused_with_what_to_do(tmp_path: Path, name: str, fix: str) -> None:
    message = refusal(write(tmp_path / name, "x"))
    assert "data must be a table (.csv, .tsv, .jsonl, .parquet) or a folder, got " in message
    assert message.endswith(fix)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    write(tmp_path / "labels.csv", "x")
    assert refusal(tmp_path / "label.csv").endswith(
        f"no 'label.csv' in {tmp_path}. Did you mean labels.csv?"
    )
    assert refusal(tmp_path / "x/y.csv").endswith(f"no 'x' in {tmp_path}. Known: labels.csv.")
    (tmp_path / "empty").mkdir()
    assert refusal(tmp_path / "empty/x").endswith("There is nothing that can be listed.")


@pytest.mark.parametrize(
    "option", ["image_dir", "file_column", "label_column", "split_column", "encoding"]
)
def test_a_folder_takes_no_settings_of_tables(tmp_path: Path, option: str) -> None:
    write_images(tmp_path, "cat/1.png")
    flag = "--" + option.replace("_", "-")
    message = refusal(tmp_path, **{option: "x"})
    assert message.startswith(
        f"{option} must be left out for the folder {tmp_path.name}, which is no table"
    )
    assert message.endswith(f"Leave out {flag}.")


@pytest.mark.parametrize("name", ["x" * 300, "x\0.csv"])
def test_a_path_that_no_system_takes(tmp_path: Path, name: str) -> None:
    assert "data must be a file or folder that " in refusal(tmp_path / name)


def test_a_parquet_file_among_images_is_no_image(tmp_path: Path) -> None:
    write_images(tmp_path, "cat/1.png", "dog/2.png")
    write_parquet(tmp_path / "metadata.parquet", {"x": [1]})
    assert listed(tmp_path).left_out == {"not an image by its name": 1}


def test_the_name_is_without_the_path(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(pets, "cat/1.png", "dog/2.png")
    monkeypatch.chdir(pets / "more")
    for path in ("..", "../../pets", "../../pets/", "../."):
        assert listed(Path(path)).name == "pets"


# --- From the files to the parts


def test_the_same_images_in_every_form_have_the_same_parts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = [f"class {k}" if rng.random() < 0.6 else "" for k in rng.integers(8, 12, 60)]
    names = [f"{at}.png" for at in range(60)]
    write_images(tmp_path / "images", *names)
    rows = [f"{name},{label}\n" for name, label in zip(names, labels, strict=True)]
    csv = write(tmp_path / "t.csv", "file,label\n" + "".join(rows))
    for at, (name, label) in enumerate(zip(names, labels, strict=True)):
        place = tmp_path / "folder" / (label or "unlabeled") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(at))
    text = [label or None for label in labels]
    parquet = write_parquet(tmp_path / "x.parquet", {"image": structs(range(60)), "label": text})
    found = [
        listed(csv, image_dir=str(tmp_path / "images")),
        listed(tmp_path / "folder"),
        listed(parquet),
    ]
    parts = [assign(listing, FileSettings(test_seed=3)) for listing in found]
    assert parts[0].class_names == ("class 8", "class 9", "class 10", "class 11")
    for listing, part in zip(found, parts, strict=True):
        assert contents(listing.encoded) == contents(found[0].encoded)
        assert part.class_names == parts[0].class_names
        for name in ("labels", "train", "test"):
            assert getattr(part, name).tolist() == getattr(parts[0], name).tolist()
