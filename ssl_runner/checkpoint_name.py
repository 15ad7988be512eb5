"""A checkpoint's file name: how far the training was, and the digest of the content."""

from typing import NamedTuple

SUFFIX = ".pt"


class CheckpointName(NamedTuple):
    """A checkpoint's name. Names sort by progress.

    Attributes:
        epochs, steps: Finished epochs, and optimizer steps taken.
        digest: Sixteen hex digits of SHA-256 of the file's content.
    """

    epochs: int
    steps: int
    digest: str

    def __str__(self) -> str:
        return f"{self.epochs:06d}-{self.steps:09d}-{self.digest}{SUFFIX}"

    @classmethod
    def parse(cls, name: str) -> "CheckpointName | None":
        """The name's parts; None if it is not a checkpoint's."""
        match name.removesuffix(SUFFIX).split("-"):
            case [epochs, steps, digest] if epochs.isdecimal() and steps.isdecimal():
                return cls(int(epochs), int(steps), digest)
        return None
