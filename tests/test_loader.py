"""From indices to pixels: the right rows, gathered at once, and none for a batch passed over."""

import pickle
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ssl_runner.datasets.decoded.store import map_images
from ssl_runner.image_files import ImageFiles
from ssl_runner.labels import UNLABELED
from ssl_runner.loader import Batch, PartiallyLabeledDataset, collate, make_loader
from ssl_runner.sampler import (
    LABELED_KIND,
    UNLABELED_KIND,
    HomogeneousBatchSampler,
    RankBatch,
)

# N = images, B = images in this rank's batch

N = 50
LABELED, UNLABELED_POOL = np.arange(0, N, 5), np.setdiff1d(np.arange(N), np.arange(0, N, 5))

# Every image is filled with its own number, so that a row says which it is.
IMAGES_NCHW = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, 3, 4, 5)).copy()
TARGETS_N = np.full(N, UNLABELED, dtype=np.int64)
TARGETS_N[LABELED] = LABELED % 7


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def write_images(folder: Path) -> list[Path]:
    """`IMAGES_NCHW` as files."""
    paths = [folder / f"{index}.png" for index in range(N)]
    for path, image_CHW in zip(paths, IMAGES_NCHW, strict=True):
        Image.fromarray(image_CHW.transpose(1, 2, 0)).save(path)
    return paths


def mapped(array: np.ndarray) -> np.ndarray:
    """The same in a file that is mapped, as decoded images are."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(array.tobytes())
        file.flush()
        flat = map_images(file.fileno(), Path(file.name), (array.nbytes, 1, 1, 1))
        return flat.reshape(-1).view(array.dtype).reshape(array.shape)


STORAGES: dict[str, Callable[[np.ndarray], Any]] = {
    "array": np.copy,
    "read-only array": read_only,  # as it comes out of Ray's object store
    "mapped array": mapped,
    "tensor": torch.tensor,
}


DATASETS = [*STORAGES, "files"]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[[str], Any]:
    """Makes the same data set in any form."""

    def make(form: str) -> Any:
        if form == "files":
            return ImageFiles(write_images(tmp_path), TARGETS_N, pil_to_tensor)
        return PartiallyLabeledDataset(STORAGES[form](IMAGES_NCHW), STORAGES[form](TARGETS_N))

    return make


def make_sampler(**arguments: Any) -> HomogeneousBatchSampler:
    arguments = {"batch_size": 8, "num_replicas": 1, "rank": 0} | arguments
    return HomogeneousBatchSampler(LABELED, UNLABELED_POOL, **arguments)


@pytest.mark.parametrize("form", DATASETS)
@pytest.mark.parametrize("world_size", [1, 3, 9])
def test_every_batch_has_the_pixels_and_targets_of_its_indices(
    form: str, world_size: int, make_dataset: Callable[[str], Any]
) -> None:
    dataset = make_dataset(form)
    assert len(dataset) == N
    for rank in range(world_size):
        sampler = make_sampler(num_replicas=world_size, rank=rank)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns of arrays that it must not write to
            batches = list(make_loader(dataset, sampler))
        indices = list(sampler)
        assert len(batches) == len(indices) == len(sampler.plan)
        for batch, of_rank in zip(batches, indices, strict=True):
            assert batch.images.dtype == torch.uint8
            assert batch.images.shape == (len(of_rank), 3, 4, 5)
            assert batch.images[:, 0, 0, 0].tolist() == of_rank
            assert (batch.images == batch.images[:, :1, :1, :1]).all()
            assert batch.targets.dtype == torch.int64
            assert batch.targets.tolist() == TARGETS_N[of_rank].tolist()
            for name in ("step", "kind", "size", "start", "own", "weight"):
                assert getattr(batch, name) == getattr(of_rank, name)


@pytest.mark.parametrize("form", DATASETS)
def test_an_unlabeled_batch_has_no_targets_and_a_labeled_one_has_them_all(
    form: str, make_dataset: Callable[[str], Any]
) -> None:
    for batch in make_loader(make_dataset(form), make_sampler()):
        assert (batch.targets == UNLABELED).tolist() == [batch.kind == UNLABELED_KIND] * len(
            batch.targets
        )


def test_a_batch_is_a_copy_of_its_own() -> None:
    images_NCHW = IMAGES_NCHW.copy()
    for batch in make_loader(PartiallyLabeledDataset(images_NCHW, TARGETS_N), make_sampler()):
        batch.images.fill_(255)
        batch.targets.fill_(9)
    assert np.array_equal(images_NCHW, IMAGES_NCHW)
    assert 9 not in TARGETS_N


class Recorder(PartiallyLabeledDataset):
    """Remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__(IMAGES_NCHW, TARGETS_N)
        self.fetched: list[int] = []

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("a batch is gathered in one operation, not image by image")

    def __getitems__(self, indices: RankBatch) -> Batch:
        self.fetched += indices
        return super().__getitems__(indices)


@pytest.mark.parametrize("order", ["interleave", "shuffle", "labeled_first", "paired"])
def test_no_pixel_of_a_batch_that_is_passed_over_is_fetched(order: str) -> None:
    dataset = Recorder()
    batches = list(make_loader(dataset, make_sampler(order=order, skip_unlabeled=True)))
    assert {batch.kind for batch in batches} == {LABELED_KIND}
    assert set(dataset.fetched) == set(LABELED.tolist())
    # With the unlabeled batches in the walk, their images are fetched.
    list(make_loader(dataset, make_sampler(order=order)))
    assert set(dataset.fetched) == set(range(N))


@pytest.mark.parametrize("form", DATASETS)
def test_one_image_can_be_looked_at(form: str, make_dataset: Callable[[str], Any]) -> None:
    image, target = make_dataset(form)[5]
    assert image.dtype == torch.uint8
    assert image.shape == (3, 4, 5)
    assert set(image.flatten().tolist()) == {5}
    assert target.item() == 5


@pytest.mark.parametrize("form", DATASETS)
def test_a_batch_reaches_the_loop_as_it_was_gathered(
    form: str, make_dataset: Callable[[str], Any]
) -> None:
    dataset = make_dataset(form)
    batch = dataset.__getitems__(next(iter(make_sampler())))
    assert collate(batch) is batch
    again = pickle.loads(pickle.dumps(batch))
    assert torch.equal(again.images, batch.images)
    assert again.step == batch.step


def test_an_index_that_is_no_image_is_an_error() -> None:
    dataset = PartiallyLabeledDataset(IMAGES_NCHW, TARGETS_N)
    sampler = HomogeneousBatchSampler(range(N, N + 3), batch_size=2, num_replicas=1, rank=0)
    with pytest.raises(IndexError, match="out of bounds"):
        list(make_loader(dataset, sampler))
