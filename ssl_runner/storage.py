"""Files on a disk or in a cloud, written atomically: a file that exists is complete."""

import contextlib
import ctypes
import errno
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from pyarrow import fs

from ssl_runner.errors import InputError
from ssl_runner.object_store import open_s3


def open_folder(location: str) -> tuple[fs.FileSystem, str]:
    """The file system and path of a folder: a local path, or `s3://…`, `gs://…` and the like.

    Raises:
        InputError: If the location is of an unknown kind.
    """
    if "://" not in location:
        return fs.LocalFileSystem(), str(Path(location).absolute())
    if location.startswith("s3://"):
        return open_s3(location)
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise InputError(
            f"the location must be a folder or a URI such as s3://bucket/results, got {location!r} "
            f"({str(error).splitlines()[0]})."
        ) from None
    return filesystem, path


def is_local(filesystem: fs.FileSystem) -> bool:
    """Whether the file system is this machine's own (or mounted on it)."""
    return isinstance(filesystem, fs.LocalFileSystem)


def write_whole(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    """Write a file atomically: readers see all of it or nothing, even if this process dies.

    Raises:
        OSError: If it can't be written; nothing is left behind then.
    """
    if filesystem.type_name not in _WITHOUT_FOLDERS:
        filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    if not is_local(filesystem):  # object stores show an object only once it is complete
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    with written_whole(Path(path)) as draft, draft.open("xb") as stream:
        stream.write(content)


_WITHOUT_FOLDERS = ("s3", "gcs")
"""Stores in which a folder is nothing but what names have in common; to make one costs requests."""


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A draft to write a local file in, which becomes the file in the end; nothing does on an error."""
    # The dot hides an incomplete file from readers of the folder.
    draft = path.parent / f"{_own_drafts()}{os.getpid()}-{uuid.uuid4().hex}.draft"
    try:
        yield draft
        with draft.open("rb") as stream:
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _own_drafts() -> str:
    """Prefix of this machine's draft names; the id of the process that writes follows."""
    return f".{socket.gethostname()}-"


def remove_drafts(filesystem: fs.FileSystem, folder: str) -> None:
    """Remove the drafts that killed processes of this machine left in a folder."""
    if not is_local(filesystem):
        return
    for draft in Path(folder).glob(f"{_own_drafts()}*.draft"):
        process = draft.name.removeprefix(_own_drafts()).partition("-")[0]
        if process.isdigit() and not _is_alive(int(process)):
            draft.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextlib.contextmanager
def replaced_whole(folder: Path, work: Path) -> Iterator[Path]:
    """An empty folder to prepare, which takes a local folder's place in the end; not on an error.

    Readers see the old files or the new ones, never both: the two folders are exchanged in one step.
    Whoever has listed the old files and not opened them yet finds them gone.

    Args:
        folder: The folder; no process may be writing into it.
        work: Where to prepare it, beside it; what a killed process left there is removed.

    Raises:
        OSError: If the file system can't exchange two folders (some network file systems), or there is
            no room.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        _exchange(folder, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _exchange(one: Path, other: Path) -> None:
    """Exchange two paths in one step: Linux's renameat2, macOS's renamex_np."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        code = libc.renamex_np(*paths, _SWAP)
    elif hasattr(libc, "renameat2"):
        code = libc.renameat2(_HERE, paths[0], _HERE, paths[1], _SWAP)
    else:
        ctypes.set_errno(errno.ENOSYS)
        code = -1
    if code:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one))


_HERE = -100
"""AT_FDCWD of Linux: paths are as they stand."""

_SWAP = 2
"""RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS."""


def list_files(filesystem: fs.FileSystem, folder: str, suffix: str) -> list[str]:
    """Sorted names of the folder's complete files with this suffix; none if there is no folder."""
    found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return sorted(
        info.base_name
        for info in found
        if info.is_file and info.base_name.endswith(suffix) and not info.base_name.startswith(".")
    )


def read_whole(filesystem: fs.FileSystem, path: str) -> bytes:
    """A file's content.

    Raises:
        OSError: If it can't be read.
    """
    with filesystem.open_input_stream(path) as stream:
        return bytes(stream.read())
