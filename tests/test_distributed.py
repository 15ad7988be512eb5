"""Several processes: torch's own over gloo, and Ray Train's, against one process."""

import dataclasses
import gc
import io
import itertools
import mmap
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.hyperparameters import METHODS
from ssl_runner.loader import PartiallyLabeledDataset, make_loader
from ssl_runner.models import CNN
from ssl_runner.sampler import HomogeneousBatchSampler
from ssl_runner.testing.processes import Runs, wait_until
from ssl_runner.train import TrialData, data_parallel, fit, prepare
from ssl_runner.train.device import to_model_input
from tests.conftest import RAY_BY_THE_DOZEN
from tests.test_train import untimed

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
# 130 labeled images in batches of 43: neither 2 nor 3 divides it, and of the tail of 1 most ranks
# have none.
CONFIG = TrialConfig(
    subset=650, label_fraction=0.2, batch_size=43, epochs=2, dropout=0, precision="fp32", patience=0
)


def _start(
    rank: int, world_size: int, store: str, work: Callable[..., Any], arguments: Any, answers: Any
) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        answers.put((rank, work(rank, world_size, *arguments)))
    finally:
        gc.collect()  # a DDP that outlives its group can end the process with an abort
        dist.destroy_process_group()


def over_ranks(world_size: int, folder: Path, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `work(rank, world_size, *arguments)` returns on each rank of a real gloo group."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload([__name__, "torch._dynamo"])  # imported once, not by every rank
    answers = context.SimpleQueue()
    store = folder / f"store-{world_size}-{len(list(folder.iterdir()))}"
    processes = [
        context.Process(target=_start, args=(rank, world_size, str(store), work, arguments, answers))
        for rank in range(world_size)
    ]
    got: dict[int, Any] = {}
    try:
        for process in processes:
            process.start()
        while len(got) < world_size:
            assert wait_until(
                lambda: not answers.empty(), lambda: not any(process.exitcode for process in processes)
            ), f"ranks ended with {[process.exitcode for process in processes]}"
            rank, answer = answers.get()
            got[rank] = answer
        for process in processes:
            process.join()
            assert process.exitcode == 0
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()
    return [got[rank] for rank in range(world_size)]


def small(data: TrialData) -> TrialData:
    """The same trial with only the images that it uses, cheap to send to another process."""
    used = np.concatenate([data.labeled, data.unlabeled])
    return dataclasses.replace(
        data,
        images_NCHW=data.images_NCHW[used],
        targets_N=data.targets_N[used],
        hidden_N=data.hidden_N[used],
        labeled=np.arange(len(data.labeled)),
        unlabeled=len(data.labeled) + np.arange(len(data.unlabeled)),
    )


Gradients = list[list[np.ndarray]]


def gradients(rank: int, world_size: int, data: TrialData) -> tuple[Gradients, Gradients]:
    """The gradients of every labeled step of an epoch: with the ranks' weights, and without."""
    torch.manual_seed(0)
    bare = CNN(1, (28, 28), 10, dropout=0.0)
    model = DistributedDataParallel(bare) if world_size > 1 else bare
    sampler = HomogeneousBatchSampler(
        data.labeled,
        data.unlabeled,
        batch_size=CONFIG.batch_size,
        num_replicas=world_size,
        rank=rank,
        skip_unlabeled=True,
    )
    found: tuple[Gradients, Gradients] = ([], [])
    for batch in make_loader(PartiallyLabeledDataset(data.images_NCHW, data.targets_N), sampler):
        for steps, weight in zip(found, (batch.weight, 1.0), strict=True):
            loss = F.cross_entropy(model(to_model_input(batch.images, CPU)), batch.targets)
            bare.zero_grad()
            (loss * weight).backward()
            steps.append([p.grad.double().numpy() for p in bare.parameters() if p.grad is not None])
    return found


def distance(one: list[np.ndarray], other: list[np.ndarray]) -> float:
    """Relative distance of two gradients, over all weights together."""
    flat, flat_other = (np.concatenate([part.ravel() for part in parts]) for parts in (one, other))
    return float(np.linalg.norm(flat - flat_other) / np.linalg.norm(flat))


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_averaged_gradient_is_the_global_batch_s(
    fashion_mnist: ImageDataset, tmp_path: Path, world_size: int
) -> None:
    data = small(prepare(CONFIG, fashion_mnist))
    alone, _ = gradients(0, 1, data)
    for weighted, unweighted in over_ranks(world_size, tmp_path, gradients, data):
        assert len(weighted) == len(alone) == 4
        assert max(map(distance, alone, weighted)) < 1e-6
        # Without the weights it is another one, but for the tail of one image, where the ranks
        # without an image take that same one for a filler.
        wrong = [distance(*pair) > 1e-3 for pair in zip(alone, unweighted, strict=True)]
        assert wrong == [True, True, True, False]


def averaged(rank: int, world_size: int, unseeing: int | None) -> list[np.ndarray] | None:
    """A rank's means of tensors of several sizes; None if its memory can't be shared by all."""
    if rank == unseeing:
        data_parallel._opened = lambda place, size: None
    group = dist.group.WORLD
    assert group is not None
    memory = data_parallel.shared_memory(4000, group)
    if memory is None:
        return None
    mean = data_parallel.SharedMean(memory, rank, world_size)
    generator = torch.Generator().manual_seed(rank)
    means = []
    for size in (1000, 1, 999, 500) * 20:
        values = torch.rand(size, generator=generator)
        expected = values.clone()
        dist.all_reduce(expected)
        mean(values)
        torch.testing.assert_close(values, expected / world_size)
        means.append(values.numpy())
    return means


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_of_one_machine_average_in_shared_memory(tmp_path: Path, world_size: int) -> None:
    first, *others = over_ranks(world_size, tmp_path, averaged, None)
    assert len(first) == 80
    for other in others:
        assert all(np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_if_one_rank_cannot_see_the_memory_none_uses_it(tmp_path: Path) -> None:
    assert over_ranks(3, tmp_path, averaged, 2) == [None, None, None]


def test_a_rank_that_never_comes_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_parallel, "_PATIENCE_SECONDS", 0.05)
    mean = data_parallel.SharedMean(mmap.mmap(-1, 64 * 3 + 2 * 2 * 64), 0, 2)
    with pytest.raises(RuntimeError, match="rank 1 has not come by for 0.05 seconds"):
        mean(torch.ones(3))


def fitted(
    rank: int,
    world_size: int,
    config: TrialConfig,
    data: TrialData,
    saved: bytes | None,
    cut: int | None,
) -> Any:
    """A fit on one rank: its history and weights, and with `cut` the states at each report."""
    states: list[bytes] = []

    def keep(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append(buffer.getvalue())

    resume = None if saved is None else torch.load(io.BytesIO(saved), weights_only=True)
    group = dist.group.WORLD if dist.is_initialized() else None
    result = fit(
        config, data, device=CPU, report=keep, group=group, resume=resume, checkpoint_steps=cut
    )
    weights = {name: weight.numpy() for name, weight in result.weights.items()}
    return untimed(result.history), weights, states if cut else []


def assert_same_run(one: Any, other: Any) -> None:
    """Every epoch's metrics to 1e-5, the weights to 1e-4 relative."""
    for row, other_row in zip(one[0], other[0], strict=True):
        for name, value in row.items():
            tolerance = None if value is None else 1e-5
            if name in ("accepted_share", "pseudo_accuracy"):
                tolerance = 0.01  # of images whose confidence is the threshold to the last bits
            assert other_row[name] == (value if value is None else pytest.approx(value, abs=tolerance))
    for name, weight in one[1].items():
        gap = np.linalg.norm(weight - other[1][name]) / np.linalg.norm(weight)
        assert gap < 1e-4, name


def fitted_in_turn(rank: int, world_size: int, trials: list[tuple[TrialConfig, TrialData]]) -> Any:
    return [fitted(rank, world_size, config, data, None, None) for config, data in trials]


def test_a_run_is_the_same_over_any_number_of_workers(
    fashion_mnist: ImageDataset, tmp_path: Path
) -> None:
    augmented = dataclasses.replace(CONFIG, augment="weak")
    configs = [CONFIG, augmented]
    for method in METHODS[1:]:
        mu = 2 if method == "freematch" else 1
        settings = {"method": method, "ema": 0.9, "mu": mu, "threshold": 0.2}
        configs.append(dataclasses.replace(augmented, **settings))  # type: ignore[arg-type]
    trials = [(config, small(prepare(config, fashion_mnist))) for config in configs]
    alone = fitted_in_turn(0, 1, trials)
    for one, other in itertools.combinations(alone, 2):
        assert one[0] != other[0]
    for world_size in (2, 3):
        for together in over_ranks(world_size, tmp_path, fitted_in_turn, trials):
            for pair in zip(alone, together, strict=True):
                assert_same_run(*pair)


def test_a_run_cut_at_two_workers_goes_on_at_one_and_at_three(
    fashion_mnist: ImageDataset, tmp_path: Path
) -> None:
    data = small(prepare(CONFIG, fashion_mnist))
    whole, _ = over_ranks(2, tmp_path, fitted, CONFIG, data, None, 3)
    states = [torch.load(io.BytesIO(saved), weights_only=True) for saved in whole[2]]
    in_mid_epoch = [bool(state["parts"]["sampler"]["step"]) for state in states]
    assert in_mid_epoch == [True, False, True, False]  # 4 steps an epoch, cut every 3
    for saved, state in zip(whole[2], states, strict=True):
        left = steps_left(data, state["parts"]["sampler"])
        assert len(left) == 8 - state["progress"]["steps"]
        assert_same_run(whole, fitted(0, 1, CONFIG, data, saved, None))
    for together in over_ranks(3, tmp_path, fitted, CONFIG, data, whole[2][2], None):
        assert_same_run(whole, together)


def steps_left(data: TrialData, state: dict[str, Any]) -> list[int]:
    """The labeled steps that a restored sampler still gives, to the end of the second epoch."""
    sampler = HomogeneousBatchSampler(
        data.labeled, data.unlabeled, batch_size=43, num_replicas=3, rank=1, skip_unlabeled=True
    )
    sampler.load_state_dict(state)
    left = []
    for epoch in range(state["epoch"], 2):
        sampler.set_epoch(epoch)
        left += [batch.step for batch in sampler]
    return left


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


def command(results: Path, *arguments: str, module: str = "tune") -> tuple[str, ...]:
    """A command on the small trial, whatever its module: what follows `python -m`."""
    kind = ("--configs", "partial", "--label-fractions") if module == "tune" else ("--label-fraction",)
    return (
        *(f"ssl_runner.{module}", "--results", str(results), *kind, "0.2", "--subset", "650"),
        *("--batch-size", "43", "--epochs", "2", "--augment", "weak", "--dropout", "0"),
        *("--precision", "fp32", "--cpus-per-trial", "1.5", *arguments),
    )


@pytest.mark.xdist_group(RAY_BY_THE_DOZEN)
def test_ray_train_s_workers_never_change_the_experiment(tmp_path: Path, runs: Runs) -> None:
    runs.start(*command(tmp_path, module="train")).succeed()
    runs.start(*command(tmp_path, "--num-workers", "3")).succeed()
    # No CPU is left beside the two: if they stayed behind when the trial's own process dies, it would
    # wait for them for ever.
    two = command(tmp_path, "--num-workers", "2", "--cpus-per-trial", str(os.cpu_count()))
    run = runs.start(*two)
    run.wait_for(lambda: bool(runs.processes("ray::RayTrainWorker")))
    assert runs.kill("ray::ImplicitFunc") == 1
    run.succeed()
    trials = pd.read_parquet(tmp_path / "trials").sort_values("num_workers")
    assert trials["world_size"].tolist() == trials["num_workers"].tolist() == [1, 2, 3]
    epochs = pd.read_parquet(tmp_path / "epochs").set_index("trial_id")
    one = epochs.loc[trials["trial_id"].iloc[0]]
    for trial_id in trials["trial_id"].iloc[1:]:
        for column in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
            assert epochs.loc[trial_id][column].tolist() == pytest.approx(
                one[column].tolist(), abs=1e-5
            )
        assert epochs.loc[trial_id]["passed"].tolist() == one["passed"].tolist() == [13, 26]


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
        assert disturbed[column] == pytest.approx(undisturbed[column], abs=1e-4)
