"""Rounds of buying labels: which labels a round has, and which its model buys for the next.

A round's row names the images that its model chose, in the order of choice. So the rows of the rounds
before it say which labels a round has, and nothing else needs to be kept.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssl_runner.asking import choose_by_asking, last_layer, trained_model
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import InputError
from ssl_runner.identity import Trial, rounds_up_to
from ssl_runner.keyed_random import seed_of
from ssl_runner.labels import UNLABELED
from ssl_runner.models import build_model
from ssl_runner.models.settings import ModelSettings
from ssl_runner.pools.foreign import with_foreign
from ssl_runner.results import ResultsFolder
from ssl_runner.saved_model import ModelCard
from ssl_runner.selection import STRATEGIES
from ssl_runner.selection.typical import require_scikit_learn
from ssl_runner.train import FitResult, TrialData, prepare
from ssl_runner.train.data import first_labeled

# One stream of random numbers per purpose (`split` has 0 to 2 under the same seed).
_CHOICE = 3


@dataclass(frozen=True, eq=False)
class Buying:
    """The labels of a round.

    Attributes:
        labeled: The images whose labels it has.
        number: How many labels its model buys for the next round; 0: there is none.
        steps: Optimizer steps of the rounds before it.
    """

    labeled: np.ndarray
    number: int
    steps: int = 0


def with_purchases(chain: Sequence[Trial]) -> list[tuple[Trial, int]]:
    """The rounds of a chain, each with the number of labels that it buys for the next: 0 for the last,
    and for a trial that is no round."""
    budgets = [max(trial.config.data.budgets, default=0) for trial in chain]
    bought = [more - less for less, more in itertools.pairwise(budgets)]
    return list(zip(chain, [*bought, 0], strict=True))


def has_bought(row: Mapping[str, Any], number: int) -> bool:
    """Whether a round's row, if it finished, names the images whose labels are bought: as many as are
    wanted, or any where the chain ends there."""
    images = row["next_images"]
    return row["status"] != "finished" or number in (0, 0 if images is None else len(images))


def buying_of(
    trial: Trial, number: int, dataset: ImageDataset, results: ResultsFolder, sweep: str
) -> Buying | None:
    """The labels that a round has, by the rows of the rounds before it; None: the trial is no round.

    Args:
        trial: The round.
        number: How many labels it buys in turn.
        dataset: The data set; no label is looked at but for the first round's choice.
        results, sweep: Where the rows are.

    Raises:
        InputError: If one of those rounds failed, has no row, or bought another number of labels.
    """
    budgets = trial.config.data.budgets
    if not budgets:
        return None
    labeled, steps = first_labeled(trial.config, dataset), 0
    for round_, earlier in enumerate(rounds_up_to(trial)[:-1], start=1):
        row = results.purchase(sweep, earlier.trial_id)
        if row is None:
            raise InputError(
                f"round {round_} (trial {earlier.trial_id}) must have a row: it says which labels "
                f"round {len(budgets)} has. Run the sweep again."
            )
        if row["status"] != "finished":
            raise InputError(f"round {round_} failed: {row['error']}")
        labeled, steps = np.concatenate([labeled, row["next_images"] or []]), steps + row["steps"]
        if len(np.unique(labeled)) != budgets[round_]:
            raise InputError(
                f"round {round_} (trial {earlier.trial_id}) must have bought labels up to "
                f"{budgets[round_]}, got {len(np.unique(labeled))}. Run the sweep again."
            )
    return Buying(np.sort(labeled).astype(np.int64), number, steps)


def next_images(
    config: TrialConfig, data: TrialData, result: FitResult, number: int, device: torch.device
) -> list[int]:
    """The images whose labels a trained model buys, in the order of choice.

    Candidates are the unlabeled images whose label can be bought; which class it is, is not looked at.
    What is random depends on the split seed and the round alone.
    """
    assert config.data.selection is not None
    candidates = data.unlabeled[data.hidden_N[data.unlabeled] != UNLABELED]
    models = []
    if config.data.selection != "random":
        models = [trained_model(config, data, result)]
        models[0].module.to(device)
    choice = choose_by_asking(
        models,
        data.images_NCHW,
        config.data.selection,
        number,
        labeled=data.labeled,
        candidates=candidates,
        seed=seed_of((config.data.split_seed, len(config.data.budgets), _CHOICE)),
        device=device,
    )
    chosen: list[int] = choice.indices.tolist()
    return chosen


def check_selections(
    selections: Iterable[str], network: ModelSettings, shape: tuple[int, int, int], classes: int
) -> None:
    """Refuse strategies that could only fail after the first round.

    Raises:
        InputError: If one needs features that the model does not have, or scikit-learn, which is not
            installed.
    """
    if "typiclust" in selections:
        require_scikit_learn()
    if any(STRATEGIES[selection].needs == "features" for selection in selections):
        channels, height, width = shape
        settings = dataclasses.replace(network, weights_file=None)
        last_layer(build_model(settings, channels, (height, width), classes), network.model)


def data_of(
    card: ModelCard, config: TrialConfig, dataset: ImageDataset, results: ResultsFolder
) -> TrialData:
    """What the trial of a saved model used of its data set.

    Args:
        card: The model's.
        config: The trial's settings, from its row.
        dataset: What it was trained on.
        results: Where its row is, and those of the rounds before it.

    Raises:
        InputError: As `prepare` and `buying_of` do.
    """
    trial = Trial(config.resolved(), card.data_digest, tuple(filter(None, card.sources.split("; "))))
    dataset = with_foreign(dataset, [trial.config.pools.foreign_images], say=lambda line: None)
    buying = buying_of(trial, 0, dataset, results, card.sweep)
    return prepare(config, dataset, None if buying is None else buying.labeled)
