"""The cache folder, and the lock that guards it."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from ssl_runner.errors import DataError


class CacheError(DataError):
    """The cache can't be written: another source of the data would not help."""


def cache_folder(name: str) -> Path:
    """Folder of a data set's files: in SSL_RUNNER_CACHE, or else in the user's cache."""
    chosen = os.environ.get("SSL_RUNNER_CACHE")
    root = Path(chosen) if chosen else platformdirs.user_cache_path("ssl_runner", appauthor=False)
    return root.expanduser().absolute() / name


@contextmanager
def lock_cache(cache: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """Lock a cache folder. Yields an empty working folder in it, deleted afterwards.

    Files prepared in the working folder can be renamed into the cache, so that no other process
    ever sees half a file. Another process may have filled the cache meanwhile: check again.

    Raises:
        CacheError: If the cache can't be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / ".lock")
        try:
            held = lock.acquire(timeout=1)
        except Timeout:
            say(f"waiting for another process that is preparing {cache}")
            held = lock.acquire()
        with held:
            # Only a process that died leaves its working folder behind.
            for stale in cache.glob("tmp-*"):
                shutil.rmtree(stale, ignore_errors=True)
            work = Path(tempfile.mkdtemp(prefix="tmp-", dir=cache))
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise CacheError(
            f"{cache}: the cache must be a writable folder ({error.strerror or error}). Free some "
            "space, check its permissions, or set SSL_RUNNER_CACHE to another folder."
        ) from error
