"""The best trials one by one, by their validation images and never by the test images."""

from dataclasses import dataclass

import pandas as pd

from ssl_runner.errors import InputError
from ssl_runner.metrics import is_share
from ssl_runner.results.compare import varying_settings
from ssl_runner.results.schema import SETTING_COLUMNS
from ssl_runner.results.search_history import searches

KEYS = ("model", "config", "label_fraction", "method")
SEEDS = ("seed", "split_seed")


@dataclass(frozen=True)
class Ranking:
    """The best trials.

    Attributes:
        rows: Their rows as in `results/trials`, the best first.
        by: The column that ranks them.
        settings: The settings that vary among all that were ranked, after `KEYS`; of those that a
            method, a model or an optimizer determines, only what varies with the same one.
        of: How many were ranked.
        left_out: How many finished trials were not, since they are no samples of a search.
    """

    rows: pd.DataFrame
    by: str
    settings: tuple[str, ...]
    of: int
    left_out: int


def best_trials(trials: pd.DataFrame, number: int) -> Ranking:
    """The best trials: where there is a search, of its samples, by what it is for; otherwise of all
    that finished, by validation accuracy, equal ones by validation loss. Then by id.

    Args:
        trials: Rows as in `results/trials`.
        number: How many; fewer if there are no more.

    Raises:
        InputError: If the number is below 1, no trial has finished, or searches are for different
            figures.
    """
    if number < 1:
        raise InputError(f"--best must be at least 1, got {number}. Try 5.")
    done = trials[trials["status"] == "finished"]
    samples = done[done["role"] == "search"]
    ranked, by = done, "validation_accuracy"
    if len(samples):
        objectives = sorted({one.objective for one in searches(samples)})
        if len(objectives) > 1:
            sweeps = ", ".join(sorted(set(samples["sweep"])))
            raise InputError(
                f"--best must be of searches for one figure, got {' and '.join(objectives)}. Name one "
                f"of {sweeps} with --sweep."
            )
        ranked, (by,) = samples, objectives
    if ranked.empty:
        raise InputError(
            f"--best must be of trials that have finished, got none of {len(trials)}. Wait for them; "
            "without --best the report has their errors."
        )
    # As a search and a sweep choose: `winners.best_samples`, `best.best_models`.
    order = [by, "trial_id"] if len(samples) else [by, "validation_loss", "trial_id"]
    rows = ranked.sort_values(order, ascending=[not _is_better_high(name) for name in order])
    varying = [name for name in SEEDS if ranked[name].nunique() > 1] + varying_settings(ranked)
    if (ranked["seed"] == ranked["split_seed"]).all():
        varying = [name for name in varying if name != "split_seed"]
    settings = tuple(name for name in varying if name in SETTING_COLUMNS and name not in KEYS)
    return Ranking(
        rows.head(number).reset_index(drop=True),
        by,
        settings,
        len(ranked),
        len(done) - len(ranked),
    )


def _is_better_high(name: str) -> bool:
    return name != "trial_id" and is_share(name)
