"""Homogeneous batches streamed from Parquet files that hold the images."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import IterableDataset, get_worker_info

from ssl_runner.errors import DataError, Described, InputError, require
from ssl_runner.image_files import Transform, as_transform, stacked, transformed
from ssl_runner.keyed_random import Permutation, generator
from ssl_runner.labels import UNLABELED
from ssl_runner.loader import Batch
from ssl_runner.sampler import LABELED_KIND, EpochPlan, Order, RankBatch, share
from ssl_runner.sampler.walk import rank_among

# T = steps walked, G = row groups, n = images of a global batch, W = world_size, r = rank

# One stream of random numbers per purpose; the others are the plan's.
_GROUPS_STREAM, _ROWS_STREAM = 10, 11


class _Steps(NamedTuple):
    """The steps of an epoch that are walked."""

    numbers: np.ndarray  # int64, (T,)
    kinds: np.ndarray  # int8, (T,)
    cycles: np.ndarray  # int64, (T,): which time through the kind's images
    sizes: np.ndarray  # int64, (T,): images of each global batch, n


class _Row(NamedTuple):
    """An image as it is stored."""

    place: int
    label: int
    encoded: bytes
    name: str


class ParquetShards(IterableDataset[Batch]):
    """Batches from Parquet files that hold the images, read in row groups.

    `DataLoader(shards, batch_size=None, num_workers=2)` gives them: this rank's, as `Batch`.

    Each batch is wholly labeled or wholly unlabeled, as the sampler's are. Only the labels are read
    beforehand, and counted: with the counts, `EpochPlan` gives the kind and size of each step, and each
    loader process of each rank knows how many images of either kind it will need and where in the
    epoch's order of row groups they begin. Of the sampler's promises it keeps:

    - over all ranks and loader processes, each image comes exactly once in an epoch (with `last_batch`
      `drop`, the images of the last batch don't; with `paired`, the labeled ones come again);
    - at each step all ranks have the same kind, and the same number of steps;
    - a rank has `share(n, r, W)` images of a batch, with the weight W·n_r/n; with none, a filler;
    - the same seed, epoch, ranks and loader processes give the same batches, another seed or epoch
      others.

    It cannot keep:

    - *The same global batches for every world size.* Which images meet in a batch depends on the
      number of ranks and of loader processes: an image is only read by the one that uses it.
    - *A random order over all images.* The row groups are shuffled, then the rows within them, then
      those of a buffer. Write images of all classes into each row group.
    - *Restoring at any step.* A rank can only begin an epoch anew.
    - *Padding the last batch* (`last_batch` `pad`).

    Memory, for each loader process: a row group and a buffer of encoded images, of either kind. A row
    group that holds both kinds is read twice.

    Args:
        paths: A file, a folder of `.parquet` files (taken in order of their names), or several files.
        transform: As in `ImageFiles`.
        batch_size: Images of a global batch, over all ranks.
        image_column: Column of encoded images: bytes, or a struct `{bytes, path}` as Hugging Face's.
        label_column: Column of labels: classes from 0, or text; null or `UNLABELED`: no label.
        class_names: The classes in their order, where the labels are text.
        num_replicas, rank: As in `HomogeneousBatchSampler`.
        seed, order, mu: As in `EpochPlan`.
        last_batch: `partial` or `drop`, as there.
        skip_unlabeled: Leave the unlabeled batches out: no byte of their images is read.
        shuffle_buffer: Images in the buffer, of each kind.
        mode: As in `ImageFiles`.

    Attributes:
        images: Counts of the labeled and the unlabeled images.

    Raises:
        InputError: If a file or column is not there, or of a wrong type; or if a label is no class.
        ValueError: If another argument is out of its range.
    """

    def __init__(
        self,
        paths: str | Path | Sequence[str | Path],
        transform: Transform | str,
        *,
        batch_size: int,
        image_column: str = "image",
        label_column: str = "label",
        class_names: Sequence[str] | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
        order: Order = "interleave",
        last_batch: Literal["partial", "drop"] = "partial",
        mu: int = 1,
        skip_unlabeled: bool = False,
        shuffle_buffer: int = 1024,
        mode: str = "RGB",
    ) -> None:
        require(
            last_batch in ("partial", "drop"), "last_batch", "partial or drop", last_batch, "Try drop."
        )
        require(shuffle_buffer >= 1, "shuffle_buffer", "at least 1", shuffle_buffer, "Try 1024.")
        self.num_replicas, self.rank = rank_among(num_replicas, rank)
        self.transform, self.mode = as_transform(transform), mode
        self.image_column, self.label_column = image_column, label_column
        self.class_names = None if class_names is None else pa.array(class_names, pa.string())
        self.skip_unlabeled, self.shuffle_buffer = skip_unlabeled, shuffle_buffer
        self._files = _files(paths)
        self._groups: list[tuple[int, int, int]] = []  # file, its row group, index of the first row
        counts: list[tuple[int, int]] = []
        rows = 0
        for number, path in enumerate(self._files):
            file = _opened(path)
            self._check_columns(path, file.schema_arrow)
            for group in range(file.num_row_groups):
                labels = self._labels(path, file.read_row_group(group, columns=[label_column]))
                without = int(np.sum(labels == UNLABELED))
                self._groups.append((number, group, rows))
                counts.append((len(labels) - without, without))
                rows += len(labels)
        self._counts = np.array(counts, dtype=np.int64).reshape(-1, 2)  # (G, 2)
        labeled, unlabeled = self._counts.sum(axis=0).tolist()
        self.images = (labeled, unlabeled)
        self.plan = EpochPlan(
            labeled=range(labeled),
            unlabeled=range(unlabeled),
            batch_size=batch_size,
            seed=seed,
            order=order,
            last_batch=last_batch,
            mu=mu,
        )
        # In memory that all processes see, so that loader processes that persist learn of it too.
        self._epoch = torch.zeros((), dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    @property
    def epoch(self) -> int:
        """The epoch whose batches come next."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; before `iter(loader)`, on each rank."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Batches of an epoch: the same on all ranks."""
        return self.plan.labeled_steps() if self.skip_unlabeled else len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        """This rank's batches of the epoch; in a loader process, those of its turn."""
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        return self._walk(self.epoch, worker, workers)

    def _steps(self, epoch: int) -> _Steps:
        plan = replace(self.plan, epoch=epoch)
        kinds = plan.kinds()
        cycles, sizes = np.zeros((2, len(kinds)), dtype=np.int64)
        for kind, images in enumerate(self.images):
            of_kind = np.flatnonzero(kinds == kind)
            fill = plan.batch_size - 1 if plan.last_batch == "partial" else 0
            batches = max(1, (images + fill) // plan.batch_size)
            cycles[of_kind], numbers = np.divmod(np.arange(len(of_kind)), batches)
            sizes[of_kind] = np.minimum(plan.batch_size, images - numbers * plan.batch_size)
        walked = kinds == LABELED_KIND if self.skip_unlabeled else np.ones(len(kinds), dtype=bool)
        return _Steps(np.flatnonzero(walked), kinds[walked], cycles[walked], sizes[walked])

    def _walk(self, epoch: int, worker: int, workers: int) -> Iterator[Batch]:
        steps = self._steps(epoch)
        starts, stops = share(steps.sizes, self.rank, self.num_replicas)
        owns = stops - starts
        turns = np.arange(len(owns)) % workers  # a DataLoader asks its processes in turn
        streams: dict[int, tuple[int, Iterator[_Row]]] = {}
        for place in np.flatnonzero(turns == worker).tolist():
            kind, cycle = int(steps.kinds[place]), int(steps.cycles[place])
            if kind not in streams or streams[kind][0] != cycle:
                among = (steps.kinds == kind) & (steps.cycles == cycle)
                # Before this process's images come those of lower ranks, then of earlier processes.
                first = int(starts[among].sum() + owns[among & (turns < worker)].sum())
                count = int(owns[among & (turns == worker)].sum())
                key = (self.plan.seed, epoch, kind, cycle)
                streams[kind] = cycle, self._stream(key, kind, first, first + count)
            own, size = int(owns[place]), int(steps.sizes[place])
            rows = list(islice(streams[kind][1], own)) or [self._filler(kind)]
            indices = RankBatch(row.place for row in rows)
            indices.step, indices.kind = int(steps.numbers[place]), 1 if kind else 0
            indices.size, indices.start, indices.own = size, int(starts[place]), own
            indices.weight = self.num_replicas * own / size
            yield self._batch(indices, rows)

    def _batch(self, indices: RankBatch, rows: Sequence[_Row]) -> Batch:
        images = [
            transformed(io.BytesIO(row.encoded), row.name, self.transform, self.mode) for row in rows
        ]
        targets = torch.tensor([row.label for row in rows])
        return Batch.of(indices, stacked(images, [row.name for row in rows]), targets)

    def _stream(self, key: tuple[int, ...], kind: int, first: int, last: int) -> Iterator[_Row]:
        """The images of a kind from `first` to `last` in a cycle's order of row groups, shuffled."""
        order = Permutation(len(self._groups), (*key, _GROUPS_STREAM)).at(np.arange(len(self._groups)))
        random = generator((*key, first, _ROWS_STREAM))
        buffer: list[_Row] = []
        for row in self._rows(order, kind, first, last, random):
            if len(buffer) < self.shuffle_buffer:
                buffer.append(row)
                continue
            place = int(random.integers(len(buffer)))
            yield buffer[place]
            buffer[place] = row
        for place in random.permutation(len(buffer)).tolist():
            yield buffer[place]

    def _rows(
        self, order: np.ndarray, kind: int, first: int, last: int, random: np.random.Generator
    ) -> Iterator[_Row]:
        """The images of a kind from `first` to `last` along these row groups, each group shuffled."""
        ends = np.cumsum(self._counts[order, kind])
        begin = np.searchsorted(ends, first, side="right")
        for group, end in zip(order[begin:].tolist(), ends[begin:].tolist(), strict=True):
            start = end - int(self._counts[group, kind])
            if start >= last:
                return
            if start == end:
                continue
            number, group_of_file, base = self._groups[group]
            path = self._files[number]
            table = _opened(path).read_row_group(
                group_of_file, columns=[self._image_leaf(path), self.label_column]
            )
            labels = self._labels(path, table)
            rows = np.flatnonzero((labels == UNLABELED) == bool(kind))
            images = table.column(self.image_column)
            for row in random.permutation(rows[max(0, first - start) : last - start]).tolist():
                name = f"{path}, row group {group_of_file}, row {row}"
                encoded = images[row].as_py()
                if isinstance(encoded, dict):
                    encoded = encoded["bytes"]
                if encoded is None:
                    raise DataError(
                        f"{name}: has no bytes of an image. Write the images into the file."
                    )
                yield _Row(base + row, int(labels[row]), encoded, name)

    def _filler(self, kind: int) -> _Row:
        order = np.arange(len(self._groups))
        return next(self._rows(order, kind, 0, 1, generator((0,))))

    def _image_leaf(self, path: str) -> str:
        kind = _opened(path).schema_arrow.field(self.image_column).type
        return f"{self.image_column}.bytes" if pa.types.is_struct(kind) else self.image_column

    def _check_columns(self, path: str, schema: Any) -> None:
        for name in (self.image_column, self.label_column):
            there = ", ".join(schema.names)
            require(name in schema.names, "column", "in the file", name, f"{path} has: {there}.")
        kind = schema.field(self.image_column).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
        rule, got = "bytes, or a struct {bytes, path}", Described(str(kind))
        require(is_bytes, f"column {self.image_column!r}", rule, got, f"Does {path} hold the images?")

    def _labels(self, path: str, table: Any) -> np.ndarray:
        """The classes of a table's rows, `UNLABELED` where there is none; int64."""
        column = table.column(self.label_column)
        name = f"column {self.label_column!r}"
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_floating(column.type):  # whole numbers with gaps, as pandas writes them
            column = pc.if_else(pc.is_nan(column), None, column)
        is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
        if is_text and self.class_names is None:
            found = ", ".join(sorted(map(str, column.drop_null().unique().to_pylist()))[:10])
            raise InputError(
                f"class_names must be given where labels are text, got none. {path} has: {found}."
            )
        try:
            if is_text:
                classes = pc.index_in(column.cast(pa.string()), self.class_names)
                strays = column.filter(pc.and_(column.is_valid(), classes.is_null()))
                require(
                    not len(strays), name, "one of class_names", strays[:1].to_pylist(), f"In {path}."
                )
            else:
                classes = column.cast(pa.int64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            rule = "classes from 0, or text"
            raise InputError(f"{name} must be {rule}, got {column.type} in {path}.") from None
        labels: np.ndarray = classes.fill_null(UNLABELED).to_numpy().astype(np.int64)
        known = np.inf if self.class_names is None else len(self.class_names)
        strays = labels[(labels < UNLABELED) | (labels >= known)]
        fix = f"{UNLABELED} or null is no label."
        require(not len(strays), name, "classes from 0", strays[:1].tolist(), fix)
        return labels


def _files(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """The files that are meant, in order."""
    several = [paths] if isinstance(paths, str | Path) else list(paths)
    files: list[str] = []
    for path in map(Path, several):
        found = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        rule = "a Parquet file, or a folder of them"
        require(bool(found), "path", rule, str(path), "It holds no .parquet file.")
        files += map(str, found)
    return files


def _opened(path: str) -> Any:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise DataError(f"{path}: can't be read as Parquet ({reason}). Is the path right?") from None
