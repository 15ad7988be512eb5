"""A saved model as a program of torch.export, or as ONNX, for any number of images at a time."""

import io
from typing import Literal

import torch
from torch import nn

from ssl_runner.errors import InputError
from ssl_runner.saved_model import SavedModel

# B = images, C = channels, H and W = height and width, K = classes

Format = Literal["torch", "onnx"]

SUFFIXES: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx"}

_EXAMPLES = 2  # one image would be taken for a fixed number


class FromPixels(nn.Module):
    """A model with its preparation inside, so that nobody has to repeat it.

    Args:
        saved: The model.
    """

    def __init__(self, saved: SavedModel) -> None:
        super().__init__()
        self.module = saved.module.float().to(memory_format=torch.contiguous_format)
        self.scale = saved.card.scale

    def forward(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (B, K), of uint8 images."""
        logits_BK: torch.Tensor = self.module(pixels_BCHW.float() / self.scale)
        return logits_BK


def exported(saved: SavedModel, kind: Format) -> bytes:
    """A model for other programs, in fp32: from uint8 images (B, C, H, W) to logits (B, K), for any B
    of at least 1. In ONNX they are named `pixels` and `logits`.

    Args:
        saved: The model; its weights become float32.
        kind: `torch`: a program for `torch.export.load`; `onnx`: for ONNX runtimes.

    Returns:
        The file's content.

    Raises:
        InputError: If a package is missing.
    """
    model = FromPixels(saved).eval()
    example = (torch.zeros(_EXAMPLES, *saved.card.image_shape, dtype=torch.uint8),)
    batch = torch.export.Dim("batch", min=1)
    with torch.no_grad():
        program = torch.export.export(model, example, dynamic_shapes=({0: batch},))
    if kind == "torch":
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        return buffer.getvalue()
    try:
        made = torch.onnx.export(
            program,
            example,
            dynamo=True,
            verbose=False,
            input_names=["pixels"],
            output_names=["logits"],
        )
    except ModuleNotFoundError as error:
        raise InputError(
            f"--format onnx needs the package {error.name!r}. pip install 'ssl_runner[onnx]'."
        ) from None
    assert made is not None
    content: bytes = made.model_proto.SerializeToString()
    return content
