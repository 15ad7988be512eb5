"""What a data set's files hold, before any image is decoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Part = Literal["train", "validation", "test"]


class Encoded(Protocol):
    """Encoded images (PNG, JPEG, …) wherever they are: in files, or in the rows of Parquet files.

    It is sent to other processes, so it must be small to pickle where it can be.
    """

    def __len__(self) -> int:
        """Number of images."""

    def signature(self) -> str:
        """Changes whenever an image may have changed: a hash of names, sizes and times, no content."""

    def chunks(self) -> Sequence[range]:
        """The images in ranges that are each read at once: together all of them, in order."""

    def read(self, chunk: range) -> Iterator[bytes]:
        """The images of such a range, one after the other; where one can't be read, empty bytes."""

    def name_of(self, index: int) -> str:
        """What to call an image in a message: its file relative to its folder, or file and row."""


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of a data set with what is known of each, in the order in which they are listed.

    Attributes:
        name: The data set's name in the table: that of its file or folder, without the path.
        encoded: The images, n of them.
        labels: The class of each, as text, n of them; None: it has no label.
        parts: The part of each, n of them; None: the data name no parts, and the test images are drawn.
        left_out: Images that are listed nowhere else, by the reason they are left out, with counts.
        class_names: All classes in their order, where the data name them; None: those that occur, in
            natural order.
    """

    name: str
    encoded: Encoded
    labels: Sequence[str | None]
    parts: Sequence[Part] | None
    left_out: dict[str, int]
    class_names: tuple[str, ...] | None = None
