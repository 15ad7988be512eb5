"""The Parquet tables: what they hold, how they are written and read, and how their trials compare."""

from ssl_runner.results.compare import compare, compared_rows, label_curve, searched_settings
from ssl_runner.results.extrapolate import LabelCurve
from ssl_runner.results.folder import ResultsFolder, load_epochs, load_trials
from ssl_runner.results.matching import newest
from ssl_runner.results.schema import EPOCHS, SCHEMA_VERSION, TRIALS, identity_columns

__all__ = [
    "EPOCHS",
    "SCHEMA_VERSION",
    "TRIALS",
    "LabelCurve",
    "ResultsFolder",
    "compare",
    "compared_rows",
    "identity_columns",
    "label_curve",
    "load_epochs",
    "load_trials",
    "newest",
    "searched_settings",
]
