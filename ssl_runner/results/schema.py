"""What a row of the two Parquet tables holds, column by column with its meaning."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ssl_runner.config import TrialConfig

SCHEMA_VERSION = 2
"""Version 2 has columns that version 1 had not: they are null in what was written before."""

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


IDENTITY = {
    "schema_version": (_WHOLE, "version of these columns"),
    "sweep": (_TEXT, "name of the sweep"),
    "trial_id": (_TEXT, "short hash of the trial's settings: equal settings, equal id"),
}

SETTINGS = {
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
    IDENTITY
    | {
        "status": (_TEXT, "finished or failed"),
        "error": (_TEXT, "why it failed; null: it did not"),
        "question": (_TEXT, "what the sweep asks, in its own words; null: it does not say"),
    }
    | SETTINGS
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
        "mistakes": (
            pa.list_(pa.list_(_WHOLE)),
            "wrong test images of the largest loss: place in the test set, class it was taken for",
        ),
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
        "precision_used": (_TEXT, "fp32, bf16 or fp64"),
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
    IDENTITY
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
