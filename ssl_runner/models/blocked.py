"""Convolutions in oneDNN's own memory formats, which its pooling and ReLU keep."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

# B = images, C = channels, O = output channels, H and W = height and width


class Conv2d(nn.Conv2d):
    """A convolution of stride 1 whose output stays in oneDNN's memory format, where that is faster.

    The output then has the layout `torch._mkldnn`, which the next convolution, `nn.MaxPool2d` and
    `nn.ReLU` accept and return; `to_dense` converts it back. The function and its gradients are the
    same, also for a pooling window with several maxima: the gradient goes to the first one. Max-pooling
    gains most: PyTorch's own writes an index of 8 bytes for each value, and zeros and then scatters its
    gradient.

    One thing differs: oneDNN's max-pooling and ReLU drop a NaN where PyTorch's propagate it, so the
    training loop must check that the weights are finite.

    In other cases, and in precisions other than fp32 and autocast's bf16, it is `nn.Conv2d`.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The convolution, shape (B, O, H, W)."""
        if not (input.is_mkldnn or _pays(input)):
            return super().forward(input)
        weight, padding = self.weight, self.padding
        assert isinstance(padding, tuple)
        assert self.bias is not None
        if not input.is_mkldnn:
            if _capability() == "AVX2" and self.in_channels == 1 and self.kernel_size[0] == 3:
                # The kernel's rows become channels: for one channel, AVX2's gradient of the weights
                # computes eight; for three, only three.
                padded = F.pad(input, (0, 0, padding[0], padding[0]))
                height = padded.shape[2] - 2
                input = torch.cat([padded[:, :, row : row + height] for row in range(3)], dim=1)
                weight, padding = weight.transpose(1, 2), (0, padding[1])
            if torch.is_autocast_enabled("cpu"):
                input = input.bfloat16()
            input = input.to_mkldnn()
        made: torch.Tensor = _Convolution.apply(input, weight, self.bias, padding)
        return made


def _capability() -> str:
    return torch.backends.cpu.get_cpu_capability()


def _pays(input: torch.Tensor) -> bool:
    """Whether it pays to convert a dense tensor to oneDNN's format."""
    if (
        input.device.type != "cpu"
        or input.dtype != torch.float32
        or torch.compiler.is_compiling()
        or not torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        or not torch.backends.mkldnn.enabled
    ):
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16 and _capability() == "AVX512"
    return _capability() in ("AVX2", "AVX512")


class _Convolution(torch.autograd.Function):
    """Dense float32 weights on images in oneDNN's format, of either precision.

    Autograd has no gradient for a bias with bf16 images in this format.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images_BCHW: torch.Tensor,
        weight: torch.Tensor,
        bias_O: torch.Tensor,
        padding: tuple[int, int],
    ) -> torch.Tensor:
        ctx.save_for_backward(images_BCHW, weight)
        ctx.padding = padding
        if images_BCHW.dtype == torch.bfloat16:
            bias_O = bias_O.bfloat16().to_mkldnn()  # oneDNN rounds the weights itself
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(images_BCHW, weight, bias_O, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BOHW: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        images_BCHW, weight = ctx.saved_tensors
        of_images, of_weight, of_bias = torch.ops.aten.convolution_backward(
            *(gradient_BOHW, images_BCHW, weight, [len(weight)]),
            *([1, 1], ctx.padding, [1, 1], False, [0, 0], 1),
            ctx.needs_input_grad[:3],
        )
        if of_weight is not None:  # DDP's buckets are laid out as the weights are
            of_weight = torch.empty_like(weight).copy_(of_weight)
        return of_images, of_weight, None if of_bias is None else of_bias.float(), None
