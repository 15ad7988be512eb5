"""A data set from a person's own image files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ssl_runner.datasets.arrays import ImageDataset
from ssl_runner.datasets.decoded.make import Wanted, bad_list, find_or_make
from ssl_runner.datasets.decoded.store import MappedDataset, Meta, handle_of
from ssl_runner.datasets.listing.duplicates import same_content
from ssl_runner.datasets.listing.listing import Listing
from ssl_runner.datasets.listing.parts import Parts
from ssl_runner.datasets.settings import FileSettings


def load_files(
    listing: Listing, files: FileSettings, parts: Parts, say: Callable[[str], None]
) -> ImageDataset:
    """Decode the images of a listing, or find them decoded in the cache.

    Args:
        listing: The images.
        files: How they are read.
        parts: Which image goes into which part.
        say: Called with each line for the user.

    Returns:
        The data set. Its images are read-only views of a mapped file: other processes map the same
        one through `handle_of`.

    Raises:
        DataError: If more images than `max_bad_images` can't be decoded, or equal images have different
            labels.
        CacheError: If the cache can't be written: no permission, or the disk is full.
    """
    nothing = np.empty(0, np.int64)
    validation = nothing if parts.validation is None else parts.validation
    order_N = np.concatenate([parts.train, validation, parts.test])
    wanted = Wanted(
        name=listing.name,
        encoded=listing.encoded,
        order_N=order_N,
        labels_N=parts.labels[order_N],
        counts=(
            len(parts.train),
            None if parts.validation is None else len(validation),
            len(parts.test),
        ),
        class_names=parts.class_names,
        files=files,
        compare=lambda digests_n: same_content(digests_n, parts, listing.encoded.name_of),
    )
    entry = find_or_make(wanted, say)
    images, channels, height, width = entry.meta.shape
    say(
        f"{listing.name}: {images:,} images of {height}×{width}, {channels} channels, in {entry.folder}"
    )
    for line in entry.meta.notes:
        say(f"{listing.name}: {line}")
    left_out = dict(parts.left_out)
    if bad := len(entry.meta.bad):
        left_out["can't be decoded"] = bad
        say(f"{listing.name}: {bad:,} images that can't be decoded are left out: {bad_list(wanted)}")
    return MappedDataset(
        folder=str(entry.folder),
        name=listing.name,
        left_out=sum(left_out.values()),
        left_out_why=", ".join(f"{count:,} {why}" for why, count in left_out.items()),
        test_fraction=parts.test_fraction,
    ).dataset(entry)


def listed_rows(dataset: ImageDataset, parts: Parts) -> npt.NDArray[np.int64]:
    """The listed image behind each training image: those that can't be decoded are left out.

    Args:
        dataset: From `load_files`.
        parts: As given to it.
    """
    mapped = handle_of(dataset)
    assert mapped is not None
    bad = [row for row in Meta.read(Path(mapped.folder)).bad if row < len(parts.train)]
    return np.delete(parts.train, bad)
