"""The model on several ranks: DDP, its gradients averaged in shared memory on one machine's CPUs.

gloo hands them on through sockets, and sleeps until they have come: of a small model's step, with a
core for each of two ranks, that took 5 ms of 11.
"""

import mmap
import os
import platform
import secrets
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

# W = ranks, G = bytes of all gradients

_TOKEN_BYTES = 16
_LINE = 64
"""Bytes of a cache line: what one rank writes at every step is not on another's."""

_SPIN_SECONDS = 0.002
_NAP_SECONDS = 0.0001
_PATIENCE_SECONDS = 1800.0
"""How long a rank waits for another, as long as PyTorch's own default for gloo."""


class SharedMean:
    """The mean of a tensor over the ranks, in place: the same bits on every rank.

    Every rank calls it equally often, with equal shapes.

    Args:
        memory: What the ranks share: a token, a counter for each rank, and two times W·G bytes.
        rank: This one.
        world_size: Number of ranks, W.
    """

    def __init__(self, memory: mmap.mmap, rank: int, world_size: int) -> None:
        self.rank, self.world_size, self.calls = rank, world_size, 0
        counters = np.frombuffer(memory, np.int64, world_size * _LINE // 8, offset=_LINE)
        self.counters_W = counters[:: _LINE // 8]
        data = torch.frombuffer(memory, dtype=torch.uint8, offset=_LINE * (1 + world_size))
        self.slots_2WG = data.view(2, world_size, -1)

    def __call__(self, values: torch.Tensor) -> None:
        self.calls += 1
        # Two sets of slots by turns. Who writes to one again has seen all the others in the call
        # between, so they have read it.
        size = values.numel() * values.element_size()
        slots = self.slots_2WG[self.calls % 2, :, :size].view(values.dtype)
        slots[self.rank].copy_(values)
        self._wait()
        torch.add(slots[0], slots[1], out=values)
        for slot in slots[2:]:
            values.add_(slot)
        values.div_(self.world_size)

    def _wait(self) -> None:
        """Until every rank has come as far. A rank that died is the launcher's to see: it ends all."""
        self.counters_W[self.rank] = self.calls
        started = time.monotonic()
        while self.counters_W.min() < self.calls:
            waited = time.monotonic() - started
            if waited > _PATIENCE_SECONDS:
                behind = int(self.counters_W.argmin())
                raise RuntimeError(f"rank {behind} has not come by for {_PATIENCE_SECONDS:g} seconds")
            if waited > _SPIN_SECONDS:
                time.sleep(_NAP_SECONDS)
            else:
                os.sched_yield()


def data_parallel(
    model: nn.Module, device: torch.device, group: dist.ProcessGroup
) -> DistributedDataParallel:
    """The model in DDP; every rank of the group calls this."""
    if device.type == "cuda":
        return DistributedDataParallel(model, device_ids=[device], process_group=group)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    size = sum(weight.numel() * weight.element_size() for weight in learned)
    memory = shared_memory(size, group)
    if memory is None:
        return DistributedDataParallel(model, process_group=group)
    # All gradients at once: the ranks' cores are busy, so nothing is won by starting early.
    parallel = DistributedDataParallel(
        model, process_group=group, bucket_cap_mb=1 + size / 2**20, gradient_as_bucket_view=True
    )
    mean = SharedMean(memory, dist.get_rank(group), dist.get_world_size(group))
    parallel.register_comm_hook(mean, _average)
    return parallel


def _average(mean: SharedMean, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    values = bucket.buffer()
    mean(values)
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(values)
    return done


class _Place(NamedTuple):
    """Where the first rank's memory is to be found, and how it is known to be that."""

    pid: int
    file: int
    token: bytes


def shared_memory(size: int, group: dist.ProcessGroup) -> mmap.mmap | None:
    """Memory for a `SharedMean` of up to `size` bytes, which ends with the last of its users, killed
    or not. None, on every rank, where there is a rank that can't see it, or a processor that may
    show one rank's writes to another in another order.
    """
    rank, world_size = dist.get_rank(group), dist.get_world_size(group)
    is_ordered = platform.machine() in ("x86_64", "AMD64")
    rounded = -(-size // _LINE) * _LINE
    total = _LINE * (1 + world_size) + 2 * world_size * rounded
    place: _Place | None = None
    memory: mmap.mmap | None = None
    if rank == 0 and world_size > 1 and is_ordered and hasattr(os, "memfd_create"):
        place = _Place(os.getpid(), os.memfd_create("gradients"), secrets.token_bytes(_TOKEN_BYTES))
        os.ftruncate(place.file, total)
        memory = mmap.mmap(place.file, total)
        memory[:_TOKEN_BYTES] = place.token
    places: list[_Place | None] = [None] * world_size
    dist.all_gather_object(places, place, group=group)
    first = places[0]
    if rank > 0 and first is not None:
        memory = _opened(first, total)
    seen = [False] * world_size
    dist.all_gather_object(seen, memory is not None, group=group)
    if place is not None:
        os.close(place.file)  # by now whoever can has it open
    return memory if all(seen) else None


def _opened(place: _Place, size: int) -> mmap.mmap | None:
    """Another process's memory; None if it is on another machine, or not to be had."""
    try:
        with Path(f"/proc/{place.pid}/fd/{place.file}").open("r+b") as file:
            memory = mmap.mmap(file.fileno(), size)
    except (OSError, ValueError):
        return None
    return memory if memory[:_TOKEN_BYTES] == place.token else None
