"""The main command as the benchmarks run it: in a process of its own, from Enter to its end."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd


def timed(
    command: list[str],
    environment: Mapping[str, str] | None = None,
    watch: Callable[[int], None] | None = None,
) -> float:
    """Wall seconds of a command that must succeed.

    Args:
        environment: All of its environment; None: as here.
        watch: Called with the process id, again and again, until the command ends.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:  # a pipe would fill meanwhile
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        while watch is not None and process.poll() is None:
            watch(process.pid)
        failed, seconds = process.wait(), time.perf_counter() - started
        if failed:
            output.seek(0)
            raise SystemExit(f"{command} failed:\n{output.read()[-4000:]}")
    return seconds


def our_sweep(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    watch: Callable[[int], None] | None = None,
) -> tuple[float, pd.DataFrame]:
    """Wall seconds of our command, and its rows in the order in which they started."""
    command = [sys.executable, "-m", "ssl_runner.tune", "--results", str(folder), *arguments]
    seconds = timed(command, environment, watch)
    return seconds, pd.read_parquet(folder / "trials").sort_values("started_at")
