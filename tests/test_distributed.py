"""Several workers: when they disagree, and those of Ray Train against one process."""

import dataclasses
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from torch import nn

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.testing.processes import Runs
from ssl_runner.train import TrialData, evaluate, fit, prepare
from ssl_runner.train.evaluation import Evaluation
from tests.conftest import RAY_BY_THE_DOZEN
from tests.ranks import group, over_ranks, small

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CONFIG = TrialConfig.of(subset=650, label_fraction=0.2, batch_size=43, epochs=2, patience=0)
BOUND = 1e-9
"""In float64, absolute: as in test_proofs.py."""


def disagreeing(rank: int, world_size: int, data: TrialData) -> str:
    """What a rank is told when rank 1 has another pool."""
    if rank == 1:
        data = dataclasses.replace(data, labeled=data.labeled[:-40])
    try:
        fit(CONFIG, data, device=CPU, report=lambda *_: None, group=dist.group.WORLD)
    except ValueError as error:
        return str(error)
    return "nothing"


def test_ranks_that_disagree_all_find_out(fashion_mnist: ImageDataset, tmp_path: Path) -> None:
    told = over_ranks(2, tmp_path, disagreeing, small(prepare(CONFIG, fashion_mnist)))
    assert Counter(told).most_common(1)[0][1] == 2
    assert re.search(
        r"same plan, got steps \[17, 16\]; labeled \['\w{16}', '\w{16}'\] \(rank 0", told[0]
    )


def judged(rank: int, world_size: int, images: Any, labels: Any) -> Evaluation:
    """The figures of an untrained model, image by image."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).double()
    return evaluate(model, images, labels, 10, device=CPU, precision="fp64", group=group(), each=True)


def test_what_is_known_of_each_image_is_the_same_over_any_number_of_ranks(
    fashion_mnist: ImageDataset, tmp_path: Path
) -> None:
    images, labels = fashion_mnist.test.images[:101], fashion_mnist.test.labels[:101]
    alone = judged(0, 1, images, labels)
    assert 0 < alone.accuracy < 1
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(alone.correct), dtype=np.uint8))
    assert bits.sum() == round(101 * alone.accuracy)
    for world_size in (2, 3):
        every = over_ranks(world_size, tmp_path, judged, images, labels)
        assert {each.correct for each in every} == {alone.correct}


def command(results: Path, *arguments: str, module: str = "tune") -> tuple[str, ...]:
    """A command on the small trial, whatever its module: what follows `python -m`. In float64, so that
    what is equal by mathematics is equal on any CPU."""
    kind = ("--configs", "partial", "--label-fractions") if module == "tune" else ("--label-fraction",)
    return (
        *(f"ssl_runner.{module}", "--results", str(results), *kind, "0.2", "--subset", "650"),
        *("--batch-size", "43", "--epochs", "2", "--augment", "weak", "--dropout", "0"),
        *("--precision", "fp64", "--cpus-per-trial", "1.5", *arguments),
    )


@pytest.mark.xdist_group(RAY_BY_THE_DOZEN)
def test_ray_train_s_workers_never_change_the_experiment(tmp_path: Path, runs: Runs) -> None:
    runs.start(*command(tmp_path, module="train")).succeed()
    runs.start(*command(tmp_path, "--num-workers", "3", "--name", "three")).succeed()
    # No CPU is left beside the two: if they stayed behind when the trial's own process dies, it would
    # wait for them for ever.
    workers = ("--num-workers", "2", "--cpus-per-trial", str(os.cpu_count()))
    run = runs.start(*command(tmp_path, *workers, "--name", "two"))
    run.wait_for(lambda: bool(runs.processes("ray::RayTrainWorker")))
    assert runs.kill("ray::ImplicitFunc") == 1
    run.succeed()
    trials = pd.read_parquet(tmp_path / "trials").sort_values("num_workers")
    assert trials["world_size"].tolist() == trials["num_workers"].tolist() == [1, 2, 3]
    assert trials["trial_id"].nunique() == 1  # workers are where it runs, not what it is
    epochs = pd.read_parquet(tmp_path / "epochs").set_index("sweep")
    one = epochs.loc["train"]
    for several in (epochs.loc["two"], epochs.loc["three"]):
        for column in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            assert several[column].tolist() == pytest.approx(one[column].tolist(), abs=BOUND)
    assert set(epochs["unlabeled_batches_skipped"]) == {13, 26}


@pytest.mark.xdist_group(RAY_BY_THE_DOZEN)
def test_an_elastic_trial_outlives_its_workers(
    tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("--epochs", "12", "--patience", "0", "--checkpoint-steps", "2")
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", os.devnull)  # it exists: nobody is killed
    alone = command(tmp_path, *settings, "--model", "tests.models:Killed", module="train")
    runs.start(*alone).succeed()
    monkeypatch.setenv("SSL_RUNNER_TEST_MARK", str(tmp_path / "mark"))
    elastic = ("--models", "tests.models:Killed", "--num-workers", "1", "3")
    runs.start(*command(tmp_path, *settings, *elastic)).succeed()
    assert (tmp_path / "mark").exists()
    undisturbed, disturbed = (
        pd.read_parquet(tmp_path / "trials").sort_values("num_workers").to_dict("records")
    )
    assert (disturbed["min_workers"], disturbed["num_workers"]) == (1, 3)
    for column in ("train_loss", "validation_loss", "validation_accuracy", "steps", "best_epoch"):
        assert disturbed[column] == pytest.approx(undisturbed[column], abs=BOUND)
