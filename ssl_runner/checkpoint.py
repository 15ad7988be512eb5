"""A trial's training state, out and in: complete, dated by its steps, and checked by its digest."""

import hashlib
import io
from typing import Any

import torch

from ssl_runner.storage import list_files, open_folder, read_whole, write_whole

KEPT = 2
"""Checkpoints of a trial that are kept: the last, and the one before in case it can't be read."""


class Checkpoints:
    """The checkpoints of one trial, in a folder of their own.

    Args:
        location: The folder: a local path or a URI.
    """

    def __init__(self, location: str) -> None:
        self.filesystem, self.folder = open_folder(location)

    def save(self, state: dict[str, Any]) -> None:
        """Write a state from `fit`, and drop all but the `KEPT` newest.

        Raises:
            OSError: If it can't be written.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()[:16]
        epochs, steps = len(state["progress"]["history"]), state["progress"]["steps"]
        name = f"{epochs:06d}-{steps:09d}-{digest}.pt"
        write_whole(self.filesystem, f"{self.folder}/{name}", content)
        for old in self._names()[:-KEPT]:
            self.filesystem.delete_file(f"{self.folder}/{old}")

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, or None. One that can't be read is set aside."""
        for name in reversed(self._names()):
            path = f"{self.folder}/{name}"
            content = read_whole(self.filesystem, path)
            if hashlib.sha256(content).hexdigest()[:16] == name.removesuffix(".pt").rpartition("-")[2]:
                try:
                    state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
                except Exception:  # bytes that are no checkpoint can make a pickle raise anything
                    state = None
                if isinstance(state, dict):
                    return state
            self.filesystem.move(path, f"{path}.unreadable")
        return None

    def clear(self) -> None:
        """Delete them all; a trial that is finished, or to be forgotten, has none."""
        if self.filesystem.get_file_info(self.folder).type.name == "Directory":
            self.filesystem.delete_dir(self.folder)

    def _names(self) -> list[str]:
        return list_files(self.filesystem, self.folder, ".pt")
