import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from ssl_runner.datasets import ImageDataset, load_dataset

# A busy machine is no failure: nothing here is timed.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


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
