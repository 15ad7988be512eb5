"""PyTorch's optimizers by name, without the compiler they load; and the learning rate's schedule."""

import functools
import inspect
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ssl_runner.train.settings import OptimizerSettings

_FUSED = ("Adam", "AdamW", "SGD")  # on CPUs and on GPUs


def build_optimizer(
    settings: OptimizerSettings, weights: Iterable[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimizer of a trial.

    Args:
        settings: Resolved, and with them each hyperparameter that it takes.
        weights: What it trains.
    """
    arguments: dict[str, Any] = {
        "weight_decay": settings.weight_decay,
        "momentum": settings.optimizer_momentum,
        "nesterov": settings.nesterov,
        "betas": None if settings.beta1 is None else (settings.beta1, settings.beta2),
        "eps": settings.eps,
        "fused": True if settings.optimizer in _FUSED else None,
    }
    taken = {name: value for name, value in arguments.items() if value is not None}
    made: torch.optim.Optimizer = _light(settings.optimizer)(weights, lr=settings.lr, **taken)
    return made


@functools.cache
def _light(name: str) -> Any:
    """One of `torch.optim`'s classes, the same function and the same state.

    PyTorch excludes an optimizer's methods from compilation, and loads the compiler to do so, which
    takes a second or two in every training process. Here the methods are unwrapped: we compile only
    the model, never an optimizer.
    """
    kind = getattr(torch.optim, name)
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict", "step")
    bare: dict[str, Any] = {each: inspect.unwrap(getattr(kind, each)) for each in names}
    return type(name, (kind,), bare | {"step": torch.no_grad()(bare["step"])})


def lr_factor(settings: OptimizerSettings, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at an optimizer step. It depends on the step alone, so
    there is no state to save.

    After the warm-up's W steps, at t of the T left (Loshchilov and Hutter 2017 for the cosine; Sohn
    et al. 2020, section 2.3, for FixMatch's): linear 1 − t/T, cosine (1 + cos(πt/T)) / 2, fixmatch
    cos(7πt/16T); step: a factor for each share of T that has passed.

    Args:
        settings: Resolved.
        step: Steps taken so far.
        steps: Steps of the whole training.
    """
    warmup = settings.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    place = (step - warmup) / max(1, steps - warmup)
    if settings.schedule == "linear":
        return 1 - place
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * place)) / 2
    if settings.schedule == "fixmatch":
        return math.cos(7 * math.pi / 16 * place)
    if settings.schedule == "step":
        assert settings.decay_every is not None
        assert settings.decay_factor is not None
        return float(settings.decay_factor ** math.floor(place / settings.decay_every))
    return 1.0
