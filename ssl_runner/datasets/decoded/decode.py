"""One encoded image to pixels: what is accepted, what is converted, and what counts as bad."""

import io
import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ssl_runner.datasets.settings import Fit

# C = channels, H and W = height and width

CONVERTED = ("palette", "alpha", "CMYK", "1-bit", "16-bit", "rotated")
"""What an image may be that its pixels are not; it is converted, and the user is told how many."""

_ORIENTATION = 0x0112  # EXIF's tag
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS = tuple(_TURN[orientation] for orientation in (5, 6, 7, 8))  # height and width change places
_KINDS = {
    "P": "palette",
    "LA": "alpha",
    "RGBA": "alpha",
    "CMYK": "CMYK",
    "1": "1-bit",
}
_GRAY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")

# Pillow's own limit on pixels is a global of the process: it is lifted only while an image is opened,
# which reads no pixels, by one thread at a time.
_opening = threading.Lock()


@dataclass(frozen=True)
class Header:
    """What an image says of itself.

    Attributes:
        height, width: In pixels, once it is turned as its EXIF data say.
        gray: It has no colours: one channel, or a palette of grays.
        converted: Which of `CONVERTED` it is.
    """

    height: int
    width: int
    gray: bool
    converted: tuple[str, ...]


@dataclass(frozen=True)
class Bad:
    """Why an image can't be used, in a few words."""

    why: str


@dataclass(frozen=True)
class Decoded:
    """An image's header, and its pixels: uint8, (C, H, W)."""

    header: Header
    pixels_CHW: npt.NDArray[np.uint8]


def header(data: bytes, max_pixels: int) -> Header | Bad:
    """What an encoded image says of itself. Its pixels are not decoded, so they may still be bad.

    Args:
        data: The content of an image file; empty: it could not be read.
        max_pixels: An image of more pixels is bad.
    """
    opened = _open(data, max_pixels)
    return opened if isinstance(opened, Bad) else opened[1]


def decode(
    data: bytes, size: tuple[int, int] | None, fit: Fit, channels: int | None, max_pixels: int
) -> Decoded | Bad:
    """Decode an image, turn it as its EXIF data say, and bring it to a size and a number of channels.

    An image that has the size already keeps its pixels to the bit. Another one is resampled as
    torchvision's `Resize` does it, bilinear with antialiasing; a JPEG of several times the size is
    first decoded at a half, a quarter or an eighth, at least twice the size. Colours become gray by
    luminance (ITU-R 601), 16-bit values lose their lower 8 bits, alpha is left out.

    Args:
        data: The content of an image file; empty: it could not be read.
        size: Height and width; None: its own.
        fit: As in `FileSettings`.
        channels: 1 or 3; None: 1 if it is gray.
        max_pixels: An image of more pixels is bad, and is not decoded.
    """
    opened = _open(data, max_pixels)
    if isinstance(opened, Bad):
        return opened
    image, head, turn = opened
    height, width = size or (head.height, head.width)
    try:
        if image.format == "JPEG":
            least = [2 * pixels for pixels in _scaled(head, height, width, fit)]
            image.draft(None, (least[0], least[1]) if turn in _SWAPS else (least[1], least[0]))
        image.load()
        image = _in_mode(_eight_bits(image), "L" if head.gray else "RGB")
        if channels is not None:
            image = _in_mode(image, "L" if channels == 1 else "RGB")
        if turn is not None:
            image = image.transpose(turn)
        if image.size != (width, height):
            image = _fitted(image, height, width, fit)
    except Exception as error:
        return _bad(error)
    return Decoded(head, _channels_first(image))


def refit(
    pixels_CHW: npt.NDArray[np.uint8], size: tuple[int, int], fit: Fit, channels: int
) -> npt.NDArray[np.uint8]:
    """Bring a decoded image of 1 or 3 channels to a size and a number of channels, as `decode` does."""
    gray = len(pixels_CHW) == 1
    image = Image.fromarray(pixels_CHW[0] if gray else pixels_CHW.transpose(1, 2, 0))
    image = _in_mode(image, "L" if channels == 1 else "RGB")
    height, width = size
    return _channels_first(
        image if image.size == (width, height) else _fitted(image, height, width, fit)
    )


def _channels_first(image: Image.Image) -> npt.NDArray[np.uint8]:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _open(data: bytes, max_pixels: int) -> tuple[Image.Image, Header, Image.Transpose | None] | Bad:
    """The image with its pixels still encoded, its header, and how to turn it once it is decoded."""
    if not data:
        return Bad("it can't be read")
    try:
        with _opening:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(io.BytesIO(data))
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        width, height = image.size
        if width * height > max_pixels:
            return Bad(f"too large: {width * height:,} pixels")
        # An MPO is a photograph with previews behind it.
        frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
        if frames > 1:
            return Bad(f"{'several pages' if image.format == 'TIFF' else 'animated'}: {frames} frames")
        if image.mode == "F":
            return Bad("floating point: its range is unknown")
        kinds = [_KINDS[image.mode]] if image.mode in _KINDS else []
        if ";16" in image.mode or any(";16" in str(tile.args) for tile in image.tile):
            kinds.append("16-bit")
        turn = _turn(image, data)
        if turn is not None:
            kinds.append("rotated")
        if image.format == "TIFF":  # Pillow says its size after the turn, and turns it
            turn = None
        elif turn in _SWAPS:
            width, height = height, width
        gray = image.mode in _GRAY or (image.mode == "P" and _has_gray_palette(image))
    except Exception as error:
        return _bad(error)
    return image, Header(height, width, gray, tuple(kinds)), turn


def _turn(image: Image.Image, data: bytes) -> Image.Transpose | None:
    """What EXIF's orientation asks for. For a PNG, Pillow looks behind the pixels too, which it decodes
    for that: only where there is something to find."""
    if image.format == "PNG" and b"eXIf" not in data and b"adobe.xmp" not in data:
        return None
    return _TURN.get(image.getexif().get(_ORIENTATION, 1))


def _bad(error: Exception) -> Bad:
    """Damaged files make Pillow raise errors of many types."""
    words = " ".join(str(error).split())
    if isinstance(error, UnidentifiedImageError):
        words = "not an image that Pillow knows"
    return Bad(words or type(error).__name__)


def _has_gray_palette(image: Image.Image) -> bool:
    colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _eight_bits(image: Image.Image) -> Image.Image:
    """A gray image of 16 bits as one of 8; any other as it is."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("its values have more than 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    image.info.pop("transparency", None)  # nothing is to be made of it
    return image.convert(mode)


def _scaled(head: Header, height: int, width: int, fit: Fit) -> tuple[int, int]:
    """Height and width of the whole image once it is resampled, before it is cut or padded."""
    if fit == "stretch":
        return height, width
    choose = max if fit == "crop" else min
    scale = choose(height / head.height, width / head.width)
    return max(1, round(head.height * scale)), max(1, round(head.width * scale))


def _fitted(image: Image.Image, height: int, width: int, fit: Fit) -> Image.Image:
    bilinear = Image.Resampling.BILINEAR
    if fit == "stretch":
        return image.resize((width, height), bilinear)
    if fit == "crop":
        scale = max(height / image.height, width / image.width)
        kept_width, kept_height = min(image.width, width / scale), min(image.height, height / scale)
        left, top = (image.width - kept_width) / 2, (image.height - kept_height) / 2
        box = (left, top, left + kept_width, top + kept_height)
        return image.resize((width, height), bilinear, box=box)
    scale = min(height / image.height, width / image.width)
    inner = (
        min(width, max(1, round(image.width * scale))),
        min(height, max(1, round(image.height * scale))),
    )
    padded = Image.new(image.mode, (width, height))
    padded.paste(image.resize(inner, bilinear), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return padded
