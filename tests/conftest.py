import hypothesis
import pytest

from ssl_runner.datasets import ImageDataset, load_dataset

# A busy machine is no failure: nothing here is timed.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def fashion_mnist() -> ImageDataset:
    """The real data, from the person's own cache: fetched once per machine, read once per run."""
    return load_dataset("fashion_mnist")
