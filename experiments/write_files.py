"""Writes Fashion-MNIST out as other people's data come: images in files, most labels missing.

    python -m experiments.write_files images --layout csv
    python -m ssl_runner.tune --dataset images/labels.csv

The labels that stay are those of the built-in partial trial: at equal settings both give the same rows.
"""

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.progress import track

from ssl_runner.command import fail
from ssl_runner.datasets import ImageArrays, load_dataset
from ssl_runner.split import split_labels

ROWS = 10_000
"""Images in a row group of a Parquet file."""


def main() -> None:
    """Write the 70,000 images as PNG files with a CSV, in folders by class, or in Parquet files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--layout", default="csv", choices=("csv", "folders", "parquet"))
    parser.add_argument("--label-fraction", type=float, default=0.1, help="share of labels that stay")
    parser.add_argument("--split-seed", type=int, default=0, help="drives which ones those are")
    parser.add_argument("--images", type=int, help="at most so many training images; none: all")
    options = parser.parse_args()
    if options.folder.exists():
        fail(f"folder must not exist yet, got {str(options.folder)!r}. Name another.")
    dataset = load_dataset("fashion_mnist")
    # Numbered, so that their natural order is that of the built-in set, whatever they are called.
    names = [f"{k} {name.replace('/', '-')}" for k, name in enumerate(dataset.train.class_names)]
    write = {"csv": write_csv, "folders": write_folders, "parquet": write_parquet}[options.layout]
    options.folder.mkdir(parents=True)
    for part, arrays in (("train", dataset.train), ("test", dataset.test)):
        count = min(options.images or len(arrays), len(arrays))
        some = ImageArrays(arrays.images[:count], arrays.labels[:count], arrays.class_names)
        has_label = np.ones(count, bool)
        if part == "train":
            has_label[:] = False
            has_label[split_labels(some.labels, options.label_fraction, options.split_seed)] = True
        write(options.folder, part, some, has_label, names)


def encoded(part: str, arrays: ImageArrays) -> Iterator[bytes]:
    """Each image as a PNG file."""
    for image_CHW in track(arrays.images, description=part, transient=True):
        file = io.BytesIO()
        Image.fromarray(image_CHW[0]).save(file, "PNG", compress_level=1)
        yield file.getvalue()


def write_csv(
    folder: Path, part: str, arrays: ImageArrays, has_label: np.ndarray, names: list[str]
) -> None:
    """Files by number in one folder for each part, and a line for each in `labels.csv`."""
    (folder / part).mkdir()
    table = folder / "labels.csv"
    is_first = not table.exists()
    with table.open("a", encoding="utf-8") as lines:
        if is_first:
            lines.write("file,label,split\n")
        for n, content in enumerate(encoded(part, arrays)):
            file = f"{part}/{n:05}.png"
            (folder / file).write_bytes(content)
            lines.write(f"{file},{names[arrays.labels[n]] if has_label[n] else ''},{part}\n")


def write_folders(
    folder: Path, part: str, arrays: ImageArrays, has_label: np.ndarray, names: list[str]
) -> None:
    """torchvision's ImageFolder: a folder for each class, and one for the images without a label."""
    for name in names if has_label.all() else (*names, "unlabeled"):
        (folder / part / name).mkdir(parents=True)
    for n, content in enumerate(encoded(part, arrays)):
        home = names[arrays.labels[n]] if has_label[n] else "unlabeled"
        (folder / part / home / f"{n:05}.png").write_bytes(content)


def write_parquet(
    folder: Path, part: str, arrays: ImageArrays, has_label: np.ndarray, names: list[str]
) -> None:
    """One Parquet file for each part, the images inside, as text labels or null."""
    labels = [names[k] if known else None for k, known in zip(arrays.labels, has_label, strict=True)]
    table = pa.table({"image": pa.array(encoded(part, arrays), pa.binary()), "label": labels})
    pq.write_table(table, folder / f"{part}-00000.parquet", row_group_size=ROWS)


if __name__ == "__main__":
    main()
