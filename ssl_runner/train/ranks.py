"""What several processes of a trial share: rank and number, sums, and one plan."""

from typing import Any

import torch
import torch.distributed as dist

from ssl_runner.sampler import HomogeneousBatchSampler


def rank_and_size(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """This process's rank and the number of ranks; without a group, rank 0 of 1."""
    if group is None:
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


def sum_over_ranks(tensor: torch.Tensor, group: dist.ProcessGroup | None) -> torch.Tensor:
    """A tensor summed over the ranks, in place."""
    if group is not None:
        dist.all_reduce(tensor, group=group)
    return tensor


def check_agreement(sampler: HomogeneousBatchSampler, group: dist.ProcessGroup | None) -> None:
    """Check that all ranks follow the same plan: one with more steps would wait forever.

    Raises:
        ValueError: On every rank, if any two differ; says who has what.
    """
    if group is None:
        return
    own = {"epoch": sampler.epoch, "step": sampler.step, "steps": len(sampler.plan)}
    own |= sampler.fingerprint  # type: ignore[arg-type]
    all_of_them: list[dict[str, Any]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(all_of_them, own, group=group)
    differ = [name for name in own if len({other[name] for other in all_of_them}) > 1]
    if differ:
        raise ValueError(
            "all ranks must follow the same plan, got "
            + "; ".join(f"{name} {[other[name] for other in all_of_them]}" for name in differ)
            + " (rank 0 first). Start every rank with equal arguments."
        )
