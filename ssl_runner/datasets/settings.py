"""Settings: which data, and which of its labels are kept."""

from dataclasses import dataclass

from ssl_runner.errors import require
from ssl_runner.settings import Real, Text, Whole, check, setting


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Which data, and which of its labels are kept.

    Raises:
        InputError: If a setting is out of its range.
    """

    dataset: Text = setting(
        "fashion_mnist",
        "data set: a name, or an import path module:function",
        column="data set, by name or import path",
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

    @property
    def config(self) -> str:
        """`full`: every training image carries its label. `partial`: only a share of them does.

        Not to be mistaken for the literature's "partial labels", sets of candidate labels.
        """
        return "full" if self.label_fraction == 1 else "partial"

    @property
    def validation(self) -> str:
        """What the validation figures were taken on: the `test` images or a `holdout`."""
        return "holdout" if self.holdout else "test"
