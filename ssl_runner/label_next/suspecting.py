"""What models say of labeled images that they were trained without."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from scipy.special import softmax

from ssl_runner.asking import answers_to, trained_model
from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.labels import UNLABELED
from ssl_runner.selection import folds
from ssl_runner.train import fit, prepare

# N = training images, n = labeled ones, K = classes


def out_of_fold(
    config: TrialConfig, dataset: ImageDataset, count: int, say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of each labeled training image by a model that never saw its label.

    A model is trained for each fold, on the labels of all the others. Its epoch is chosen as in any
    trial, by validation images, none of which is judged.

    Args:
        config: How the models are trained; its seed fixes the folds, too.
        dataset: The data set.
        count: Number of folds.
        say: Called with a line for each fold.

    Returns:
        The labeled images, rising, (n,); and their probabilities, float64, (n, K).

    Raises:
        InputError: If there are fewer labeled images than folds.
    """
    train = dataset.train
    labeled = np.flatnonzero(train.labels != UNLABELED)
    fold_n = folds(train.labels[labeled], count, config.batches.seed)
    probabilities_nK = np.empty((len(labeled), len(train.class_names)))
    for fold in range(count):
        in_fold_n = fold_n == fold
        labels_N = train.labels.copy()
        labels_N[labeled[in_fold_n]] = UNLABELED
        blanked = dataclasses.replace(dataset, train=dataclasses.replace(train, labels=labels_N))
        data = prepare(config, blanked)
        result = fit(config, data, device=torch.device("cpu"), report=lambda metrics, state: None)
        logits_nK = answers_to(trained_model(config, data, result), train.images, labeled[in_fold_n])
        probabilities_nK[in_fold_n] = softmax(logits_nK, axis=1)
        agreed = (logits_nK.argmax(axis=1) == train.labels[labeled[in_fold_n]]).mean()
        say(
            f"fold {fold + 1} of {count}: trained on {len(data.labeled):,} labels "
            f"({len(result.history)} epochs), gives {agreed:.1%} of the other "
            f"{int(in_fold_n.sum()):,} their label"
        )
    return labeled, probabilities_nK
