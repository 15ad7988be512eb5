"""Homogeneous batches for any number of workers: a pure plan of the epoch, and a thin walk along it.

Every batch is wholly labeled or wholly unlabeled, every rank has the same kind at the same step, and
the ranks' slices put together are the batch of a single worker.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal, NamedTuple, TypeVar, cast

import numpy as np
import torch.distributed as dist
from torch.utils.data import Sampler

from ssl_runner.keyed import EXACT_UP_TO, Permutation, scattered

# n = images of a global batch, W = world_size, r = rank, t = step, M = steps looked at in one go

UNLABELED = -1
"""The target of an image without a label (scikit-learn's convention)."""

LABELED_KIND, UNLABELED_KIND = 0, 1
Kind = Literal[0, 1]

Pool = np.ndarray | range | Sequence[int]
Order = Literal["interleave", "shuffle", "labeled_first", "paired"]
LastBatch = Literal["partial", "drop", "pad"]

# Streams of random numbers, one per purpose; the pools' own streams are their kinds.
_ORDER_STREAM = 2

# Steps of the plan that are looked at in one go, and indices that are made in one go: enough that the
# calls cost little for each, few enough that the arrays stay in a core's cache.
_LOOKAHEAD = 1 << 16
_BLOCK = 1 << 15

# Pools longer than EXACT_UP_TO are known by about so many of their entries: reading a billion would
# take seconds, and pull a memory-mapped file into memory.
_DIGEST_ENTRIES = 1 << 10

Count = TypeVar("Count", int, np.ndarray)


class GlobalBatch(NamedTuple):
    """The images of one step over all workers."""

    kind: Kind
    indices: np.ndarray  # int64, (n,)


class Block(NamedTuple):
    """Some of the plan's steps, made in one go."""

    steps: np.ndarray  # int64, (M,)
    kinds: np.ndarray  # int8, (M,)
    sizes: np.ndarray  # int64, (M,): images of each global batch, n
    indices: np.ndarray  # int64, (M, n or more): one global batch a row, of which the first n count


def share(n: Count, rank: int, world_size: int) -> tuple[Count, Count]:
    """The part `[start, stop)` of `n` images that is this rank's; W need not divide n."""
    return n * rank // world_size, n * (rank + 1) // world_size


def _entries(pool: np.ndarray | range) -> np.ndarray:
    """A pool, or a slice of one, as an array; int64."""
    if isinstance(pool, range):
        return np.arange(pool.start, pool.stop, pool.step)
    return np.ascontiguousarray(pool, dtype=np.int64)


def _pool_digest(pool: np.ndarray | range) -> str:
    """Sixteen hex digits of a pool's entries; a long one is known by its length and a sample."""
    step = 1 if len(pool) <= EXACT_UP_TO else len(pool) // _DIGEST_ENTRIES
    entries = _entries(pool[::step]).astype("<i8", copy=False).tobytes()
    return hashlib.sha256(len(pool).to_bytes(8, "little") + entries).hexdigest()[:16]


def _as_pool(pool: Pool, name: str) -> np.ndarray | range:
    if isinstance(pool, range):
        return pool
    array = pool if isinstance(pool, np.ndarray) else np.asarray(pool)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise ValueError(
            f"{name} must be whole numbers in one dimension, got {array.dtype} of shape {array.shape}. "
            "Pass indices, such as numpy.flatnonzero(mask)."
        )
    return array


@dataclass(frozen=True, kw_only=True, eq=False)
class EpochPlan:
    """The batches of one epoch: a pure function of its fields, with no state and no workers.

    `plan[t]` is step t's kind and global batch, and can be asked for at any t on its own. Pools may
    be arrays, memory-mapped arrays or ranges; memory does not grow with a pool above
    `keyed.EXACT_UP_TO` images. They are taken as they are: an index that stands in a pool twice, or
    in both, comes that often.

    Args:
        labeled: Indices of the labeled pool.
        unlabeled: Indices of the unlabeled pool.
        batch_size: Images in a global batch, n, of either kind.
        seed: Drives the order, with `epoch`.
        epoch: Number of the epoch, from 0.
        order: `interleave` spreads both kinds evenly, each at a random place of its stretch;
            `shuffle` mixes them freely; `labeled_first` does what it says; `paired` gives one
            labeled batch and then `mu` unlabeled ones, the labeled pool reshuffled and started
            again as often as needed until the unlabeled pool is through.
        last_batch: What becomes of a pool's last images when they do not fill a batch: a smaller
            batch (`partial`), nothing (`drop`), or a batch filled up from the pool's beginning
            in the same order (`pad`).
        mu: Unlabeled batches to each labeled one, in the order `paired`.

    Raises:
        ValueError: If a size, seed or policy is out of its range.
    """

    labeled: Pool
    unlabeled: Pool = ()
    batch_size: int
    seed: int = 0
    epoch: int = 0
    order: Order = "interleave"
    last_batch: LastBatch = "partial"
    mu: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "labeled", _as_pool(self.labeled, "labeled"))
        object.__setattr__(self, "unlabeled", _as_pool(self.unlabeled, "unlabeled"))
        for name, lowest in (("batch_size", 1), ("mu", 1), ("seed", 0), ("epoch", 0)):
            value = getattr(self, name)
            if value < lowest or value != int(value):
                raise ValueError(
                    f"{name} must be a whole number of at least {lowest}, got {value}. Try {lowest}."
                )
            object.__setattr__(self, name, int(value))
        for name, known in (
            ("order", ("interleave", "shuffle", "labeled_first", "paired")),
            ("last_batch", ("partial", "drop", "pad")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
        if len(self) * min(self._batches) >= 1 << 63:
            raise ValueError(f"an epoch must have fewer steps, got {len(self)}. Raise batch_size.")

    @cached_property
    def _pools(self) -> tuple[np.ndarray | range, np.ndarray | range]:
        """The pools by kind."""
        return cast(tuple[np.ndarray | range, np.ndarray | range], (self.labeled, self.unlabeled))

    @cached_property
    def _batches(self) -> tuple[int, int]:
        """Batches of one passage through each pool, by kind."""
        fill = self.batch_size - 1 if self.last_batch != "drop" else 0
        labeled, unlabeled = ((len(pool) + fill) // self.batch_size for pool in self._pools)
        return labeled, unlabeled

    @cached_property
    def _width(self) -> int:
        """Images of the largest batch."""
        if self.last_batch == "pad":
            return self.batch_size
        return min(self.batch_size, max(map(len, self._pools)))

    @cached_property
    def _length(self) -> int:
        labeled, unlabeled = self._batches
        if self.order != "paired" or not labeled or not unlabeled:
            return labeled + unlabeled
        return unlabeled + -(-unlabeled // self.mu)

    def __len__(self) -> int:
        """Steps in the epoch."""
        return self._length

    @cached_property
    def _step_order(self) -> Permutation:
        """The order of all steps, for `shuffle`."""
        return Permutation(len(self), (self.seed, self.epoch, _ORDER_STREAM))

    @cached_property
    def _pool_orders(self) -> dict[int, tuple[int, Permutation]]:
        """The last passage through each pool, and its order: none is drawn twice on a walk."""
        return {}

    def _pool_order(self, kind: int, passage: int) -> Permutation:
        """The order in which a pool is gone through in this passage."""
        kept = self._pool_orders.get(kind)
        if kept is None or kept[0] != passage:
            order = Permutation(len(self._pools[kind]), (self.seed, self.epoch, kind, passage))
            kept = self._pool_orders[kind] = (passage, order)
        return kept[1]

    def _locate(self, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Kind of each step in `t`, and the number of the batch among those of its kind."""
        labeled, unlabeled = self._batches
        if not labeled or not unlabeled or self.order == "labeled_first":
            kind = (t >= labeled).astype(np.int8)
            return kind, np.where(kind == LABELED_KIND, t, t - labeled)
        if self.order == "shuffle":
            place = self._step_order.at(t)
            kind = (place >= labeled).astype(np.int8)
            return kind, np.where(kind == LABELED_KIND, place, place - labeled)
        if self.order == "paired":
            group, member = np.divmod(t, 1 + self.mu)
            kind = (member > 0).astype(np.int8)
            return kind, np.where(kind == LABELED_KIND, group, group * self.mu + member - 1)
        # Interleave: the epoch is cut into as many stretches as the rarer kind has batches; each
        # stretch holds one of them, at a random place.
        rarer = min(labeled, unlabeled)
        stretch = t * rarer // len(self)
        start = -(-stretch * len(self) // rarer)
        width = -(-(stretch + 1) * len(self) // rarer) - start
        place = start + scattered(stretch, width, (self.seed, self.epoch, _ORDER_STREAM))
        is_rarer = t == place
        number = np.where(is_rarer, stretch, t - stretch - (t > place))
        kind = is_rarer if rarer == unlabeled else ~is_rarer
        return kind.astype(np.int8), number

    def _rows(self, kind: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The batches of these numbers among those of their kind: sizes, int64, (M,), and indices,
        int64, (M, width). The pool's last batch goes on from the pool's beginning."""
        pool = self._pools[kind]
        passages, numbers = np.divmod(numbers, self._batches[kind])
        sizes = np.full(len(numbers), self.batch_size)
        if self.last_batch == "partial":
            sizes = np.minimum(sizes, len(pool) - numbers * self.batch_size)
        places = numbers[:, None] * self.batch_size + np.arange(self._width)
        places[numbers == self._batches[kind] - 1] %= len(pool)
        for passage in range(passages[0], passages[-1] + 1):  # they only ascend
            first, last = np.searchsorted(passages, (passage, passage + 1))
            places[first:last] = self._pool_order(kind, passage).at(places[first:last])
        if isinstance(pool, range):
            return sizes, pool.start + pool.step * places
        return sizes, np.asarray(pool[places], dtype=np.int64)

    def _block(self, steps: np.ndarray, kinds: np.ndarray, numbers: np.ndarray) -> Block:
        sizes = np.empty(len(steps), dtype=np.int64)
        indices = np.empty((len(steps), self._width), dtype=np.int64)
        for kind in (LABELED_KIND, UNLABELED_KIND):
            rows = np.flatnonzero(kinds == kind)
            if len(rows):
                sizes[rows], indices[rows] = self._rows(kind, numbers[rows])
        return Block(steps, kinds, sizes, indices)

    def kinds(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Kind of each step from `start` to `stop` (or the end); int8."""
        return self._locate(np.arange(start, len(self) if stop is None else stop))[0]

    def __getitem__(self, t: int) -> GlobalBatch:
        """Step t's kind and global batch.

        Raises:
            IndexError: If there is no such step.
        """
        if not 0 <= t < len(self):
            raise IndexError(f"the epoch has {len(self)} steps, and none of number {t}")
        block = next(self.walk(t, t + 1))
        return GlobalBatch(block.kinds.tolist()[0], block.indices[0, : block.sizes[0]])

    def __iter__(self) -> Iterator[GlobalBatch]:
        """Every step's kind and global batch, in order."""
        for block in self.walk():
            rows = zip(block.kinds.tolist(), block.sizes.tolist(), block.indices, strict=True)
            for kind, size, row in rows:
                yield GlobalBatch(kind, row[:size])

    def walk(
        self, start: int = 0, stop: int | None = None, skip_unlabeled: bool = False
    ) -> Iterator[Block]:
        """The steps from `start` to `stop` (or the end); unlabeled ones may be left out unmade."""
        stop = len(self) if stop is None else stop
        most = -(-_BLOCK // max(1, self._width))
        rows = -(-most // 16)  # a small block first, so that the first batch is there soon
        for first in range(start, stop, _LOOKAHEAD):
            steps = np.arange(first, min(first + _LOOKAHEAD, stop))
            kinds, numbers = self._locate(steps)
            if skip_unlabeled:
                labeled = kinds == LABELED_KIND
                steps, kinds, numbers = steps[labeled], kinds[labeled], numbers[labeled]
            row = 0
            while row < len(steps):
                part = slice(row, row + rows)
                yield self._block(steps[part], kinds[part], numbers[part])
                row, rows = row + rows, most

    def labeled_steps(self, start: int = 0) -> int:
        """Labeled steps from `start` to the end of the epoch."""
        passed = sum(
            int(np.sum(self.kinds(first, min(first + _LOOKAHEAD, start)) == LABELED_KIND))
            for first in range(0, start, _LOOKAHEAD)
        )
        return len(self) - self._batches[UNLABELED_KIND] - passed

    def fingerprint(self) -> dict[str, str | int]:
        """What the order of the batches depends on, but for the epoch: plain values, one per field."""
        return {
            "labeled": _pool_digest(self._pools[LABELED_KIND]),
            "unlabeled": _pool_digest(self._pools[UNLABELED_KIND]),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "order": self.order,
            "last_batch": self.last_batch,
            "mu": self.mu,
        }


class RankBatch(list[int]):
    """One rank's images of a step: a list of indices that also knows its place.

    It keeps its attributes on the way to a loader's worker process.

    Attributes:
        step: Number of the step in the epoch, t.
        kind: `LABELED_KIND` or `UNLABELED_KIND`.
        size: Images in the global batch, n.
        start: Place in the global batch of this rank's first image.
        own: How many of them are this rank's, n_r. With none, the list holds one filler image.
        weight: W·n_r/n. The mean loss times this, averaged over ranks as DDP does, is the mean
            over the global batch.
    """

    __slots__ = ("kind", "own", "size", "start", "step", "weight")

    step: int
    kind: Kind
    size: int
    start: int
    own: int
    weight: float

    @classmethod
    def cut(cls, block: Block, rank: int, world_size: int) -> "Iterator[RankBatch]":
        """This rank's slice of each global batch."""
        starts, stops = share(block.sizes, rank, world_size)
        owns = stops - starts
        weights = world_size * owns / block.sizes
        # Never an empty batch: the rank must take part in the all-reduce. Its weight is 0.
        stops = np.maximum(stops, starts + 1)
        # One list for all, of which each batch is a slice: far faster than a list from each row.
        left, right = starts.min(), stops.max()
        indices = block.indices[:, left:right].ravel().tolist()
        offsets = np.arange(len(starts)) * (right - left) - left
        columns = (block.steps, block.kinds, block.sizes, starts, owns, weights)
        slices = (offsets + starts, offsets + stops)
        for step, kind, size, start, own, weight, first, end in zip(
            *(column.tolist() for column in columns + slices), strict=True
        ):
            cut = cls(indices[first:end])
            cut.step, cut.kind, cut.size = step, kind, size
            cut.start, cut.own, cut.weight = start, own, weight
            yield cut


class HomogeneousBatchSampler(Sampler[list[int]]):
    """A batch sampler for `DataLoader(batch_sampler=...)` whose batches are all of one kind.

    Each rank makes its own, with equal arguments, and draws its slice of the same plan. Call
    `set_epoch` before each epoch. After a batch has been trained on, add 1 to `step` (or make it
    `batch.step + 1` where unlabeled batches are skipped), so that `state_dict()` says what was
    consumed and not what a prefetching loader has fetched.

    An ordinary data set drops the batch's attributes. `zip(sampler, loader)` gives each step's own
    `RankBatch` beside what was loaded, for its kind, its step and its weight.

    Args:
        labeled, unlabeled, batch_size, seed, order, last_batch, mu: As in `EpochPlan`; `batch_size`
            is the global batch's, over all ranks.
        num_replicas: Number of ranks, W; by default that of torch.distributed's group, or 1.
        rank: Rank of this process, in [0, W); by default its rank there, or 0.
        skip_unlabeled: Leave the unlabeled batches out of the walk, though they stay in the plan
            and keep their step numbers: for a method that learns nothing from them.

    Yields:
        `RankBatch`, a list of this rank's indices. `share(n, rank, W)` of each global batch; a rank
        with none gets one filler image at weight 0.

    Raises:
        ValueError: If an argument is out of its range, or if several processes were started and
            have no group yet to ask for rank and size.
    """

    def __init__(
        self,
        labeled: Pool,
        unlabeled: Pool = (),
        *,
        batch_size: int,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
        order: Order = "interleave",
        last_batch: LastBatch = "partial",
        mu: int = 1,
        skip_unlabeled: bool = False,
    ) -> None:
        if num_replicas is None or rank is None:
            group_rank, group_size = _rank_and_size()
        self.num_replicas = group_size if num_replicas is None else num_replicas
        self.rank = group_rank if rank is None else rank
        if self.num_replicas < 1:
            raise ValueError(f"num_replicas must be at least 1, got {self.num_replicas}. Try 1.")
        if not 0 <= self.rank < self.num_replicas:
            raise ValueError(
                f"rank must be in [0, {self.num_replicas}), got {self.rank}. Ranks count from 0."
            )
        self.skip_unlabeled = skip_unlabeled
        self.plan = EpochPlan(
            labeled=labeled,
            unlabeled=unlabeled,
            batch_size=batch_size,
            seed=seed,
            order=order,
            last_batch=last_batch,
            mu=mu,
        )
        self.step = 0

    @cached_property
    def fingerprint(self) -> dict[str, str | int]:
        """The plan's fingerprint, worked out once: it is the same in all epochs."""
        return self.plan.fingerprint()

    @property
    def sampler(self) -> "HomogeneousBatchSampler":
        """Itself: Lightning and Accelerate look for `set_epoch` at `batch_sampler.sampler`."""
        return self

    @property
    def epoch(self) -> int:
        """The epoch whose batches come next."""
        return self.plan.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch. In the epoch where the sampler already is, it stays."""
        if epoch != self.epoch:
            self.plan = replace(self.plan, epoch=epoch)
            self.step = 0

    def __iter__(self) -> Iterator[RankBatch]:
        """This rank's batches from `step` to the end of the epoch; asking changes nothing."""
        # Looked up now and not at the first batch, so that an iterator stays in its epoch.
        blocks = self.plan.walk(self.step, skip_unlabeled=self.skip_unlabeled)
        return chain.from_iterable(
            RankBatch.cut(block, self.rank, self.num_replicas) for block in blocks
        )

    def __len__(self) -> int:
        """Batches that are left in this epoch."""
        if self.skip_unlabeled:
            return self.plan.labeled_steps(self.step)
        return len(self.plan) - self.step

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands: plain values, without rank or number of ranks."""
        return {
            "version": 1,
            "epoch": self.epoch,
            "step": self.step,
            "fingerprint": dict(self.fingerprint),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another sampler, of any number of ranks, stopped.

        Raises:
            ValueError: If that sampler's plan was another one; the message says what differs.
        """
        if state.get("version") != 1:
            raise ValueError(
                f"the sampler's state must be of version 1, got {state.get('version')!r}. "
                "It was saved by another release."
            )
        saved, own = state["fingerprint"], self.fingerprint
        differ = [
            f"{name} was {saved.get(name)!r} and is {own.get(name)!r}"
            for name in sorted(own.keys() | saved.keys())
            if saved.get(name) != own.get(name)
        ]
        if differ:
            raise ValueError(
                f"the sampler's state must come from the same plan: {'; '.join(differ)}. "
                "Restore with the settings it was saved under."
            )
        self.plan = replace(self.plan, epoch=state["epoch"])
        self.step = state["step"]


def _rank_and_size() -> tuple[int, int]:
    """This process's place in torch.distributed's default group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    started = os.environ.get("WORLD_SIZE", "1")
    if started != "1":
        # Every process would go through all of the data, as though it were alone.
        raise ValueError(
            "torch.distributed must be initialized before the sampler is made, got no process group "
            f"and WORLD_SIZE={started}. Call init_process_group first, or pass num_replicas and rank."
        )
    return 0, 1
