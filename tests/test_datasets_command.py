"""`python -m ssl_runner.datasets`: what a data set is, in figures and in a picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_runner.datasets import ImageDataset
from ssl_runner.datasets.__main__ import main
from ssl_runner.datasets.picture import draw_grid
from ssl_runner.testing.processes import Runs
from tests.conftest import Answer


def test_it_counts_the_classes_and_draws_nine_images(
    tmp_path: Path, fashion_mnist: ImageDataset, call: Callable[..., Answer], runs: Runs
) -> None:
    picture = tmp_path / "images.png"
    done = runs.start("ssl_runner.datasets", "--label-fraction", "0.01", "--picture", str(picture))
    done.succeed()
    assert done.stderr == ""
    for name in fashion_mnist.train.class_names:
        (line,) = (line for line in done.stdout.splitlines() if f"│ {name} " in line)
        assert [cell.strip() for cell in line.split("│")[2:5]] == ["6,000", "60", "1,000"]
    assert fashion_mnist.digest in done.stdout
    with Image.open(picture) as image:
        assert min(image.size) > 400
    other = tmp_path / "other.png"
    call(main, "--seed", "1", "--picture", str(other))
    assert other.read_bytes() != picture.read_bytes()


def test_a_grid_shows_its_images_in_order() -> None:
    images = np.stack([np.full((3, 8, 8), level, dtype=np.uint8) for level in (10, 90, 200)])
    drawn = np.asarray(draw_grid(images, ["a", "b", "c"], 2))
    assert drawn[20, 20].tolist() == [10] * 3
    assert drawn[20, 180].tolist() == [90] * 3
    assert drawn[200, 20].tolist() == [200] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fashion_mnits",), "the data set must be a known name, a path, or an import path"),
        (("--label-fraction", "10"), "label_fraction must be in (0, 1], got 10.0. Did you mean 0.10?"),
        (
            ("--picture", "{folder}/no/x.png"),
            "--picture must be a writable picture file, got",
        ),
        (("--picture", "{folder}/x.doc"), "--picture must be a writable picture file"),
        (("--data-dir", "{folder}/nowhere"), ""),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, call: Callable[..., Answer], arguments: tuple[str, ...], message: str
) -> None:
    done = call(main, *(argument.replace("{folder}", str(tmp_path)) for argument in arguments))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert "Traceback" not in done.stderr
