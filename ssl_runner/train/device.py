"""How a device computes: its precision, and its images' form."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

# B = images, C = channels, H and W = height and width


def resolve_precision(precision: str, device: torch.device) -> str:
    """`fp32` or `bf16`; auto is bf16 where the hardware multiplies bf16 natively."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    cpu = torch.cpu
    native = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for a forward pass, or none."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def to_model_input(images_BCHW: torch.Tensor, device: torch.device) -> torch.Tensor:
    """uint8 images as float32 in [0, 1] on the device, channels last."""
    moved = images_BCHW.to(device, non_blocking=True)
    return moved.float().div_(255).contiguous(memory_format=torch.channels_last)
