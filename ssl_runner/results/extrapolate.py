"""How many labels are needed? A saturating power law through the label curve: an extrapolation."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl_runner.errors import InputError
from ssl_runner.results.compare import compared_rows

FEWEST = 4
"""A curve needs at least so many numbers of labeled images: it has three parameters."""

_DRAWS = 4000
_INTERVAL = (2.5, 97.5)

# D = draws of the three parameters


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


def _law(
    labels: np.ndarray, asymptote: np.ndarray, gap: np.ndarray, exponent: np.ndarray
) -> np.ndarray:
    """asymptote − gap · (labels / 1000) ** −exponent."""
    fitted: np.ndarray = asymptote - gap * (labels / 1000) ** -exponent
    return fitted


@dataclass(frozen=True)
class LabelCurve:
    """The law acc(n) = a − b·(n/1000)^(−c), with its uncertainty.

    The form is the usual one for learning curves (Hestness et al. 2017, section 2).

    Attributes:
        best: a, b and c of the least squares.
        draws_D3: Draws of them from the normal distribution that the fit's covariance gives.
        labels: The numbers of labels that it was fitted on.
    """

    best: np.ndarray
    draws_D3: np.ndarray
    labels: tuple[int, ...]

    @classmethod
    def fit(cls, trials: pd.DataFrame, method: str = "pass") -> "LabelCurve":
        """Fit the test accuracy of every trial of one model that may be compared, each as one point.

        Args:
            trials: Rows as in `results/trials`; only `compared_rows` count.
            method: The method of the partial trials; full belongs to every method.

        Raises:
            InputError: If the rows do not support it.
        """
        done = compared_rows(trials)
        done = done[(done["method"] == method) | (done["config"] == "full")]
        models = sorted(set(done["model"]))
        if len(models) > 1:
            raise InputError(
                f"a label curve must be of one model, got {', '.join(models)}. Name a sweep with one."
            )
        selections = sorted(set(done["selection"].dropna()))
        if len(selections) > 1:
            raise InputError(
                f"a label curve must be of one selection, got {', '.join(selections)}. Their rounds "
                "are measured: --target interpolates between them."
            )
        labels = tuple(sorted(set(done["labeled_images"].astype(int))))
        if len(labels) < FEWEST:
            raise InputError(
                f"a label curve must have {FEWEST} numbers of labels or more, got {len(labels)} with "
                f"method {method}. Run more --label-fractions."
            )
        from scipy.optimize import OptimizeWarning, curve_fit  # slow to load, and rarely needed

        n = done["labeled_images"].to_numpy(dtype=float)
        accuracy = done["test_accuracy"].to_numpy(dtype=float)
        start = (min(1.0, accuracy.max() + 0.01), 0.1, 0.5)
        try:
            best, covariance = curve_fit(
                _law, n, accuracy, p0=start, bounds=((0, 0, 0.01), (1, 1, 3)), max_nfev=20_000
            )
        except (RuntimeError, OptimizeWarning):
            covariance = np.full((3, 3), np.inf)
        if not np.isfinite(covariance).all():
            raise InputError(
                "a label curve must rise and flatten, and no such curve fits these trials. Run more "
                "--label-fractions or --seeds."
            )
        draws = np.random.default_rng(0).multivariate_normal(best, covariance, _DRAWS, method="eigh")
        return cls(best, np.clip(draws, (0, 0, 0.01), (1, 1, 3)), labels)

    def accuracy(self, labels: int) -> Estimate:
        """The expected test accuracy at a number of labeled images."""
        n = np.asarray(float(labels))
        low, high = np.percentile(_law(n, *self.draws_D3.T), _INTERVAL)
        return Estimate(float(_law(n, *self.best)), float(low), float(high))

    def labels_needed(self, target: float) -> Estimate:
        """The number of labeled images for a test accuracy.

        Raises:
            InputError: If the target lies above what the curve can reach, or within its uncertainty.
        """
        lowest = float(np.percentile(self.draws_D3[:, 0], _INTERVAL[0]))
        if not 0 < target < lowest:
            raise InputError(
                f"--target must be in (0, {lowest:.4f}), below the interval of what the curve tends "
                f"to, got {target:g}. These trials cannot say how many labels that takes."
            )
        a, b, c = self.draws_D3.T
        needed = 1000 * (b / (a - target).clip(1e-9)) ** (1 / c)
        low, high = np.percentile(needed, _INTERVAL)
        a, b, c = self.best
        return Estimate(float(1000 * (b / (a - target)) ** (1 / c)), float(low), float(high))
