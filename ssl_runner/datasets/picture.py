"""A picture of some images with a line of text under each."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# n = images, C = channels, H and W = height and width

_SIDE, _LINE, _GAP = 140, 22, 14


def pixels_of(image_CHW: np.ndarray) -> Image.Image:
    """A uint8 image of one channel or three; of any other number of channels, the first."""
    if len(image_CHW) == 3:
        return Image.fromarray(image_CHW.transpose(1, 2, 0))
    return Image.fromarray(image_CHW[0])


def draw_grid(images_nCHW: np.ndarray, texts: Sequence[str], columns: int) -> Image.Image:
    """The images in rows, enlarged without smoothing, each with its text below.

    Args:
        images_nCHW: uint8 images of one channel or three.
        texts: A line for each.
        columns: Images in a row.
    """
    rows = -(-len(texts) // columns)
    width, height = _SIDE + _GAP, _SIDE + _LINE + _GAP
    picture = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for place, (image, text) in enumerate(zip(images_nCHW, texts, strict=True)):
        left, top = _GAP + place % columns * width, _GAP + place // columns * height
        enlarged = pixels_of(image).convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
        picture.paste(enlarged, (left, top))
        pen.text((left, top + _SIDE + 2), text, fill="black", font=font)
    return picture
