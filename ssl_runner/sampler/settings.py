"""Settings: the batches, their order, and the views of their images."""

from dataclasses import dataclass
from typing import Literal

from ssl_runner.settings import Real, Whole, check, setting

Order = Literal["interleave", "shuffle", "labeled_first", "paired"]
LastBatch = Literal["partial", "drop", "pad"]
Augment = Literal["none", "weak", "strong"]


@dataclass(frozen=True, kw_only=True)
class BatchSettings:
    """The batches, their order, and the views of their images.

    Raises:
        InputError: If a setting is out of its range.
    """

    seed: Whole = setting(0, "drives initial weights, order and augmentation", least=0, fix="Try 0.")
    batch_size: Whole = setting(64, "images in a step, over all workers", least=1)
    order: Order = setting(
        "interleave",
        "order of the two kinds of batches; always paired, except for pass",
        column="order of the two kinds of batches",
    )
    last_batch: LastBatch = setting(
        "partial",
        "last images of a pool that do not fill a batch: partial, drop, or pad from its start",
    )
    augment: Augment = setting(
        "none",
        "views of the labeled images: none, weak (flip and shift), or strong (as the methods' strong "
        "views)",
        column="views of the labeled images: none, weak or strong",
    )
    magnitude: Real = setting(
        1.0,
        "how strong the strong views are, as a share of FixMatch's",
        above=0,
        most=1,
        fix="Try 0.5.",
    )
    flip: bool = setting(
        True,
        "whether a view may be mirrored; false where left and right matter",
        column="whether a view may be mirrored",
    )

    def __post_init__(self) -> None:
        check(self)
