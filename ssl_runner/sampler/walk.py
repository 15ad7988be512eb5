"""A thin walk along the plan of an epoch: the batch sampler, and its rank's slices.

Every batch is wholly labeled or wholly unlabeled, every rank has the same kind at the same step, and
the ranks' slices put together are the batch of a single worker.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch.distributed as dist
from torch.utils.data import Sampler

from ssl_runner.sampler.plan import Block, EpochPlan, Kind, Pool, share
from ssl_runner.sampler.settings import LastBatch, Order

# n = images of a global batch, W = world_size, r = rank, t = step


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
    `set_epoch` before each epoch, and `advance(batch.step)` after a batch has been trained on, so
    that `state_dict()` says what was consumed and not what a prefetching loader has fetched.

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
        self.num_replicas, self.rank = rank_among(num_replicas, rank)
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
        """This rank's batches from `step` to the end of the epoch, without side effects."""
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

    def advance(self, step: int) -> int:
        """Note that a step's batch has been trained on, so that `state_dict()` says so.

        Args:
            step: Its number, `RankBatch.step`.

        Returns:
            How many unlabeled batches were skipped since the last one.
        """
        skipped = step - self.step
        self.step = step + 1
        return skipped

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands: plain values, without rank or number of ranks."""
        return {
            "version": 1,
            "epoch": self.epoch,
            "step": self.step,
            "fingerprint": dict(self.fingerprint),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where another sampler, of any number of ranks, stopped.

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


def rank_among(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """Number of ranks and this process's own, by default as torch.distributed's group has them.

    Raises:
        ValueError: If one is out of its range, or if several processes were started and have no group
            yet to ask.
    """
    if num_replicas is None or rank is None:
        group_rank, group_size = _rank_and_size()
        num_replicas = group_size if num_replicas is None else num_replicas
        rank = group_rank if rank is None else rank
    if num_replicas < 1:
        raise ValueError(f"num_replicas must be at least 1, got {num_replicas}. Try 1.")
    if not 0 <= rank < num_replicas:
        raise ValueError(f"rank must be in [0, {num_replicas}), got {rank}. Ranks count from 0.")
    return num_replicas, rank


def _rank_and_size() -> tuple[int, int]:
    """This process's place in torch.distributed's default group."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    started = os.environ.get("WORLD_SIZE", "1")
    if started != "1":
        # Every process would train on all of the data, as if it were the only one.
        raise ValueError(
            "torch.distributed must be initialized before the sampler is made, got no process group "
            f"and WORLD_SIZE={started}. Call init_process_group first, or pass num_replicas and rank."
        )
    return 0, 1
