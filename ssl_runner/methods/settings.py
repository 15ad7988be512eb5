"""Settings: the method for the unlabeled batch. `METHODS` lists the built-in ones and the
hyperparameters that each takes, with their defaults."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ssl_runner.errors import require
from ssl_runner.settings import Real, Text, Whole, check, require_known, setting, taken_alone

Value = float | int | bool


@dataclass(frozen=True)
class Takes:
    """A method: where it is, and what it takes.

    Attributes:
        home: Import path of its class; the sources are in the class's docstring.
        defaults: The hyperparameters it takes, each with its default.
        neutral: Those of its defaults that were different when trials were first identified by them.
    """

    home: str
    defaults: Mapping[str, Value]
    neutral: Mapping[str, Value] = dataclasses.field(default_factory=dict)


_HOME = "ssl_runner.methods.methods"

# λ is `unlabeled_weight`, τ is `threshold`, α is `ema`.
METHODS = {
    "pass": Takes(f"{_HOME}:Pass", {"ema": 0.0}),
    "pseudo_label": Takes(
        f"{_HOME}:PseudoLabel",
        {"mu": 1, "unlabeled_weight": 1.0, "ramp": 0.4, "threshold": 0.95, "ema": 0.0},
    ),
    "pi_model": Takes(f"{_HOME}:PiModel", {"mu": 1, "unlabeled_weight": 10.0, "ramp": 0.4, "ema": 0.0}),
    "mean_teacher": Takes(
        f"{_HOME}:MeanTeacher", {"mu": 1, "unlabeled_weight": 50.0, "ramp": 0.4, "ema": 0.99}
    ),
    "fixmatch": Takes(
        f"{_HOME}:FixMatch",
        {
            "mu": 1,
            "unlabeled_weight": 1.0,
            "ramp": 0.0,
            "threshold": 0.95,
            "temperature": 0.0,
            "alignment": False,
            "momentum": 0.99,
            "ema": 0.99,
        },
    ),
    "freematch": Takes(
        f"{_HOME}:FreeMatch",
        {
            "mu": 1,
            "unlabeled_weight": 1.0,
            "ramp": 0.0,
            "temperature": 0.0,
            "alignment": True,
            "momentum": 0.99,
            "ema": 0.99,
        },
    ),
    "softmatch": Takes(
        "ssl_runner.methods.matching:SoftMatch",
        {
            "mu": 1,
            "unlabeled_weight": 1.0,
            "ramp": 0.4,
            "temperature": 0.0,
            "alignment": True,
            "momentum": 0.99,
            "ema": 0.99,
        },
    ),
    "adamatch": Takes(
        "ssl_runner.methods.matching:AdaMatch",
        {
            "mu": 1,
            "unlabeled_weight": 1.0,
            "ramp": 0.5,
            "threshold": 0.9,
            "temperature": 1.0,
            "alignment": True,
            "momentum": 0.99,
            "ema": 0.99,
        },
    ),
}

# A user's own method, named by its import path, may use any of them.
_OWN = Takes(
    "",
    {
        "mu": 1,
        "unlabeled_weight": 1.0,
        "ramp": 0.0,
        "threshold": 0.95,
        "temperature": 0.0,
        "alignment": False,
        "momentum": 0.99,
        "ema": 0.0,
    },
)


def defaults(method: str) -> Mapping[str, Value]:
    """The hyperparameters that a method takes, each with its default."""
    return METHODS.get(method, _OWN).defaults


def neutrals(method: str) -> Mapping[str, Value]:
    """The same with the defaults by which trials were first identified."""
    takes = METHODS.get(method, _OWN)
    return {**takes.defaults, **takes.neutral}


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What is learned from an unlabeled batch, and how. None: the method's own default.

    Raises:
        InputError: If a setting is out of its range.
    """

    method: Text = setting(
        "pass",
        "what is done with an unlabeled batch: a name, or an import path module:Class",
        column="what is done with an unlabeled batch",
    )
    mu: Whole | None = setting(
        None,
        "unlabeled batches to each labeled one, with --order paired; none: the method's default",
        column="unlabeled batches to each labeled one; null: the order is not paired",
        least=1,
        fix="Try 1.",
    )
    unlabeled_weight: Real | None = setting(
        None,
        "weight of the unlabeled loss, lambda; none: the method's default",
        column="weight of the unlabeled loss, λ; null: the method has none",
        least=0,
        most=1_000_000,
        fix="Try 1.",
    )
    ramp: Real | None = setting(
        None,
        "share of the training over which that weight rises from 0; none: the method's default",
        column="share of the training over which λ rises from 0; null: the method has none",
        least=0,
        most=1,
        fix="0 is full weight from the start.",
    )
    threshold: Real | None = setting(
        None,
        "minimum confidence of a pseudo-label, tau; adamatch: as a share of the labeled images' "
        "confidence; none: the method's default",
        column="minimum confidence of a pseudo-label, τ; adamatch: as a share of the labeled images' "
        "confidence; null: the method has none",
        least=0,
        most=1,
        fix="Try 0.95.",
    )
    temperature: Real | None = setting(
        None,
        "temperature of the target's softmax; 0: hard labels; none: the method's default",
        column="temperature of the target's softmax; 0: hard labels; null: the method has none",
        least=0,
        most=100,
        fix="0 takes hard labels.",
    )
    alignment: bool | None = setting(
        None,
        "distribution alignment of the predictions to the labels; none: the method's default",
        column="whether distribution alignment is on; null: the method has none",
    )
    momentum: Real | None = setting(
        None,
        "momentum of the means behind thresholds and alignment; none: the method's default",
        column="momentum of the method's running means; null: the method has none",
        least=0,
        below=1,
        fix="Try 0.99.",
    )
    ema: Real | None = setting(
        None,
        "decay of the averaged weights, which are then evaluated and kept; 0: no averaging; "
        "none: the method's default",
        column="decay of the averaged weights; 0: none are kept",
        least=0,
        below=1,
        fix="0 averages no weights.",
    )

    def __post_init__(self) -> None:
        require_known("method", self.method, METHODS)
        check(self)
        needs_ema = self.method == "mean_teacher" and self.ema == 0
        require(not needs_ema, "ema", "more than 0 for mean_teacher", self.ema, "Try 0.99.")

    def with_values(self, values: Mapping[str, Value]) -> "MethodSettings":
        """The same with each hyperparameter in `values` set, where it is not set yet, and no other."""
        resolved: MethodSettings = taken_alone(self, HYPERPARAMETERS, values)
        return resolved


HYPERPARAMETERS = tuple(_OWN.defaults)
