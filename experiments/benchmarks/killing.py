"""Real processes, killed for good at a chosen or a random moment; the tables they end in, compared.

Used by `faults.py` beside it and by the tests.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

# What may differ between two runs of the same trial.
UNEQUAL = {
    *("train_seconds", "evaluate_seconds", "cpu_seconds", "seconds", "images_per_second"),
    *("started_at", "ended_at", "node", "git_commit"),
}


class Run:
    """A command in a session of its own, with everything it starts.

    Args:
        arguments: What follows `python -m`.
        temporary: Its temporary folder, by which its processes are known, whoever adopted them.
    """

    def __init__(self, *arguments: str, temporary: Path) -> None:
        self.temporary = temporary
        self.process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"TMPDIR": str(temporary)},
            start_new_session=True,
        )

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Its living processes whose command line holds `name`."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if (
                    process.environ().get("TMPDIR") == str(self.temporary)
                    and name in " ".join(process.cmdline())
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def kill(self, name: str = "") -> int:
        """SIGKILL those whose command line holds `name`; how many."""
        killed = self.processes(name)
        for process in killed:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        return len(killed)

    def wait_for(self, is_there: Callable[[], bool], seconds: float = 90) -> None:
        """Wait until something is there, or the command has ended."""
        deadline = time.monotonic() + seconds
        while not is_there():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "it did not come"
            time.sleep(0.05)

    def end(self, seconds: float = 150) -> str:
        """Its output, when it has ended."""
        output, _ = self.process.communicate(timeout=seconds)
        return output

    def is_gone(self, seconds: float = 15) -> bool:
        """Whether nothing of it lives on, after a short while at the most."""
        deadline = time.monotonic() + seconds
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.1)
        return not self.processes()


def checkpoints(results: Path) -> list[Path]:
    """The checkpoints that are there."""
    return list(results.glob("checkpoints/*/*.pt"))


def killed_until_done(
    arguments: tuple[str, ...], results: Path, temporary: Path, moments: random.Random
) -> tuple[int, float]:
    """Run a command again and again, each time killed a random while after its first checkpoint, until
    it ends before that.

    Returns:
        How often it was killed, and the seconds that its last run took.
    """
    kills = 0
    while True:
        started = time.monotonic()
        run = Run(*arguments, temporary=temporary)
        before = newest(results)
        while run.process.poll() is None and newest(results) == before:
            time.sleep(0.002)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(moments.uniform(0, 0.15))
        if run.process.poll() is None:
            run.kill()
        output = run.end()
        if run.process.returncode == 0:
            return kills, time.monotonic() - started
        assert run.process.returncode == -signal.SIGKILL, output
        kills += 1


def newest(results: Path) -> str:
    """Name of the last checkpoint, or an empty one."""
    return max((path.name for path in checkpoints(results)), default="")


def tables(results: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every row of both tables, sorted, without what may differ between two runs."""
    trials, epochs = (pd.read_parquet(results / name) for name in ("trials", "epochs"))
    rows = []
    for frame, keys in ((trials, ["trial_id"]), (epochs, ["trial_id", "epoch"])):
        kept = frame.drop(columns=[name for name in UNEQUAL if name in frame]).sort_values(keys)
        rows.append([{key: _plain(value) for key, value in row.items()} for row in _records(kept)])
    return rows[0], rows[1]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)]


def _plain(value: Any) -> Any:
    """As a text: NaN equals NaN then, an array another one, and a float another one to the bit."""
    return repr(value.tolist() if hasattr(value, "tolist") else value)


def leftovers(results: Path) -> set[str]:
    """What is in a results folder beside its two tables' files, its pages and TensorBoard's files."""
    files = (path.relative_to(results) for path in results.rglob("*") if path.is_file())
    return {
        str(path)
        for path in files
        if path.name.startswith(".")
        or not (path.parts[0] in ("trials", "epochs", "tensorboard") or path.suffix == ".html")
    }
