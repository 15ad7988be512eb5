"""Batches streamed from Parquet: each image once, one kind at each step, bounded memory."""

import io
import itertools
import pickle
import tracemalloc
from collections import Counter
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.functional import pil_to_tensor

from ssl_runner.errors import DataError
from ssl_runner.labels import UNLABELED
from ssl_runner.loader import Batch
from ssl_runner.parquet_shards import ParquetShards
from ssl_runner.sampler import LABELED_KIND, UNLABELED_KIND, Order, share
from tests.test_sampler import forks

N = 60
FILES = 3
LABELS = [i % 5 if i % 4 == 0 or i < 6 else None for i in range(N)]
LABELED = [i for i, label in enumerate(LABELS) if label is not None]
WITHOUT = [i for i, label in enumerate(LABELS) if label is None]


def encoded(number: int) -> bytes:
    """A gray image that holds its own number."""
    file = io.BytesIO()
    Image.new("L", (3, 2), number).save(file, "PNG")
    return file.getvalue()


def write(folder: Path, images: Any, labels: Any, row_group: int = 7) -> Path:
    """The images in several files of small row groups."""
    folder.mkdir(exist_ok=True)
    table = pa.table({"image": images, "label": labels})
    per_file = -(-len(table) // FILES)
    for number in range(FILES):
        part = table.slice(number * per_file, per_file)
        pq.write_table(part, folder / f"{number}.parquet", row_group_size=row_group)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = pa.array([encoded(i) for i in range(N)])
    return write(tmp_path_factory.mktemp("shards"), images, pa.array(LABELS))


def shards_of(folder: Path, **changes: Any) -> ParquetShards:
    arguments: dict[str, Any] = {
        "batch_size": 7,
        "num_replicas": 1,
        "rank": 0,
        "shuffle_buffer": 5,
        "mode": "L",
    }
    return ParquetShards(folder, pil_to_tensor, **(arguments | changes))


def turns(shards: ParquetShards, workers: int, epoch: int = 0) -> list[Batch]:
    """The batches of a rank as a DataLoader puts those of its processes together, without processes."""
    walks = [shards._walk(epoch, worker, workers) for worker in range(workers)]
    return [next(walks[place % workers]) for place in range(len(shards))]


def own(batch: Batch) -> list[int]:
    return list(batch.indices)[: batch.own]


@settings(
    max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.one_of(st.integers(1, 9), st.integers(10, 80)),
    st.sampled_from(get_args(Order)),
    st.sampled_from(["partial", "drop"]),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 3),
)
def test_each_image_once_and_one_kind_at_each_step_whatever_the_ranks_and_processes(
    folder: Path,
    world_size: int,
    workers: int,
    batch_size: int,
    order: Order,
    last_batch: str,
    mu: int,
    skip: bool,
    epoch: int,
) -> None:
    arguments = {"batch_size": batch_size, "order": order, "last_batch": last_batch, "mu": mu}
    ranks = [
        # Each rank may have another number of loader processes.
        turns(
            shards_of(folder, num_replicas=world_size, rank=rank, skip_unlabeled=skip, **arguments),
            workers + rank % 2,
            epoch,
        )
        for rank in range(world_size)
    ]
    seen: Counter[int] = Counter()
    kinds: Counter[int] = Counter()
    for step in zip(*ranks, strict=True):
        assert len({(batch.step, batch.kind, batch.size) for batch in step}) == 1
        kinds[step[0].kind] += 1
        assert sum(batch.weight for batch in step) == pytest.approx(world_size)
        for rank, batch in enumerate(step):
            start, stop = share(batch.size, rank, world_size)
            assert (batch.start, batch.own) == (start, stop - start)
            assert batch.weight == world_size * batch.own / batch.size
            assert len(batch.indices) == len(batch.images) == max(1, batch.own)
            for index, image, target in zip(batch.indices, batch.images, batch.targets, strict=True):
                assert (image == index).all()
                label = LABELS[index]
                assert (label is None) == (batch.kind == UNLABELED_KIND)
                assert target.item() == (UNLABELED if label is None else label)
            seen.update(own(batch))
    walked = [step[0].step for step in zip(*ranks, strict=True)]
    assert walked == sorted(set(walked))
    often = Counter(seen[i] for i in LABELED)
    once = Counter(seen[i] for i in WITHOUT)
    if skip:
        assert kinds[UNLABELED_KIND] == 0
        assert once == Counter({0: len(WITHOUT)})
    elif last_batch == "partial":
        assert once == Counter({1: len(WITHOUT)})
    else:
        assert once[1] == len(WITHOUT) // batch_size * batch_size
        assert set(once) <= {0, 1}
    if order != "paired" and last_batch == "partial":
        assert often == Counter({1: len(LABELED)})
    if order == "paired" and last_batch == "partial" and often:
        assert max(often) - min(often) <= 1  # cycles through the pool, each image once in each


@forks
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_in_a_real_loader_with_processes(folder: Path, workers: int) -> None:
    for world_size in (1, 2):
        seen: Counter[int] = Counter()
        kinds = []
        for rank in range(world_size):
            shards = shards_of(folder, num_replicas=world_size, rank=rank, seed=3)
            loader = DataLoader(shards, batch_size=None, num_workers=workers)
            assert len(loader) == len(shards)
            batches = list(loader)
            assert [batch.step for batch in batches] == list(range(len(shards)))
            assert [own(b) for b in batches] == [own(b) for b in turns(shards, max(1, workers))]
            for batch in batches:
                assert (batch.images[:, 0, 0, 0] == torch.tensor(batch.indices)).all()
                seen.update(own(batch))
            kinds.append([batch.kind for batch in batches])
        assert seen == Counter(range(N))
        assert all(of_rank == kinds[0] for of_rank in kinds)
        assert kinds[0] == shards.plan.kinds().tolist()


@forks
def test_processes_that_persist_learn_of_the_epoch(folder: Path) -> None:
    shards = shards_of(folder)
    loader = DataLoader(shards, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in (0, 1, 0):
        shards.set_epoch(epoch)
        assert shards.epoch == epoch
        epochs.append([own(batch) for batch in loader])
        assert epochs[-1] == [own(batch) for batch in turns(shards, 2, epoch)]
    assert epochs[0] == epochs[2] != epochs[1]


def test_seed_and_epoch_decide_and_are_not_added(folder: Path) -> None:
    order = "labeled_first"  # in which the plan's kinds are the same in all epochs
    orders = [
        [own(batch) for batch in turns(shards_of(folder, seed=seed, order=order), 2, epoch)]
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert all(left != right for i, left in enumerate(orders) for right in orders[:i])
    assert orders[0] == [own(batch) for batch in turns(shards_of(folder, order=order), 2, 0)]


def test_the_images_are_shuffled_within_and_beyond_a_row_group(folder: Path) -> None:
    stream = [i for batch in turns(shards_of(folder, order="labeled_first"), 1) for i in own(batch)]
    groups = [i // 7 for i in stream[len(LABELED) :]]
    assert groups != sorted(groups)  # the row groups are not in order ...
    switches = sum(a != b for a, b in itertools.pairwise(groups))
    assert switches > len(groups) / 2  # ... nor one after the other


def test_no_byte_of_an_unlabeled_image_is_read_where_they_are_left_out(tmp_path: Path) -> None:
    """The row groups without a label hold no image at all."""
    images = [encoded(i) if i < 14 else b"" for i in range(42)]
    labels = pa.array([i % 2 if i < 14 else None for i in range(42)], pa.int64())
    folder = write(tmp_path / "x", pa.array(images), labels)
    batches = turns(shards_of(folder, skip_unlabeled=True), 2)
    assert {batch.kind for batch in batches} == {LABELED_KIND}
    assert sorted(i for batch in batches for i in own(batch)) == list(range(14))
    with pytest.raises(DataError, match=r"parquet, row group \d, row \d: can't be decoded"):
        turns(shards_of(folder), 2)


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """Images of 30 KB, 20 in a row group: what is held is a row group and a buffer of each kind."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    one, count = file.getvalue(), 600
    labels = pa.array([0 if i % 2 else None for i in range(count)])
    folder = write(tmp_path / "x", pa.array([one] * count), labels, row_group=20)
    # The same bytes again and again would be stored once: plain encoding keeps them apart.
    table = pq.read_table(folder)
    for path in folder.iterdir():
        path.unlink()
    pq.write_table(
        table, folder / "all.parquet", row_group_size=20, use_dictionary=False, compression="none"
    )
    assert (folder / "all.parquet").stat().st_size > count * len(one)
    shards = shards_of(folder, batch_size=4, shuffle_buffer=10)
    held = []
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    for batch in shards:
        held.append(tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before)
        del batch
    tracemalloc.stop()
    assert len(held) == count // 4
    assert max(held) < 2 * (3 * 20 + 2 * 10) * len(one)  # a fraction of the 600 images


@pytest.mark.parametrize("form", ["struct", "large", "text", "categories", "pandas", "minus one"])
def test_columns_as_different_programs_write_them(tmp_path: Path, form: str) -> None:
    images = pa.array([encoded(i) for i in range(N)])
    labels = pa.array(LABELS)
    names = tuple("abcde")
    as_text = pa.array([None if label is None else names[label] for label in LABELS])
    arguments: dict[str, Any] = {}
    if form == "struct":
        images = pa.array([{"bytes": encoded(i), "path": f"{i}.png"} for i in range(N)])
    if form == "large":
        images = images.cast(pa.large_binary())
    if form in ("text", "categories"):
        labels, arguments = as_text, {"class_names": names}
        labels = as_text.dictionary_encode() if form == "categories" else as_text
    if form == "pandas":
        labels = pa.array([np.nan if label is None else float(label) for label in LABELS])
    if form == "minus one":
        labels = labels.fill_null(UNLABELED)
    shards = shards_of(write(tmp_path / "x", images, labels), **arguments)
    assert shards.images == (len(LABELED), len(WITHOUT))
    found = {
        index: target
        for batch in turns(shards, 1)
        for index, target in zip(batch.indices, batch.targets.tolist(), strict=True)
    }
    assert found == {i: UNLABELED if label is None else label for i, label in enumerate(LABELS)}


def test_it_can_be_sent_to_another_process(folder: Path) -> None:
    shards = shards_of(folder)
    shards.set_epoch(2)
    again = pickle.loads(bytes(ForkingPickler.dumps(shards)))
    assert [own(batch) for batch in again] == [own(batch) for batch in turns(shards, 1, 2)]


def test_one_kind_alone_or_no_image_at_all(tmp_path: Path) -> None:
    images, ids = pa.array([encoded(i) for i in range(9)]), pa.array(range(9))
    alone = shards_of(write(tmp_path / "labeled", images, ids))
    assert alone.images == (9, 0)
    assert sorted(i for batch in alone for i in own(batch)) == list(range(9))
    without = shards_of(write(tmp_path / "unlabeled", images, pa.nulls(9)))
    assert without.images == (0, 9)
    assert sorted(i for batch in without for i in own(batch)) == list(range(9))
    empty = shards_of(write(tmp_path / "none", images[:0], ids[:0]))
    assert list(empty) == []


IMAGE = pa.array([encoded(0)])


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        ({"image": IMAGE, "y": [0]}, {}, "column must be in the file, got 'label'. .* has: image, y"),
        ({"image": ["a.png"], "label": [0]}, {}, "'image' must be bytes, or a struct .*, got string"),
        ({"image": IMAGE, "label": ["cat"]}, {}, "class_names must be given .* got none. .* has: cat"),
        (
            {"image": IMAGE, "label": ["cat"]},
            {"class_names": ["dog"]},
            "column 'label' must be one of class_names, got .'cat'",
        ),
        ({"image": IMAGE, "label": [-2]}, {}, r"column 'label' must be classes from 0, got \[-2\]"),
        ({"image": IMAGE, "label": [3]}, {"class_names": ["a"]}, r"must be classes from 0, got \[3\]"),
        ({"image": IMAGE, "label": [0.5]}, {}, "must be classes from 0, or text, got double"),
        ({"image": IMAGE, "label": [[0]]}, {}, "must be classes from 0, or text, got list"),
        ({"image": IMAGE, "label": [0]}, {"last_batch": "pad"}, "last_batch must be partial or drop"),
        ({"image": IMAGE, "label": [0]}, {"shuffle_buffer": 0}, "shuffle_buffer must be at least 1"),
        ({"image": IMAGE, "label": [0]}, {"batch_size": 0}, "batch_size must be a whole number"),
        ({"image": IMAGE, "label": [0]}, {"rank": 1}, r"rank must be in \[0, 1\), got 1"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, columns: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=message) as raised:
        shards_of(tmp_path, **changes)
    assert len(str(raised.value).splitlines()) == 1


def test_files_that_are_not_there_or_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.parquet: can't be read as Parquet \(.*Is the path"):
        shards_of(tmp_path / "nowhere.parquet")
    with pytest.raises(ValueError, match="path must be a Parquet file, or a folder of them"):
        shards_of(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DataError, match="x.parquet: can't be read as Parquet"):
        shards_of(tmp_path)
    pq.write_table(
        pa.table({"image": pa.array([{"bytes": None, "path": "a.png"}],
                                    pa.struct({"bytes": pa.binary(), "path": pa.string()})),
                  "label": [0]}),
        tmp_path / "x.parquet",
    )  # fmt: skip
    with pytest.raises(DataError, match="row group 0, row 0: has no bytes of an image"):
        list(shards_of(tmp_path))
