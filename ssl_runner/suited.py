"""A sweep as it suits its data: which label fractions are possible, and what to say beforehand."""

import dataclasses

import numpy as np

from ssl_runner.config import DEFAULT_FRACTIONS, SweepConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.datasets.settings import is_path
from ssl_runner.labels import UNLABELED
from ssl_runner.train.data import known_of, training_pool

FEW = 10
"""Labeled images below which a class is named."""


def suited(sweep: SweepConfig, dataset: ImageDataset) -> tuple[SweepConfig, list[str]]:
    """A sweep for a data set, under the name that its rows give to that, and the lines to print before
    it starts.

    Of the default label fractions, those that would leave a class without a label are left out;
    fractions that somebody chose stay, and are refused when they are tried.

    Raises:
        InputError: If the data set is too small for the subset or the holdout.
    """
    known = known_of(sweep.trial, dataset)
    names, labels_N = known.names, dataset.train.labels
    pool, _ = training_pool(sweep.trial, dataset)
    labels_n = labels_N[pool]
    counted_n = known.numbered(labels_n[known.is_one(labels_n)])
    counts_K = np.bincount(counted_n, minlength=len(names))
    lines = []
    if without := int((labels_n == UNLABELED).sum()):
        lines.append(
            f"{without:,} of {len(pool):,} training images have no label: full means the "
            f"{len(pool) - without:,} labels that there are"
        )
    few = [f"{names[k]} ({counts_K[k]})" for k in np.flatnonzero(counts_K < FEW)]
    if few:
        shown = ", ".join(few[:FEW]) + (", …" if len(few) > FEW else "")
        lines.append(f"classes with fewer than {FEW} labeled training images: {shown}")
    if is_path(sweep.trial.data.dataset):  # rows name it alike on every machine
        sweep = dataclasses.replace(sweep, trial=sweep.trial.replace(dataset=dataset.name))
    fractions = sweep.label_fractions
    has_fractions = "partial" in sweep.configs and sweep.rounds is None
    if fractions == DEFAULT_FRACTIONS and has_fractions and counts_K.min() > 0:
        least = counts_K.min()
        possible = tuple(f for f in fractions if np.floor(f * least + 0.5) >= 1)
        if possible and possible != fractions:
            left_out = ", ".join(f"{f:g}" for f in fractions if f not in possible)
            lines.append(
                f"label fractions {left_out} are left out: of the {least} labeled images of "
                f"{names[int(counts_K.argmin())]} they would keep none"
            )
            sweep = dataclasses.replace(sweep, label_fractions=possible)
    return sweep, lines
