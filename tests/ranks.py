"""Functions run on the ranks of a real group of processes, over gloo."""

import dataclasses
import gc
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from ssl_runner.train import TrialData
from ssl_runner.train.device import keep_freed_memory


def over_ranks(
    world_size: int,
    folder: Path,
    work: Callable[..., Any],
    *arguments: Any,
    start_method: str = "forkserver",
) -> list[Any]:
    """What `work(rank, world_size, *arguments)` returns on each rank of a group of processes.

    They are forked from a process that has their imports, made once and not by every rank; `spawn`
    starts them afresh, which the environment of this moment needs to reach them.

    A rank that fails ends the others, and its traceback is raised here; all of them end with this
    process.
    """
    get_context("forkserver").set_forkserver_preload([__name__, "ssl_runner.train.loop"])
    with tempfile.TemporaryDirectory(dir=folder) as own:
        start_processes(  # type: ignore[no-untyped-call]
            _start,
            args=(world_size, own, work, arguments),
            nprocs=world_size,
            daemon=True,
            start_method=start_method,
        )
        return [pickle.loads(Path(own, str(rank)).read_bytes()) for rank in range(world_size)]


def _start(
    rank: int, world_size: int, folder: str, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    try:
        answer = work(rank, world_size, *arguments)
        Path(folder, str(rank)).write_bytes(pickle.dumps(answer))
    finally:
        gc.collect()  # a DDP that outlives its group can end the process with an abort
        dist.destroy_process_group()


def group() -> dist.ProcessGroup | None:
    """The group of all ranks; None where this process is alone."""
    return dist.group.WORLD if dist.is_initialized() else None


def small(data: TrialData) -> TrialData:
    """The same trial with only the images that it uses, cheap to send to another process."""
    used = np.concatenate([data.labeled, data.unlabeled])
    return dataclasses.replace(
        data,
        images_NCHW=data.images_NCHW[used],
        targets_N=data.targets_N[used],
        hidden_N=data.hidden_N[used],
        labeled=np.arange(len(data.labeled)),
        unlabeled=len(data.labeled) + np.arange(len(data.unlabeled)),
    )
