"""Batch normalization over the images of all ranks, on any device."""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

# B = images in this rank's batch, C = channels, W = ranks; any dimensions may follow the channels


class SyncBatchNorm(_BatchNorm):
    """The function that `nn.BatchNorm2d` (1d, 3d) computes in one process, over the images of all.

    PyTorch's own takes no CPU tensors, and counts every row. Here a rank's rows count or do not: a
    filler image is normalized like the others but enters no mean, variance or running average. The
    ranks may have different numbers of rows. Every rank must call it alike, and go back through it.

    Args:
        norm: The layer whose weights and running averages it shares.
        group: The ranks.

    Attributes:
        counts: Whether the next batch's rows count on this rank.
    """

    def __init__(self, norm: _BatchNorm, group: dist.ProcessGroup) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
        )
        for name, tensor in (*norm.named_parameters(), *norm.named_buffers()):
            setattr(self, name, tensor)
        self.group, self.counts = group, True
        self.train(norm.training)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Any number of dimensions does."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Normalized, in the same shape and type."""
        if not self.training:
            return super().forward(input)
        dtype = torch.promote_types(input.dtype, torch.float32)
        total, mean_C, variance_C = self._moments(input.detach().to(dtype))
        is_one = input.numel() <= self.num_features and int(total) == 1  # a GPU rarely waits for it
        if is_one:
            raise ValueError(
                "batch normalization needs more than one value of a channel to learn from, got one "
                "image of one pixel on all ranks. Try --last-batch pad, or larger images."
            )
        if self.track_running_stats and self.running_mean is not None:
            self._track(total, mean_C, variance_C)
        weight_C = mean_C.new_ones(()) if self.weight is None else self.weight
        bias_C = mean_C.new_zeros(()) if self.bias is None else self.bias
        scale_C = (variance_C + self.eps).rsqrt()
        made: torch.Tensor = _Normalize.apply(
            input,
            weight_C.to(dtype).expand_as(mean_C),
            bias_C.to(dtype).expand_as(mean_C),
            mean_C.to(dtype),
            scale_C.to(dtype),
            total.to(dtype),
            self.counts,
            self.group,
        )
        return made

    def _moments(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values of a channel over all ranks, and their mean and variance, float64, equal on all.

        Each rank's own mean and squared deviations are combined (Chan, Golub and LeVeque 1983), which
        loses no digits where the mean is large.
        """
        dimensions = _all_but_channels(input)
        own = torch.zeros(2 * self.num_features + 1, dtype=torch.float64, device=input.device)
        if self.counts:
            count = input.numel() // self.num_features
            variance_C, mean_C = torch.var_mean(input, dimensions, correction=0)
            own = torch.cat((own.new_tensor([count]), mean_C.double(), variance_C.double() * count))
        all_of_them = [torch.empty_like(own) for _ in range(dist.get_world_size(self.group))]
        dist.all_gather(all_of_them, own, group=self.group)
        sizes = [1, self.num_features, self.num_features]
        counts_W1, means_WC, squares_WC = torch.split(torch.stack(all_of_them), sizes, dim=1)
        total = counts_W1.sum()
        mean_C = (counts_W1 * means_WC).sum(0) / total
        squares_C = (squares_WC + counts_W1 * (means_WC - mean_C).square()).sum(0)
        return total, mean_C, squares_C / total

    def _track(self, total: torch.Tensor, mean_C: torch.Tensor, variance_C: torch.Tensor) -> None:
        """Move the running averages, as PyTorch does."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased_C = variance_C * (total / (total - 1))
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), share)


class _Normalize(torch.autograd.Function):
    """(input − mean) · scale · weight + bias, where mean and scale are those of all ranks' inputs.

    Its gradient is that of the sum of all ranks' losses: DDP divides it by their number, as it does
    with the others. For weight and bias it is this rank's share, which DDP adds up.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: torch.Tensor,
        weight_C: torch.Tensor,
        bias_C: torch.Tensor,
        mean_C: torch.Tensor,
        scale_C: torch.Tensor,
        total: torch.Tensor,
        counts: bool,
        group: dist.ProcessGroup,
    ) -> torch.Tensor:
        ctx.save_for_backward(input, weight_C, mean_C, scale_C, total)
        ctx.counts, ctx.group = counts, group
        slope_C = scale_C * weight_C
        offset_C = bias_C - mean_C * slope_C
        made = input.to(mean_C.dtype) * _aligned(slope_C, input) + _aligned(offset_C, input)
        return made.to(input.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, weight_C, mean_C, scale_C, total = ctx.saved_tensors
        gradient = gradient.to(mean_C.dtype)
        normal = (input.to(mean_C.dtype) - _aligned(mean_C, input)) * _aligned(scale_C, input)
        dimensions = _all_but_channels(input)
        own_2C = torch.stack((gradient.sum(dimensions), (gradient * normal).sum(dimensions)))
        all_2C = own_2C.clone()
        dist.all_reduce(all_2C, group=ctx.group)
        if ctx.counts:  # the rows moved the mean and the variance too
            straight_C, turned_C = all_2C / total
            gradient = gradient - _aligned(straight_C, input) - normal * _aligned(turned_C, input)
        of_input = gradient * _aligned(scale_C * weight_C, input)
        return of_input.to(input.dtype), own_2C[1], own_2C[0], *[None] * 5


def _all_but_channels(tensor: torch.Tensor) -> list[int]:
    return [0, *range(2, tensor.dim())]


def _aligned(values_C: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """Values of channels, in a shape that broadcasts over a tensor."""
    return values_C.view(1, -1, *[1] * (tensor.dim() - 2))


def synchronize(model: nn.Module, group: dist.ProcessGroup) -> None:
    """Put a `SyncBatchNorm` in place of each batch normalization of a model."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    made: dict[nn.Module, SyncBatchNorm] = {}  # a layer may be used in several places
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, kinds):
            if module not in made:
                made[module] = SyncBatchNorm(module, group)
            model.set_submodule(path, made[module])
