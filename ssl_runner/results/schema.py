"""What a row of the two Parquet tables holds, column by column with its meaning."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ssl_runner.config import FIELDS
from ssl_runner.identity import Trial
from ssl_runner.metrics import AT_A_RUNG, METRICS
from ssl_runner.settings import Real, Text, Whole, rule_of, without_none

SCHEMA_VERSION = 5
"""A version has columns that the one before lacks: they are null in older rows. Version 3 has
`settings_id` and `sources`, and other names for the columns in `RENAMED`; version 4 has macro-averaged
accuracies, what a data set left out, and the file of the trained model; version 5 has a trial's place
in a search, the status `stopped`, rounds of buying labels, what the pools hold, and the magnitude of
strong views."""

RENAMED = {"passed": "unlabeled_batches_skipped", "mistakes": "misclassified"}
"""Columns of older versions, each with its current name, under which it is read."""

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
    "trial_id": (_TEXT, "short hash of settings, data and own code: equal trials have equal ids"),
}

_KINDS: dict[Any, pa.DataType] = {Whole: _WHOLE, Real: _REAL, Text: _TEXT, bool: pa.bool_()}


def _setting_columns() -> dict[str, tuple[pa.DataType, str]]:
    """A column for each setting, and `config` beside the label fraction that it follows from."""
    columns = {}
    for name, field in FIELDS.items():
        if name == "label_fraction":
            columns["config"] = (_TEXT, "full: all labels; partial: a share of them")
        kind = without_none(field.type)
        columns[name] = (_KINDS.get(kind, _TEXT), rule_of(field).column)  # a Literal's are texts
    return columns


SETTING_COLUMNS = _setting_columns()


def _metric_columns(of_the_best: bool) -> dict[str, tuple[pa.DataType, str]]:
    """A column for each metric, of every epoch or of a trial's best one."""
    return {
        metric.name: (
            _REAL,
            metric.meaning
            + (", best epoch" if of_the_best else "")
            + (f"; null: {metric.null}" if metric.null else ""),
        )
        for metric in METRICS
    }


SEARCH_COLUMNS = {
    "role": (
        _TEXT,
        "search: a sample; final: the best sample's settings under a fresh seed; default: the "
        "settings as they stand, beside the finals; former: it was one of these, and the search has "
        "changed since; null: no search",
    ),
    "search_group": (_TEXT, "what the samples of one choice share, in words; null: no search"),
    "sample": (_WHOLE, "number of the sample in its group, from 0; null: not a sample"),
    "holdout_labels": (
        _WHOLE,
        "labels that the choice itself cost: those of the validation images; null: no search",
    ),
    "holdout_correct": (
        pa.binary(),
        "a bit for each validation image, the first one highest: whether it is classified correctly, "
        "best epoch; null: not a sample",
    ),
    "search": (_TEXT, "the search: a study's keys for it, as JSON; null: no search"),
}
"""What a row says of its trial's place in a search."""

TRIALS = _schema(
    IDENTITY
    | {
        "status": (_TEXT, "finished, failed, or stopped: by a search's scheduler, before its budget"),
        "error": (_TEXT, "why the trial failed; null: it did not"),
        "question": (_TEXT, "the sweep's question; null: it states none"),
    }
    | SETTING_COLUMNS
    | SEARCH_COLUMNS
    | {
        "validation": (
            _TEXT,
            "what the validation figures were taken on: test, holdout, or own (the data's part)",
        ),
        "round": (_WHOLE, "number of the round, from 1; null: the trial is no round"),
        "labeled_images": (_WHOLE, "images in the labeled pool"),
        "labeled_images_per_class": (pa.list_(_WHOLE), "the same by the classes of the labels given"),
        "flipped_labels": (_WHOLE, "labels that were flipped"),
        "unlabeled_images": (_WHOLE, "images in the unlabeled pool"),
        "foreign_unlabeled_images": (_WHOLE, "of these, images of another set"),
        "class_mismatch": (
            _REAL,
            "share of the unlabeled images' classes that are not labeled (Oliver et al. 2018, section "
            "4.4); null: there is no unlabeled image, or some whose class is unknown",
        ),
        "validation_images": (_WHOLE, "number of validation images"),
        "test_images": (_WHOLE, "number of test images"),
        "test_images_left_out": (
            _WHOLE,
            "test images that are not evaluated: of classes that are not labeled",
        ),
        "images_left_out": (_WHOLE, "images in the data set's files that are in no part"),
        "left_out_why": (_TEXT, "the reasons with their counts; empty: none is left out"),
        "test_fraction": (
            _REAL,
            "share of the labeled images drawn for the test; null: the data have a test part",
        ),
        "next_images": (
            pa.list_(_WHOLE),
            "training images whose labels the round buys for the next, as chosen; null: there is none",
        ),
        "weights": (_TEXT, "file of the trained model in the results folder; null: not kept"),
        "split_digest": (_TEXT, "digest of the choice of labeled images"),
        "pools_digest": (_TEXT, "digest of both pools and of the labels as given"),
        "settings_id": (_TEXT, "short hash of the settings alone"),
        "data_digest": (_TEXT, "digest of the data set"),
        "sources": (
            _TEXT,
            "own code: module and digest of each source file; empty: all built in",
        ),
        "epochs_run": (_WHOLE, "epochs until the end or early stopping"),
        "best_epoch": (_WHOLE, "epoch whose weights are kept, from 1: see keep"),
    }
    | _metric_columns(of_the_best=True)
    | {
        "test_loss": (_REAL, "mean cross entropy of the test images, best epoch's weights"),
        "test_accuracy": (_REAL, "share of the test images classified correctly, best epoch's weights"),
        "test_macro_accuracy": (_REAL, "mean over the classes of their test accuracies"),
        "student_test_loss": (_REAL, "test loss of the trained weights; null: no averaged weights"),
        "student_test_accuracy": (
            _REAL,
            "test accuracy of the trained weights; null: no averaged weights",
        ),
        "test_accuracy_per_class": (pa.list_(_REAL), "test accuracy of each class"),
        "confusion": (pa.list_(pa.list_(_WHOLE)), "test images, true class × predicted class"),
        "class_names": (pa.list_(_TEXT), "names of the classes"),
        "misclassified": (
            pa.list_(pa.list_(_WHOLE)),
            "misclassified test images of the largest loss: place in the test set, predicted class",
        ),
        "rungs": (
            pa.list_(pa.struct([("steps", _WHOLE), *((name, _REAL) for name in AT_A_RUNG)])),
            "figures at each step where a scheduler judged the trial, in order",
        ),
        "steps": (_WHOLE, "optimizer steps"),
        "unlabeled_batches_skipped": (_WHOLE, "unlabeled batches that were skipped"),
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
        "world_size": (_WHOLE, "processes that trained the trial at its end"),
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
    | _metric_columns(of_the_best=False)
    | {
        "steps": (_WHOLE, "optimizer steps so far"),
        "unlabeled_batches_skipped": (_WHOLE, "unlabeled batches skipped so far"),
        "images": (_WHOLE, "labeled images learned from so far"),
        "unlabeled_images_seen": (_WHOLE, "unlabeled images learned from so far"),
        "train_seconds": (_REAL, "seconds in the training loop so far"),
        "evaluate_seconds": (_REAL, "seconds in evaluation so far"),
        "images_per_second": (_REAL, "labeled images per second of this epoch's training loop"),
    }
)


def identity_columns(trial: Trial) -> dict[str, Any]:
    """The columns that say what was run: the settings, what follows from them, the place in a search,
    and the identity."""
    return (
        trial.config.flat()
        | dict(trial.place)
        | {
            "config": trial.config.config,
            "round": len(trial.config.data.budgets) or None,
            "validation": trial.config.data.validation,
            "trial_id": trial.trial_id,
            "settings_id": trial.settings_id,
            "data_digest": trial.data_digest,
            "sources": "; ".join(trial.sources),
        }
    )
