"""How many labels does a test accuracy take? Measured, where images are chosen in rounds."""

import numpy as np
import pandas as pd

from ssl_runner.errors import InputError, require
from ssl_runner.results.compare import add_interval, compared_rows, varying_settings

_SEEDS = ["seed", "split_seed"]
_REFERENCES = {"to_random": (), "to_pass_random": ("method",)}
"""What labels are saved against: `random` with the same method, and `random` with `pass`; each with
what may differ."""

# R = rounds of one chain


def labels_at(labels_R: np.ndarray, accuracy_R: np.ndarray, target: float) -> float:
    """The number of labels at which one chain's accuracy first reaches a target.

    Between two rounds the accuracy is interpolated linearly in the logarithm of the labels; a round
    that is worse than one before it counts as that one, so that the curve never falls.

    Args:
        labels_R: Labels of each round, rising.
        accuracy_R: Its accuracy.
        target: The accuracy to reach.

    Returns:
        The labels; ∞ where no round reaches it, NaN where the first round does: how many labels fewer
        would have been enough is then not known.
    """
    reached_R = np.maximum.accumulate(accuracy_R)
    place = int(np.searchsorted(reached_R, target))  # the first round that reaches it
    if place == 0:
        return float("nan")
    if place == len(labels_R):
        return float("inf")
    low, high = np.log(labels_R[place - 1 : place + 1])
    below, above = reached_R[place - 1 : place + 1]
    return float(np.exp(low + (high - low) * (target - below) / (above - below)))


def labels_needed(trials: pd.DataFrame, target: float) -> pd.DataFrame:
    """The labels that a test accuracy takes by each selection and method, and how many that saves.

    Each chain of rounds is a curve of its own; means and intervals are over the chains, one for each
    seed and split seed. They are given only where every chain reaches the target, and none with its
    first labels: a mean over the others would be of the lucky ones, or of the unlucky ones.

    Args:
        trials: Rows as in `results/trials`, of which `compared_rows` are.
        target: The test accuracy, in (0, 1).

    Returns:
        A row per model, method, selection and any other setting that varies: `chains`, their number;
        `never`, `unfinished` and `at_once`, how many of them reach the target in no round, in no round
        so far, and with the first labels;
        `labels_mean`, `labels_spread`. `to_random_…`: the labels that `random` takes with the same
        method, seeds and other settings, less those of this row, so what choosing saves; and
        `to_pass_random_…`: less than `random` with `pass`, so what both save together. Of both mean,
        spread, `low` and `high`, the 95 % confidence interval by Student's t over `pairs` of them.

    Raises:
        InputError: If there are no rounds, those of one number of labels had others before them, or
            the target is out of range.
    """
    require(0 < target < 1, "--target", "in (0, 1)", target, "85 % is 0.85.")
    done = compared_rows(trials)
    done = done[done["selection"].notna()]
    if done.empty:
        raise InputError(
            "labels saved must be those of rounds, got no finished trial with a selection. "
            "Run --selections random margin --rounds 100 300 600."
        )
    others = [name for name in varying_settings(done) if name != "selection"]
    if "label_budgets" in others:
        budgets = " and ".join(sorted(set(done["label_budgets"]))[:2])
        raise InputError(
            f"labels saved must be of one list of rounds, got several, such as {budgets}. "
            "Name one sweep."
        )
    keys = ["model", "method", "selection", *others]
    chains = pd.DataFrame(
        [
            dict(zip([*keys, *_SEEDS], key, strict=True))
            | {
                "labels": labels_at(*_curve(chain), target),
                "is_whole": chain["labeled_images"].max() == done["labeled_images"].max(),
            }
            for key, chain in done.groupby([*keys, *_SEEDS], dropna=False)
        ]
    )
    chains["never"] = np.isinf(chains["labels"]) & chains["is_whole"]
    chains["unfinished"] = np.isinf(chains["labels"]) & ~chains["is_whole"]
    chains["at_once"] = chains["labels"].isna()
    is_known = np.isfinite(chains["labels"])
    all_known = is_known.groupby([chains[key] for key in keys], dropna=False).transform("all")
    chains["labels"] = chains["labels"].where(all_known)
    for name, free in _REFERENCES.items():
        chains = _paired(chains, name, [key for key in keys if key != "selection" and key not in free])
    aggregates = {
        "chains": ("labels", "size"),
        "never": ("never", "sum"),
        "unfinished": ("unfinished", "sum"),
        "at_once": ("at_once", "sum"),
        "labels_mean": ("labels", "mean"),
        "labels_spread": ("labels", "std"),
    }
    for name in _REFERENCES:
        for suffix, how in (("mean", "mean"), ("spread", "std"), ("n", "count"), ("pairs", "count")):
            aggregates[f"{name}_{suffix}"] = (name, how)
    table: pd.DataFrame = chains.groupby(keys, dropna=False, sort=False).agg(**aggregates).reset_index()
    for name in _REFERENCES:
        add_interval(table, name)
    return table


def _curve(chain: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """A chain's labels and accuracies, round by round."""
    in_order = chain.sort_values("labeled_images")
    labels_R = in_order["labeled_images"].to_numpy(dtype=float)
    return labels_R, in_order["test_accuracy"].to_numpy(dtype=float)


def _paired(chains: pd.DataFrame, name: str, keys: list[str]) -> pd.DataFrame:
    """With one more column: the labels of the reference's chain of the same keys and seeds, less its
    own. The reference itself has none."""
    is_reference = chains["selection"] == "random"
    if "method" not in keys:
        is_reference &= chains["method"] == "pass"
    reference = chains.loc[is_reference, [*keys, *_SEEDS, "labels"]]
    merged = chains.merge(
        reference.rename(columns={"labels": "reference"}), on=[*keys, *_SEEDS], how="left"
    )
    merged[name] = (merged.pop("reference") - merged["labels"]).where(~is_reference.to_numpy())
    return merged
