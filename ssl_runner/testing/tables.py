"""The tables of two runs, compared; and what other files are in their folders."""

from pathlib import Path
from typing import Any

import pandas as pd

# What may differ between two runs of the same trial.
UNEQUAL = {
    *("train_seconds", "evaluate_seconds", "cpu_seconds", "seconds", "images_per_second"),
    *("started_at", "ended_at", "node", "git_commit"),
}


def checkpoints(results: Path) -> list[Path]:
    """The checkpoints that are there."""
    return list(results.glob("checkpoints/*/*.pt"))


def tables(results: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Every row of both tables, sorted, without what may differ between two runs."""
    trials, epochs = (pd.read_parquet(results / name) for name in ("trials", "epochs"))
    rows = []
    for frame, keys in ((trials, ["trial_id"]), (epochs, ["trial_id", "epoch"])):
        kept = frame.drop(columns=[name for name in UNEQUAL if name in frame]).sort_values(keys)
        rows.append([{key: _plain(value) for key, value in row.items()} for row in _records(kept)])
    return rows[0], rows[1]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False)]


def _plain(value: Any) -> Any:
    """As a text: NaN equals NaN then, arrays can be compared, and floats are compared to the bit."""
    return repr(value.tolist() if hasattr(value, "tolist") else value)


def leftovers(results: Path) -> set[str]:
    """What is in a results folder beside its two tables' files, the models that they name, its pages,
    TensorBoard's files and a search's studies."""
    named = set(pd.read_parquet(results / "trials", columns=["weights"])["weights"].dropna())
    files = (path.relative_to(results) for path in results.rglob("*") if path.is_file())
    return {
        str(path)
        for path in files
        if path.name.startswith(".")
        or not (
            path.parts[0] in ("trials", "epochs", "tensorboard", "search")
            or path.suffix == ".html"
            or str(path) in named
        )
    }
