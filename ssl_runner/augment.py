"""Random views of images, batched on the device; the numbers are drawn for the global batch."""

import torch

from ssl_runner.keyed import Key, seed_of

# n = images of the global batch, B = images in this rank's batch, C = channels, H and W = height
# and width

WEAK_SHIFT = 2
"""Pixels that a weak view is shifted by, at the most, in each direction."""


def draw(key: Key, size: int, start: int, stop: int, numbers: int) -> torch.Tensor:
    """Random numbers for this rank's images, float32 in [0, 1), shape (B, numbers).

    They are drawn for the whole global batch and cut out, so that the number of workers does not
    change them.

    Args:
        key: What they are for: seed, purpose, epoch, step.
        size: Images in the global batch, n.
        start, stop: This rank's part of it.
        numbers: Random numbers for each image.
    """
    generator = torch.Generator().manual_seed(seed_of(key))
    return torch.rand(size, numbers, generator=generator)[start:stop]


def weak(images_BCHW: torch.Tensor, numbers_B3: torch.Tensor, flip: bool) -> torch.Tensor:
    """A weak view of each image: mirrored or not, and shifted by up to `WEAK_SHIFT` pixels.

    The standard flip-and-shift of FixMatch (Sohn et al. 2020, section 2.3), the shift 7 % of 28
    pixels where the paper has 12.5 % of 32. What is shifted in is black.

    Args:
        images_BCHW: uint8 or float images.
        numbers_B3: Random numbers in [0, 1): for the mirror, the shift down, the shift right.
        flip: Whether images may be mirrored; false for data where left and right matter.
    """
    B, C, H, W = images_BCHW.shape
    device = images_BCHW.device
    numbers_B3 = numbers_B3.to(device, non_blocking=True)
    span = 2 * WEAK_SHIFT + 1
    shift_B2 = (numbers_B3[:, 1:] * span).long() - WEAK_SHIFT
    rows_BH = torch.arange(H, device=device) - shift_B2[:, :1]
    columns_BW = torch.arange(W, device=device) - shift_B2[:, 1:]
    if flip:
        mirrored_B1 = numbers_B3[:, :1] < 0.5
        columns_BW = torch.where(mirrored_B1, W - 1 - columns_BW, columns_BW)
    inside_BHW = ((rows_BH >= 0) & (rows_BH < H))[:, :, None] & ((columns_BW >= 0) & (columns_BW < W))[
        :, None, :
    ]
    places_BHW = rows_BH.clamp(0, H - 1)[:, :, None] * W + columns_BW.clamp(0, W - 1)[:, None, :]
    places_BCN = places_BHW.reshape(B, 1, H * W).expand(B, C, H * W)
    moved_BCN = images_BCHW.reshape(B, C, H * W).gather(2, places_BCN)
    return moved_BCN.view(B, C, H, W) * inside_BHW[:, None]
