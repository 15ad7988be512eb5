"""The software versions that a row records."""

import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import ssl_runner


def version_columns() -> dict[str, Any]:
    """Versions of this package, Python and PyTorch."""
    return {
        "version": ssl_runner.__version__,
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
    }


@functools.cache
def git_commit() -> str | None:
    """Commit of this package's source, with a + if it was changed since; None outside a checkout."""
    here = Path(__file__).parent
    run = functools.partial(subprocess.run, cwd=here, capture_output=True, text=True, timeout=10)
    try:
        # The package may be installed inside the checkout of another project.
        tracked = run(["git", "ls-files", "--error-unmatch", Path(__file__).name])
        if tracked.returncode:
            return None
        commit = run(["git", "rev-parse", "HEAD"]).stdout.strip()
        changed = run(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return None
    return commit + ("+" if changed else "") if commit else None
