"""The Parquet tables: what they hold, how they are written and read, and how their trials compare."""

from ssl_runner.results.along import gains_along
from ssl_runner.results.compare import compare, compared_rows, label_curve, searched_settings
from ssl_runner.results.conclude import conclude
from ssl_runner.results.extrapolate import LabelCurve
from ssl_runner.results.folder import ResultsFolder, load_epochs, load_trials
from ssl_runner.results.importance import importance
from ssl_runner.results.labels_needed import labels_needed
from ssl_runner.results.matching import newest
from ssl_runner.results.ranking import best_trials
from ssl_runner.results.schema import EPOCHS, SCHEMA_VERSION, TRIALS, identity_columns
from ssl_runner.results.search_history import search_cost, search_history
from ssl_runner.results.winners import best_samples, holdout_sizes, tuning_effect

__all__ = [
    "EPOCHS",
    "SCHEMA_VERSION",
    "TRIALS",
    "LabelCurve",
    "ResultsFolder",
    "best_samples",
    "best_trials",
    "compare",
    "compared_rows",
    "conclude",
    "gains_along",
    "holdout_sizes",
    "identity_columns",
    "importance",
    "label_curve",
    "labels_needed",
    "load_epochs",
    "load_trials",
    "newest",
    "search_cost",
    "search_history",
    "searched_settings",
    "tuning_effect",
]
