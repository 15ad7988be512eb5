"""The Parquet table: what a row holds, how it is written, read and compared."""

import contextlib
import dataclasses
import io
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_runner.config import TrialConfig
from ssl_runner.storage import is_local, list_files, open_folder, read_whole, write_whole

SCHEMA_VERSION = 1

_TEXT, _WHOLE, _REAL = pa.string(), pa.int64(), pa.float64()
_TIME = pa.timestamp("us", tz="UTC")


def _schema(columns: Mapping[str, tuple[pa.DataType, str]]) -> pa.Schema:
    """A schema whose fields carry their meaning; `schema.field(name).metadata[b"meaning"]`."""
    return pa.schema(
        [
            pa.field(name, kind, metadata={"meaning": meaning})
            for name, (kind, meaning) in columns.items()
        ]
    )


_IDENTITY = {
    "schema_version": (_WHOLE, "version of these columns"),
    "sweep": (_TEXT, "name of the sweep"),
    "trial_id": (_TEXT, "short hash of the trial's settings: equal settings, equal id"),
}

_SETTINGS = {
    "dataset": (_TEXT, "data set, by name or import path"),
    "subset": (_WHOLE, "training images used; null: all"),
    "config": (_TEXT, "full: all labels; partial: a share of them"),
    "label_fraction": (_REAL, "share of the training images that keep their label"),
    "method": (_TEXT, "what is done with an unlabeled batch"),
    "model": (_TEXT, "model, by name or import path"),
    "seed": (_WHOLE, "drives initial weights, order and augmentation"),
    "split_seed": (_WHOLE, "drives which images keep their label"),
    "epochs": (_WHOLE, "epochs at the most"),
    "max_steps": (_WHOLE, "budget in optimizer steps; null: the epochs count"),
    "patience": (_WHOLE, "epochs without a better validation loss before stopping; 0: never"),
    "batch_size": (_WHOLE, "images in a step, over all workers"),
    "lr": (_REAL, "Adam's learning rate"),
    "dropout": (_REAL, "dropout before the last layer"),
    "precision": (_TEXT, "precision asked for"),
    "compile": (pa.bool_(), "whether the model was compiled (torch.compile)"),
    "keep": (_TEXT, "weights that are kept: best (of the lowest validation loss) or last"),
    "holdout": (_WHOLE, "training images set aside for validation; 0: the test images validate"),
    "order": (_TEXT, "how the two kinds of batches follow each other"),
    "last_batch": (_TEXT, "what becomes of the last images of a pool"),
    "augment": (_TEXT, "views of the labeled images: none or weak"),
    "flip": (pa.bool_(), "whether a view may be mirrored"),
    "mu": (_WHOLE, "unlabeled batches to each labeled one; null: not in the order paired"),
    "unlabeled_weight": (_REAL, "weight of the unlabeled loss, λ; null: the method has none"),
    "ramp": (_REAL, "share of the training in which λ rises from 0; null: the method has none"),
    "threshold": (_REAL, "confidence from which a pseudo-label counts, τ; null: the method has none"),
    "temperature": (_REAL, "of the target's softmax, 0: hard labels; null: the method has none"),
    "alignment": (pa.bool_(), "whether predicted classes are aligned; null: the method can't"),
    "momentum": (_REAL, "of the method's running means; null: the method has none"),
    "ema": (_REAL, "decay of the averaged weights; 0: none are kept"),
    "num_workers": (_WHOLE, "processes that train the trial together"),
    "min_workers": (_WHOLE, "elastic: the fewest it goes on with; null: not elastic"),
}

_FIGURES = {
    "train_loss": (_REAL, "mean cross entropy of the labeled images while training, best epoch"),
    "train_accuracy": (_REAL, "share of the labeled images right while training, best epoch"),
    "validation_loss": (_REAL, "mean cross entropy of the validation images, best epoch's weights"),
    "validation_accuracy": (_REAL, "share of the validation images right, best epoch's weights"),
    "student_validation_loss": (
        _REAL,
        "where the weights are averaged (ema), the same of the trained ones beside them; else null",
    ),
    "student_validation_accuracy": (_REAL, "likewise; validation_… and test_… are the average's"),
    "unlabeled_loss": (_REAL, "mean of the method's loss, unweighted, best epoch; null: it has none"),
    "confidence": (_REAL, "mean confidence of the method's targets, best epoch"),
    "accepted_share": (_REAL, "share of the unlabeled images whose pseudo-label counted, best epoch"),
    "pseudo_accuracy": (
        _REAL,
        "share of those pseudo-labels that are right, by labels the method never saw, best epoch",
    ),
}

TRIALS = _schema(
    _IDENTITY
    | {
        "status": (_TEXT, "finished or failed"),
        "error": (_TEXT, "why it failed; null: it did not"),
    }
    | _SETTINGS
    | {
        "validation": (_TEXT, "what the validation figures were taken on: test or holdout"),
        "labeled_images": (_WHOLE, "images in the labeled pool"),
        "unlabeled_images": (_WHOLE, "images in the unlabeled pool"),
        "validation_images": (_WHOLE, "images validated on"),
        "test_images": (_WHOLE, "images tested on"),
        "split_digest": (_TEXT, "tells this choice of labeled images from any other"),
        "data_digest": (_TEXT, "tells this data set from any other"),
        "epochs_run": (_WHOLE, "epochs until the end or the early stop"),
        "best_epoch": (_WHOLE, "epoch whose weights are kept, from 1: see keep"),
    }
    | _FIGURES
    | {
        "test_loss": (_REAL, "mean cross entropy of the test images, best epoch's weights"),
        "test_accuracy": (_REAL, "share of the test images right, best epoch's weights"),
        "student_test_loss": (_REAL, "of the trained weights where they are averaged; else null"),
        "student_test_accuracy": (_REAL, "likewise"),
        "test_accuracy_per_class": (pa.list_(_REAL), "the same for each class"),
        "confusion": (pa.list_(pa.list_(_WHOLE)), "test images, true class × predicted class"),
        "class_names": (pa.list_(_TEXT), "names of the classes"),
        "steps": (_WHOLE, "optimizer steps"),
        "passed": (_WHOLE, "unlabeled batches passed over"),
        "images": (_WHOLE, "labeled images learned from, with repetition"),
        "unlabeled_images_seen": (_WHOLE, "unlabeled images learned from, with repetition"),
        "train_seconds": (_REAL, "seconds in the training loop"),
        "evaluate_seconds": (_REAL, "seconds in evaluation"),
        "cpu_seconds": (_REAL, "CPU seconds in both, of rank 0's process"),
        "seconds": (_REAL, "seconds from the trial's first start in its process to its row"),
        "images_per_second": (_REAL, "labeled images per second of the training loop"),
        "parameters": (_WHOLE, "trained weights of the model"),
        "device": (_TEXT, "device of rank 0"),
        "precision_used": (_TEXT, "fp32 or bf16"),
        "world_size": (_WHOLE, "processes that trained it at its end"),
        "threads": (_WHOLE, "CPU threads of each worker"),
        "node": (_TEXT, "machine of rank 0"),
        "started_at": (_TIME, "when the trial last started, UTC"),
        "ended_at": (_TIME, "when it ended, UTC"),
        "version": (_TEXT, "ssl_runner's version"),
        "python_version": (_TEXT, "Python's version"),
        "torch_version": (_TEXT, "PyTorch's version"),
        "ray_version": (_TEXT, "Ray's version; null: run without Ray"),
        "git_commit": (
            _TEXT,
            "commit of ssl_runner's source, + if changed since; null: no checkout",
        ),
    }
)

EPOCHS = _schema(
    _IDENTITY
    | {"epoch": (_WHOLE, "number of the epoch, from 1")}
    | {name: (kind, meaning.split(", best")[0]) for name, (kind, meaning) in _FIGURES.items()}
    | {
        "steps": (_WHOLE, "optimizer steps so far"),
        "passed": (_WHOLE, "unlabeled batches passed over so far"),
        "images": (_WHOLE, "labeled images learned from so far"),
        "unlabeled_images_seen": (_WHOLE, "unlabeled images learned from so far"),
        "train_seconds": (_REAL, "seconds in the training loop so far"),
        "evaluate_seconds": (_REAL, "seconds in evaluation so far"),
        "images_per_second": (_REAL, "labeled images per second of this epoch's training loop"),
    }
)


def settings_columns(config: TrialConfig) -> dict[str, Any]:
    """The columns that say what was run: the whole config, and what follows from it."""
    derived = {
        "trial_id": config.trial_id,
        "config": config.config,
        "validation": config.validation,
    }
    return dataclasses.asdict(config) | derived


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
        identity = {key: trial[key] for key in _IDENTITY if key != "schema_version"}
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


_COMPARED = (
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "test_loss",
    "test_accuracy",
)
_TOTALS = ("steps", "images", "train_seconds", "seconds")
_ALWAYS = ("model", "config", "label_fraction", "method")


def compare(trials: pd.DataFrame) -> pd.DataFrame:
    """The table the notebook ends with: full against each fraction, averaged over the seeds.

    Args:
        trials: Rows as in `results/trials`; those that did not finish are left out.

    Returns:
        A row per configuration (model, config, label fraction, method, and any other setting that
        varies but the seeds), best-labeled first. For each of training, validation and test, loss
        and accuracy: `…_mean` and `…_spread` (standard deviation of a sample; NaN where n is 1).
        `to_full_mean`, `to_full_spread`: the test accuracy less that of full with the same seed
        and other settings; NaN where there is none. Means of steps, images and seconds. `n`: the
        number of trials.
    """
    done = trials[trials["status"] == "finished"]
    varying = [
        name
        for name in ("sweep", *_SETTINGS)
        if name not in (*_ALWAYS, "seed", "split_seed") and done[name].nunique(dropna=False) > 1
    ]
    of_full = ["model", "seed", *varying]
    full = done[done["config"] == "full"].drop_duplicates(of_full)
    full = full[[*of_full, "test_accuracy"]].rename(columns={"test_accuracy": "full_accuracy"})
    done = done.merge(full, on=of_full, how="left")
    done["to_full"] = done["test_accuracy"] - done["full_accuracy"]
    aggregates: dict[str, Any] = {"labeled_images": ("labeled_images", "first")}
    for name in (*_COMPARED, "to_full"):
        aggregates[f"{name}_mean"] = (name, "mean")
        aggregates[f"{name}_spread"] = (name, "std")
    aggregates |= {name: (name, "mean") for name in _TOTALS}
    aggregates["n"] = ("trial_id", "count")
    keys = [*_ALWAYS, *varying]
    table: pd.DataFrame = done.groupby(keys, dropna=False, sort=False).agg(**aggregates).reset_index()
    order = [*varying, "model", "label_fraction", "method"]
    ascending = [name != "label_fraction" for name in order]
    return table.sort_values(order, ascending=ascending, ignore_index=True)
