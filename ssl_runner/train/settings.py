"""Settings: the optimizer, the budget, and how a trial is computed."""

from dataclasses import dataclass
from typing import Literal

from ssl_runner.errors import require
from ssl_runner.settings import Real, Whole, check, setting

Keep = Literal["best", "last"]
Precision = Literal["auto", "fp32", "bf16", "fp64"]


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer.

    Raises:
        InputError: If a setting is out of its range.
    """

    lr: Real = setting(0.001, "Adam's learning rate", above=0, below=10)

    def __post_init__(self) -> None:
        check(self)


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
