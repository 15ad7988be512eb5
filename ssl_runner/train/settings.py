"""Settings: the optimizer, the budget, and how a trial is computed."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ssl_runner.errors import did_you_mean, require
from ssl_runner.settings import Real, Text, Whole, check, setting, taken_alone

Keep = Literal["best", "last"]
Precision = Literal["auto", "fp32", "bf16", "fp64"]


Schedule = Literal["none", "linear", "cosine", "fixmatch", "step"]
_Value = float | bool

_ADAM = {"weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

OPTIMIZERS: Mapping[str, Mapping[str, _Value]] = {
    "Adam": _ADAM,
    "AdamW": _ADAM | {"weight_decay": 0.01},
    "NAdam": _ADAM,
    "RAdam": _ADAM,
    "Adamax": _ADAM,
    "Adagrad": {"weight_decay": 0.0, "eps": 1e-10},
    "RMSprop": {"weight_decay": 0.0, "eps": 1e-8, "optimizer_momentum": 0.0},
    "SGD": {"weight_decay": 0.0, "optimizer_momentum": 0.0, "nesterov": False},
}
"""PyTorch's optimizers by name, each with the hyperparameters it takes and PyTorch's defaults."""

SCHEDULES: Mapping[str, Mapping[str, _Value]] = {"step": {"decay_every": 1 / 3, "decay_factor": 0.1}}
"""The hyperparameters that a schedule takes, with their defaults."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer, and the schedule of its learning rate. None: the optimizer's own default.

    Raises:
        InputError: If a setting is out of its range.
    """

    optimizer: Text = setting(
        "Adam", f"one of PyTorch's: {', '.join(OPTIMIZERS)}", column="optimizer, by PyTorch's name"
    )
    lr: Real = setting(
        0.001,
        "learning rate; with a schedule, the highest",
        above=0,
        below=10,
    )
    weight_decay: Real | None = setting(
        None,
        "weight decay; none: the optimizer's default, 0.01 for AdamW, 0 for the others",
        column="weight decay",
        least=0,
        most=1,
        fix="Try 0.0005.",
    )
    optimizer_momentum: Real | None = setting(
        None,
        "momentum of SGD or RMSprop; none: 0",
        column="momentum of SGD or RMSprop; null: the optimizer takes none",
        least=0,
        below=1,
        fix="Try 0.9.",
    )
    nesterov: bool | None = setting(
        None,
        "Nesterov's momentum, for SGD; none: false",
        column="whether SGD's momentum is Nesterov's; null: the optimizer takes none",
    )
    beta1: Real | None = setting(
        None,
        "decay of Adam's mean of the gradient; none: 0.9",
        column="decay of Adam's mean of the gradient; null: the optimizer takes none",
        least=0,
        below=1,
        fix="Try 0.9.",
    )
    beta2: Real | None = setting(
        None,
        "decay of Adam's mean of its square; none: 0.999",
        column="decay of Adam's mean of its square; null: the optimizer takes none",
        least=0,
        below=1,
        fix="Try 0.999.",
    )
    eps: Real | None = setting(
        None,
        "added to the denominator; none: the optimizer's default, 1e-8 for most",
        column="added to the optimizer's denominator; null: it takes none",
        above=0,
        most=1,
        fix="Try 1e-8.",
    )
    schedule: Schedule = setting(
        "none",
        "of the learning rate, by step: none, linear or cosine (to 0), fixmatch (cosine of 7π/16 of "
        "the training) or step",
        column="schedule of the learning rate, by step",
    )
    decay_every: Real | None = setting(
        None,
        "schedule step: share of the training after which the learning rate falls, each time; "
        "none: a third",
        column="share of the training after which lr falls, each time; null: no schedule step",
        above=0,
        most=1,
        fix="0.8 is once, after 80 %.",
    )
    decay_factor: Real | None = setting(
        None,
        "schedule step: the factor by which it falls; none: 0.1",
        column="factor by which lr falls; null: no schedule step",
        above=0,
        below=1,
        fix="Try 0.1.",
    )
    warmup_steps: Whole = setting(
        0,
        "optimizer steps over which the learning rate first rises from 0, linearly",
        least=0,
        fix="0 is no warm-up.",
    )

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            rule = f"one of {', '.join(OPTIMIZERS)}"
            fix = did_you_mean(self.optimizer, OPTIMIZERS)
            require(False, "optimizer", rule, self.optimizer, fix)
        check(self)
        has_momentum = not self.nesterov or self.optimizer != "SGD" or bool(self.optimizer_momentum)
        fix = "Try --optimizer-momentum 0.9."
        require(has_momentum, "nesterov", "false without a momentum", self.nesterov, fix)

    @property
    def description(self) -> str:
        """What takes, or does not take, a hyperparameter."""
        return f"neither {self.optimizer} nor schedule {self.schedule}"

    def resolved(self) -> "OptimizerSettings":
        """The same with a value for each hyperparameter that the optimizer and the schedule take, and
        for no other."""
        takes = {**OPTIMIZERS[self.optimizer], **SCHEDULES.get(self.schedule, {})}
        resolved: OptimizerSettings = taken_alone(self, OF_SOME_OPTIMIZERS, takes)
        return resolved


OF_SOME_OPTIMIZERS = tuple(dict.fromkeys(itertools.chain(*OPTIMIZERS.values(), *SCHEDULES.values())))
"""Hyperparameters that not every optimizer or schedule takes."""


@dataclass(frozen=True, kw_only=True)
class BudgetSettings:
    """How long a trial trains, and which weights it keeps.

    Raises:
        InputError: If a setting is out of its range.
    """

    epochs: Whole = setting(10, "maximum number of epochs", least=1)
    max_steps: Whole | None = setting(
        None,
        "budget in optimizer steps; when it is given, epochs are repeated until it is spent",
        column="budget in optimizer steps; null: the epochs count",
        least=1,
        fix="Leave it out to train by epochs.",
    )
    patience: Whole = setting(
        3,
        "epochs without a better validation loss before stopping; 0: never stop early",
        column="epochs without a better validation loss before stopping; 0: never",
        least=0,
        fix="0 turns early stopping off.",
    )
    keep: Keep = setting("best", "weights that are kept: best (of the lowest validation loss) or last")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """How a trial is computed: precision and workers. The workers are not part of its identity: any
    number of them trains on the same batches, and resumes from the same checkpoints.

    Raises:
        InputError: If a setting is out of its range.
    """

    precision: Precision = setting(
        "auto",
        "fp32, bf16, or auto: bf16 where the hardware multiplies it natively; "
        "fp64: for proofs and comparisons; slow",
        column="precision asked for",
    )
    compile: bool = setting(
        False,
        "torch.compile the model: for GPUs; on a CPU it is slower, and needs a C++ compiler",
        column="whether the model was compiled (torch.compile)",
    )
    num_workers: Whole = setting(
        1,
        "processes that train one trial together; two numbers: elastic",
        column="processes that train the trial together",
        decides=False,
        least=1,
        fix="Try 1.",
    )
    min_workers: Whole | None = setting(
        None,
        "elastic: minimum to resume with when workers are lost; none: not elastic",
        column="elastic: minimum number of workers; null: not elastic",
        decides=False,
    )

    def __post_init__(self) -> None:
        check(self)
        low, high = self.min_workers, self.num_workers
        fix = f"Try num_workers: [1, {high}]."
        rule = f"in [1, num_workers] = [1, {high}]"
        require(low is None or 1 <= low <= high, "min_workers", rule, low, fix)
