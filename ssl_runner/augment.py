"""Random views of images, batched on the device; the numbers are drawn for the global batch."""

import math

import torch
import torch.nn.functional as F

from ssl_runner.keyed_random import Key, seed_of

# n = images of the global batch, B = images in this rank's batch, C = channels, H and W = height
# and width

WEAK_SHIFT = 2
"""A weak view is shifted by at most so many pixels in each direction."""


WEAK_NUMBERS = 3
"""Random numbers that a weak view takes for each image."""

STRONG_NUMBERS = WEAK_NUMBERS + 7
"""Random numbers that a strong view takes for each image."""

# Each image gets two of these. The geometric ones come last.
_OPERATIONS = (
    *("identity", "autocontrast", "brightness", "contrast", "posterize", "solarize"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
# Their ranges (Sohn et al. 2020, table 12): degrees, shares of the image's side, and for brightness and
# contrast factors.
_ROTATE, _SHEAR, _TRANSLATE, _CUT = 30.0, 0.3, 0.3, 0.5
_FACTOR_LEAST, _FACTOR_MOST = 0.05, 0.95
_BITS_LEAST, _BITS_MOST = 4, 8
_GRAY = 0.5


def draw(key: Key, size: int, start: int, stop: int, numbers: int) -> torch.Tensor:
    """Random numbers for this rank's images, float32 in [0, 1), shape (B, numbers).

    They are drawn for the whole global batch and sliced, so that the number of workers does not
    change them; and always in float32, so that the precision does not.

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


def strong(
    images_BCHW: torch.Tensor, numbers_BM: torch.Tensor, flip: bool, magnitude: float = 1.0
) -> torch.Tensor:
    """A strong view of each image: a weak view, two operations of RandAugment's, and a cut-out.

    As FixMatch has it (Sohn et al. 2020, section 2.3 and table 12; Cubuk et al. 2020 for RandAugment,
    DeVries and Taylor 2017 for the cut-out), with what makes sense on one channel: autocontrast,
    brightness, contrast, posterize, solarize, rotate, shear and translate. An image gets two different
    ones, all equally likely, at a magnitude drawn from the whole range. Left out: color, equalize and
    sharpness. Each operation works on the whole batch, so the geometric ones go first and share one
    resampling with the weak view's; pixels from outside are black. The square that is cut out has a
    side of at most half of the image's, and becomes gray. (torchvision's v2 transforms draw once for a
    whole batch, so all its images would be treated alike.)

    Args:
        images_BCHW: uint8 images.
        numbers_BM: Random numbers in [0, 1), M = `STRONG_NUMBERS` for each image. The view is computed
            in their type.
        flip: Whether images may be mirrored.
        magnitude: The range of each operation and of the cut-out, as a share of FixMatch's, in [0, 1]:
            at 0 the view is the weak one.

    Returns:
        Images in [0, 1], (B, C, H, W), of the numbers' type.
    """
    numbers_BM = numbers_BM.to(images_BCHW.device, non_blocking=True)
    weak_B3, picks_B2, magnitudes_B2, cut_B3 = torch.split(numbers_BM, [WEAK_NUMBERS, 2, 2, 3], dim=1)
    operations = len(_OPERATIONS)
    first_B = (picks_B2[:, 0] * operations).long()
    second_B = (first_B + 1 + (picks_B2[:, 1] * (operations - 1)).long()) % operations
    picked_B2 = torch.stack([first_B, second_B], 1)
    # For each image and operation: NaN, or the magnitude of the operation that was picked.
    magnitude_BO = magnitudes_B2.new_full((len(images_BCHW), operations), math.nan)
    magnitude_BO.scatter_(1, picked_B2, magnitudes_B2)
    geometric = _OPERATIONS.index("rotate")
    moved_BCHW = _moved(images_BCHW, weak_B3, magnitude_BO[:, geometric:], flip, magnitude)
    shaded_BCHW = _shaded(moved_BCHW, magnitude_BO[:, :geometric], magnitude)
    return _cut_out(shaded_BCHW, cut_B3, magnitude)


def _moved(
    images_BCHW: torch.Tensor,
    weak_B3: torch.Tensor,
    magnitude_B5: torch.Tensor,
    flip: bool,
    magnitude: float,
) -> torch.Tensor:
    """Mirrored, shifted, rotated, sheared and translated in one bilinear resampling; float, [0, 1]."""
    _, _, H, W = images_BCHW.shape
    # From [0, 1) to [-1, 1) where picked, else 0.
    signed_B5 = (2 * magnitude_B5 - 1).nan_to_num(0.0) * magnitude
    rotate, shear_x, shear_y, translate_x, translate_y = signed_B5.unbind(1)
    angle, shear_x, shear_y = rotate * math.radians(_ROTATE), shear_x * _SHEAR, shear_y * _SHEAR
    cosine, sine = angle.cos(), angle.sin()
    mirror = torch.where(weak_B3[:, 0] < 0.5, -1.0, 1.0) if flip else torch.ones_like(angle)
    span = 2 * WEAK_SHIFT + 1
    down, right = ((weak_B3[:, 1:] * span).floor() - WEAK_SHIFT).unbind(1)
    # Where each pixel of the view is taken from, in units of half the image: an image that is not
    # square is rotated in pixels, not in these units.
    x = torch.stack([cosine + shear_x * sine, (shear_x * cosine - sine) * (H / W)], 1)
    y = torch.stack([(sine + shear_y * cosine) * (W / H), cosine - shear_y * sine], 1)
    shift_x = -2 * (right / W + translate_x * _TRANSLATE)
    shift_y = -2 * (down / H + translate_y * _TRANSLATE)
    matrix_B23 = torch.stack(
        [
            torch.cat([x * mirror[:, None], (mirror * shift_x)[:, None]], 1),
            torch.cat([y, shift_y[:, None]], 1),
        ],
        1,
    )
    grid_BHW2 = F.affine_grid(matrix_B23, list(images_BCHW.shape), align_corners=False)
    floats_BCHW = images_BCHW.to(matrix_B23.dtype).div_(255)
    return F.grid_sample(floats_BCHW, grid_BHW2, padding_mode="zeros", align_corners=False)


def _shaded(images_BCHW: torch.Tensor, magnitude_B6: torch.Tensor, magnitude: float) -> torch.Tensor:
    """The operations on gray levels, each at its magnitude where it is not NaN."""
    # What is added is 0 at magnitude 1, to the bit.
    weaker = 1 - magnitude
    factor_least = _FACTOR_LEAST + weaker * (1 - _FACTOR_LEAST)
    factor_most = _FACTOR_MOST + weaker * (1 - _FACTOR_MOST)
    bits_least = _BITS_LEAST + round(weaker * (_BITS_MOST - _BITS_LEAST))
    shape = (len(images_BCHW), 1, 1, 1)
    _, autocontrast, brightness, contrast, posterize, solarize = (
        column.view(shape) for column in magnitude_B6.unbind(1)
    )
    least_B111, most_B111 = images_BCHW.amin((1, 2, 3), True), images_BCHW.amax((1, 2, 3), True)
    mean_B111 = images_BCHW.mean((1, 2, 3), keepdim=True)
    # Autocontrast, brightness and contrast are linear: together a factor and a summand for each image.
    least_B111, most_B111 = least_B111 * magnitude, most_B111 * magnitude + weaker
    stretch = torch.where(autocontrast.isnan(), 1.0, 1 / (most_B111 - least_B111).clamp(min=1 / 255))
    stretched = torch.where(autocontrast.isnan(), 0.0, least_B111)
    span = factor_most - factor_least
    darker = (factor_least + span * brightness).nan_to_num(1.0)
    flatter = (factor_least + span * contrast).nan_to_num(1.0)
    factor = stretch * darker
    mean = (mean_B111 - stretched) * factor
    factor = factor * flatter
    summand = (1 - flatter) * mean - stretched * factor
    shaded_BCHW = torch.addcmul(summand, images_BCHW, factor)
    bits = bits_least + ((_BITS_MOST - bits_least + 1) * posterize).floor()
    step = 2.0 ** (8 - bits)
    coarse_BCHW = ((shaded_BCHW * 255).round() / step).floor() * (step / 255)
    shaded_BCHW = torch.where(posterize.isnan(), shaded_BCHW, coarse_BCHW)
    inverted_above = weaker + solarize * magnitude
    return torch.where(shaded_BCHW > inverted_above, 1 - shaded_BCHW, shaded_BCHW)  # never above NaN


def _cut_out(images_BCHW: torch.Tensor, numbers_B3: torch.Tensor, magnitude: float) -> torch.Tensor:
    """A square of each image made gray: its side, and its middle's place down and right."""
    H, W = images_BCHW.shape[2:]
    half_B1 = numbers_B3[:, :1] * (_CUT / 2 * magnitude)
    down_BH, right_BW = (
        (torch.arange(0.5, length, device=images_BCHW.device) - numbers_B3[:, axis : axis + 1] * length)
        .abs()
        .lt(half_B1 * length)
        for axis, length in ((1, H), (2, W))
    )
    return images_BCHW.masked_fill((down_BH[:, :, None] & right_BW[:, None, :])[:, None], _GRAY)
