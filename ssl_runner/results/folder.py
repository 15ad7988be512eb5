"""A results folder: its two Parquet data sets, written and read."""

import contextlib
import io
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_runner.results.schema import EPOCHS, IDENTITY, SCHEMA_VERSION, TRIALS
from ssl_runner.storage import is_local, list_files, open_folder, read_whole, write_whole


class ResultsFolder:
    """The two Parquet data sets of a results folder: one small file per trial in each.

    Args:
        location: The folder: a local path, `s3://…`, `gs://…` or a directory that all nodes share.

    Raises:
        ValueError: If the location is of no known kind.
    """

    def __init__(self, location: str) -> None:
        self.filesystem, self.root = open_folder(location)
        # Absolute, for processes with another working directory.
        self.location = self.root if is_local(self.filesystem) else location.rstrip("/")

    def write(self, trial: Mapping[str, Any], epochs: Iterable[Mapping[str, Any]]) -> None:
        """Write a trial's row, over an older one of the same sweep and id, and its epochs' rows.

        The epochs come first: a trial that is in the table has all its epochs there.

        Raises:
            OSError: If it can't be written.
        """
        name = f"{trial['sweep']}--{trial['trial_id']}.parquet"
        identity = {key: trial[key] for key in IDENTITY if key != "schema_version"}
        epoch_rows = [identity | dict(row) for row in epochs]
        for folder, schema, rows in (("epochs", EPOCHS, epoch_rows), ("trials", TRIALS, [trial])):
            versioned = [{"schema_version": SCHEMA_VERSION} | dict(row) for row in rows]
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(versioned, schema=schema), buffer)
            write_whole(self.filesystem, f"{self.root}/{folder}/{name}", buffer.getvalue())

    def statuses(self, sweep: str) -> dict[str, str]:
        """Status of every trial of a sweep that has a row, by its id."""
        found: dict[str, str] = {}
        for name in list_files(self.filesystem, f"{self.root}/trials", ".parquet"):
            if name.rpartition("--")[0] != sweep:  # the sweep's own name may hold a --
                continue
            content = read_whole(self.filesystem, f"{self.root}/trials/{name}")
            # Not read_table: it reads in threads, which a program that ends at once trips over.
            file = pq.ParquetFile(pa.BufferReader(content))
            rows = file.read(columns=["trial_id", "status"], use_threads=False).to_pylist()
            found |= {row["trial_id"]: row["status"] for row in rows}
        return found

    def check_writable(self) -> None:
        """Make the folder, and a file in it that is deleted at once.

        Raises:
            ValueError: If that can't be done; names the folder and the fix.
        """
        path = f"{self.root}/.writable-{uuid.uuid4().hex}"
        try:
            write_whole(self.filesystem, path, b"")
            self.filesystem.delete_file(path)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
            raise ValueError(
                f"--results must be a folder that can be written, got {self.location!r} ({reason}). "
                "Choose another, or change its permissions."
            ) from None

    def forget(self, sweep: str, trial_ids: Iterable[str]) -> None:
        """Delete the rows of these trials of a sweep, where there are any."""
        for trial_id in trial_ids:
            for folder in ("trials", "epochs"):  # the trial's row first: it vouches for the other
                path = f"{self.root}/{folder}/{sweep}--{trial_id}.parquet"
                if self.filesystem.get_file_info(path).is_file:
                    self.filesystem.delete_file(path)

    def checkpoints(self, sweep: str, trial_id: str) -> str:
        """Where a trial's checkpoints are while it is unfinished."""
        return f"{self.location}/checkpoints/{sweep}--{trial_id}"

    def tidy(self) -> None:
        """Remove the folder of checkpoints when no unfinished trial has one there."""
        if is_local(self.filesystem):
            with contextlib.suppress(OSError):  # it is not empty, or not there
                Path(self.root, "checkpoints").rmdir()

    def trials(self, sweep: str | None = None) -> pd.DataFrame:
        """The rows of one sweep's trials, or of all."""
        return self._load("trials", TRIALS, sweep)

    def epochs(self, sweep: str | None = None) -> pd.DataFrame:
        """The rows of one sweep's epochs, or of all."""
        return self._load("epochs", EPOCHS, sweep)

    def _load(self, folder: str, schema: pa.Schema, sweep: str | None) -> pd.DataFrame:
        path = f"{self.root}/{folder}"
        files = [f"{path}/{name}" for name in list_files(self.filesystem, path, ".parquet")]
        if not files:
            table = schema.empty_table()
        else:
            table = pq.read_table(files, schema=schema, filesystem=self.filesystem)
        frame: pd.DataFrame = table.to_pandas()
        return (
            frame
            if sweep is None
            else pd.DataFrame(frame[frame["sweep"] == sweep]).reset_index(drop=True)
        )


def load_trials(location: str, sweep: str | None = None) -> pd.DataFrame:
    """A row for each trial of a results folder, or of one sweep in it."""
    return ResultsFolder(location).trials(sweep)


def load_epochs(location: str, sweep: str | None = None) -> pd.DataFrame:
    """A row for each trial and epoch of a results folder, or of one sweep in it."""
    return ResultsFolder(location).epochs(sweep)
