"""What to run next, as a command that can be copied."""

import itertools
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssl_runner.datasets.listing.file_images import FileImages
from ssl_runner.label_next.material import Material

_OF_PIXELS = ("image_size", "fit", "channels", "max_bad_images", "max_pixels", "cache_limit")
"""The settings of files that a table of all labels needs as well."""


def merge_command(
    models: Iterable[str],
    dataset: str,
    flags: Mapping[str, Any],
    filled: Path,
    replace: bool,
) -> str:
    """The command that joins a table once it is filled in.

    Args:
        models: The models that were asked.
        dataset: As it was named.
        flags: The other flags that say where data and results are, by name.
        filled: The table.
        replace: Whether its labels are corrections.
    """
    arguments = [*models, "--dataset", dataset, *_as_arguments(flags), "--merge", str(filled)]
    arguments += ["--replace"] if replace else []
    arguments += ["--output", _free_name()]
    return "python -m ssl_runner.label_next " + shlex.join(arguments)


def _free_name() -> str:
    """`labels_2.csv`, or the next number whose file is not there yet: a table of each round."""
    names = (f"labels_{number}.csv" for number in itertools.count(2))
    return next(name for name in names if not Path(name).exists())


def study_command(dataset: str, flags: Mapping[str, Any], material: Material, labels: Path) -> str:
    """The command that trains with a table of all labels.

    Args:
        dataset: As it was named.
        flags: The other flags, by name.
        material: The data set.
        labels: The table.
    """
    data_dir = {name: flags[name] for name in ("data_dir",) if name in flags}
    arguments = ["--dataset", dataset, *_as_arguments(data_dir), "--labels-file", str(labels)]
    if material.listing is not None:
        images = material.listing.encoded
        assert isinstance(images, FileImages)
        pixels = {name: flags[name] for name in _OF_PIXELS if name in flags}
        if images.root != labels.absolute().parent:
            pixels = {"image_dir": images.root} | pixels
        arguments = ["--dataset", str(labels), *_as_arguments(pixels)]
    # A sweep of its own, so that its rows stand beside those with the labels of before.
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", labels.stem).lstrip(".-")[:100]
    arguments += ["--name", name] if name.strip("_.-") else []
    return "python -m ssl_runner.tune " + shlex.join(arguments)


def _as_arguments(flags: Mapping[str, Any]) -> list[str]:
    arguments = []
    for name, value in flags.items():
        values = value if isinstance(value, list | tuple) else [value]
        texts = [str(each).lower() if isinstance(each, bool) else str(each) for each in values]
        arguments += [f"--{name.replace('_', '-')}", *texts]
    return arguments
