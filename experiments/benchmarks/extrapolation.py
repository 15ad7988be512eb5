"""How good is the label curve's extrapolation? Fitted on 25 % of the labels and less, for 50 and 100 %.

python -m ssl_runner.tune experiments/extrapolation.yaml   # 35 trials, about 15 minutes on two cores
python -m experiments.benchmarks.extrapolation results extrapolation
"""

import argparse

import pandas as pd
from rich.console import Console
from rich.table import Table

from ssl_runner.results import LabelCurve, load_trials

MOST = 0.25
"""The largest label fraction that is fitted on."""


def errors_of(trials: pd.DataFrame) -> list[dict[str, float]]:
    """For each larger label fraction: predicted less measured accuracy, and whether it lies within.

    Args:
        trials: Finished rows of one configuration but for label fraction and seeds.
    """
    curve = LabelCurve.fit(trials[trials["label_fraction"] <= MOST])
    found = []
    for fraction, rows in trials[trials["label_fraction"] > MOST].groupby("label_fraction"):
        measured = rows["test_accuracy"].mean()
        estimate = curve.accuracy(int(rows["labeled_images"].iloc[0]))
        found.append(
            {
                "fraction": float(str(fraction)),
                "measured": measured,
                "error": estimate.value - measured,
                "within": float(estimate.low <= measured <= estimate.high),
                "width": estimate.high - estimate.low,
            }
        )
    return found


def main() -> None:
    """Print the errors of a fit for each seed, and of one over all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results")
    parser.add_argument("sweep")
    options = parser.parse_args()
    trials = load_trials(options.results, options.sweep).query("status == 'finished'")
    single = pd.DataFrame([row for _, rows in trials.groupby("seed") for row in errors_of(rows)])
    pooled = pd.DataFrame(errors_of(trials)).set_index("fraction")
    table = Table(title=f"fitted on {MOST:.0%} of the labels and less; points of test accuracy")
    for heading in (
        "fraction",
        "measured",
        "error, each seed",
        "largest",
        "within",
        "error, all seeds",
    ):
        table.add_column(heading, justify="right")
    for fraction, rows in single.groupby("fraction"):
        error, whole = 100 * rows["error"], pooled.loc[fraction]
        table.add_row(
            f"{fraction:g}",
            f"{rows['measured'].mean():.2%}",
            f"{error.mean():+.2f} ± {error.std():.2f} (n = {len(rows)})",
            f"{error.abs().max():.2f}",
            f"{rows['within'].mean():.0%} of intervals, {100 * rows['width'].median():.2f} wide",
            f"{100 * whole['error']:+.2f}, {'within' if whole['within'] else 'outside'}"
            f" ({100 * whole['width']:.2f} wide)",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
