"""Which trained models are worth keeping."""

import pandas as pd

from ssl_runner.config import FIELDS
from ssl_runner.results.compare import is_compared
from ssl_runner.settings import rule_of

_SEEDS = ("seed", "split_seed")


def best_models(trials: pd.DataFrame) -> set[str]:
    """The best trial of each configuration among those whose model is kept.

    Args:
        trials: Rows as in `results/trials`.

    Returns:
        Their ids: for each combination of settings without the seeds, of data and of source code, the
        trial of the highest validation accuracy; of equal ones that of the lowest loss, then of the
        lowest id. Of a search only the finals have one.
    """
    settings = [name for name, field in FIELDS.items() if rule_of(field).decides and name not in _SEEDS]
    kept = trials[trials["weights"].notna() & is_compared(trials)].sort_values(
        ["validation_accuracy", "validation_loss", "trial_id"], ascending=[False, True, True]
    )
    first = kept.drop_duplicates([*settings, "data_digest", "sources"])
    return set(first["trial_id"])
