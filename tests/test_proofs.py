"""Adding workers never changes the experiment: proved in float64, for every method.

Over any number of workers the same sums are made in another order. In exact arithmetic nothing would
change; in float64 a training of some dozen steps changes by about 1e-13, whatever the CPU. A mistake in
the mathematics, such as a weight that is left out, changes it by more than 1e-4. In float32 the two
cannot be told apart: a rounded logit moves an image over a threshold, and from there the runs part.
"""

import dataclasses
import functools
import io
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.loader import Batch
from ssl_runner.methods import LabeledBatch, UnlabeledBatch
from ssl_runner.methods.settings import METHODS
from ssl_runner.models.batch_norm import SyncBatchNorm
from ssl_runner.sampler import LABELED_KIND, UNLABELED_KIND, HomogeneousBatchSampler
from ssl_runner.train import TrialData, fit, prepare
from ssl_runner.train.loop import Training
from ssl_runner.train.step import Learner, group_by_step
from tests.ranks import group, over_ranks, small
from tests.test_train import CPU, untimed

pytestmark = pytest.mark.slow

# W = workers, n = images of a global batch, K = classes, D = pixels of an image

BOUND = 1e-9
"""For whole trainings, relative: a million times float64's rounding, a ten thousandth of a mistake."""

# 40 labeled and 170 unlabeled images in batches of 13: neither 2 nor 3 divides it, and of the tails of
# one image most ranks have none.
PASS = TrialConfig.of(
    subset=210, label_fraction=0.19, batch_size=13, epochs=2, dropout=0, precision="fp64", patience=0
)
WEAK = PASS.replace(augment="weak", ema=0.9)
LEARNING = WEAK.replace(lr=0.003, momentum=0.5)
# So low that a model of a few steps accepts some images and not others.
THRESHOLD = 0.16
OF_LABELED = 0.98
"""The same as a share of the labeled images' confidence."""
TRIALS = {
    "pass": PASS,
    "pass, weak views and averaged weights": WEAK.replace(model="AdaptiveCNN"),
    "pass, strong views": WEAK.replace(augment="strong", magnitude=0.5),
    "fixmatch, aligned": LEARNING.replace(
        method="fixmatch", mu=2, threshold=0.13, alignment=True, temperature=0.5
    ),
} | {
    f"{method}, mu {mu}": LEARNING.replace(
        model="tests.models:SmallCNN",
        method=method,
        mu=mu,
        threshold=OF_LABELED if method == "adamatch" else THRESHOLD,
    )
    for method, mu in itertools.product([*METHODS][1:], (1, 2))
}
SYNCED = WEAK.replace(model="tests.models:NormedPixels", sync_batch_norm=True)
TRIALS |= {
    "pass, batch norm": SYNCED,
    "pi_model, batch norm": SYNCED.replace(method="pi_model"),
    "fixmatch, mu 2, batch norm": SYNCED.replace(
        model="tests.models:NormedFeatures", last_batch="pad", method="fixmatch", mu=2, threshold=0.2
    ),
}
CUT = ("pass", "freematch, mu 2", "fixmatch, mu 2, batch norm")
"""Trials that are cut and go on over other numbers of workers."""

CHECKPOINT_STEPS = 3

# A linear model that starts from zero: its first gradient's rounding can be counted.
IN_FP32 = PASS.replace(model="tests.models:FromZero", precision="fp32")

# As an older CPU would compute: vectors half as wide, and MKL's code that any processor can run.
OLDER = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "COMPATIBLE"}
CPUS: dict[str, dict[str, str]] = {"native": {}, "older": OLDER}


# ---- what is compared ----


@dataclass(frozen=True)
class Trained:
    """What a training came to.

    Attributes:
        figures: Each epoch's losses and confidence.
        counts: Its other metrics: counts, and quotients of them.
        tensors: Weights and averaged weights, the optimizer's moments, the method's running means.
        states: What was saved on the way, if it was.
    """

    figures: list[dict[str, float | None]]
    counts: list[dict[str, Any]]
    tensors: dict[str, np.ndarray]
    states: list[bytes]


FIGURES = {
    *("train_loss", "unlabeled_loss", "confidence", "validation_loss", "student_validation_loss"),
}


def trained(
    rank: int,
    world_size: int,
    config: TrialConfig,
    data: TrialData,
    checkpoint_steps: int | None = None,
    saved: bytes | None = None,
) -> Trained:
    """A training on one rank."""
    resume = None if saved is None else torch.load(io.BytesIO(saved), weights_only=True)
    states: list[bytes] = []
    last: dict[str, Any] = dict(resume or {})

    def keep(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        last.update(state)
        if checkpoint_steps:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            states.append(buffer.getvalue())

    arguments: dict[str, Any] = {"resume": resume, "checkpoint_steps": checkpoint_steps}
    result = fit(config, data, device=CPU, report=keep, group=group(), **arguments)
    history = untimed(result.history)
    return Trained(
        [{name: row[name] for name in row if name in FIGURES} for row in history],
        [{name: row[name] for name in row if name not in FIGURES} for row in history],
        {name: tensor.numpy().copy() for name, tensor in _tensors(last["parts"])},
        states if rank == 0 else [],
    )


def _tensors(parts: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for part in ("model", "average", "method"):
        for name, tensor in parts.get(part, {}).items():
            yield f"{part} {name}", tensor
    for place, moments in parts["optimizer"]["state"].items():
        for name in ("exp_avg", "exp_avg_sq"):
            yield f"{name} {place}", moments[name]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Relative distance, over all numbers together."""
    return float(np.linalg.norm(one - other) / (np.linalg.norm(one) or 1.0))


def gap(one: Trained, other: Trained) -> float:
    """The largest relative difference of a figure or a tensor."""
    gaps = [distance(tensor, other.tensors[name]) for name, tensor in one.tensors.items()]
    for row, other_row in zip(one.figures, other.figures, strict=True):
        for name, value in row.items():
            twin = other_row[name]
            assert (value is None) == (twin is None)
            gaps.append(abs(value - twin) / value if value and twin else 0.0)
    return max(gaps)


def assert_same(one: Trained, other: Trained, what: str) -> None:
    assert one.counts == other.counts, what  # not one image is judged otherwise
    assert gap(one, other) < BOUND, what


def gradients(rank: int, world_size: int, config: TrialConfig, data: TrialData) -> list[np.ndarray]:
    """The gradient of each step of an epoch, over all weights, at weights that stay as they are."""
    training = Training(config.replace(lr=1e-30), data, CPU, group(), None)
    weights = list(training.learner.bare.parameters())
    found = []
    for step, batches in enumerate(group_by_step(training.loader)):
        training.learner.step(batches, training.sums, 0, step)
        flat = [weight.grad.flatten() for weight in weights if weight.grad is not None]
        assert len(flat) == len(weights)
        found.append(torch.cat(flat).numpy())
    return found


# ---- mistakes on purpose ----


@contextmanager
def without_weight(kind: int) -> Iterator[None]:
    """W·n_r/n left out: the mean over the ranks' means, whatever the number of their images."""
    step = Learner.step

    def unweighted(self: Learner, batches: list[Batch], *arguments: Any) -> None:
        batches = [
            dataclasses.replace(batch, weight=1.0) if batch.kind == kind else batch for batch in batches
        ]
        step(self, batches, *arguments)

    with mock.patch.object(Learner, "step", unweighted):
        yield


@contextmanager
def without_mean() -> Iterator[None]:
    """A method's mean over the images of all workers is that of the rank's own images."""

    def own_mean(**parts: Any) -> UnlabeledBatch:
        return UnlabeledBatch(**parts | {"mean": lambda values: values.detach().mean(0)})

    with mock.patch("ssl_runner.train.step.UnlabeledBatch", own_mean):
        yield


def without_labeled_mean() -> Any:
    """A method's mean over the labeled images is that of the rank's own."""

    def own_mean(weak: Any, mean: Any) -> LabeledBatch:
        return LabeledBatch(weak=weak, mean=lambda values: values.detach().mean(0))

    return mock.patch("ssl_runner.train.step.LabeledBatch", own_mean)


def without_sync() -> Any:
    """Every rank normalizes its own images."""
    return mock.patch("ssl_runner.train.loop.synchronize")


def with_fillers() -> Any:
    """A filler image enters mean and variance."""
    always = property(lambda norm: True, lambda norm, counts: None)
    return mock.patch.object(SyncBatchNorm, "counts", always, create=True)


LABELED_WEIGHT, UNLABELED_WEIGHT = "labeled weight", "unlabeled weight"
LABELED_MEAN, MEAN = "labeled mean", "mean"
SYNC, FILLER = "synchronization", "filler"
MISTAKES: dict[str, Callable[[], Any]] = {
    LABELED_WEIGHT: functools.partial(without_weight, LABELED_KIND),
    UNLABELED_WEIGHT: functools.partial(without_weight, UNLABELED_KIND),
    MEAN: without_mean,
    LABELED_MEAN: without_labeled_mean,
    SYNC: without_sync,
    FILLER: with_fillers,
}
MISTAKEN = (
    (LABELED_WEIGHT, "pass"),
    (LABELED_WEIGHT, "mean_teacher, mu 2"),
    (UNLABELED_WEIGHT, "pi_model, mu 1"),
    (UNLABELED_WEIGHT, "fixmatch, mu 2"),
    (MEAN, "fixmatch, aligned"),
    (MEAN, "freematch, mu 1"),
    (MEAN, "softmatch, mu 2"),
    (MEAN, "adamatch, mu 1"),
    (LABELED_MEAN, "adamatch, mu 2"),
    (SYNC, "pass, batch norm"),
    (SYNC, "fixmatch, mu 2, batch norm"),
    (FILLER, "pass, batch norm"),
    (FILLER, "pi_model, batch norm"),
)


def with_mistake(
    rank: int, world_size: int, mistake: str, work: Callable[..., Any], *arguments: Any
) -> Any:
    with MISTAKES[mistake]():
        return work(rank, world_size, *arguments)


# ---- what the ranks do: everything in one group of processes, for each number of workers ----

Jobs = dict[tuple[str, ...], tuple[Any, ...]]
"""By name, a function of rank and world size, and its further arguments."""
Answers = dict[tuple[str, ...], Any]


def in_turn(rank: int, world_size: int, jobs: Jobs) -> Answers:
    return {name: work(rank, world_size, *arguments) for name, (work, *arguments) in jobs.items()}


def capability(rank: int, world_size: int) -> str:
    return torch.backends.cpu.get_cpu_capability()


def jobs_of_all(data: TrialData) -> Jobs:
    """What is the same over any number of workers."""
    jobs: Jobs = {("capability",): (capability,)}
    for name, config in TRIALS.items():
        jobs["trained", name] = (trained, config, data, CHECKPOINT_STEPS if name in CUT else None)
        jobs["gradients", name] = (gradients, config, data)
    return jobs


def jobs_of_controls(data: TrialData) -> Jobs:
    """What is not the same, and what is only nearly so."""
    jobs: Jobs = {("gradients", "fp32"): (gradients, IN_FP32, data)}
    for mistake, name in MISTAKEN:
        jobs[mistake, name] = (with_mistake, mistake, trained, TRIALS[name], data)
    for name, config in (("gradients", PASS), ("gradients in fp32", IN_FP32)):
        jobs[LABELED_WEIGHT, name] = (with_mistake, LABELED_WEIGHT, gradients, config, data)
    return jobs


@pytest.fixture(scope="module")
def data(fashion_mnist: ImageDataset) -> TrialData:
    data = small(prepare(PASS, fashion_mnist))
    assert (len(data.labeled), len(data.unlabeled)) == (40, 170)
    return data


Over = Callable[..., list[Answers]]


@pytest.fixture(scope="module")
def over(data: TrialData, tmp_path_factory: pytest.TempPathFactory) -> Over:
    """What each rank finds, by the number of ranks, natively or as an older CPU computes."""

    @functools.cache
    def found(world_size: int, cpu: str) -> list[Answers]:
        jobs = jobs_of_all(data)
        if cpu == "native":
            jobs |= jobs_of_controls(data)
            if world_size == 3:
                for name in CUT:
                    states = found(2, cpu)[0]["trained", name].states
                    jobs["resumed", name] = (trained, TRIALS[name], data, None, states[2])
        with mock.patch.dict(os.environ, CPUS[cpu]):
            folder, method = tmp_path_factory.mktemp("ranks"), "spawn" if CPUS[cpu] else "forkserver"
            return over_ranks(world_size, folder, in_turn, jobs, start_method=method)

    return lambda world_size, cpu="native": found(world_size, cpu)


@pytest.fixture(scope="module")
def alone(data: TrialData) -> Answers:
    """What this process finds, without a group."""
    return in_turn(0, 1, jobs_of_all(data))


@pytest.fixture
def alone_there(cpu: str, request: pytest.FixtureRequest, over: Over) -> Answers:
    """What one process finds on a kind of CPU: its kernels round even the initial weights' draws."""
    alone: Answers = request.getfixturevalue("alone") if cpu == "native" else over(1, cpu)[0]
    return alone


# ---- the proofs ----

several = pytest.mark.parametrize("world_size", [2, 3])
on_each_cpu = pytest.mark.parametrize("cpu", CPUS)


@several
@on_each_cpu
def test_a_training_is_the_same_over_any_number_of_workers(
    alone_there: Answers, over: Over, world_size: int, cpu: str
) -> None:
    for answers in over(world_size, cpu):
        if cpu == "older":
            assert "512" not in answers["capability",]
        for name in TRIALS:
            assert_same(alone_there["trained", name], answers["trained", name], name)


def test_the_trials_try_what_they_are_there_for(alone: Answers) -> None:
    for name, config in TRIALS.items():
        counts, figures = alone["trained", name].counts, alone["trained", name].figures
        steps = 7 if config.unlabeled.mu == 2 else 4 if config.unlabeled.method == "pass" else 14
        assert [row["steps"] for row in counts] == [steps, 2 * steps]
        assert figures[1]["train_loss"] != figures[0]["train_loss"]
        shares = [row["accepted_share"] for row in counts]
        if config.unlabeled.method.endswith(("label", "match")):
            assert any(0 < share < 1 for share in shares), (name, shares)


@several
@pytest.mark.parametrize(("mistake", "name"), MISTAKEN)
def test_a_mistake_is_ten_thousand_times_the_bound(
    alone: Answers, over: Over, world_size: int, mistake: str, name: str
) -> None:
    for answers in over(world_size):
        assert gap(alone["trained", name], answers[mistake, name]) > 10_000 * BOUND


@several
@on_each_cpu
def test_the_averaged_gradient_is_the_global_batch_s(
    alone_there: Answers, over: Over, world_size: int, cpu: str
) -> None:
    for answers in over(world_size, cpu):
        for name in TRIALS:
            pairs = zip(alone_there["gradients", name], answers["gradients", name], strict=True)
            assert max(itertools.starmap(distance, pairs)) < 1e-12, name


@several
def test_without_the_weights_the_averaged_gradient_is_another(
    alone: Answers, over: Over, world_size: int
) -> None:
    for answers in over(world_size):
        pairs = zip(alone["gradients", "pass"], answers[LABELED_WEIGHT, "gradients"], strict=True)
        # But for the tail of one image, where the ranks without one take that same one for a filler.
        assert [distance(*pair) > 1e-3 for pair in pairs] == [True, True, True, False]


@pytest.mark.parametrize("name", CUT)
def test_a_run_cut_at_two_workers_goes_on_at_one_and_at_three(
    alone: Answers, over: Over, data: TrialData, name: str
) -> None:
    config, whole = TRIALS[name], alone["trained", name]
    saved = over(2)[0]["trained", name].states
    states = [torch.load(io.BytesIO(state), weights_only=True) for state in saved]
    in_mid_epoch = [bool(state["parts"]["sampler"]["step"]) for state in states]
    if name == "pass":  # 4 steps an epoch, cut every 3
        assert in_mid_epoch == [True, False, True, False]
    else:  # 7 steps
        assert in_mid_epoch == [True, True, False, True, True, False]
    steps = whole.counts[-1]["steps"]
    for state, serialized in zip(states, saved, strict=True):
        left = steps_left(config, data, state["parts"]["sampler"])
        assert len(left) == steps - state["progress"]["steps"]
        again = trained(0, 1, config, data, None, serialized)
        assert_same(whole, again, f"from step {state['progress']['steps']}")
    for answers in over(3):
        assert_same(whole, answers["resumed", name], "three workers")


def steps_left(config: TrialConfig, data: TrialData, state: dict[str, Any]) -> list[int]:
    """The labeled steps that a restored sampler still gives, to the end of the second epoch."""
    config = config.resolved()
    settings: dict[str, Any] = {
        "order": config.batches.order,
        "last_batch": config.batches.last_batch,
        "mu": config.unlabeled.mu or 1,
        "skip_unlabeled": True,
    }
    sampler = HomogeneousBatchSampler(
        data.labeled, data.unlabeled, batch_size=13, num_replicas=3, rank=1, **settings
    )
    sampler.load_state_dict(state)
    left = []
    for epoch in range(state["epoch"], 2):
        sampler.set_epoch(epoch)
        left += [batch.step for batch in sampler]
    return left


# ---- float32 ----


def in_exact_arithmetic(data: TrialData) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Of each step the images n, and the gradient at zero weights with its terms' magnitudes.

    A linear model at zero gives every class 1/K, so the gradient of the mean cross entropy is
    Σ_i d_ik·x_ij / n with d_ik = 1/K − [image i is of class k], and Σ_i d_ik / n for the bias.
    """
    sampler = HomogeneousBatchSampler(
        data.labeled, data.unlabeled, batch_size=13, num_replicas=1, rank=0, skip_unlabeled=True
    )
    for batch in sampler:
        x_nD = data.images_NCHW[batch].reshape(len(batch), -1) / 255
        d_nK = 0.1 - np.eye(10)[data.targets_N[batch]]
        of_one, of_magnitudes = (
            np.concatenate([(d.T @ x_nD).ravel(), d.sum(0)]) / len(batch) for d in (d_nK, np.abs(d_nK))
        )
        yield len(batch), of_one, of_magnitudes


def test_in_float32_a_gradient_is_within_the_bound_of_its_rounding(data: TrialData, over: Over) -> None:
    """|error| ≤ γ_m · Σ|terms|, with γ_m = m·u / (1 − m·u), u = 2⁻²⁴ and m roundings of each term.

    That holds for a sum of products in any order, with or without fused multiply-add (Higham 2002,
    "Accuracy and Stability of Numerical Algorithms", second edition, lemma 3.1, sections 3.1 and
    4.2), so for any kernel and any cut of the batch. A term Σ's roundings are at most m = n + W + 24:
    - n to add up the images, W to add up the ranks' gradients and to divide by their number;
    - 4 for the weight W·n_r/n, for 1/n_r and for the products with them; 1 for a pixel's 1/255 and 1
      for the product with it;
    - 18 for d_ik: the logits are zero without rounding, ln K is off by 2u relatively (an error of at
      most a unit in the last place), so 1/K = exp(−ln K) by 2u·ln 10 < 5u from it, and exp itself by
      less than 8u (4 units in the last place) and a factor by 1, the subtraction by 1; the rest is
      for second thoughts of a kernel.
    """
    exact = list(in_exact_arithmetic(data))
    assert len(exact) == 4

    def is_within(found: list[np.ndarray], world_size: int) -> list[bool]:
        within = []
        for gradient, (n, expected, magnitudes) in zip(found, exact, strict=True):
            assert gradient.dtype == np.float32
            mu = (n + world_size + 24) * 2**-24
            within.append(bool((abs(gradient - expected) <= mu / (1 - mu) * magnitudes).all()))
        return within

    assert is_within(gradients(0, 1, IN_FP32, data), 1) == [True] * 4
    for world_size in (2, 3):
        for answers in over(world_size):
            assert is_within(answers["gradients", "fp32"], world_size) == [True] * 4
            mistaken = is_within(answers[LABELED_WEIGHT, "gradients in fp32"], world_size)
            assert mistaken == [False, False, False, True]  # the tail of one image, as above
