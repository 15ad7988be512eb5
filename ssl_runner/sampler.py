"""Homogeneous batches for any number of workers: a pure plan of the epoch, and a thin walk along it.

Every batch is wholly labeled or wholly unlabeled, every rank has the same kind at the same step, and
the ranks' slices put together are the batch of a single worker.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch.distributed as dist
from torch.utils.data import Sampler

from ssl_runner.keyed import Permutation, permutation

# n = images of a global batch, W = world_size, r = rank, t = step

UNLABELED = -1
"""The target of an image without a label (scikit-learn's convention)."""

LABELED_KIND, UNLABELED_KIND = 0, 1
Kind = Literal[0, 1]

Pool = np.ndarray | range | Sequence[int]
Order = Literal["interleave", "shuffle", "labeled_first", "paired"]
LastBatch = Literal["partial", "drop", "pad"]

# Streams of random numbers, one per purpose; the pools' own streams are their kinds.
_ORDER_STREAM = 2

# How many steps of the plan are looked at in one go when a whole kind is skipped.
_LOOKAHEAD = 65536

# Pools longer than this are known by a sample of their entries: reading a billion would take seconds.
_DIGEST_ENTRIES = 1 << 17


class GlobalBatch(NamedTuple):
    """The images of one step over all workers."""

    kind: Kind
    indices: np.ndarray  # int64, (n,)


def share(n: int, rank: int, world_size: int) -> tuple[int, int]:
    """The part `[start, stop)` of `n` images that is this rank's; W need not divide n."""
    return n * rank // world_size, n * (rank + 1) // world_size


def _pool_digest(pool: Pool) -> str:
    """Sixteen hex digits of a pool's entries; a long one is known by its length and a sample."""
    if isinstance(pool, range):
        return f"range({pool.start}, {pool.stop}, {pool.step})"
    assert isinstance(pool, np.ndarray)
    step = max(1, len(pool) // _DIGEST_ENTRIES)
    entries = np.ascontiguousarray(pool[::step], dtype="<i8").tobytes()
    return hashlib.sha256(len(pool).to_bytes(8, "little") + entries).hexdigest()[:16]


def _as_pool(pool: Pool, name: str) -> np.ndarray | range:
    if isinstance(pool, range):
        return pool
    array = pool if isinstance(pool, np.ndarray) else np.asarray(pool, dtype=np.int64)
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
    `keyed.EXACT_UP_TO` images.

    Args:
        labeled: Indices of the labeled pool.
        unlabeled: Indices of the unlabeled pool, none of them in the labeled pool.
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
            if value < lowest:
                raise ValueError(f"{name} must be at least {lowest}, got {value}. Try {lowest}.")
        for name, known in (
            ("order", ("interleave", "shuffle", "labeled_first", "paired")),
            ("last_batch", ("partial", "drop", "pad")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")

    @cached_property
    def _batches(self) -> tuple[int, int]:
        """Batches of one passage through each pool."""
        fill = self.batch_size - 1 if self.last_batch != "drop" else 0
        return (
            (len(self.labeled) + fill) // self.batch_size,
            (len(self.unlabeled) + fill) // self.batch_size,
        )

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
        """Random places for the kinds: of all steps (`shuffle`), or in each stretch."""
        return Permutation(len(self), (self.seed, self.epoch, _ORDER_STREAM))

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
        place = start + self._step_order.noise(stretch) % width.astype(np.uint64)
        is_rarer = t == place
        number = np.where(is_rarer, stretch, t - stretch - (t > place))
        kind = is_rarer if rarer == unlabeled else ~is_rarer
        return kind.astype(np.int8), number

    def _batch(self, kind: Kind, number: int) -> np.ndarray:
        """The global batch of this number among those of its kind; int64, (n,)."""
        pool = self.unlabeled if kind == UNLABELED_KIND else self.labeled
        passage, number = divmod(number, self._batches[kind])
        order = permutation(len(pool), (self.seed, self.epoch, kind, passage))
        start, stop = number * self.batch_size, (number + 1) * self.batch_size
        if stop <= len(pool) or self.last_batch == "partial":
            places = order.slice(start, min(stop, len(pool)))
        else:
            places = order.at(np.arange(start, stop) % len(pool))
        if isinstance(pool, range):
            return pool.start + pool.step * places
        assert isinstance(pool, np.ndarray)
        return np.asarray(pool[places], dtype=np.int64)

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
        return next(self.walk(t, t + 1))[1]

    def walk(
        self, start: int, stop: int | None = None, skip_unlabeled: bool = False
    ) -> Iterator[tuple[int, GlobalBatch]]:
        """Each step's number and batch, from `start` on; unlabeled ones may be left out unmade."""
        stop = len(self) if stop is None else stop
        for first in range(start, stop, _LOOKAHEAD):
            steps = np.arange(first, min(first + _LOOKAHEAD, stop))
            kinds, numbers = self._locate(steps)
            if skip_unlabeled:
                labeled = kinds == LABELED_KIND
                steps, kinds, numbers = steps[labeled], kinds[labeled], numbers[labeled]
            for t, kind, number in zip(steps.tolist(), kinds.tolist(), numbers.tolist(), strict=True):
                yield t, GlobalBatch(kind, self._batch(kind, number))

    def labeled_steps(self, start: int = 0) -> int:
        """Labeled steps from `start` to the end of the epoch."""
        return sum(
            int(np.sum(self.kinds(first, min(first + _LOOKAHEAD, len(self))) == LABELED_KIND))
            for first in range(start, len(self), _LOOKAHEAD)
        )

    def fingerprint(self) -> dict[str, str | int]:
        """What the order of the batches depends on, but for the epoch: plain values, one per field."""
        return {
            "labeled": _pool_digest(self.labeled),
            "unlabeled": _pool_digest(self.unlabeled),
            "batch_size": self.batch_size,
            "seed": self.seed,
            "order": self.order,
            "last_batch": self.last_batch,
            "mu": self.mu,
        }


class RankBatch(list[int]):
    """One rank's images of a step: a list of indices that also knows its place.

    Attributes:
        step: Number of the step in the epoch, t.
        kind: `LABELED_KIND` or `UNLABELED_KIND`.
        size: Images in the global batch, n.
        own: How many of them are this rank's, n_r. With none, the list holds one filler image.
        weight: W·n_r/n. The mean loss times this, averaged over ranks as DDP does, is the mean
            over the global batch.
    """

    step: int
    kind: Kind
    size: int
    own: int
    weight: float

    @classmethod
    def cut(cls, step: int, batch: GlobalBatch, rank: int, world_size: int) -> "RankBatch":
        """This rank's slice of a global batch."""
        size = len(batch.indices)
        start, stop = share(size, rank, world_size)
        # Never an empty batch: the rank must take part in the all-reduce. Its weight is 0.
        cut = cls(batch.indices[start : max(stop, start + 1)].tolist() or batch.indices[:1].tolist())
        cut.step, cut.kind, cut.size, cut.own = step, batch.kind, size, stop - start
        cut.weight = world_size * cut.own / size
        return cut


class HomogeneousBatchSampler(Sampler[list[int]]):
    """A batch sampler for `DataLoader(batch_sampler=...)` whose batches are all of one kind.

    Each rank makes its own, with equal arguments, and draws its slice of the same plan. Call
    `set_epoch` before each epoch. After a batch has been trained on, add 1 to `step`, so that
    `state_dict()` says what was consumed and not what a prefetching loader has fetched.

    Args:
        labeled, unlabeled, batch_size, seed, order, last_batch, mu: As in `EpochPlan`; `batch_size`
            is the global batch's, over all ranks.
        num_replicas: Number of ranks, W; by default torch.distributed's, or 1.
        rank: Rank of this process, in [0, W); by default torch.distributed's, or 0.
        skip_unlabeled: Leave the unlabeled batches out of the walk, though they stay in the plan
            and keep their step numbers: for a method that learns nothing from them.

    Yields:
        `RankBatch`, a list of this rank's indices. `share(n, rank, W)` of each global batch; a rank
        with none gets one filler image at weight 0.

    Raises:
        ValueError: If an argument is out of its range.
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
        self.num_replicas = _world_size() if num_replicas is None else num_replicas
        self.rank = _rank() if rank is None else rank
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
        for t, batch in self.plan.walk(self.step, skip_unlabeled=self.skip_unlabeled):
            yield RankBatch.cut(t, batch, self.rank, self.num_replicas)

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


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
