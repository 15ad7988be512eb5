"""Settings: what the two pools hold, beside how many labels there are; by default as they come."""

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from ssl_runner.datasets.settings import DATASETS
from ssl_runner.errors import did_you_mean, require
from ssl_runner.settings import Real, Text, check, setting

MADE_UP = "noise"
"""The foreign images that are made up: they suit every data set."""

RANGE = re.compile(r"(\d+)-(\d+)")
"""Classes by their numbers, the last one included."""

_TAIL = "its k-th class of K, in class order, keeps γ^(−(k−1)/(K−1)) of its images"


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """What the two pools hold: the questions of Oliver et al. (2018, section 4) and those after them.

    Raises:
        InputError: If a setting is out of its range, or two of them contradict each other.
    """

    unlabeled_fraction: Real = setting(
        1.0,
        "share of the unlabeled images that are used, of each class; 0: none, so that every method "
        "learns from labels alone",
        column="share of the unlabeled images that are used, of each class",
        least=0,
        most=1,
        fix="10 % is 0.1.",
    )
    labeled_classes: Text | None = setting(
        None,
        "the classes that are labeled, and so learned and tested, by name or number: '0-4, 6' or "
        "'Coat, Bag'; none: all",
        column="classes that are labeled, learned and tested; null: all",
    )
    unlabeled_classes: Text | None = setting(
        None,
        "the classes of the unlabeled images, labeled ones or others; none: all",
        column="classes of the unlabeled images; null: all",
    )
    labeled_imbalance: Real = setting(
        1.0,
        "γ of a long-tailed labeled pool, the first class's labels to the last one's; 1: as they are",
        column=f"γ of the labeled pool's long tail: {_TAIL}",
        least=1,
        below=math.inf,
        fix="1 leaves the classes as they are; 100 gives the last one a hundredth of its labels.",
    )
    unlabeled_imbalance: Real = setting(
        1.0,
        "γ of a long-tailed unlabeled pool",
        column=f"γ of the unlabeled pool's long tail: {_TAIL}",
        least=1,
        below=math.inf,
        fix="1 leaves the classes as they are; 100 gives the last one a hundredth of its images.",
    )
    label_noise: Real = setting(
        0.0,
        "share of the labels that are flipped to another class; no evaluation label ever is",
        column="share of the labels that are flipped",
        least=0,
        below=1,
        fix="20 % is 0.2.",
    )
    noise_kind: Literal["symmetric", "confusion"] | None = setting(
        None,
        "where to: symmetric (any other class alike) or confusion (the class that looks most alike); "
        "none: symmetric",
        column="where to: symmetric or confusion; null: no label is flipped",
    )
    foreign: Real = setting(
        0.0,
        "share of the unlabeled pool that is replaced by images of another set",
        column="share of the unlabeled pool that is images of another set",
        least=0,
        most=1,
        fix="25 % is 0.25.",
    )
    foreign_images: Text | None = setting(
        None,
        f"which set: {MADE_UP} (made up), digits (resized), or a data set's name with images of the "
        f"same shape; none: {MADE_UP}",
        column="which set those are of; null: there are none",
    )

    def __post_init__(self) -> None:
        check(self)
        for name in ("labeled_classes", "unlabeled_classes"):
            text = getattr(self, name)
            if text is not None:
                check_classes(name, text)
        known = (MADE_UP, *DATASETS)
        named = self.foreign_images
        if named is not None:
            fix = did_you_mean(named, known)
            require(named in known, "foreign_images", "noise or a data set's name", named, fix)
        is_empty = self.unlabeled_fraction == 0 and self.foreign > 0
        fix = "There is no unlabeled pool to be a share of. Raise unlabeled_fraction."
        require(not is_empty, "foreign", "0 with unlabeled_fraction 0", self.foreign, fix)

    def resolved(self) -> "PoolSettings":
        """The same with a value for what depends on another setting, where that is in use."""
        return dataclasses.replace(
            self,
            noise_kind=(self.noise_kind or "symmetric") if self.label_noise else None,
            foreign_images=(self.foreign_images or MADE_UP) if self.foreign else None,
        )

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


OF_OTHERS = {"noise_kind": "label_noise", "foreign_images": "foreign"}
"""Settings that mean something only where the one on the right is more than 0."""


def pieces_of(text: str) -> list[str]:
    """The names, numbers and ranges of a list of classes."""
    return [piece.strip() for piece in text.split(",")]


def check_classes(name: str, text: str) -> None:
    """Refuse what is no list of classes in any data set.

    Raises:
        InputError: With the value.
    """
    pieces = pieces_of(text)
    rule, fix = "classes with a comma between them", "Try '0-4, 6', or their names."
    require(all(pieces), name, rule, text, fix)
    for piece in pieces:
        if (numbers := RANGE.fullmatch(piece)) is not None:
            low, high = int(numbers[1]), int(numbers[2])
            require(low < high, name, "of ranges that rise", piece, f"Try '{high}-{low}'.")
