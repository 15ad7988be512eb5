"""The one command that checks everything: format, lint, types, tests.

python -m tests            # all of it
python -m tests -k sampler # the checks, and the tests that match
"""

import subprocess
import sys

CHECKS = (
    ("ruff", "format", "--check", "."),
    ("ruff", "check", "."),
    ("mypy",),
    ("pytest",),
)


def main() -> int:
    """Run each check in turn; arguments go to pytest. Returns the first exit code that is not 0."""
    for check in CHECKS:
        arguments = sys.argv[1:] if check[0] == "pytest" else []
        print("$", *check, *arguments, flush=True)
        code = subprocess.run([sys.executable, "-m", *check, *arguments]).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
