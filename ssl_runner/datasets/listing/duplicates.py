"""The same image in a listing more than once, told by its content."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ssl_runner.datasets.listing.parts import Parts
from ssl_runner.errors import DataError, shown
from ssl_runner.labels import UNLABELED

# n = listed images


def same_content(
    digests: npt.NDArray[np.bytes_], parts: Parts, name_of: Callable[[int], str]
) -> tuple[str, ...]:
    """Look for images with equal content: with different labels, or in two parts.

    Only images in one of the parts count, and only those with a digest.

    Args:
        digests: A digest of each listed image, a fixed number of bytes (such as S16), shape (n,);
            empty: it could not be read.
        parts: What the listed images are.
        name_of: What to call an image in a message.

    Returns:
        A line for the user for each pair of parts that have content in common, with the count.

    Raises:
        DataError: If equal images have different labels.
    """
    _, content = np.unique(digests, return_inverse=True)
    content = np.where(digests == b"", -1, content)
    named = {"training": parts.train, "test": parts.test}
    if parts.validation is not None:
        named["validation"] = parts.validation
    _refuse_contradictions(content, parts, np.concatenate(list(named.values())), name_of)
    lines = []
    for part, other in (("test", "training"), ("validation", "training"), ("validation", "test")):
        if part in named and other in named:
            shared = _shared(content[named[part]], content[named[other]])
            if len(shared):
                first = name_of(int(named[part][shared[0]]))
                lines.append(
                    f"{len(shared):,} of the {len(named[part]):,} {part} images are {other} images "
                    f"too, by content (the first is {first}): figures on them flatter the model"
                )
    return tuple(lines)


def _shared(content: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions in `content` of what `other` has too."""
    return np.flatnonzero(np.isin(content, other) & (content >= 0))


def _refuse_contradictions(
    content: npt.NDArray[np.int64],
    parts: Parts,
    used: npt.NDArray[np.int64],
    name_of: Callable[[int], str],
) -> None:
    labeled = np.sort(used[(parts.labels[used] != UNLABELED) & (content[used] >= 0)])
    # Equal contents come together, each in the listing's order.
    labeled = labeled[np.argsort(content[labeled], kind="stable")]
    first, second = labeled[:-1], labeled[1:]
    differ = (content[first] == content[second]) & (parts.labels[first] != parts.labels[second])
    if differ.any():
        count = len(np.unique(content[first[differ]]))
        pairs = np.stack([first[differ], second[differ]])
        one, two = (int(index) for index in pairs[:, pairs[0].argmin()])
        texts = [
            f"{name_of(at)} is {shown(parts.class_names[int(parts.labels[at])])}" for at in (one, two)
        ]
        raise DataError(
            f"images with equal content must have equal labels, got {count:,} with different ones: "
            f"{texts[0]} and {texts[1]}. Correct the wrong label, or leave one of them out."
        )
