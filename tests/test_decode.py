"""One image to pixels: every kind of file, turned, converted, brought to a size, or refused."""

import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssl_runner.datasets.decoded.decode import Bad, Decoded, Header, decode, header
from ssl_runner.datasets.settings import Fit
from tests.encoded import encoded_as, noise

# H and W = height and width, C = channels

PIXELS = 10**6
COLOUR = noise(6, 9)
GRAY = noise(6, 9, channels=1)
DEEP = noise(6, 9, 1, channels=1).astype(np.uint16) * 256 + GRAY
ALPHA = noise(6, 9, channels=4)


def chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    )


def png(depth: int, colour_type: int, rows: np.ndarray, *before: bytes) -> bytes:
    """A PNG by hand, for kinds that Pillow does not write."""
    height, width = rows.shape[:2]
    head = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = (chunk(b"IHDR", head), *before, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def pillow(pixels: np.ndarray, mode: str | None = None) -> Image.Image:
    image = Image.fromarray(pixels)
    return image if mode is None else image.convert(mode)


def decoded(
    data: bytes, size: Any = None, fit: Fit = "crop", channels: int | None = None
) -> np.ndarray:
    """The pixels, (C, H, W); fails for a bad image."""
    outcome = decode(data, size, fit, channels, PIXELS)
    assert isinstance(outcome, Decoded), outcome
    assert outcome.header == header(data, PIXELS)
    assert outcome.pixels_CHW.flags.c_contiguous
    return outcome.pixels_CHW


PALETTE = pillow(COLOUR).quantize(16)
GRAYS = pillow(GRAY).quantize(16)
BITS = pillow(GRAY > 99)
CMYK = pillow(COLOUR).convert("CMYK")
WIDE = np.random.default_rng(0).integers(0, 2**16, (6, 9, 3)).astype(">u2")

KINDS: dict[str, tuple[bytes, np.ndarray, tuple[str, ...]]] = {
    "PNG": (encoded_as(pillow(COLOUR), "PNG"), COLOUR, ()),
    "gray PNG": (encoded_as(pillow(GRAY), "PNG"), GRAY, ()),
    "BMP": (encoded_as(pillow(COLOUR), "BMP"), COLOUR, ()),
    "TIFF": (encoded_as(pillow(COLOUR), "TIFF"), COLOUR, ()),
    "PPM": (encoded_as(pillow(COLOUR), "PPM"), COLOUR, ()),
    "WebP": (encoded_as(pillow(COLOUR), "WEBP", lossless=True), COLOUR, ()),
    "palette PNG": (encoded_as(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB")), ("palette",)),
    "palette PNG with transparency": (
        encoded_as(PALETTE, "PNG", transparency=bytes(range(16))),
        np.asarray(PALETTE.convert("RGB")),
        ("palette",),
    ),
    "GIF": (encoded_as(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB")), ("palette",)),
    "gray palette": (encoded_as(GRAYS, "PNG"), np.asarray(GRAYS.convert("L")), ("palette",)),
    "alpha": (encoded_as(pillow(ALPHA), "PNG"), ALPHA[:, :, :3], ("alpha",)),
    "gray with alpha": (encoded_as(pillow(GRAY, "LA"), "PNG"), GRAY, ("alpha",)),
    "1-bit": (encoded_as(BITS, "PNG"), (GRAY > 99) * np.uint8(255), ("1-bit",)),
    "CMYK": (encoded_as(CMYK, "TIFF"), np.asarray(CMYK.convert("RGB")), ("CMYK",)),
    "16-bit PNG": (encoded_as(pillow(DEEP), "PNG"), DEEP >> 8, ("16-bit",)),
    "16-bit TIFF": (encoded_as(pillow(DEEP), "TIFF"), DEEP >> 8, ("16-bit",)),
    "16-bit PGM": (b"P5 9 6 65535\n" + DEEP.astype(">u2").tobytes(), DEEP >> 8, ("16-bit",)),
    "16-bit colour": (png(16, 2, WIDE), WIDE >> 8, ("16-bit",)),
    "MPO": (  # a photograph with a preview, as telephones write it
        encoded_as(pillow(COLOUR), "MPO", save_all=True, append_images=[pillow(COLOUR)], quality=95),
        np.asarray(Image.open(io.BytesIO(encoded_as(pillow(COLOUR), "JPEG", quality=95)))),
        (),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_pixels(kind: str) -> None:
    data, pixels, converted = KINDS[kind]
    is_gray = pixels.ndim == 2
    assert header(data, PIXELS) == Header(6, 9, is_gray, converted)
    found = decoded(data)
    np.testing.assert_array_equal(found, pixels[None] if is_gray else pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(decoded(data, (6, 9)), found)  # the size that it has


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_in_one_and_in_three_channels(kind: str) -> None:
    data, pixels, _ = KINDS[kind]
    gray, colours = decoded(data, channels=1), decoded(data, channels=3)
    assert (gray.shape, colours.shape) == ((1, 6, 9), (3, 6, 9))
    if pixels.ndim == 2:
        np.testing.assert_array_equal(gray[0], pixels)
        np.testing.assert_array_equal(colours, np.stack([pixels] * 3))
    else:
        luminance = pixels.astype(float) @ [0.299, 0.587, 0.114]
        assert np.abs(gray[0] - luminance).max() < 1


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """What is to be seen, from the definition of EXIF's orientation: where row 0 and column 0 are."""
    height, width = pixels.shape[:2]
    seen = np.empty((width, height, 3) if orientation > 4 else pixels.shape, np.uint8)
    for row in range(height):
        for column in range(width):
            below, right = height - 1 - row, width - 1 - column
            place = {
                1: (row, column),  # top, left
                2: (row, right),  # top, right
                3: (below, right),  # bottom, right
                4: (below, column),  # bottom, left
                5: (column, row),  # left, top
                6: (column, below),  # right, top
                7: (right, below),  # right, bottom
                8: (right, row),  # left, bottom
            }[orientation]
            seen[place] = pixels[row, column]
    return seen


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True})],
)
def test_an_image_is_turned_as_exif_says(orientation: int, kind: str, options: dict[str, Any]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded_as(pillow(COLOUR), kind, exif=exif, **options)
    expected = turned(COLOUR, orientation)
    converted = ("rotated",) if orientation > 1 else ()
    assert header(data, PIXELS) == Header(expected.shape[0], expected.shape[1], False, converted)
    np.testing.assert_array_equal(decoded(data), expected.transpose(2, 0, 1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_before_it_is_made_small(orientation: int) -> None:
    """A JPEG that is decoded at an eighth: its corner stays where it belongs."""
    scene = np.zeros((160, 240, 3), np.uint8)
    scene[:80, :120] = 255  # top left
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded_as(pillow(scene), "JPEG", exif=exif, quality=95)
    expected = turned(scene, orientation)
    height, width = expected.shape[0] // 20, expected.shape[1] // 20
    small = decoded(data, (height, width)).astype(int)
    means = expected.reshape(height, 20, width, 20, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(small - means).max() < 64  # the filter reaches into neighbours
    assert np.abs(small - means)[:, [0, -1]][:, :, [0, -1]].max() < 4  # the corners


def test_a_gray_image_of_16_bits_is_turned() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded_as(pillow(DEEP), "PNG", exif=exif)
    np.testing.assert_array_equal(decoded(data)[0], np.rot90(DEEP >> 8, -1))


def bomb() -> bytes:
    """A gray PNG of 20,000 × 20,000 pixels in few bytes."""
    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    lines = zlib.compress(bytes(20_001) * 16, 9)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", lines), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def frames(kind: str) -> bytes:
    others = [pillow(noise(6, 9, seed)) for seed in (1, 2)]
    return encoded_as(pillow(COLOUR), kind, save_all=True, append_images=others)


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it can't be read"),
    "text": (b"file, label\n", "not an image"),
    "half a signature": (b"\x89PNG\r\n\x1a\n", "not an image"),
    "bomb": (bomb(), "too large: 400,000,000 pixels"),
    "GIF": (frames("GIF"), "animated: 3 frames"),
    "APNG": (frames("PNG"), "animated: 3 frames"),
    "WebP": (frames("WEBP"), "animated: 3 frames"),
    "TIFF": (frames("TIFF"), "several pages: 3 frames"),
    "floats": (encoded_as(pillow(GRAY.astype(np.float32)), "TIFF"), "floating point"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_of_ours_is_bad(kind: str) -> None:
    data, why = BAD[kind]
    found = header(data, PIXELS)
    assert isinstance(found, Bad)
    assert why in found.why
    assert decode(data, (6, 9), "crop", 3, PIXELS) == found


def test_more_than_16_bits_are_bad() -> None:
    data = encoded_as(pillow(GRAY.astype(np.int32) << 16), "TIFF")
    assert decode(data, None, "crop", None, PIXELS) == Bad("its values have more than 16 bits")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_file_cut_anywhere_is_bad_or_whole(kind: str) -> None:
    """Where the missing bytes hold no pixels, the image is whole nevertheless."""
    data = encoded_as(pillow(COLOUR), kind)
    whole = decoded(data)
    bad = 0
    for length in range(len(data)):
        outcome = decode(data[:length], (6, 9), "crop", 3, PIXELS)
        if isinstance(outcome, Bad):
            bad += 1
        else:
            np.testing.assert_array_equal(outcome.pixels_CHW, whole)
    assert bad > 0.9 * len(data) - 20


@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damaged_bytes_never_raise(kind: str, draws: st.DataObject) -> None:
    data = bytearray(KINDS[kind][0])
    for place in draws.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=5)):
        data[place] = draws.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = decode(bytes(data), (4, 4), "crop", 3, PIXELS)
    assert isinstance(outcome, Bad) or outcome.pixels_CHW.shape == (3, 4, 4)


def test_the_limit_on_pixels_is_ours_and_pillows_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded_as(pillow(COLOUR), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # Pillow would refuse it
    assert isinstance(decode(data, None, "crop", None, 54), Decoded)
    assert decode(data, None, "crop", None, 53) == Bad("too large: 54 pixels")
    assert Image.MAX_IMAGE_PIXELS == 10


# --- Sizes

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(SIZES, SIZES, st.sampled_from(["crop", "pad", "stretch"]), st.sampled_from([1, 3]))
def test_an_image_gets_the_size_and_one_colour_stays(
    own: tuple[int, int], size: tuple[int, int], fit: Fit, channels: int
) -> None:
    data = encoded_as(pillow(np.full((*own, 3), 200, np.uint8)), "PNG")
    pixels = decoded(data, size, fit, channels)
    assert pixels.shape == (channels, *size)
    assert set(np.unique(pixels)) <= ({0, 200} if fit == "pad" else {200})
    if fit == "pad":  # as large as it goes, in the middle
        inside = np.argwhere(pixels[0] == 200)
        low, high = inside.min(0), inside.max(0)
        spans = high - low + 1
        assert (spans == size).any()
        assert (np.abs(low - (np.array(size) - 1 - high)) <= 1).all()


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        # 4×8: left half dark, right half light.
        ("stretch", (2, 2), [[0, 200], [0, 200]]),
        ("crop", (4, 4), [[0, 0, 200, 200]] * 4),  # only the middle: nothing is resampled
        ("pad", (8, 8), [[0] * 8] * 2 + [[0] * 4 + [200] * 4] * 4 + [[0] * 8] * 2),
    ],
)
def test_how_a_wide_image_is_fitted(fit: Fit, size: tuple[int, int], expected: list[list[int]]) -> None:
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 4:] = 200
    found = decoded(encoded_as(pillow(pixels), "PNG"), size, fit)[0].astype(int)
    assert np.abs(found - expected).max() <= (40 if fit == "stretch" else 0)


def test_resampling_is_torchvisions() -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    image = pillow(noise(40, 30))
    theirs = resize(image, [10, 12], InterpolationMode.BILINEAR)
    ours = decoded(encoded_as(image, "PNG"), (10, 12), "stretch")
    np.testing.assert_array_equal(ours, np.asarray(theirs).transpose(2, 0, 1))
