"""Real processes: started, watched, killed, and none of them left behind.

A wait ends when its condition holds, or can't hold any more because the process is gone. Otherwise it
watches progress, not the clock: it times out after `HANG` seconds without progress.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import psutil

from ssl_runner.testing.forks import Forked, Nursery
from ssl_runner.testing.tables import checkpoints

HANG = 1800.0
"""Seconds without progress after which a wait times out: far more than a slow machine takes."""

_LOOK = 5.0
"""Seconds between checks of the progress, which cost more than checks of the condition."""


def wait_until(
    is_there: Callable[[], bool],
    can_come: Callable[[], bool] = lambda: True,
    progress: Callable[[], object] = lambda: None,
) -> bool:
    """Wait until a condition holds, or can't hold any more.

    Args:
        is_there: Whether it holds.
        can_come: Whether it still can; called before `is_there`, so that the last change counts.
        progress: Any value that changes now and then while there is progress.

    Returns:
        Whether it holds.

    Raises:
        TimeoutError: If there was no progress for `HANG` seconds.
    """
    seen, since, pause = progress(), time.monotonic(), 0.01
    looked = since
    while True:
        began = time.thread_time()
        can = can_come()
        if is_there():
            return True
        if not can:
            return False
        # What is waited for needs the cores more than this does. On a busy machine a check takes
        # longer, but no more of a core.
        time.sleep(max(pause, 4 * (time.thread_time() - began)))
        pause = min(1.2 * pause, 0.1)
        now = time.monotonic()
        if now - looked > _LOOK:
            looked = now
            if (sees := progress()) != seen:
                seen, since = sees, now
            if now - since > HANG:
                raise TimeoutError(f"no progress for {HANG:g} seconds: {seen}")


class Run:
    """A Python process in a session of its own, started by `Runs`, its output in files.

    Attributes:
        process: The process itself.
    """

    def __init__(
        self, runs: "Runs", process: subprocess.Popen[str] | Forked, out: Path, err: Path
    ) -> None:
        self.process = process
        self._runs, self._out, self._err = runs, out, err

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """What it has written to stderr so far."""
        return self._err.read_text(encoding="utf-8")

    @property
    def returncode(self) -> int:
        """Its exit code, once it has ended."""
        assert self.process.returncode is not None, "it has not ended"
        return self.process.returncode

    def wait_for(self, is_there: Callable[[], bool]) -> None:
        """Wait until a condition holds; fails with the output if the process ends before that."""
        came = wait_until(is_there, lambda: self.process.poll() is None, self._progress)
        assert came, self.stdout + self.stderr

    def end(self) -> str:
        """Wait for its end; returns all of its output, the errors last."""
        wait_until(lambda: self.process.poll() is not None, progress=self._progress)
        return self.stdout + self.stderr

    def succeed(self) -> str:
        """Wait for its end, with exit code 0; returns its output."""
        output = self.end()
        assert self.returncode == 0, output
        return output

    def kill(self) -> bool:
        """SIGKILL its process group; returns whether it had not ended."""
        with contextlib.suppress(ProcessLookupError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                return True
        return False

    def _progress(self) -> object:
        """What it has printed, and which processes there are; not their CPU time, which Ray uses
        even without progress."""
        return self._out.stat().st_size, self._err.stat().st_size, self._runs.pids()


class Runs:
    """Starts Python processes and, when closed, ends them with all their descendants, orphans too.

    They are identified by their temporary folder, TMPDIR, which no other process has.

    Args:
        nurseries: Where commands are forked from that fit there, in turn: no two of them have the same
            seed for hashes. Without them each is a new process.

    Attributes:
        temporary: That folder; its name is short, for Ray's sockets.
    """

    def __init__(self, nurseries: Sequence[Nursery] = ()) -> None:
        self._nurseries = nurseries
        self._folder = Path(tempfile.mkdtemp(prefix="f", dir="/tmp"))
        self.temporary = self._folder / "t"
        self.temporary.mkdir()
        self._started: list[Run] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(
        self,
        *arguments: str,
        code: str | None = None,
        environment: dict[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> Run:
        """Start a process.

        Args:
            arguments: What follows `python -m`, or with `code`: what follows it.
            code: What follows `python -c`, instead.
            environment: All of its environment but TMPDIR; None: as here.
        """
        number = len(self._started)
        out, err = self._folder / f"{number}.out", self._folder / f"{number}.err"
        everything = dict(os.environ if environment is None else environment)
        everything["TMPDIR"] = str(self.temporary)
        is_plain = code is None and stdin == subprocess.DEVNULL
        fitting = [each for each in self._nurseries if is_plain and each.fits(arguments, everything)]
        process: subprocess.Popen[str] | Forked
        with out.open("wb") as stdout, err.open("wb") as stderr:
            if fitting:
                nursery, folder = fitting[number % len(fitting)], str(cwd or Path.cwd())
                process = nursery.start(arguments, everything, folder, stdout.fileno(), stderr.fileno())
            else:
                process = subprocess.Popen(
                    [sys.executable, *(["-m"] if code is None else ["-c", code]), *arguments],
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    text=True,
                    cwd=cwd,
                    env=everything,
                    start_new_session=True,
                )
        self._started.append(Run(self, process, out, err))
        return self._started[-1]

    def processes(self, name: str = "") -> list[psutil.Process]:
        """The living processes whose command line holds `name`."""
        found = []
        # The system shows them as it shows the process that they were forked from.
        started = [run.process for run in self._started]
        forked = {p.pid: p.args for p in started if isinstance(p, Forked) and p.poll() is None}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                is_forked = process.pid in forked
                words = forked[process.pid] if is_forked else process.cmdline()
                if (
                    (is_forked or process.environ().get("TMPDIR") == str(self.temporary))
                    and name in " ".join(words)
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
        return found

    def pids(self) -> set[int]:
        """Of all living processes."""
        return {process.pid for process in self.processes()}

    def kill(self, name: str = "") -> int:
        """SIGKILL those whose command line holds `name`; how many."""
        killed = set()
        if not name:  # to look for them takes a while, in which one could end by itself
            killed = {run.process.pid for run in self._started if run.kill()}
        for process in self.processes(name):
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
            killed.add(process.pid)
        return len(killed)

    def are_gone(self) -> bool:
        """Wait until none of them lives; each one that ends is progress."""
        return wait_until(lambda: not self.pids(), progress=self.pids)

    def close(self) -> None:
        """Kill whatever still lives, and remove the folder."""
        wait_until(lambda: not self.kill(), progress=self.pids)
        for run in self._started:
            run.process.wait()
            if run.process.stdin is not None:
                run.process.stdin.close()
        shutil.rmtree(self._folder)


def killed_until_done(
    runs: Runs, arguments: tuple[str, ...], results: Path, moments: random.Random
) -> tuple[int, float]:
    """Run a command again and again, each time killed a random while after its first checkpoint, until
    it ends before that.

    Returns:
        How often it was killed, and the seconds that its last run took.
    """
    kills = 0
    while True:
        started = time.monotonic()
        run = runs.start(*arguments)
        before = newest(results)
        while run.process.poll() is None and newest(results) == before:
            time.sleep(0.01)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(moments.uniform(0, 0.15))
        if run.process.poll() is None:
            runs.kill()
        output = run.end()
        if run.returncode == 0:
            return kills, time.monotonic() - started
        assert run.returncode == -signal.SIGKILL, output
        kills += 1


def newest(results: Path) -> str:
    """Name of the last checkpoint, or an empty one."""
    return max((path.name for path in checkpoints(results)), default="")
