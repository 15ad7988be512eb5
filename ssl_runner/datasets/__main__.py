"""The command that describes a data set: counts by class, and a picture of some images."""

import sys
from pathlib import Path

from ssl_runner.command import Parser, add_file_flags, run_main
from ssl_runner.config import FIELDS, FILE_FIELDS
from ssl_runner.errors import InputError
from ssl_runner.labels import UNLABELED
from ssl_runner.settings import rule_of
from ssl_runner.study import sweep_from_settings

NO_LABEL = "(no label)"
"""What stands for a class where there is none."""

GRID = 3
"""Rows and columns of the picture."""


def main() -> int:
    """Describe a data set, and save a grid of random training images with their class names."""
    parser = Parser(allow_abbrev=False, prog="python -m ssl_runner.datasets", description=main.__doc__)
    parser.add_argument(
        "dataset", nargs="?", default="fashion_mnist", help=rule_of(FIELDS["dataset"]).help
    )
    parser.add_argument("--data-dir", type=Path, help="folder of its files (or SSL_RUNNER_DATA)")
    parser.add_argument("--seed", type=int, default=0, help="drives which images are drawn")
    parser.add_argument(
        "--label-fraction", type=float, default=0.1, help="show how many keep their label at it"
    )
    parser.add_argument("--picture", type=Path, default=Path("images.png"), help="where to save it")
    parser.add_argument(
        "--clear", action="store_true", help="remove the decoded images of all data sets, and end"
    )
    add_file_flags(parser)
    options = parser.parse_known(sys.argv[1:])
    if options.clear:
        return clear_cache()
    import numpy as np
    from rich.table import Table

    from ssl_runner.datasets import load_dataset
    from ssl_runner.datasets.picture import draw_grid
    from ssl_runner.datasets.settings import DataSettings
    from ssl_runner.report.terminal import wide_console
    from ssl_runner.split import split_labels

    settings = DataSettings(label_fraction=options.label_fraction, split_seed=options.seed)
    fraction = settings.label_fraction
    given = {key: value for key, value in vars(options).items() if key in FILE_FIELDS}
    files = sweep_from_settings(given).files
    dataset = load_dataset(options.dataset, options.data_dir, files=files)
    train, test = dataset.train, dataset.test
    known = np.flatnonzero(train.labels != UNLABELED)
    labeled = known[split_labels(train.labels[known], fraction, options.seed)]
    columns = {"training": train.labels, f"labeled at {fraction:g}": train.labels[labeled]}
    if dataset.validation is not None:
        columns["validation"] = dataset.validation.labels
    columns["test"] = test.labels
    table = Table(title=dataset.name)
    for heading in ("class", *columns):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    names = train.class_names
    if len(known) < len(train):
        names += (NO_LABEL,)  # UNLABELED, -1, is also the last place
    counts = [np.bincount(labels % len(names), minlength=len(names)) for labels in columns.values()]
    for name, *numbers in zip(names, *counts, strict=True):
        table.add_row(name, *(f"{number:,}" for number in numbers))
    table.add_section()
    table.add_row("all", *(f"{number.sum():,}" for number in counts))
    console = wide_console()
    console.print(table)
    channels, height, width = train.images.shape[1:]
    console.print(f"images: {height}×{width}, {channels} channels, uint8; digest {dataset.digest}")
    if dataset.test_fraction is not None:
        console.print(
            f"test: a share of {dataset.test_fraction:.4g} of the labeled images, drawn by class"
        )
    if dataset.left_out:
        console.print(f"left out: {dataset.left_out:,} ({dataset.left_out_why})")
    chosen = np.random.default_rng(options.seed).choice(
        len(train), min(GRID * GRID, len(train)), replace=False
    )
    texts = [names[label] for label in train.labels[chosen]]
    try:
        draw_grid(train.images[chosen], texts, GRID).save(options.picture)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--picture must be a writable picture file, got {str(options.picture)!r} "
            f"({str(error).splitlines()[0]}). Try images.png."
        ) from None
    console.print(f"picture: {options.picture}")
    return 0


def clear_cache() -> int:
    """Remove decoded images, and say how many bytes that were."""
    from ssl_runner.datasets.decoded.store import clear, image_cache

    cleared = clear()
    kept = f"; {cleared.in_use} data sets stay, which are in use" if cleared.in_use else ""
    print(f"removed {cleared.size:,} bytes of decoded images from {image_cache()}{kept}")
    return 0


if __name__ == "__main__":
    run_main(main)
