"""Settings: which data, how its files are read, and which of its labels are kept."""

from dataclasses import dataclass
from typing import Literal

from ssl_runner.errors import InputError, did_you_mean, require, shown
from ssl_runner.settings import Real, Text, Whole, check, is_import_path, setting

DATASETS = (
    *("fashion_mnist", "digits", "MNIST", "KMNIST", "QMNIST", "EMNIST"),
    *("EMNIST-byclass", "EMNIST-bymerge", "EMNIST-balanced"),
    *("EMNIST-letters", "EMNIST-digits", "EMNIST-mnist"),
    *("USPS", "CIFAR10", "CIFAR100", "SVHN", "STL10"),
)
"""The data sets that have a name."""

SELECTIONS = ("random", "least_confidence", "margin", "entropy", "coreset", "typiclust")
"""The strategies of `ssl_runner.selection` that one model can answer."""


def is_path(dataset: str) -> bool:
    """Whether a data set is named by its file or folder; else it is a known one, or an import path.

    What is in it is known by its digest alone: where it lies, and what it is called, decide nothing.
    """
    return dataset not in DATASETS and not is_import_path(dataset)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which data, and which of its labels are kept.

    Raises:
        InputError: If a setting is out of its range.
    """

    dataset: Text = setting(
        "fashion_mnist",
        "data set: a name, a table of files (.csv, .tsv, .jsonl, .parquet), a folder, or an import "
        "path module:function",
        column="data set, by name, file name or import path",
    )
    subset: Whole | None = setting(
        None,
        "use only so many training images, and the same share of the test images; none: all",
        column="training images used; null: all",
        least=1,
        fix="Leave it out to use all images.",
    )
    label_fraction: Real = setting(1.0, "share of the training images that keep their label")
    split_seed: Whole = setting(0, "drives which images keep their label", least=0, fix="Try 0.")
    selection: Text | None = setting(
        None,
        f"how each round chooses the images to label next: {', '.join(SELECTIONS)}",
        column="how the images to label next are chosen; null: the trial is no round",
    )
    label_budgets: Text | None = setting(
        None,
        "labels of each round up to this one, in images: 100 300 600",
        column="labels of each round up to this one, in images; null: the trial is no round",
    )
    holdout: Whole = setting(
        0,
        "training images set aside for validation; 0: the test images validate",
        least=0,
        fix="0 validates on the test images.",
    )

    def __post_init__(self) -> None:
        share = self.label_fraction / 100  # 10 % is written as 0.10, 12.5 % as 0.125
        share_text = max(f"{share:.2f}", f"{share:g}", key=len)
        fix = f"Did you mean {share_text}?" if 0.01 <= share <= 1 else "10 % is 0.1."
        require(0 < self.label_fraction <= 1, "label_fraction", "in (0, 1]", self.label_fraction, fix)
        check(self)
        if self.selection is not None:
            check_selection(self.selection)
        if self.label_budgets is not None:
            check_budgets("label_budgets", self.budgets)
            fix = "Leave it out: the budgets say how many labels there are."
            share = self.label_fraction
            require(share == 1, "label_fraction", "1 with label_budgets", share, fix)
        both = (self.selection is None) == (self.label_budgets is None)
        require(both, "selection", "given with label_budgets", self.selection, "Give both or neither.")

    @property
    def config(self) -> str:
        """`full`: every training image carries its label. `partial`: only a share of them does.

        Not to be mistaken for the literature's "partial labels", sets of candidate labels.
        """
        return "full" if self.label_fraction == 1 and self.label_budgets is None else "partial"

    @property
    def budgets(self) -> tuple[int, ...]:
        """The labels of each round up to this one; empty where the trial is no round."""
        return read_budgets(self.label_budgets or "")

    @property
    def validation(self) -> str:
        """What the validation figures were taken on: the `test` images or a `holdout`."""
        return "holdout" if self.holdout else "test"


def check_selection(selection: str) -> None:
    """Refuse a strategy that is not known, or that one model can't answer.

    Raises:
        InputError: With the nearest known name, or the reason.
    """
    if selection == "disagreement":
        raise InputError(
            "a selection must be one that one model can answer, got 'disagreement', which needs "
            "several. Try margin."
        )
    rule, fix = f"one of {', '.join(SELECTIONS)}", did_you_mean(selection, SELECTIONS)
    require(selection in SELECTIONS, "a selection", rule, selection, fix)


def check_budgets(name: str, budgets: tuple[int, ...]) -> None:
    """Refuse budgets that do not rise from at least 1.

    Raises:
        InputError: With the values.
    """
    rises = all(low < high for low, high in zip((0, *budgets), budgets, strict=False))
    if not budgets or not rises:
        better = sorted({budget for budget in budgets if budget > 0}) or [100, 300, 600]
        raise InputError(
            f"{name} must be numbers of labels that rise, at least 1, got {shown(list(budgets))}. "
            f"Try {shown(better)}."
        )


def budgets_text(budgets: tuple[int, ...]) -> str:
    """Budgets as the one text that names them."""
    return " ".join(map(str, budgets))


def read_budgets(text: str) -> tuple[int, ...]:
    """The inverse of `budgets_text`.

    Raises:
        InputError: For a text that it does not give.
    """
    numbers = tuple(int(word) for word in text.split() if word.isdecimal())
    rule, fix = "whole numbers with a space between them", "Try '100 300 600'."
    require(budgets_text(numbers) == text, "label_budgets", rule, text, fix)
    return numbers


Fit = Literal["crop", "pad", "stretch"]


@dataclass(frozen=True, kw_only=True)
class FileSettings:
    """How a data set's own files are read. What comes of it is known by its content, so these are
    not part of a trial's identity.

    Raises:
        InputError: If a setting is out of its range.
    """

    labels_file: Text | None = setting(
        None,
        "labels of a named data set's training images in place of its own: a table with columns index "
        "(from 0) and label; the others have none",
    )
    image_dir: Text | None = setting(
        None, "folder that the files named in a table are in; none: the table's own"
    )
    file_column: Text | None = setting(
        None,
        "a table's column of files, or of images: a name, or a position from 0; none: found by name",
    )
    label_column: Text | None = setting(
        None, "its column of labels, by name or position; none: found by name"
    )
    split_column: Text | None = setting(
        None, "its column of parts (train, validation, test; or true for train); none: found by name"
    )
    header: bool = setting(True, "whether a table's first line has the names of its columns")
    encoding: Text = setting("utf-8", "encoding of a table of text")
    unlabeled_marker: Text | None = setting(
        None, "a label that means that there is none; an empty one always does"
    )
    test_fraction: Real = setting(
        1 / 6,
        "share of the labeled images drawn as test images, by class, where the data name none",
        above=0,
        below=1,
        fix="A sixth is 0.1667.",
    )
    test_seed: Whole = setting(0, "drives which images those are", least=0, fix="Try 0.")
    image_size: tuple[Whole, ...] | None = setting(
        None, "height and width that images are brought to, or one number; none: the commonest size"
    )
    fit: Fit = setting(
        "crop",
        "how an image of another shape is fitted: crop (scaled to cover, the middle kept), pad "
        "(scaled to fit, black around it) or stretch",
    )
    channels: Whole | None = setting(
        None, "1 (gray) or 3 (RGB); none: 1 if all images are gray", least=1, most=3, fix="Try 3."
    )
    max_bad_images: Whole = setting(
        0, "images that can't be decoded and are left out, at most", least=0, fix="Try 0."
    )
    max_pixels: Whole = setting(
        89_478_485, "pixels of an image; a larger one counts as bad", least=1, fix="Try 89478485."
    )
    cache_limit: Real = setting(
        50.0,
        "gigabytes of decoded images kept in the cache, at most; those not used for longest go first",
        least=0,
        fix="Try 50.",
    )

    def __post_init__(self) -> None:
        check(self)
        size = self.image_size
        rule = "one positive number or two, the height and the width"
        is_size = size is None or (len(size) in (1, 2) and min(size) >= 1)
        require(is_size, "image_size", rule, size, "Try 32.")
        rule = "1 (gray) or 3 (RGB)"
        require(self.channels in (None, 1, 3), "channels", rule, self.channels, "Try 3.")
