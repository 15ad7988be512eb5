import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from filelock import FileLock

from ssl_runner.datasets import ImageDataset, load_dataset

# A busy machine is no failure: nothing here is timed.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Several processes test side by side: threads that wait for each other's cores take many times as long.
torch.set_num_threads(1)

# Three trials with one method that keeps a state of its own; a checkpoint every few steps.
SWEEP = (
    *("ssl_runner.tune", "--subset", "600", "--label-fractions", "0.2", "--batch-size", "30"),
    *("--methods", "pass", "freematch", "--epochs", "4", "--patience", "0"),
    *("--checkpoint-steps", "5", "--precision", "fp32", "--augment", "weak", "--name", "f"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with slow tests first, so that none of them is left for the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder with a short name, for Ray's sockets."""
    folder = Path(f"/tmp/f{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def fashion_mnist() -> ImageDataset:
    """The real data, from the person's own cache: fetched once per machine, read once per run."""
    return load_dataset("fashion_mnist")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `SWEEP` when nobody disturbs it: run once, whichever process asks first."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    results = shared / "undisturbed"
    with FileLock(f"{results}.lock"):
        if not results.exists():
            command = [sys.executable, "-m", *SWEEP, "--results", str(results)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    assert len(list(results.glob("trials/*.parquet"))) == 3
    return results
