"""Ends a process that exceeds its time limit, even if it hangs."""

import contextlib
import faulthandler
import os
import threading
from collections.abc import Callable, Iterator

_GRACE_SECONDS = 30.0
"""Time to write the row of a trial that timed out."""


@contextlib.contextmanager
def time_limit(seconds: float | None, on_timeout: Callable[[str], None]) -> Iterator[None]:
    """Exit this process if the block takes longer, even if it hangs.

    If it hangs without releasing the GIL, nothing can be written; it is still ended, some seconds
    later.

    Args:
        seconds: The limit, or None.
        on_timeout: Called first, in another thread, with the reason in words: writes the row.
    """

    def end() -> None:
        try:
            on_timeout(f"it took longer than its time_limit of {seconds:g} seconds")
        finally:
            os._exit(1)

    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True)  # its thread is not Python's
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        timer.cancel()
        timer.join()  # if the limit was just reached, the process exits here and writes nothing more
