"""Random views: what each operation does, and that neither workers nor batches change a view.

In float64, but for one test: a level that is rounded the other way can lie on the other side of a step
of posterize or of solarize's threshold.
"""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_runner.augment import STRONG_NUMBERS, WEAK_NUMBERS, WEAK_SHIFT, draw, strong, weak
from ssl_runner.datasets import ImageDataset

# B = images, C = channels, H and W = height and width

# A strong view's numbers: 3 of the weak view, 2 picks, 2 magnitudes, 3 of the cut-out.
_OPERATIONS = (
    *("identity", "autocontrast", "brightness", "contrast", "posterize", "solarize"),
    *("rotate", "shear_x", "shear_y", "translate_x", "translate_y"),
)
NO_SHIFT = 0.5  # of the 5 shifts from -2 to 2 the middle one; and not mirrored
EDGE = 1 - 2**-24  # the largest number that is drawn
assert_close = functools.partial(torch.testing.assert_close, rtol=0, atol=1e-12)


def images(
    seed: int, size: int = 4, height: int = 28, width: int = 28, channels: int = 1
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (size, channels, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def one_operation(name: str, magnitude: float, size: int = 4, cut: float = 0.0) -> torch.Tensor:
    """Numbers of a strong view that does one thing alone, to each image."""
    place = _OPERATIONS.index(name)
    first = (place + 0.5) / len(_OPERATIONS)
    # The second pick counts from the one behind the first: make it the identity.
    second = ((-place - 1) % len(_OPERATIONS) + 0.5) / (len(_OPERATIONS) - 1) if place else 0.0
    other = magnitude if place else 0.0
    picks = [first, second, other, 0.0]
    if not place:
        picks = [first, (_OPERATIONS.index("posterize") - 1 + 0.5) / (len(_OPERATIONS) - 1), 0.0, EDGE]
    row = [NO_SHIFT, NO_SHIFT, NO_SHIFT, *picks, cut, 0.5, 0.5]
    return torch.tensor([row] * size, dtype=torch.float64)


def test_a_weak_view_is_flipped_and_shifted() -> None:
    made = images(0, size=5 * 5 * 2, channels=2)
    grid = [
        (mirror, (down + 0.5) / 5, (right + 0.5) / 5)
        for mirror in (0.25, 0.75)
        for down in range(5)
        for right in range(5)
    ]
    views = weak(made, torch.tensor(grid), True)
    for view, image, (mirror, down, right) in zip(views, made, grid, strict=True):
        source = image.flip(2) if mirror < 0.5 else image
        canvas = torch.zeros(2, 28 + 2 * WEAK_SHIFT, 28 + 2 * WEAK_SHIFT, dtype=torch.uint8)
        y, x = int(down * 5), int(right * 5)
        canvas[:, y : y + 28, x : x + 28] = source
        assert torch.equal(view, canvas[:, WEAK_SHIFT:-WEAK_SHIFT, WEAK_SHIFT:-WEAK_SHIFT])
    unmirrored = weak(made, torch.tensor(grid), False)
    assert torch.equal(unmirrored[25:], views[25:])
    assert torch.equal(unmirrored[:25], weak(made[:25], torch.tensor(grid[25:]), True))


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 14, 3)])
def test_without_an_operation_a_strong_view_is_the_weak_one(shape: tuple[int, int, int]) -> None:
    made = images(1, 25, *shape)
    numbers = one_operation("identity", 0.0, size=25)
    numbers[:, :WEAK_NUMBERS] = draw((3,), 25, 0, 25, WEAK_NUMBERS).double()
    for flip in (True, False):
        expected = weak(made, numbers[:, :WEAK_NUMBERS], flip).double() / 255
        assert_close(strong(made, numbers, flip), expected)


def test_the_operations_on_gray_levels() -> None:
    made = images(2) // 2 + 40  # from 40 to 167
    levels = made.double() / 255
    mean = levels.mean((1, 2, 3), keepdim=True)
    least, most = levels.amin((1, 2, 3), True), levels.amax((1, 2, 3), True)
    for name, magnitude, expected in (
        ("autocontrast", 0.3, (levels - least) / (most - least)),
        ("brightness", 0.5, levels * 0.5),
        ("brightness", 0.0, levels * 0.05),
        ("contrast", 0.25, mean + (levels - mean) * 0.275),
        ("posterize", 0.0, (made // 16 * 16).double() / 255),  # 4 bits
        ("posterize", 0.5, (made // 4 * 4).double() / 255),  # 6 bits
        ("posterize", EDGE, levels),  # 8 bits
        ("solarize", 0.401, torch.where(levels > 0.401, 1 - levels, levels)),
    ):
        view = strong(made, one_operation(name, magnitude), False)
        assert_close(view, expected, msg=f"{name} {magnitude}")


def test_at_half_the_magnitude_gray_levels_change_half_as_far() -> None:
    made = images(2) // 2 + 40  # from 40 to 167
    levels = made.double() / 255
    mean = levels.mean((1, 2, 3), keepdim=True)
    least, most = levels.amin((1, 2, 3), True) / 2, (1 + levels.amax((1, 2, 3), True)) / 2
    for name, number, expected in (
        ("autocontrast", 0.3, (levels - least) / (most - least)),
        ("brightness", 0.5, levels * 0.75),
        ("brightness", 0.0, levels * 0.525),
        ("contrast", 0.25, mean + (levels - mean) * (1 - 0.725 / 2)),
        ("posterize", 0.0, (made // 4 * 4).double() / 255),  # 6 bits
        ("posterize", EDGE, levels),  # 8 bits
        ("solarize", 0.202, torch.where(levels > 0.601, 1 - levels, levels)),
    ):
        view = strong(made, one_operation(name, number), False, magnitude=0.5)
        assert_close(view, expected, msg=f"{name} {number}")


@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
@pytest.mark.parametrize("magnitude", [0.25, 0.5, 1.0])
def test_at_a_lower_magnitude_an_image_moves_less_far(name: str, magnitude: float) -> None:
    for number in (0.0, 0.3, 0.5, EDGE):
        nearer = 0.5 + magnitude * (number - 0.5)
        view = strong(images(3), one_operation(name, number), False, magnitude=magnitude)
        assert_close(view, strong(images(3), one_operation(name, nearer), False))


def test_at_a_lower_magnitude_a_smaller_square_is_cut_out() -> None:
    made = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    numbers = one_operation("identity", 0.0, size=1, cut=EDGE)
    for magnitude, side in ((1.0, 14), (0.5, 6), (0.1, 2)):  # a pixel counts by its middle
        view = strong(made, numbers, False, magnitude=magnitude)
        assert view.sum() == 0.5 * side * side


def test_the_geometric_operations() -> None:
    made = torch.zeros(1, 1, 29, 29, dtype=torch.uint8)
    made[0, 0, 14, 20] = 255  # six to the right of the middle
    for name, magnitude, (row, column) in (
        # 30 degrees, one way and the other: 6 cos 30° = 5.2, 6 sin 30° = 3
        ("rotate", EDGE, (14 - 3, 14 + 5)),
        ("rotate", 0.0, (14 + 3, 14 + 5)),
        ("shear_y", EDGE, (14 - 2, 20)),  # 0.3 of six
        ("translate_x", 0.5 + 5 / 29 / 0.6, (14, 25)),
        ("translate_x", 0.5 - 5 / 29 / 0.6, (14, 15)),
        ("translate_y", 0.5 + 5 / 29 / 0.6, (19, 20)),
    ):
        view = strong(made, one_operation(name, magnitude, size=1), False)
        place = np.unravel_index(int(view.argmax()), (29, 29))
        assert view.max() > 0.3, name
        assert math.dist(place, (row, column)) <= 1, (name, place)
    upright = made.transpose(2, 3).contiguous()
    view = strong(upright, one_operation("shear_x", EDGE, size=1), False)
    assert np.unravel_index(int(view.argmax()), (29, 29))[0] == 20
    assert np.unravel_index(int(view.argmax()), (29, 29))[1] == 14 - 2


def test_a_square_is_cut_out() -> None:
    made = torch.zeros(3, 1, 28, 28, dtype=torch.uint8)
    numbers = one_operation("identity", 0.0, size=3)
    numbers[:, -3:] = torch.tensor(
        [[EDGE, 0.5, 0.5], [EDGE, 0.0, 1.0 - 1e-3], [0.0, 0.5, 0.5]], dtype=torch.float64
    )
    views = strong(made, numbers, False)
    assert (views[0, 0, 7:21, 7:21] == 0.5).all()  # half of the side, in the middle
    assert views[0].sum() == 0.5 * 14 * 14
    assert (views[1, 0, :7, 21:] == 0.5).all()  # what is outside is lost
    assert views[1].sum() == 0.5 * 7 * 7
    assert views[2].sum() == 0


@given(seed=st.integers(0, 100), parts=st.integers(1, 5), flip=st.booleans())
def test_a_rank_s_views_are_its_part_of_the_global_batch_s(seed: int, parts: int, flip: bool) -> None:
    made, key = images(seed, 11, 12, 10), (seed, 7)
    whole = strong(made, draw(key, 11, 0, 11, STRONG_NUMBERS).double(), flip)
    for rank in range(parts):
        start, stop = 11 * rank // parts, 11 * (rank + 1) // parts
        numbers = draw(key, 11, start, stop, STRONG_NUMBERS).double()
        assert_close(strong(made[start:stop], numbers, flip), whole[start:stop])


def test_strong_views_differ_and_stay_images(fashion_mnist: ImageDataset) -> None:
    made = torch.from_numpy(fashion_mnist.train.images[:500].copy())
    numbers, others = (draw((seed,), 500, 0, 500, STRONG_NUMBERS) for seed in (5, 6))
    views = strong(made, numbers, True)
    assert views.dtype == torch.float32
    assert views.shape == made.shape
    assert torch.equal(views, strong(made, numbers, True))
    in_double, again = (strong(made, drawn.double(), True) for drawn in (numbers, others))
    assert in_double.dtype == torch.float64
    assert in_double.min() >= -1e-12
    assert in_double.max() <= 1 + 1e-12
    changed = (in_double - again).abs().amax((1, 2, 3)) > 0.05
    assert changed.double().mean() > 0.97


def test_a_flat_image_survives_autocontrast() -> None:
    made = torch.full((1, 1, 8, 8), 7, dtype=torch.uint8)
    view = strong(made, one_operation("autocontrast", 0.0, size=1), False)
    assert view.isfinite().all()
