"""Saves and loads a trial's training state: complete, named by its steps, checked by its digest."""

import contextlib
import hashlib
import io
from typing import Any

import torch

from ssl_runner.checkpoint_name import SUFFIX, CheckpointName
from ssl_runner.storage import list_files, open_folder, read_whole, write_whole

KEPT = 2
"""Checkpoints of a trial that are kept: the last, and the one before in case the last can't be read."""


class Checkpoints:
    """The checkpoints of one trial, in a folder of their own.

    Args:
        location: The folder: a local path or a URI.
    """

    def __init__(self, location: str) -> None:
        self.filesystem, self.folder = open_folder(location)
        self._there: list[str] | None = None

    def save(self, state: dict[str, Any]) -> None:
        """Write a state from `fit`, and delete all but the `KEPT` newest.

        Raises:
            OSError: If it can't be written.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        digest = hashlib.sha256(content).hexdigest()[:16]
        epochs, steps = len(state["progress"]["history"]), state["progress"]["steps"]
        name = str(CheckpointName(epochs, steps, digest))
        write_whole(self.filesystem, f"{self.folder}/{name}", content)
        # Only this process writes them: to list them each time would cost a cloud a request.
        there = self._names() if self._there is None else sorted({*self._there, name})
        for old in there[:-KEPT]:
            with contextlib.suppress(FileNotFoundError):
                self.filesystem.delete_file(f"{self.folder}/{old}")
        self._there = there[-KEPT:]

    def load(self) -> dict[str, Any] | None:
        """The newest state that can be read, or None. One that can't be read is set aside."""
        self._there = self._names()
        for name in reversed(tuple(self._there)):
            state = self._read(name)
            if state is not None:
                return state
            self._put_aside(name)
            self._there.remove(name)
        return None

    def _read(self, name: str) -> dict[str, Any] | None:
        """A state; None if it can't be read, or another rank has set it aside meanwhile."""
        try:
            content = read_whole(self.filesystem, f"{self.folder}/{name}")
        except FileNotFoundError:
            return None
        parsed = CheckpointName.parse(name)
        if parsed is None or parsed.digest != hashlib.sha256(content).hexdigest()[:16]:
            return None
        try:
            state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        except Exception:  # unpickling anything but a checkpoint can raise anything
            return None
        return state if isinstance(state, dict) else None

    def set_aside(self) -> list[str]:
        """Rename those that can't be read, truncated or foreign, so that the user can be warned.

        Returns:
            Their new paths.
        """
        return [self._put_aside(name) for name in self._names() if self._read(name) is None]

    def _put_aside(self, name: str) -> str:
        path = f"{self.folder}/{name}"
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.move(path, f"{path}.unreadable")
        return f"{path}.unreadable"

    def clear(self) -> None:
        """Delete them all: a trial that has finished, or starts over, needs none."""
        self._there = None
        with contextlib.suppress(FileNotFoundError):  # to look first would cost a cloud two requests
            self.filesystem.delete_dir(self.folder)

    def _names(self) -> list[str]:
        return list_files(self.filesystem, self.folder, SUFFIX)
