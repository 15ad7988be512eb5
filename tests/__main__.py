"""The one command that checks everything: format, lint, types, tests.

python -m tests            # all of it
python -m tests -k sampler # the checks, and the tests that match
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

BROWSER = ("chromium", "chromium-driver")
HOSTS = ("openssh-server", "rsync", "iproute2")

CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("pytest", "--dist", "loadgroup", "--no-loadscope-reorder"),
)

MEMORY = 3e9
"""Bytes for each test process, with the command under test and its Ray."""


def install(packages: tuple[str, ...]) -> None:
    """Debian's packages, where they may be installed; without them some tests skip, and say so."""
    if not shutil.which("apt-get") or os.geteuid():
        return
    print("$ apt-get install", *packages, flush=True)
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", "-qq", *arguments], stdout=subprocess.DEVNULL, check=False)


def install_what_is_missing() -> None:
    """A browser for the tests of the page; an ssh server for those of a cluster, unless this machine
    would start it at once."""
    if not shutil.which("chromedriver"):
        install(BROWSER)
    is_missing = not all(map(shutil.which, ("/usr/sbin/sshd", "rsync", "ip")))
    if is_missing and not Path("/run/systemd/system").exists():
        install(HOSTS)


def processes() -> int:
    """How many processes test at a time: one for each core that this one may use, and not more than
    the memory takes. (Three on two cores were slower.)"""
    import psutil  # comes with the test extra

    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(cores, int(psutil.virtual_memory().available / MEMORY)))


def main() -> int:
    """Run each check in turn; arguments go to pytest. Returns the first exit code that is not 0."""
    install_what_is_missing()
    for check in CHECKS:
        arguments = ["-n", str(processes()), *sys.argv[1:]] if check[0] == "pytest" else []
        print("$", *check, *arguments, flush=True)
        code = subprocess.run([sys.executable, "-m", *check, *arguments]).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
