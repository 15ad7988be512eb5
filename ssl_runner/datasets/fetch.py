"""The two ways to download: torchvision's and, for Fashion-MNIST, Debian's archive."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from ssl_runner.errors import DataError

PROBE_SECONDS = 5.0  # a host that is up answers a HEAD request well within this
STALL_SECONDS = 20  # a download without data for so long has failed
APT_SECONDS = 900.0  # for 40 MB: enough at half a megabit per second

DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

# apt that writes only in our own folder, so it needs no root and installs nothing. Its sources and
# proxy stay the system's.
_APT_CONF = """\
Dir::State "{work}/state";
Dir::State::lists "{work}/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "{work}/cache";
APT::Sandbox::User "root"; // as root, apt would otherwise become a user who can't write here
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "{stall}";
Acquire::https::Timeout "{stall}";
// Hooks that notify the desktop of new package lists, which ours don't concern.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def why_unreachable(url: str, seconds: float) -> str | None:
    """Why a URL gives no answer within `seconds`, or None if it does."""
    outcome: list[str | None] = []

    def probe() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=seconds).close()
            outcome.append(None)
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", error)
            outcome.append(getattr(reason, "strerror", None) or str(reason))

    # A DNS lookup ignores the timeout, so it runs in a thread that can be abandoned.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"no answer in {seconds:g} s"


def first_reachable(urls: Mapping[str, str]) -> str:
    """The first place whose URL answers.

    Args:
        urls: A URL to ask for, by the name of its place.

    Raises:
        DataError: If none does: each place, and why.
    """
    problems = {}
    for place, url in urls.items():
        problem = why_unreachable(url, PROBE_SECONDS)
        if problem is None:
            return place
        problems[place] = problem
    raise DataError("; ".join(f"{place}: {problem}" for place, problem in problems.items()))


def download(ask: Callable[[], object]) -> None:
    """Call what makes torchvision download; it shows a progress bar.

    Raises:
        DataError: If the download fails, or stalls.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)  # torchvision sets none, and could wait forever
    try:
        ask()
    except (OSError, RuntimeError, HTTPException) as error:
        raise DataError(" ".join(str(error).split())) from error
    finally:
        socket.setdefaulttimeout(before)


def fetch_with_torchvision(work: Path, say: Callable[[str], None]) -> Path:
    """Download through torchvision.

    Args:
        work: An empty folder to download into.
        say: Called with a line when a download begins.

    Returns:
        The folder with the files.

    Raises:
        DataError: If no mirror answers, or the download fails.
    """
    from torchvision.datasets import FashionMNIST

    first = FashionMNIST.resources[0][0]
    mirror = first_reachable({mirror: mirror + first for mirror in FashionMNIST.mirrors})
    say(f"Fashion-MNIST: downloading 31 MB from {mirror}")
    download(lambda: FashionMNIST(str(work), download=True))
    return work


def fetch_with_apt(work: Path, say: Callable[[str], None]) -> Path:
    """Download Debian's (or Ubuntu's) package and unpack it. Nothing is installed; needs no root.

    Args:
        work: An empty folder for apt's lists, the package and what is in it.
        say: Called with a line when a download begins.

    Returns:
        The folder with the files.

    Raises:
        DataError: If this system has no apt, or its archive can't be reached or lacks the package.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise DataError(f"no {tool} here: this way is for Debian, Ubuntu and the like")
    say(f"Fashion-MNIST: downloading Debian's package {DEBIAN_PACKAGE} (40 MB, installs nothing)")
    for folder in ("state", "lists/partial", "cache/archives/partial", "unpacked"):
        (work / folder).mkdir(parents=True)
    conf = work / "apt.conf"
    conf.write_text(_APT_CONF.format(work=work, stall=STALL_SECONDS), encoding="utf-8")
    apt, deadline = ["apt-get", "-c", str(conf)], time.monotonic() + APT_SECONDS
    with _growth_shown(work) as tick:
        # An update that fails for one source may be enough for ours: the download shows.
        _run([*apt, "update"], work, deadline, tick)
        failed = _run([*apt, "download", DEBIAN_PACKAGE], work, deadline, tick)
        if not failed:
            package = str(next(work.glob("*.deb")))
            failed = _run(["dpkg-deb", "-x", package, "unpacked"], work, deadline, tick)
    if failed:
        raise DataError(_complaints(work / "log"))
    return work / "unpacked" / DEBIAN_FOLDER.relative_to("/")


def _run(command: list[str], work: Path, deadline: float, tick: Callable[[], None]) -> int:
    """Run a command in a folder, its output in the file `log`. Returns the exit code."""
    with (work / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"LC_ALL": "C"},
            start_new_session=True,  # its own process group, so that apt's helpers end with it
        )
    try:
        while True:
            with suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.1)
            if time.monotonic() > deadline:
                raise DataError(f"{command[0]} took longer than {APT_SECONDS:g} s")
            tick()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _complaints(log: Path) -> str:
    """The first error in apt's output, the cause, and the last, the effect."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [line for line in lines if line.startswith(("E: ", "W: ", "dpkg-deb: "))] or lines[-1:]
    return "; ".join(dict.fromkeys([*found[:1], *found[-1:]])) or "no output"


@contextmanager
def _growth_shown(folder: Path) -> Iterator[Callable[[], None]]:
    """On a terminal, show how many bytes a folder holds at each call of the yielded function."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, SpinnerColumn, TransferSpeedColumn

    columns = (SpinnerColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None)

        def tick() -> None:
            with suppress(OSError):  # apt renames files while we look
                size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                progress.update(task, completed=size)

        yield tick
