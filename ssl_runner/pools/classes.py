"""Classes as a user names them, and what becomes of those that are not labeled."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_runner.errors import did_you_mean, require
from ssl_runner.labels import UNLABELED
from ssl_runner.pools.settings import RANGE, pieces_of

# N = images, K = classes of the data set, k = labeled ones


def class_numbers(name: str, text: str, class_names: Sequence[str]) -> tuple[int, ...]:
    """The numbers of classes that a setting names.

    Args:
        name: The setting.
        text: Names, numbers from 0 and ranges such as `0-4`, with commas between them. What is a
            name counts as one.
        class_names: Of the data set.

    Returns:
        Rising, each once.

    Raises:
        InputError: If one is unknown, or named twice.
    """
    numbers: list[int] = []
    most = len(class_names) - 1
    for piece in pieces_of(text):
        if piece in class_names:
            found = [list(class_names).index(piece)]
        elif piece.isdecimal():
            found = [int(piece)]
        elif (ends := RANGE.fullmatch(piece)) is not None:
            found = list(range(int(ends[1]), int(ends[2]) + 1))
        else:
            fix = did_you_mean(piece, class_names)
            require(False, name, f"names of classes, or numbers in [0, {most}]", piece, fix)
        fix = f"The last class is {most}, {class_names[most]}."
        require(found[-1] <= most, name, f"of numbers in [0, {most}]", piece, fix)
        twice = sorted(set(found) & set(numbers))
        if twice:
            once = f"{class_names[twice[0]]} ({twice[0]})"
            require(False, name, "without repetition", text, f"Name {once} once.")
        numbers += found
    return tuple(sorted(numbers))


@dataclass(frozen=True)
class Known:
    """The classes that a model knows, and their numbers.

    Attributes:
        numbers: Of the labeled classes in the data set, rising; None: all are labeled.
        names: Of these classes, in the order of the model's outputs.
    """

    numbers: tuple[int, ...] | None
    names: tuple[str, ...]

    def is_one(self, labels_N: np.ndarray) -> np.ndarray:
        """Which images are of a class that it knows, (N,)."""
        if self.numbers is None:
            return np.asarray(labels_N != UNLABELED)
        return np.isin(labels_N, self.numbers)

    def numbered(self, labels_N: np.ndarray) -> np.ndarray:
        """The data set's numbers as the model's: k, one more than any of its classes has, for a class
        that it does not know; `UNLABELED` stays."""
        if self.numbers is None:
            return labels_N
        last = max(int(labels_N.max(initial=0)), max(self.numbers))
        number_of = np.full(last + 2, len(self.numbers), dtype=np.int64)
        number_of[list(self.numbers)] = np.arange(len(self.numbers))
        number_of[UNLABELED] = UNLABELED  # the last place
        return np.asarray(number_of[labels_N])


def known_classes(labeled_classes: str | None, class_names: tuple[str, ...]) -> Known:
    """The classes that a trial labels.

    Raises:
        InputError: If one is unknown or named twice, or there are fewer than two.
    """
    if labeled_classes is None:
        return Known(None, class_names)
    name = "labeled_classes"
    numbers = class_numbers(name, labeled_classes, class_names)
    require(len(numbers) > 1, name, "at least two", labeled_classes, "There is nothing to tell apart.")
    return Known(numbers, tuple(class_names[number] for number in numbers))
