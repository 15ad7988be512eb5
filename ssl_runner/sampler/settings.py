"""Settings: the batches, their order, and the views of their images."""

from dataclasses import dataclass
from typing import Literal

from ssl_runner.settings import Whole, check, setting

Order = Literal["interleave", "shuffle", "labeled_first", "paired"]
LastBatch = Literal["partial", "drop", "pad"]
Augment = Literal["none", "weak"]


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
        "how the two kinds of batches follow each other; always paired but for pass",
        column="how the two kinds of batches follow each other",
    )
    last_batch: LastBatch = setting("partial", "what becomes of the last images of a pool")
    augment: Augment = setting(
        "none",
        "views of the labeled images: none, or weak (flip and shift)",
        column="views of the labeled images: none or weak",
    )
    flip: bool = setting(
        True,
        "whether a view may be mirrored; false where left and right matter",
        column="whether a view may be mirrored",
    )

    def __post_init__(self) -> None:
        check(self)
