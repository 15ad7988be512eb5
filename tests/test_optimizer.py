"""The optimizers and the learning rate's schedule: PyTorch's own results, at every step."""

import inspect
import io
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from ssl_runner.datasets import ImageDataset
from ssl_runner.train import prepare
from ssl_runner.train.loop import Training
from ssl_runner.train.optimizer import build_optimizer, lr_factor
from ssl_runner.train.settings import OPTIMIZERS, OptimizerSettings
from tests.test_train import CPU, SMALL, assert_same_bits, run, untimed

GIVEN: dict[str, dict[str, Any]] = {
    "Adam": {"weight_decay": 0.01, "beta1": 0.8, "beta2": 0.99, "eps": 1e-4},
    "RMSprop": {"optimizer_momentum": 0.5},
    "SGD": {"weight_decay": 0.01, "optimizer_momentum": 0.9, "nesterov": True},
}
IN_TORCH = {"optimizer_momentum": "momentum"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_defaults_are_pytorch_s(name: str) -> None:
    parameters = inspect.signature(getattr(torch.optim, name)).parameters
    theirs = {each: parameters[each].default for each in parameters}
    betas = theirs.get("betas", (None, None))
    theirs |= {"beta1": betas[0], "beta2": betas[1]}
    for setting, value in OPTIMIZERS[name].items():
        assert theirs[IN_TORCH.get(setting, setting)] == value, setting


def trained(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter]) -> list[torch.Tensor]:
    """The weights after each of a few steps."""
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(4):
        optimizer.zero_grad()
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        optimizer.step()
        seen.append(torch.cat([weight.detach().flatten() for weight in weights]))
    return seen


def fresh() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, 2), (5,))
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("given", [False, True])
def test_a_step_is_pytorch_s(name: str, given: bool) -> None:
    settings = GIVEN.get(name, {"weight_decay": 0.1}) if given else {}
    ours, theirs = fresh(), fresh()
    made = build_optimizer(
        OptimizerSettings(optimizer=name, lr=0.01, **settings).resolved(), iter(ours)
    )
    arguments = {IN_TORCH.get(each, each): value for each, value in settings.items()}
    if "beta1" in arguments:
        arguments["betas"] = (arguments.pop("beta1"), arguments.pop("beta2"))
    plain = getattr(torch.optim, name)(theirs, lr=0.01, **arguments)
    for one, other in zip(trained(made, ours), trained(plain, theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    assert type(made).__name__ == name
    plain.load_state_dict(made.state_dict())  # the layout is PyTorch's


STEPS = f"""
import sys, torch
from ssl_runner.train.optimizer import build_optimizer
from ssl_runner.train.settings import OPTIMIZERS, OptimizerSettings
for name in {[*OPTIMIZERS]}:
    weight = torch.nn.Parameter(torch.ones(3))
    made = build_optimizer(OptimizerSettings(optimizer=name).resolved(), [weight])
    made.zero_grad()
    weight.grad = torch.ones(3)
    made.step()
    made.load_state_dict(made.state_dict())
    assert weight[0] != 1
print("torch._dynamo" in sys.modules)
"""


def test_no_optimizer_loads_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    usual = (
        "import sys, torch; torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]).zero_grad(); "
        'print("torch._dynamo" in sys.modules)'
    )
    done = subprocess.run([sys.executable, "-c", usual], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"  # otherwise nothing would need to be unwrapped


def factors(steps: int, **settings: Any) -> list[float]:
    resolved = OptimizerSettings(**settings).resolved()
    return [lr_factor(resolved, step, steps) for step in range(steps)]


def of_torch(steps: int, make: Any) -> list[float]:
    """What one of PyTorch's schedulers multiplies the learning rate by at each step."""
    optimizer = torch.optim.SGD(fresh(), lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("settings", "scheduler"),
    [
        ({}, lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1)),
        (
            {"schedule": "linear"},
            lambda optimizer: lr_scheduler.LinearLR(optimizer, 1, 0, total_iters=60),
        ),
        ({"schedule": "cosine"}, lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)),
        (
            {"schedule": "fixmatch"},
            lambda optimizer: lr_scheduler.LambdaLR(
                optimizer, lambda step: math.cos(7 * math.pi * step / (16 * 60))
            ),
        ),
        ({"schedule": "step"}, lambda optimizer: lr_scheduler.StepLR(optimizer, 20, 0.1)),
        (
            {"schedule": "step", "decay_every": 0.8, "decay_factor": 0.2},
            lambda optimizer: lr_scheduler.StepLR(optimizer, 48, 0.2),
        ),
    ],
)
def test_a_schedule_is_pytorch_s(settings: dict[str, Any], scheduler: Any) -> None:
    expected = of_torch(60, scheduler)
    assert factors(60, **settings) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    # After a warm-up it is the same, over the steps that are left.
    warm = factors(64, **settings, warmup_steps=4)
    assert warm[:4] == [0.25, 0.5, 0.75, 1.0]
    assert warm[4:] == pytest.approx(expected, rel=1e-9, abs=1e-12)


SGD: dict[str, Any] = {
    "optimizer": "SGD",
    "lr": 0.05,
    "optimizer_momentum": 0.9,
    "nesterov": True,
    "weight_decay": 0.0005,
    "schedule": "cosine",
    "warmup_steps": 3,
}


def test_the_rate_of_each_step_is_the_schedule_s(fashion_mnist: ImageDataset) -> None:
    config = SMALL.replace(**SGD)
    training = Training(config, prepare(config, fashion_mnist), CPU, None, None)
    steps = 20  # two epochs of ten
    seen = []
    step = training.learner.optimizer.step

    def noted() -> None:
        seen.append(training.learner.optimizer.param_groups[0]["lr"])
        step()

    training.learner.optimizer.step = noted  # type: ignore[method-assign,assignment]
    for _ in range(2):
        training.train_epoch(lambda metrics, state: None, None)
        training.close_epoch()
    resolved = config.resolved().optimizer
    assert seen == [0.05 * lr_factor(resolved, at, steps) for at in range(steps)]
    assert len(set(seen)) > 15


@pytest.mark.parametrize(
    "settings",
    [SGD, *({"optimizer": name, "schedule": "step"} for name in OPTIMIZERS if name != "SGD")],
)
def test_a_run_that_was_cut_ends_in_the_same_bits(
    fashion_mnist: ImageDataset, settings: dict[str, Any]
) -> None:
    config = SMALL.replace(**settings, model="tests.models:SmallCNN", subset=600)
    states: list[bytes] = []

    def keep(metrics: dict[str, Any] | None, state: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        states.append(buffer.getvalue())

    whole = run(config, fashion_mnist, report=keep, checkpoint_steps=3)
    for saved in states:
        resume = torch.load(io.BytesIO(saved), weights_only=True)
        again = run(config, fashion_mnist, resume=resume)
        assert_same_bits(again.weights, whole.weights)
        assert untimed(again.history) == untimed(whole.history)


def test_a_warm_up_ends_before_the_training(fashion_mnist: ImageDataset) -> None:
    config = SMALL.replace(max_steps=5, warmup_steps=5)
    with pytest.raises(ValueError, match="warmup_steps must be less than the 5 steps of the training"):
        run(config, fashion_mnist)
    run(config.replace(warmup_steps=4), fashion_mnist)
