"""Files written whole: what a reader, a rival or a death in mid-write may see of them."""

import time
from functools import partial
from pathlib import Path

import pytest
from pyarrow import fs

from ssl_runner.storage import is_local, list_files, open_folder, read_whole, write_whole
from ssl_runner.testing.processes import Runs

LOCAL = fs.LocalFileSystem()


def is_there(folder: Path, pattern: str) -> bool:
    """Whether a folder has a file of such a name."""
    return any(folder.glob(pattern))


def everything(folder: Path) -> list[str]:
    """All there is in a folder, hidden drafts too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 10_000])
def test_what_is_written_is_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "deep" / "deeper" / "file.bin"  # the folders are made
    write_whole(LOCAL, str(path), content)
    assert read_whole(LOCAL, str(path)) == path.read_bytes() == content
    assert everything(path.parent) == ["file.bin"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(LOCAL, str(path), b"a long first version")
    with path.open("rb") as reader:
        write_whole(LOCAL, str(path), b"second")
        assert reader.read() == b"a long first version"  # who had it open keeps what it was
    assert path.read_bytes() == b"second"


def test_another_kind_of_file_system(tmp_path: Path) -> None:
    bucket = fs.SubTreeFileSystem(str(tmp_path), LOCAL)  # no paths of the machine's own, as S3's
    assert not is_local(bucket)
    write_whole(bucket, "results/file.pt", b"content")
    assert read_whole(bucket, "results/file.pt") == b"content"
    assert list_files(bucket, "results", ".pt") == ["file.pt"]
    assert everything(tmp_path / "results") == ["file.pt"]


# ---- failures leave nothing ----


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(OSError, match="folder"):
        write_whole(LOCAL, str(tmp_path / "folder" / "file"), b"content")
    assert everything(tmp_path) == ["folder"]
    assert (tmp_path / "folder").read_text() == "a file"


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="file"):
        write_whole(LOCAL, str(tmp_path / "file"), b"content")
    assert everything(tmp_path) == ["file"]


# A script that begins so has `write`, this file system's `write_whole`.
WRITE = """
import sys
from pyarrow import fs
from ssl_runner.storage import write_whole
def write(path, content): write_whole(fs.LocalFileSystem(), path, content)
"""


def test_no_room_for_all_of_it_leaves_the_file_as_it_was(tmp_path: Path, runs: Runs) -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write(sys.argv[1], b"first")
try:
    write(sys.argv[1], b"x" * 1_000_000)
except OSError as error:
    print(error.strerror)
"""
    run = runs.start(str(tmp_path / "file"), code=WRITE + script)
    run.succeed()
    assert (run.stdout, run.stderr) == ("File too large\n", "")
    assert (tmp_path / "file").read_bytes() == b"first"
    assert everything(tmp_path) == ["file"]


# ---- several processes ----


def contents(writer: int) -> bytes:
    """A content that tells its writer, and whether it is whole."""
    return b"%d" % writer * (300_000 + writer)


def test_many_writers_of_one_file_and_a_reader(tmp_path: Path, runs: Runs) -> None:
    path = tmp_path / "file"
    script = """
writer = int(sys.argv[2])
for _ in range(20):
    write(sys.argv[1], b"%d" % writer * (300_000 + writer))
"""
    writers = [runs.start(str(path), str(writer), code=WRITE + script) for writer in range(4)]
    whole = {contents(writer) for writer in range(4)}
    read = set()
    listed = set()
    while any(writer.process.poll() is None for writer in writers):
        if path.exists():
            read.add(path.read_bytes())
        listed.update(list_files(LOCAL, str(tmp_path), ""))
        time.sleep(0.001)
    assert [writer.succeed() for writer in writers] == [""] * 4
    assert read
    assert read <= whole
    assert listed == {"file"}
    assert path.read_bytes() in whole
    assert everything(tmp_path) == ["file"]


def test_a_writer_killed_in_mid_write_leaves_a_whole_file(tmp_path: Path, runs: Runs) -> None:
    path = tmp_path / "file.bin"
    script = """
while True:
    for letter in b"a", b"b":
        write(sys.argv[1], letter * 20_000_000)
"""
    for _ in range(3):
        writer = runs.start(str(path), code=WRITE + script)
        own = f".*-{writer.process.pid}-*.draft"
        writer.wait_for(partial(is_there, tmp_path, own))
        runs.kill()
        writer.end()
        if path.exists():
            assert path.read_bytes() in {b"a" * 20_000_000, b"b" * 20_000_000}
        # A draft may be left behind, and no reader takes it for a file.
        assert list_files(LOCAL, str(tmp_path), "") in ([], ["file.bin"])
        assert [name for name in everything(tmp_path) if not name.startswith(".")] in ([], ["file.bin"])


# ---- folders ----


def test_a_folder_lists_its_finished_files(tmp_path: Path) -> None:
    for name in ("b.pt", "a.pt", ".hidden.pt", "a.pt.unreadable", "c.parquet", ".1f.draft"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.pt").mkdir()
    assert list_files(LOCAL, str(tmp_path), ".pt") == ["a.pt", "b.pt"]
    assert list_files(LOCAL, str(tmp_path / "nowhere"), ".pt") == []


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_whole(LOCAL, str(tmp_path / "nowhere"))


def test_a_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for location in ("results", str(tmp_path / "results"), f"file://{tmp_path}/results"):
        filesystem, path = open_folder(location)
        assert is_local(filesystem)
        assert path == str(tmp_path / "results")


@pytest.mark.parametrize("location", ["ftp://host/results", "s4://bucket", "://x"])
def test_a_location_of_no_known_kind(location: str) -> None:
    with pytest.raises(ValueError) as refused:
        open_folder(location)
    message = str(refused.value)
    assert message.startswith(
        f"the location must be a folder or a URI such as s3://bucket/results, got {location!r} ("
    )
    assert len(message.splitlines()) == 1
