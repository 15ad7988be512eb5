"""How a device computes: where the images are kept, their memory format, and the precision."""

import ctypes
import os
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_runner.cache import cache_folder
from ssl_runner.errors import InputError

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

# N = all images, B = images of a batch, C = channels, H and W = height and width


def keep_freed_memory() -> None:
    """Have glibc keep the memory that a step frees for the next one, instead of returning it.

    By default the heap's top is returned whenever some MB are free there. Depending on the heap's
    layout a step may then touch up to 2,000 new pages, which cost up to a quarter of its time, and an
    evaluation twice its time. Without glibc nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the largest that it accepts


def keep_compiler_files() -> None:
    """Have PyTorch's compiler keep its files in our cache folder, not in the temporary one: every
    process that loads it creates that folder, even if nothing is compiled.

    A folder for each kind of CPU: the compiler finds what it made for one with AVX512 on one without
    (PyTorch 2.14), and its results are wrong there, without an error.
    """
    folder = cache_folder("torchinductor") / torch.backends.cpu.get_cpu_capability()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


def seed_generator(seed: int, device: torch.device) -> None:
    """Seed the generators of this device, as `torch.manual_seed` would.

    That function also records a seed and a stack trace for each kind of device that is absent, which
    took a few percent of every step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def resident(rows_N: np.ndarray, device: torch.device) -> np.ndarray | torch.Tensor:
    """An array in the form that the device's batches are gathered from.

    On a GPU with room for it, a copy that stays there, so that a batch is an indexing operation
    and no transfer; elsewhere the array itself, shared and read-only.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if rows_N.nbytes < free / 4:  # the rest is for weights and activations
            return torch.tensor(rows_N, device=device)
    return rows_N


def compile_in_place(model: nn.Module, device: torch.device) -> None:
    """`torch.compile` a model; the names of its weights, and so its checkpoints, stay the same.

    Raises:
        InputError: If there is no C++ compiler for a model on a CPU.
    """
    # As in torch._inductor.config.cpp.cxx; PyTorch's own error has 80 lines.
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and shutil.which(compiler) is None:
        raise InputError(
            f"compile must find a C++ compiler on a CPU, got none at {compiler!r}. Install g++, name "
            "another one in CXX, or leave compile out: on a CPU it rarely pays."
        )
    model.compile()


def resolve_precision(precision: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp64`; auto is bf16 where the hardware multiplies bf16 natively."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    cpu = torch.cpu
    native = cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported()
    return "bf16" if native else "fp32"


def dtype_of(precision: str) -> torch.dtype:
    """The type of weights, images and logits; bf16 is only what a forward pass multiplies in."""
    return torch.float64 if precision == "fp64" else torch.float32


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for a forward pass, or none."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def to_model_input(
    images_BCHW: torch.Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """uint8 images as floats in [0, 1] on the device, channels last."""
    moved = images_BCHW.to(device, non_blocking=True)
    return moved.to(dtype).div_(255).contiguous(memory_format=torch.channels_last)
