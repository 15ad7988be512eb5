"""What saved models were trained and validated on, from their trials' rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.datasets.decoded.store import find_content
from ssl_runner.datasets.settings import is_path
from ssl_runner.errors import InputError
from ssl_runner.results import ResultsFolder
from ssl_runner.rounds import data_of
from ssl_runner.saved_model import ModelCard, SavedModel
from ssl_runner.settings import is_import_path
from ssl_runner.train import TrialData

# n = validation images


@dataclass(frozen=True)
class Validation:
    """A model's validation images.

    Attributes:
        images: uint8, (n, C, H, W).
        labels: Their classes, (n,).
        is_test: Whether they are the test images too.
    """

    images: np.ndarray
    labels: np.ndarray
    is_test: bool


class Rows:
    """The rows of models' trials, read when they are needed.

    Args:
        results: The results folder of each model's trial.
    """

    def __init__(self, results: Sequence[str]) -> None:
        self._results = list(results)

    def trials(self, models: Sequence[SavedModel], dataset: ImageDataset) -> list[TrialData] | None:
        """What each model's trial used of a data set; None: one was trained on other data.

        Raises:
            InputError: If a trial's row is not there.
        """
        if any(saved.card.data_digest != dataset.digest for saved in models):
            return None
        return [
            data_of(saved.card, config_of(saved.card, folder), dataset, ResultsFolder(folder))
            for saved, folder in zip(models, self._results, strict=True)
        ]

    def tested_on_fewer(self, models: Sequence[SavedModel]) -> list[str]:
        """A line for each model whose row's test figures are of a share of the test images."""
        lines = []
        for saved, folder in zip(models, self._results, strict=True):
            config = ResultsFolder(folder).config(saved.card.sweep, saved.card.trial_id)
            if config is not None and config.data.subset is not None:
                lines.append(
                    f"trial {saved.card.trial_id} was tested on a share of the test images (--subset "
                    f"{config.data.subset}): the accuracy in its row is of those alone"
                )
        return lines

    def validations(
        self, models: Sequence[SavedModel], data_dir: Path | None, trust_code: bool
    ) -> list[Validation]:
        """The validation images of each model.

        Raises:
            InputError: If a trial's row or its data are not there.
        """
        data = cache(lambda name, digest: _dataset(name, digest, data_dir, trust_code))
        found = []
        for saved, folder in zip(models, self._results, strict=True):
            config = config_of(saved.card, folder)
            dataset = data(saved.card.dataset, saved.card.data_digest)
            trial = data_of(saved.card, config, dataset, ResultsFolder(folder))
            found.append(Validation(*trial.validation, is_test=trial.test is None))
        return found


def config_of(card: ModelCard, results: str) -> TrialConfig:
    """The settings of a model's trial.

    Raises:
        InputError: If its row is not in the folder.
    """
    config = ResultsFolder(results).config(card.sweep, card.trial_id)
    if config is None:
        raise InputError(
            f"the row of trial {card.trial_id} of sweep {card.sweep} must be in the results folder, "
            f"got none in {results!r}: it says which images that used. Name its folder: --results."
        )
    return config


def _dataset(name: str, digest: str, data_dir: Path | None, trust_code: bool) -> ImageDataset:
    dataset: ImageDataset | None
    if is_path(name):
        dataset = find_content(digest, name)
        why = f"the decoded images of {name!r} (digest {digest}) are not in the cache"
    elif is_import_path(name) and not trust_code:
        dataset, why = None, f"it needs the code {name!r}, which --trust-code allows"
    else:
        dataset = load_dataset(name, data_dir, say=lambda line: None, fetch=False)
        why = f"{name} has the digest {dataset.digest} here, and {digest} when the model was trained"
        dataset = dataset if dataset.digest == digest else None
    if dataset is None:
        raise InputError(
            f"the data that the model was trained on must be on this machine, to calibrate it, but "
            f"{why}. Name labeled images that it was not trained on: --calibrate-on."
        )
    return dataset
