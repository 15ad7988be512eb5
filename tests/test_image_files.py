"""Image files decoded at each use: what a transform sees, and the sampler's promises over processes.

`test_loader.py` and `test_sampler.py` drive the same data set through the checks of the others.
"""

import pickle
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from ssl_runner.errors import DataError
from ssl_runner.image_files import ImageFiles
from ssl_runner.labels import UNLABELED
from ssl_runner.loader import Batch, make_loader
from ssl_runner.sampler import LABELED_KIND, UNLABELED_KIND, HomogeneousBatchSampler
from tests.test_sampler import forks

N = 30
LABELED, WITHOUT = np.arange(0, N, 3), np.setdiff1d(np.arange(N), np.arange(0, N, 3))
TO_TENSOR = "torchvision.transforms.functional:pil_to_tensor"


def scaled(image: Image.Image) -> Any:
    """A transform of one's own: floating."""
    return pil_to_tensor(image).float() / 255


def none(image: Image.Image) -> None:
    return None


def as_image(image: Image.Image) -> Image.Image:
    return image


def flat(image: Image.Image) -> Any:
    return pil_to_tensor(image)[0]


def whole_numbers(image: Image.Image) -> Any:
    return pil_to_tensor(image).long()


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """N files, each gray in its own number."""
    files = [tmp_path / f"{i}.png" for i in range(N)]
    for i, path in enumerate(files):
        Image.new("L", (4, 5), i).save(path)
    return files


def targets() -> np.ndarray:
    made = np.full(N, UNLABELED)
    made[LABELED] = LABELED % 4
    return made


def sampler_of(world_size: int = 1, rank: int = 0, **arguments: Any) -> HomogeneousBatchSampler:
    return HomogeneousBatchSampler(
        LABELED, WITHOUT, **{"batch_size": 4, "num_replicas": world_size, "rank": rank} | arguments
    )


@forks
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 3])
def test_over_ranks_and_processes_each_image_comes_once_in_the_plans_order(
    paths: list[Path], workers: int, world_size: int
) -> None:
    dataset = ImageFiles(paths, targets(), TO_TENSOR)
    samplers = [sampler_of(world_size, rank) for rank in range(world_size)]
    ranks = [list(make_loader(dataset, one, num_workers=workers)) for one in samplers]
    seen: Counter[int] = Counter()
    for step, of_ranks in zip(samplers[0].plan, zip(*ranks, strict=True), strict=True):
        own = [value for batch in of_ranks for value in batch.images[: batch.own, 0, 0, 0].tolist()]
        assert own == step.indices.tolist()
        assert {batch.kind for batch in of_ranks} == {step.kind}
        assert sum(batch.weight for batch in of_ranks) == pytest.approx(world_size)
        for batch in of_ranks:
            assert set((batch.targets == UNLABELED).tolist()) == {batch.kind == UNLABELED_KIND}
        seen.update(own)
    assert seen == Counter(range(N))


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_cut_in_an_epoch_and_gone_on_with_on_more_ranks(paths: list[Path], workers: int) -> None:
    dataset = ImageFiles(paths, targets(), TO_TENSOR)

    def pixels(batch: Batch) -> list[int]:
        return batch.images[: batch.own, 0, 0, 0].tolist()

    whole = [pixels(batch) for batch in make_loader(dataset, sampler_of())]
    first = sampler_of()
    before = []
    for batch in make_loader(dataset, first, num_workers=workers):
        before.append(pixels(batch))
        first.advance(batch.step)
        if len(before) == 3:
            break
    rest = []
    for rank in range(2):
        one = sampler_of(2, rank)
        one.load_state_dict(first.state_dict())
        rest.append([pixels(batch) for batch in make_loader(dataset, one, num_workers=workers)])
    assert before + [left + right for left, right in zip(*rest, strict=True)] == whole


@forks
@pytest.mark.parametrize("workers", [0, 2])
def test_no_file_of_a_batch_that_is_passed_over_is_opened(paths: list[Path], workers: int) -> None:
    for index in WITHOUT:
        paths[index].unlink()
    sampler = sampler_of(skip_unlabeled=True)
    batches = list(make_loader(ImageFiles(paths, targets(), TO_TENSOR), sampler, num_workers=workers))
    assert {batch.kind for batch in batches} == {LABELED_KIND}
    assert sorted(i for batch in batches for i in batch.indices) == LABELED.tolist()


def test_a_transform_may_be_a_function_or_its_import_path(paths: list[Path]) -> None:
    for transform in (scaled, f"{__name__}:scaled"):
        dataset = ImageFiles(paths, targets(), transform)
        again = pickle.loads(pickle.dumps(dataset))
        batch = again.__getitems__(next(iter(sampler_of())))
        assert batch.images.dtype == torch.float32
        assert (batch.images[:, 0, 0, 0] * 255).round().int().tolist() == list(batch.indices)


def test_the_mode_upright_and_16_bits(tmp_path: Path) -> None:
    top = np.zeros((4, 6, 3), dtype=np.uint8)
    top[0] = 200
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held on its side
    Image.fromarray(top).save(tmp_path / "turned.png", exif=turned)
    Image.fromarray(np.full((6, 4), 300 * 100, dtype=np.uint16)).save(tmp_path / "deep.png")
    both = [tmp_path / "turned.png", tmp_path / "deep.png"]
    dataset = ImageFiles(both, np.array([0, 1]), TO_TENSOR)
    turned_CHW, deep_CHW = dataset[0][0], dataset[1][0]
    assert turned_CHW.shape == deep_CHW.shape == (3, 6, 4)
    assert (turned_CHW[:, :, -1] == 200).all()
    assert (deep_CHW == 300 * 100 // 256).all()
    assert ImageFiles(both, np.array([0, 1]), TO_TENSOR, mode="L")[0][0].shape == (1, 6, 4)


def cut(path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(content).save(path)
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "1.png: can't be decoded .No such file.* Leave it out"),
        (lambda path: path.write_bytes(b""), "1.png: can't be decoded .cannot identify image"),
        (cut, "1.png: can't be decoded .*truncated"),
    ],
)
def test_a_file_that_is_no_image_is_named(
    paths: list[Path], damage: Callable[[Path], None], message: str
) -> None:
    damage(paths[1])
    with pytest.raises(DataError, match=message) as raised:
        ImageFiles(paths, targets(), TO_TENSOR)[1]
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (none, r"must give a tensor \(C, H, W\), uint8 or floating, got NoneType for .*0.png"),
        (as_image, "got Image for"),
        (flat, r"got torch.uint8, shape \(5, 4\) for"),
        (whole_numbers, "got torch.int64, shape"),
    ],
)
def test_what_a_transform_must_give(paths: list[Path], transform: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        ImageFiles(paths, targets(), transform)[0]


def test_the_images_of_a_batch_have_one_shape(paths: list[Path]) -> None:
    Image.new("L", (7, 5)).save(paths[int(LABELED[0])])
    dataset = ImageFiles(paths, targets(), TO_TENSOR)
    with pytest.raises(DataError, match=r"one shape and type.*\(3, 5, 7\).* Resize and convert in it"):
        list(make_loader(dataset, sampler_of()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "b"], np.array([1]), TO_TENSOR), "targets must be as many as 2, got 1"),
        ((["a"], np.array([1]), "no_such_module:f"), "transform 'no_such_module:f': no module"),
        ((["a"], np.array([1]), "pil_to_tensor"), "transform must be named as package.module:name"),
        ((["a"], np.array([1]), f"{__name__}:N"), "transform must be a function, .* got 30"),
    ],
)
def test_bad_arguments_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFiles(*arguments)


def test_any_file_name_may_be_named(tmp_path: Path) -> None:
    names = ["ä é.png", "a\nb.png", "x" * 100 + ".png"]
    random.Random(0).shuffle(names)
    paths = [tmp_path / name for name in names]
    for path in paths:
        Image.new("L", (1, 1), 9).save(path)
    dataset = ImageFiles(paths, np.zeros(3), TO_TENSOR)
    assert [dataset.path(i) for i in range(3)] == [str(path) for path in paths]
    assert all((image == 9).all() for image, _ in (dataset[i] for i in range(3)))
