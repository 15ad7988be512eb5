"""The one command that checks everything: format, lint, types, tests.

python -m tests            # all of it
python -m tests -k sampler # the checks, and the tests that match
"""

import os
import shutil
import subprocess
import sys

BROWSER = ("chromium", "chromium-driver")

CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    # Most of the slow tests wait for Ray more than they compute; those of a file share what they made.
    ("pytest", "-n", "3", "--dist", "loadfile", "--no-loadscope-reorder"),
)


def install_browser() -> None:
    """Debian's Chromium for the tests of the page, where it is missing and may be installed; without
    it those tests skip, and say so."""
    if shutil.which("chromedriver") or not shutil.which("apt-get") or os.geteuid():
        return
    print("$ apt-get install chromium chromium-driver", flush=True)
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *BROWSER]):
        subprocess.run(["apt-get", "-qq", *arguments], stdout=subprocess.DEVNULL, check=False)


def main() -> int:
    """Run each check in turn; arguments go to pytest. Returns the first exit code that is not 0."""
    install_browser()
    for check in CHECKS:
        arguments = sys.argv[1:] if check[0] == "pytest" else []
        print("$", *check, *arguments, flush=True)
        code = subprocess.run([sys.executable, "-m", *check, *arguments]).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
