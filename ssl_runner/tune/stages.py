"""The two stages of a search: its samples, and then its finals, which the samples' rows decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ssl_runner.config import FIELDS, Sample, SweepConfig, TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import require
from ssl_runner.identity import Trial, identify
from ssl_runner.results import ResultsFolder
from ssl_runner.results.matching import Matches, config_of
from ssl_runner.results.schema import SEARCH_COLUMNS
from ssl_runner.results.winners import best_samples
from ssl_runner.settings import Whole, without_none

PLACE = tuple(name for name in SEARCH_COLUMNS if name != "holdout_correct")
"""The columns that say where in a search a trial stands."""


def check_judges(sweep: SweepConfig, dataset: ImageDataset) -> None:
    """Check that a search's samples are judged by images that are not the test images.

    Raises:
        InputError: If the test images would choose.
    """
    holdouts = [base.data.holdout for base in sweep.groups(dataset.has_unlabeled).values()]
    least = min(holdouts, default=1) if dataset.validation is None else 1
    rule = "more than 0 with a search, or the test images would choose"
    require(least > 0, "holdout", rule, least, "Try 600, or data with a validation part of their own.")


def _placed(
    configs: Sequence[tuple[TrialConfig, Mapping[str, Any]]], sweep: SweepConfig, dataset: ImageDataset
) -> list[Trial]:
    """A trial for each config, with its place in the search; the first of equal ones."""
    own = None if dataset.validation is None else len(dataset.validation.labels)
    trials: dict[str, Trial] = {}
    only = [config for config, _ in configs]
    for trial, (config, place) in zip(
        identify(only, dataset.digest, dataset.foreign_digests), configs, strict=True
    ):
        # What stands untuned was not chosen.
        labels = None if place["role"] == "default" else own or config.data.holdout
        known = {"sample": None, "search": sweep.search_record, "holdout_labels": labels}
        trials.setdefault(trial.trial_id, replace(trial, place=known | dict(place)))
    return list(trials.values())


def sample_trials(
    sweep: SweepConfig, dataset: ImageDataset, samples: Sequence[Sample] | None = None
) -> list[Trial]:
    """The trials of samples; of equal ones the first.

    Args:
        samples: None: all those of the random searcher.

    Raises:
        InputError: If a model, a method or a file of weights can't be found.
    """
    if samples is None:
        samples = sweep.random_samples(dataset.has_unlabeled)
    return _placed(
        [
            (each.trial, {"role": "search", "search_group": each.group, "sample": each.number})
            for each in samples
        ],
        sweep,
        dataset,
    )


@dataclass(frozen=True)
class Choice:
    """What the samples of one group came to.

    Attributes:
        group: The group's name.
        samples: How many of its samples have a row.
        failed: How many of these failed.
        stopped: How many a scheduler stopped.
        best: The best one's row; None: none has finished.
    """

    group: str
    samples: int
    failed: int
    stopped: int
    best: Mapping[str, Any] | None

    def line(self, sweep: SweepConfig) -> str:
        """It in words."""
        ends = {"failed": self.failed, "stopped early": self.stopped}
        ended = ", ".join(f"{count} {how}" for how, count in ends.items() if count)
        if self.best is None:
            how = (
                f"all {self.samples} samples failed"
                if not self.stopped
                else f"no sample finished ({ended})"
            )
            return f"{self.group}: {how}, so it has no finals"
        column = f"validation_{sweep.objective}"
        figure = self.best[column]
        shown = f"{figure:.2%}" if sweep.objective == "accuracy" else f"{figure:.4f}"
        known = {name: self.best[name] for name in sweep.search if not pd.isna(self.best[name])}
        values = ", ".join(f"{name} {_shown(value)}" for name, value in known.items())
        of = f"{self.samples} samples" if self.samples > 1 else "the one sample"
        of += f" ({ended})" if ended else ""
        return f"{self.group}: sample {int(self.best['sample'])} of {of} has the best holdout " + (
            f"{sweep.objective}, {shown}" + (f": {values}" if values else "")
        )


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def choices(sweep: SweepConfig, dataset: ImageDataset, samples: pd.DataFrame) -> list[Choice]:
    """What the samples of each group came to, in the order of the groups.

    Args:
        samples: The rows of the search's samples.
    """
    best = best_samples(samples, sweep.objective)
    found = []
    for group in sweep.groups(dataset.has_unlabeled):
        rows = samples[samples["search_group"] == group]
        chosen = rows[rows["trial_id"] == best.get(group)].to_dict("records")
        failed, stopped = (int((rows["status"] == status).sum()) for status in ("failed", "stopped"))
        row = dict(chosen[0]) if chosen else None
        found.append(Choice(group, len(rows), failed, stopped, row))  # type: ignore[arg-type]
    return found


def final_trials(sweep: SweepConfig, dataset: ImageDataset, chosen: Sequence[Choice]) -> list[Trial]:
    """The best sample of each group under each of the seeds, and where that is asked for, the settings
    as they stand beside it.

    Raises:
        InputError: If a model, a method or a file of weights can't be found.
    """
    groups, configs = sweep.groups(dataset.has_unlabeled), []
    for each in chosen:
        base = groups[each.group]
        place = {"role": "final", "search_group": each.group}
        if each.best is not None:
            where = {name: base.flat()[name] for name in ("dataset", "num_workers", "min_workers")}
            winner = config_of(_plain(each.best)).replace(**where)
            configs += [(config, place) for config in sweep.finals(winner)]
        if sweep.untuned:
            configs += [(config, place | {"role": "default"}) for config in sweep.finals(base)]
    return _placed(configs, sweep, dataset)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a frame with None where it has a gap, and whole numbers that gaps made real."""
    plain: dict[str, Any] = {}
    for name, field in FIELDS.items():
        value = row[name]
        if pd.isna(value):
            plain[name] = None
        else:
            plain[name] = int(value) if without_none(field.type) == Whole else value
    return plain


def put_in_place(
    results: ResultsFolder, sweep: str, trials: Sequence[Trial], matches: Matches, rows: pd.DataFrame
) -> None:
    """Let the rows that are there say where in the search their trials stand now, and others of these
    groups and roles, that they stand nowhere now (`former`): as where more samples have chosen other
    finals.

    Rows of other data or other source code are left as they are.

    Args:
        results: The folder.
        sweep: Name of the sweep.
        trials: All trials of a stage.
        matches: Which of them have a row.
        rows: The sweep's rows.
    """
    places = {
        matches.rows[trial.trial_id].trial_id: trial.place
        for trial in trials
        if trial.trial_id in matches.rows
    }
    stand = {(trial.place["role"], trial.place["search_group"]) for trial in trials}
    versions = {(trial.data_digest, "; ".join(trial.sources)) for trial in trials}
    nowhere: Mapping[str, Any] = dict.fromkeys(PLACE) | {"role": "former"}
    moved: dict[str, Mapping[str, Any]] = {}
    for row in rows.to_dict("records"):
        stood = {name: None if pd.isna(row[name]) else row[name] for name in PLACE}
        place = places.get(row["trial_id"])
        is_same_version = (row["data_digest"], row["sources"]) in versions
        if place is None and is_same_version and (stood["role"], stood["search_group"]) in stand:
            place = nowhere
        if place is not None and dict(place) != stood:
            moved[str(row["trial_id"])] = place
    results.write_columns(sweep, moved)
