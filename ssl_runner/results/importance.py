"""How much of a search's objective each searched setting decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import pandas as pd

from ssl_runner.results.search_history import KEYS, Search, is_numeric, searches

FEWEST = 10
"""A search needs at least so many finished samples."""

FEWEST_OF_EACH = 4
"""And so many for each searched setting."""

MOST = 1000
"""Of a longer search so many samples are used, evenly spread over it."""

LEAST_EXPLAINED = 0.25
"""The share of the objective's variance that a model must predict in samples it was not fitted on.
In 20 samples of noise, one in twenty models reaches 0.22."""

_TREES, _DEPTH = 64, 6
_WIDTH = 0.25

# n = samples, d = searched settings, c = columns that encode them


@dataclass(frozen=True)
class Importance:
    """What the searched settings of one search decide.

    Attributes:
        search: The search.
        shares: By setting, the share of the explained variance that it decides alone, in [0, 1]; empty:
            refused.
        measure: How it was measured, by name; empty: refused before.
        n: The finished samples that it is taken from.
        explained: The share of the objective's variance that the model behind the measure predicts in
            samples it was not fitted on; NaN: refused before.
        refused: Why there is none; empty: there is one.
    """

    search: Search
    shares: dict[str, float]
    measure: str
    n: int
    explained: float
    refused: str


def importance(trials: pd.DataFrame) -> pd.DataFrame:
    """How much each searched setting decides, of each search.

    Args:
        trials: Rows as in `results/trials`.

    Returns:
        A row per search and searched setting: `search_history.KEYS`, `setting`, `importance` (NaN where
        refused), `measure`, `n`, `explained` and `refused`: see `Importance`.
    """
    rows: list[dict[str, Any]] = []
    for one in searches(trials):
        found = importance_of(one)
        rows += [
            dict(one.keys)
            | {
                "setting": name,
                "importance": found.shares.get(name, np.nan),
                "measure": found.measure,
                "n": found.n,
                "explained": found.explained,
                "refused": found.refused,
            }
            for name in one.settings
        ]
    columns = [*KEYS, "setting", "importance", "measure", "n", "explained", "refused"]
    return pd.DataFrame(rows, columns=columns)


def importance_of(search: Search) -> Importance:
    """The importance of the searched settings of one search, or why there is none.

    Numbers count by their rank among the samples: logarithmic domains are like others, and the
    settings are weighed over the values that were sampled.
    """
    values = search.values
    known = values.notna().to_numpy()
    n, settings = int(known.sum()), search.settings

    def refused(why: str, measure: str = "", explained: float = np.nan) -> Importance:
        return Importance(search, {}, measure, n, explained, why)

    least = max(FEWEST, FEWEST_OF_EACH * len(settings))
    if n < least:
        of = f"{len(settings)} searched settings" if len(settings) > 1 else "one searched setting"
        return refused(f"{n} finished samples of {of}; it takes {least} to tell")
    places = np.flatnonzero(known)[np.linspace(0, n - 1, min(n, MOST)).round().astype(int)]
    columns_n = [encoded(search.samples[name].iloc[places]) for name in settings]
    y_n = values.to_numpy(dtype=float)[places]
    if y_n.std() < 1e-12:
        return refused("all samples reach the same")
    optuna = _version("optuna")
    if optuna and _version("scikit-learn"):
        measure = f"fANOVA (Optuna {optuna})"
        explained, shares = _forest(columns_n, y_n)
    else:
        measure = "shuffled values under an additive kernel ridge regression"
        explained, shares = _additive(columns_n, y_n)
    if explained < LEAST_EXPLAINED:
        percent = max(0, round(100 * explained))
        return refused(
            f"the searched settings explain {percent} % of the differences between samples, "
            f"which is not told from chance",
            measure,
            explained,
        )
    total = sum(shares)
    named = {name: share / max(total, 1.0) for name, share in zip(settings, shares, strict=True)}
    return Importance(search, named, measure, n, explained, "")


def encoded(values: pd.Series) -> np.ndarray:
    """A setting's values as a model takes them, each column in [0, 1].

    Returns:
        Of numbers, their rank among the samples, equal ones alike, shape (n, 1); where some are
        missing, these are 0 and the ranks begin at a half. Of anything else, a column of 0 and 1 for
        each value, shape (n, c).
    """
    if is_numeric(values):
        ranks = values.astype(float).rank(method="dense")
        shares = (ranks - 1) / max(float(ranks.max()) - 1, 1.0)
        if shares.isna().any():
            shares = (0.5 + shares / 2).fillna(0.0)
        return shares.to_numpy(dtype=float)[:, None]
    texts = values.astype(object).where(values.notna(), None).map(repr)
    columns: np.ndarray = pd.get_dummies(texts).to_numpy(dtype=float)
    return columns


def _version(package: str) -> str:
    """A package's version; empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _forest(columns_n: Sequence[np.ndarray], y_n: np.ndarray) -> tuple[float, list[float]]:
    """Functional analysis of variance by a random forest (Hutter, Hoos & Leyton-Brown 2014).

    Returns:
        What a forest like it explains of the samples that each of its trees has not seen, and the share
        of each setting's main effect.
    """
    import optuna
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(
        n_estimators=_TREES, max_depth=_DEPTH, random_state=0, oob_score=True
    )
    forest.fit(np.hstack(list(columns_n)), y_n)
    distributions: dict[str, Any] = {}
    given: list[list[Any]] = []
    for j, columns in enumerate(columns_n):
        if columns.shape[1] == 1:
            distributions[str(j)] = optuna.distributions.FloatDistribution(0.0, 1.0)
            given.append(columns[:, 0].tolist())
        else:
            choices = [str(k) for k in range(columns.shape[1])]
            distributions[str(j)] = optuna.distributions.CategoricalDistribution(choices)
            given.append([choices[k] for k in columns.argmax(axis=1)])
    usual = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it says that a study was created
    study = optuna.create_study()
    optuna.logging.set_verbosity(usual)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={str(j): one for j, one in enumerate(values)},
                distributions=distributions,
                value=float(y),
            )
            for *values, y in zip(*given, y_n, strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, max_depth=_DEPTH, seed=0)
    shares = evaluator.evaluate(study)
    return float(forest.oob_score_), [float(shares[str(j)]) for j in range(len(columns_n))]


def _additive(columns_n: Sequence[np.ndarray], y_n: np.ndarray) -> tuple[float, list[float]]:
    """The same by kernel ridge regression with a Gaussian kernel for each setting, added up.

    Shuffling one setting's values among the samples changes the prediction by the difference of its
    own part: squared, and averaged over all shuffles, by twice that part's variance (Breiman 2001,
    section 10, without the forest). The regularization is the one of the least error when each sample
    is predicted from the others, which has a closed form (Allen's PRESS).

    Returns:
        What it explains of samples that are left out one at a time, and each setting's share.
    """
    n = len(y_n)
    centered_n = y_n - y_n.mean()
    kernels = []
    for columns in columns_n:
        apart = ((columns[:, None] - columns[None]) ** 2).sum(axis=2)
        kernel = np.exp(-apart / (2 * _WIDTH**2))
        kernels.append(kernel - kernel.mean(axis=0))
    whole = sum(kernels) / len(kernels)
    whole = whole - whole.mean(axis=1, keepdims=True)
    weights_n, vectors_nn = np.linalg.eigh(whole)
    weights_n = weights_n.clip(0)
    projected_n = vectors_nn.T @ centered_n
    found: tuple[float, float] | None = None
    for ridge in np.geomspace(1e-3, 1e3, 31):
        kept_n = weights_n / (weights_n + ridge)
        lever_n = (vectors_nn**2) @ kept_n + 1 / n
        residual_n = (centered_n - vectors_nn @ (kept_n * projected_n)) / (1 - lever_n)
        error = float((residual_n**2).mean())
        if found is None or error < found[0]:
            found = error, float(ridge)
    assert found is not None
    error, ridge = found
    alpha_n = vectors_nn @ (projected_n / (weights_n + ridge))
    variances = [float((kernel @ alpha_n).var()) for kernel in kernels]
    others = float(((centered_n * n / (n - 1)) ** 2).mean())  # the error of the others' mean
    return 1 - error / others, [one / max(sum(variances), 1e-300) for one in variances]
