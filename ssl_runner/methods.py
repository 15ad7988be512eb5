"""What is done with an unlabeled batch. A method knows nothing of Ray, files or ranks."""

from dataclasses import dataclass

from ssl_runner.config import did_you_mean


@dataclass(frozen=True)
class Pass:
    """Nothing is learned from an unlabeled batch: the reference for every other method.

    The batches stay in the epoch's plan and are counted; no pixel of them is fetched.
    """

    needs_unlabeled = False


METHODS = {"pass": Pass}


def build_method(name: str) -> Pass:
    """The method of this name.

    Raises:
        ValueError: If there is none.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}. {did_you_mean(name, tuple(METHODS))}")
    return METHODS[name]()
