"""The batches of an epoch as a pure function, without state and without workers."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar, cast

import numpy as np

from ssl_runner.keyed_random import EXACT_UP_TO, Permutation, scattered
from ssl_runner.sampler.settings import LastBatch, Order

# n = images of a global batch, W = world_size, r = rank, t = step, M = steps made at once

LABELED_KIND, UNLABELED_KIND = 0, 1
Kind = Literal[0, 1]

Pool = np.ndarray | range | Sequence[int]

# Streams of random numbers, one per purpose; the pools' own streams are their kinds.
_ORDER_STREAM = 2

# Steps of the plan that are located at once, and indices that are made at once: enough for cheap calls,
# few enough for the arrays to stay in a core's cache.
_LOOKAHEAD = 1 << 16
_BLOCK = 1 << 15

# Pools longer than EXACT_UP_TO are identified by about so many of their entries: reading a billion
# would take seconds, and pull a memory-mapped file into memory.
_DIGEST_ENTRIES = 1 << 10

Count = TypeVar("Count", int, np.ndarray)


class GlobalBatch(NamedTuple):
    """The images of one step over all workers."""

    kind: Kind
    indices: np.ndarray  # int64, (n,)


class Located(NamedTuple):
    """Where some steps are among the batches of their kind."""

    kinds: np.ndarray  # int8, (M,)
    numbers: np.ndarray  # int64, (M,): place among the batches of that kind, over all cycles


class Block(NamedTuple):
    """Some of the plan's steps, made at once."""

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
    """Sixteen hex digits of a pool's entries; a long one is identified by its length and a sample."""
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
    `keyed_random.EXACT_UP_TO` images. Duplicates are kept: an index that is in a pool twice, or in
    both pools, comes that often.

    Args:
        labeled: Indices of the labeled pool.
        unlabeled: Indices of the unlabeled pool.
        batch_size: Images in a global batch, n, of either kind.
        seed: Drives the order, with `epoch`.
        epoch: Number of the epoch, from 0.
        order: `interleave` spreads both kinds evenly, each at a random place of its stretch;
            `shuffle` mixes them freely; `labeled_first` starts with the labeled batches; `paired` gives
            one labeled batch and then `mu` unlabeled ones, reshuffling and repeating the labeled
            pool until the unlabeled pool is used up.
        last_batch: What happens to a pool's last images when they do not fill a batch: they make a
            smaller batch (`partial`), are dropped (`drop`), or the batch is filled up from the
            pool's beginning in the same order (`pad`).
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
        """Batches of one cycle through each pool, by kind."""
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
        """The last cycle through each pool, and its order: none is drawn twice on a walk."""
        return {}

    def _pool_order(self, kind: int, cycle: int) -> Permutation:
        """The order of a pool in this cycle."""
        kept = self._pool_orders.get(kind)
        if kept is None or kept[0] != cycle:
            order = Permutation(len(self._pools[kind]), (self.seed, self.epoch, kind, cycle))
            kept = self._pool_orders[kind] = (cycle, order)
        return kept[1]

    def _locate(self, t: np.ndarray) -> Located:
        """Where the steps in `t`, shape (M,), are among the batches of their kind."""
        if not all(self._batches):  # of one kind only, or none: every order is the same
            return self._locate_labeled_first(t)
        locate = {
            "interleave": self._locate_interleaved,
            "shuffle": self._locate_shuffled,
            "labeled_first": self._locate_labeled_first,
            "paired": self._locate_paired,
        }
        return locate[self.order](t)

    def _locate_labeled_first(self, t: np.ndarray) -> Located:
        labeled, _ = self._batches
        is_unlabeled = t >= labeled  # (M,)
        return Located(is_unlabeled.astype(np.int8), t - labeled * is_unlabeled)

    def _locate_shuffled(self, t: np.ndarray) -> Located:
        """As labeled first, with the steps permuted."""
        return self._locate_labeled_first(self._step_order.at(t))

    def _locate_paired(self, t: np.ndarray) -> Located:
        """Groups of a labeled batch and `mu` unlabeled ones."""
        group, member = np.divmod(t, 1 + self.mu)  # (M,) each
        is_unlabeled = member > 0  # (M,)
        numbers = np.where(is_unlabeled, group * self.mu + member - 1, group)
        return Located(is_unlabeled.astype(np.int8), numbers)

    def _locate_interleaved(self, t: np.ndarray) -> Located:
        """The epoch is cut into as many stretches as the rarer kind has batches; each stretch holds
        one of them, at a random place."""
        labeled, unlabeled = self._batches
        rarer = min(labeled, unlabeled)
        stretch = t * rarer // len(self)  # (M,), and so are the others
        start = -(-stretch * len(self) // rarer)
        width = -(-(stretch + 1) * len(self) // rarer) - start
        place = start + scattered(stretch, width, (self.seed, self.epoch, _ORDER_STREAM))
        is_rarer = t == place
        numbers = np.where(is_rarer, stretch, t - stretch - (t > place))
        is_unlabeled = is_rarer if rarer == unlabeled else ~is_rarer
        return Located(is_unlabeled.astype(np.int8), numbers)

    def _rows(self, kind: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The batches of these numbers, shape (M,), among those of their kind: sizes, int64, (M,), and
        indices, int64, (M, width). The pool's last batch continues from the pool's beginning."""
        pool = self._pools[kind]
        cycles, numbers = np.divmod(numbers, self._batches[kind])  # (M,) each
        sizes = np.full(len(numbers), self.batch_size)
        if self.last_batch == "partial":
            sizes = np.minimum(sizes, len(pool) - numbers * self.batch_size)
        places = numbers[:, None] * self.batch_size + np.arange(self._width)  # (M, width)
        places[numbers == self._batches[kind] - 1] %= len(pool)
        for cycle in range(cycles[0], cycles[-1] + 1):  # they only ascend
            first, last = np.searchsorted(cycles, (cycle, cycle + 1))
            places[first:last] = self._pool_order(kind, cycle).at(places[first:last])
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
        return self._locate(np.arange(start, len(self) if stop is None else stop)).kinds

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
        """The steps from `start` to `stop` (or the end); unlabeled ones may be skipped."""
        stop = len(self) if stop is None else stop
        most = -(-_BLOCK // max(1, self._width))
        rows = -(-most // 16)  # a small block first, so that the first batch comes soon
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
        """What the order of the batches depends on, except the epoch: plain values, one per field."""
        return {
            "labeled": _pool_digest(self._pools[LABELED_KIND]),
            "unlabeled": _pool_digest(self._pools[UNLABELED_KIND]),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "order": self.order,
            "last_batch": self.last_batch,
            "mu": self.mu,
        }
