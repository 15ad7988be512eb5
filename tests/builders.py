"""Rows and settings as several tests need them."""

from datetime import UTC, datetime
from typing import Any

import pandas as pd

from ssl_runner.config import AXES, SweepConfig, TrialConfig
from ssl_runner.identity import Trial
from ssl_runner.results import TRIALS, ResultsFolder
from ssl_runner.results.schema import SEARCH_COLUMNS, identity_columns
from ssl_runner.study import KEYS


def _identity(config: TrialConfig) -> dict[str, Any]:
    """The columns of a trial's identity, of some data; told apart by its settings alone."""
    return identity_columns(Trial(config, "da")) | {"trial_id": config.settings_id}


def trial_row(config: TrialConfig, sweep: str = "s", **figures: Any) -> dict[str, Any]:
    """A finished trial's row, no column of it empty but `error` and what the config leaves out."""
    row = _identity(config) | {
        "sweep": sweep,
        "status": "finished",
        "error": None,
        "question": "why?",
        **dict.fromkeys(SEARCH_COLUMNS),
        "labeled_images": round(60000 * config.data.label_fraction),
        "labeled_images_per_class": [round(30000 * config.data.label_fraction)] * 2,
        "flipped_labels": 0,
        "unlabeled_images": 60000 - round(60000 * config.data.label_fraction),
        "foreign_unlabeled_images": 0,
        "class_mismatch": 0.0,
        "validation_images": 10000,
        "test_images": 10000,
        "test_images_left_out": 0,
        "images_left_out": 3,
        "left_out_why": "3 without a label in the test part",
        "test_fraction": 0.25,
        "next_images": [3, 1],
        "weights": "models/s--0.safetensors",
        "split_digest": "5f",
        "pools_digest": "6a",
        "epochs_run": 3,
        "best_epoch": 2,
        "train_loss": 0.25,
        "train_accuracy": 0.9,
        "validation_loss": 0.5,
        "validation_accuracy": 0.8,
        "validation_macro_accuracy": 0.8,
        "student_validation_loss": 0.6,
        "student_validation_accuracy": 0.75,
        "unlabeled_loss": 0.3,
        "confidence": 0.85,
        "accepted_share": 0.65,
        "pseudo_accuracy": 0.95,
        "test_loss": 0.75,
        "test_accuracy": 0.7,
        "student_test_loss": 0.8,
        "student_test_accuracy": 0.6,
        "test_accuracy_per_class": [0.5, 0.9],
        "confusion": [[1, 2], [3, 4]],
        "class_names": ["Größe", "shoe"],
        "misclassified": [[7, 1], [2, 0]],
        "rungs": [{"steps": 30, "validation_loss": 0.75, "validation_accuracy": 0.7}],
        "steps": 94,
        "unlabeled_batches_skipped": 844,
        "images": 6000,
        "unlabeled_images_seen": 54000,
        "train_seconds": 10.0,
        "evaluate_seconds": 1.0,
        "cpu_seconds": 11.0,
        "seconds": 12.0,
        "images_per_second": 600.0,
        "parameters": 421642,
        "device": "cpu",
        "precision_used": "fp32",
        "world_size": 1,
        "threads": 1,
        "node": "here",
        "started_at": datetime(2024, 1, 1, 12, 0, 0, 123456, UTC),
        "ended_at": datetime(2024, 1, 1, 12, 0, 12, tzinfo=UTC),
        "version": "0.1.0",
        "python_version": "3.11.7",
        "torch_version": "2.6.0",
        "ray_version": "2.60.0",
        "git_commit": "0123abc+",
    }
    row |= figures  # the same where the classes are balanced
    return {"test_macro_accuracy": row["test_accuracy"]} | row


def failed_row(config: TrialConfig, sweep: str = "s", error: str = "it broke") -> dict[str, Any]:
    """The row of a trial that failed at once: settings, and nothing that was measured."""
    return _identity(config) | {"sweep": sweep, "status": "failed", "error": error}


def epoch_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "train_accuracy": 0.5,
            "validation_loss": 2 / epoch,
            "validation_accuracy": 0.5,
            "validation_macro_accuracy": 0.5,
            "student_validation_loss": 3 / epoch,
            "student_validation_accuracy": 0.25,
            "unlabeled_loss": 0.5,
            "confidence": 0.75,
            "accepted_share": 0.625,
            "pseudo_accuracy": 0.875,
            "steps": 94 * epoch,
            "unlabeled_batches_skipped": 844 * epoch,
            "images": 6000 * epoch,
            "unlabeled_images_seen": 54000 * epoch,
            "train_seconds": 1.0 * epoch,
            "evaluate_seconds": 0.1 * epoch,
            "images_per_second": 6000.0,
        }
        for epoch in range(1, count + 1)
    ]


def frame_of(*rows: dict[str, Any]) -> pd.DataFrame:
    made = [{name: row.get(name) for name in TRIALS.names} for row in rows]
    return pd.DataFrame(made, columns=TRIALS.names)


def statuses(results: ResultsFolder, sweep: str) -> dict[str, str]:
    """Status of every trial of a sweep that has a row, by its id."""
    return {trial.trial_id: trial.status for trial in results.known(sweep)}


def sweep_settings(sweep: SweepConfig) -> dict[str, object]:
    """The flat keys of a study file; `sweep_from_settings` is the way back."""
    everything = {**vars(sweep), **vars(sweep.files), **sweep.trial.flat()}
    assert set(KEYS) < {*everything, *AXES}
    everything["grid"] = {name: list(values) for name, values in sweep.grid.items()}
    if sweep.grids is not None:
        everything["grids"] = [
            {name: list(values) for name, values in grid.items()} for grid in sweep.grids
        ]
    everything["search"] = {name: domain.plain() for name, domain in sweep.search.items()}
    return {
        key: list(everything[key]) if isinstance(everything[key], tuple) else everything[key]
        for key in KEYS
    }
