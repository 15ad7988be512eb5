"""What a search chose, how much that depends on its holdout, and what tuning changed."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ssl_runner.keyed_random import Permutation
from ssl_runner.results.compare import half_interval

# N = images of a holdout, S = samples of a search, D = draws of a smaller holdout


def best_samples(samples: pd.DataFrame, objective: str) -> dict[str, str]:
    """The best sample of each group of a search, by its validation images, never by the test images.

    Args:
        samples: Rows as in `results/trials`. Those that did not finish are left out: they had not the
            same budget.
        objective: What is best: the lowest `loss` or the highest `accuracy`.

    Returns:
        The trial's id by the group's name; of equal ones the first id. A group of which no sample has
        finished is not there.
    """
    done = samples[samples["status"] == "finished"]
    column, rises = f"validation_{objective}", objective == "loss"
    ordered = done.sort_values([column, "trial_id"], ascending=[rises, True])
    first = ordered.drop_duplicates("search_group")
    return dict(zip(first["search_group"], first["trial_id"], strict=True))


def holdout_sizes(trials: pd.DataFrame, draws: int = 200, seed: int = 0) -> pd.DataFrame:
    """How the choice of each search changes with the size of its holdout: by smaller ones, drawn from
    the images of its own.

    The choice is by accuracy here, whatever the search's objective: a row knows of each image of the
    holdout whether it was classified correctly.

    Args:
        trials: Rows as in `results/trials`, of which the finished samples of searches count.
        draws: Smaller holdouts of each size.
        seed: Fixes them; the same images are drawn for all samples.

    Returns:
        A row per search (`sweep`, `search_group`) and size, ascending: `holdout_labels`; `samples`;
        `same_winner`, the share of draws that choose the sample that the whole holdout chooses; the
        mean over the draws of the chosen sample's accuracy on the images that chose it,
        `chosen_accuracy`, which is too high, and on the rest of the holdout, `rest_accuracy`, with its
        standard deviation over the draws, `rest_spread`. The last row of a search is its whole holdout,
        for which there is no rest.
    """
    columns = ["sweep", "search_group", "holdout_labels", "samples"]
    columns += ["same_winner", "chosen_accuracy", "rest_accuracy", "rest_spread"]
    done = trials[(trials["role"] == "search") & (trials["status"] == "finished")]
    has_bits = [isinstance(bits, bytes) and len(bits) > 0 for bits in done["holdout_correct"]]
    done = done.loc[np.array(has_bits, dtype=bool)]
    rows = []
    for _, samples in done.groupby(["sweep", "search_group", "data_digest"], sort=False):
        samples = samples.sort_values("trial_id")  # of equally good samples the first id, as everywhere
        known = {name: samples[name].iloc[0] for name in ("sweep", "search_group")}
        known["samples"] = len(samples)
        bits = np.stack([np.frombuffer(each, dtype=np.uint8) for each in samples["holdout_correct"]])
        images = int(samples["validation_images"].iloc[0])
        rows += [
            known | each for each in _by_size(np.unpackbits(bits, axis=1)[:, :images], draws, seed)
        ]
    return pd.DataFrame(rows, columns=columns)


def _by_size(correct_SN: np.ndarray, draws: int, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of `holdout_sizes` of one search: how often each size chooses whom, and how well."""
    images, whole_S = correct_SN.shape[1], correct_SN.sum(axis=1, dtype=np.int64)
    winner = int(whole_S.argmax())
    # Counts below 2**24 are exact in float32, whose products are a hundred times as fast.
    correct_SN = correct_SN.astype(np.float32)
    for size in _smaller(images):
        hits_SD = (correct_SN @ _subsets(images, size, draws, seed).T).astype(np.int64)
        chosen_D = hits_SD.argmax(axis=0)
        hits_D = hits_SD[chosen_D, np.arange(draws)]
        rest_D = (whole_S[chosen_D] - hits_D) / (images - size)
        yield {
            "holdout_labels": size,
            "same_winner": float((chosen_D == winner).mean()),
            "chosen_accuracy": float(hits_D.mean()) / size,
            "rest_accuracy": float(rest_D.mean()),
            "rest_spread": float(rest_D.std(ddof=1)),
        }
    whole = {"same_winner": 1.0, "chosen_accuracy": float(whole_S[winner]) / images}
    yield {"holdout_labels": images} | whole


def _smaller(images: int) -> list[int]:
    """The sizes below a holdout's: 50, 100, 200, and so on."""
    return list(itertools.takewhile(lambda size: size < images, (50 * 2**k for k in itertools.count())))


def _subsets(images: int, size: int, draws: int, seed: int) -> np.ndarray:
    """Which images each of some random subsets of a holdout has; (draws, images), 0 or 1."""
    drawn_DN = np.zeros((draws, images), dtype=np.float32)
    for draw in range(draws):
        drawn_DN[draw, Permutation(images, (seed, size, draw)).at(np.arange(size))] = 1
    return drawn_DN


def tuning_effect(trials: pd.DataFrame) -> pd.DataFrame:
    """What tuning changed: the finals of each search less its settings as they stood, paired by seed.

    Args:
        trials: Rows as in `results/trials`, of searches that were run with `untuned`.

    Returns:
        A row per search, in the order of the rows: `sweep`, `search_group`, `model`, `config`,
        `label_fraction`, `method`, `labeled_images`; the test accuracy of the settings as they stood,
        `untuned_mean` and `untuned_spread` (standard deviation; NaN where n is 1), and of the finals,
        `tuned_mean` and `tuned_spread`; `change_mean`, with its 95 % confidence interval by Student's t
        over the pairs, `change_low` and `change_high`; `n`, the pairs.
    """
    done = trials[trials["status"] == "finished"]
    finals, untuned = done[done["role"] == "final"], done[done["role"] == "default"]
    is_asked = [bool(json.loads(record).get("untuned")) for record in finals["search"]]
    # Where the settings as they stood were the best, their trials are the finals.
    keys = ["sweep", "search_group", "data_digest"]
    asked = finals.loc[np.array(is_asked, dtype=bool)]
    found = asked.merge(untuned[keys].drop_duplicates(), on=keys, how="left", indicator=True)
    untuned = pd.concat([untuned, found[found["_merge"] == "left_only"].drop(columns="_merge")])
    pairs = finals.merge(
        untuned[[*keys, "seed", "split_seed", "test_accuracy"]],
        on=[*keys, "seed", "split_seed"],
        suffixes=("", "_untuned"),
    )
    pairs = pairs.assign(change=pairs["test_accuracy"] - pairs["test_accuracy_untuned"])
    shown = ["sweep", "search_group", "model", "config", "label_fraction", "method", "labeled_images"]
    table: pd.DataFrame = (
        pairs.groupby(shown, sort=False)
        .agg(
            untuned_mean=("test_accuracy_untuned", "mean"),
            untuned_spread=("test_accuracy_untuned", "std"),
            tuned_mean=("test_accuracy", "mean"),
            tuned_spread=("test_accuracy", "std"),
            change_mean=("change", "mean"),
            change_spread=("change", "std"),
            n=("change", "count"),
        )
        .reset_index()
    )
    half = half_interval(table.pop("change_spread"), table["n"])
    place = int(table.columns.get_loc("change_mean")) + 1  # type: ignore[arg-type]
    table.insert(place, "change_low", table["change_mean"] - half)
    table.insert(place + 1, "change_high", table["change_mean"] + half)
    return table
