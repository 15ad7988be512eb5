"""What is run: one trial, and a sweep of them. Values only; nothing here needs torch or Ray."""

import dataclasses
import difflib
import hashlib
import itertools
import json
import math
import re
import reprlib
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from ssl_runner.hyperparameters import HYPERPARAMETERS, METHODS, Value, defaults

MODELS = ("CNN", "AdaptiveCNN")
ORDERS = ("interleave", "shuffle", "labeled_first", "paired")
LAST_BATCHES = ("partial", "drop", "pad")
AUGMENTS = ("none", "weak")
KEEPS = ("best", "last")
PRECISIONS = ("auto", "fp32", "bf16", "fp64")

BELOW_1 = math.nextafter(1, 0)

Precision = Literal["auto", "fp32", "bf16", "fp64"]
Order = Literal["interleave", "shuffle", "labeled_first", "paired"]
LastBatch = Literal["partial", "drop", "pad"]
Augment = Literal["none", "weak"]
Keep = Literal["best", "last"]


def _number(value: object) -> object:
    """YAML's `yes` must not become 1."""
    if isinstance(value, bool):
        raise ValueError("a number is needed here, not true or false")
    return value


def _whole(value: object) -> object:
    """Nor must 2.0 workers become 2 in silence."""
    if isinstance(value, float):
        raise ValueError("a whole number is needed here")
    return _number(value)


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a text is needed here, in quotes if it looks like something else")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Real = Annotated[float, BeforeValidator(_number)]
Text = Annotated[str, BeforeValidator(_text)]


def setting(default: Any, help: str) -> Any:
    """A field of a config: its default, and a line that says its meaning and unit."""
    return dataclasses.field(default=default, metadata={"help": help})


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """A closing sentence for an error about an unknown name: the nearest one, or all of them."""
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1)
    return f"Did you mean {lower[near[0]]}?" if near else f"Known: {', '.join(known)}."


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 100
_short.maxlist = _short.maxtuple = 10
_short.maxlevel = 3


def shown(value: object) -> str:
    """A value as an error quotes it: in one line, and cut short where it would fill the screen."""
    try:
        return _short.repr(value)
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a very long number"


def _require(kept: bool, name: str, rule: str, value: object, fix: str) -> None:
    if not kept:
        raise ValueError(f"{name} must be {rule}, got {shown(value)}. {fix}")


_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def _require_known(name: str, value: str, known: tuple[str, ...]) -> None:
    """A built-in name, or an import path such as `package.module:Name` for one's own."""
    rule = "a known name or an import path such as package.module:Name"
    is_path = _IMPORT_PATH.fullmatch(value) is not None
    _require(value in known or is_path, name, rule, value, did_you_mean(value, known))


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """One training run. Equal configs have equal `trial_id`s and, on one machine, equal results.

    Raises:
        ValueError: If a setting is out of its range; the message names value, rule and fix.
    """

    dataset: Text = setting("fashion_mnist", "data set: a name, or an import path module:function")
    subset: Whole | None = setting(
        None, "use only so many training images, and the same share of the test images; none: all"
    )
    label_fraction: Real = setting(1.0, "share of the training images that keep their label")
    method: Text = setting(
        "pass", "what is done with an unlabeled batch: a name, or an import path module:Class"
    )
    model: Text = setting("CNN", "model: a name, or an import path module:Class")
    seed: Whole = setting(0, "drives initial weights, order and augmentation")
    split_seed: Whole = setting(0, "drives which images keep their label")
    epochs: Whole = setting(10, "epochs at the most")
    max_steps: Whole | None = setting(
        None, "budget in optimizer steps; when it is given, epochs are repeated until it is spent"
    )
    patience: Whole = setting(
        3, "epochs without a better validation loss before stopping; 0: never stop early"
    )
    batch_size: Whole = setting(64, "images in a step, over all workers")
    lr: Real = setting(0.001, "Adam's learning rate")
    dropout: Real = setting(0.25, "dropout before the last layer")
    precision: Precision = setting(
        "auto",
        "fp32, bf16, or auto: bf16 where the hardware multiplies it natively; "
        "fp64: for proofs and comparisons; slow",
    )
    compile: bool = setting(
        False, "torch.compile the model: for GPUs; on a CPU it is slower, and needs a C++ compiler"
    )
    keep: Keep = setting("best", "weights that are kept: best (of the lowest validation loss) or last")
    holdout: Whole = setting(0, "training images set aside for validation; 0: the test images validate")
    order: Order = setting(
        "interleave", "how the two kinds of batches follow each other; always paired but for pass"
    )
    last_batch: LastBatch = setting("partial", "what becomes of the last images of a pool")
    augment: Augment = setting("none", "views of the labeled images: none, or weak (flip and shift)")
    flip: bool = setting(True, "whether a view may be mirrored; false where left and right matter")
    mu: Whole | None = setting(
        None, "unlabeled batches to each labeled one in the order paired; none: the method's own"
    )
    unlabeled_weight: Real | None = setting(
        None, "weight of the unlabeled loss, lambda; none: the method's own"
    )
    ramp: Real | None = setting(
        None, "share of the training in which that weight rises from 0; none: the method's own"
    )
    threshold: Real | None = setting(
        None, "confidence from which a pseudo-label counts, tau; none: the method's own"
    )
    temperature: Real | None = setting(
        None, "of the softmax that is the target; 0: its largest class; none: the method's own"
    )
    alignment: bool | None = setting(
        None, "bring the predicted classes' shares to those of the labels; none: the method's own"
    )
    momentum: Real | None = setting(
        None, "of the running means that adapt thresholds and alignment; none: the method's own"
    )
    ema: Real | None = setting(
        None,
        "decay of the averaged weights, which are then evaluated and kept; 0: no averaging; "
        "none: the method's own",
    )
    num_workers: Whole = setting(1, "processes that train one trial together; two numbers: elastic")
    min_workers: Whole | None = setting(
        None, "elastic: go on with so few when others are lost; none: all of them, always"
    )

    def __post_init__(self) -> None:
        share = self.label_fraction / 100  # 10 % is written as 0.10, 12.5 % as 0.125
        share_text = max(f"{share:.2f}", f"{share:g}", key=len)
        fix = f"Did you mean {share_text}?" if 0.01 <= share <= 1 else "10 % is 0.1."
        _require(0 < self.label_fraction <= 1, "label_fraction", "in (0, 1]", self.label_fraction, fix)
        _require_known("method", self.method, METHODS)
        _require_known("model", self.model, MODELS)
        fix = "Leave it out to use all images."
        _require(self.subset is None or self.subset > 0, "subset", "at least 1", self.subset, fix)
        _require(self.seed >= 0, "seed", "at least 0", self.seed, "Try 0.")
        _require(self.split_seed >= 0, "split_seed", "at least 0", self.split_seed, "Try 0.")
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs, "The default is 10.")
        fix = "Leave it out to train by epochs."
        _require(
            self.max_steps is None or self.max_steps > 0,
            "max_steps",
            "at least 1",
            self.max_steps,
            fix,
        )
        fix = "0 turns early stopping off."
        _require(self.patience >= 0, "patience", "at least 0", self.patience, fix)
        fix = "The default is 64."
        _require(self.batch_size >= 1, "batch_size", "at least 1", self.batch_size, fix)
        _require(0 < self.lr < 10, "lr", "in (0, 10)", self.lr, "The default is 0.001.")
        _require(0 <= self.dropout < 1, "dropout", "in [0, 1)", self.dropout, "The default is 0.25.")
        fix = "0 validates on the test images."
        _require(self.holdout >= 0, "holdout", "at least 0", self.holdout, fix)
        _require(self.num_workers >= 1, "num_workers", "at least 1", self.num_workers, "Try 1.")
        low, high = self.min_workers, self.num_workers
        fix = f"Try num_workers: [1, {high}]."
        rule = f"in [1, num_workers] = [1, {high}]"
        _require(low is None or 1 <= low <= high, "min_workers", rule, low, fix)
        self._require_hyperparameters()
        for name, known in (
            ("order", ORDERS),
            ("last_batch", LAST_BATCHES),
            ("precision", PRECISIONS),
            ("augment", AUGMENTS),
            ("keep", KEEPS),
        ):
            value = getattr(self, name)
            _require(value in known, name, "one of " + ", ".join(known), value, f"Try {known[0]}.")
        for name, value in vars(self).items():
            fits = not isinstance(value, int) or value < 1 << 63
            _require(fits, name, "less than 2**63", value, "The table holds no larger number.")

    def _require_hyperparameters(self) -> None:
        """Each is None, or in its range."""
        whole_share = "in [0, 1]"
        for name, least, most, rule, fix in (
            ("mu", 1, math.inf, "at least 1", "Try 1."),
            ("unlabeled_weight", 0, 1e6, "in [0, 1e6]", "Try 1."),
            ("ramp", 0, 1, whole_share, "0 is full weight from the start."),
            ("threshold", 0, 1, whole_share, "Try 0.95."),
            ("temperature", 0, 100, "in [0, 100]", "0 takes hard labels."),
            ("momentum", 0, BELOW_1, "in [0, 1)", "Try 0.99."),
            ("ema", 0, BELOW_1, "in [0, 1)", "0 averages no weights."),
        ):
            value = getattr(self, name)
            _require(value is None or least <= value <= most, name, rule, value, fix)
        needs_ema = self.method == "mean_teacher" and self.ema == 0
        _require(not needs_ema, "ema", "more than 0 for mean_teacher", self.ema, "Try 0.99.")

    def resolved(self) -> "TrialConfig":
        """The same trial written out: each hyper-parameter that its method takes has a value, and
        no other one has. Such is what a sweep runs, and what its rows say."""
        takes = defaults(self.method)
        order = self.order if self.method == "pass" else "paired"
        if order == "paired":  # `pass` has as many steps in such an epoch as the other methods
            takes = {"mu": 1} | takes
        values: dict[str, Any] = dict.fromkeys(HYPERPARAMETERS)
        for name, default in takes.items():
            given: Value | None = getattr(self, name)
            values[name] = default if given is None else given
        return dataclasses.replace(self, order=order, **values)

    @property
    def config(self) -> str:
        """`full`: every training image carries its label. `partial`: only a share of them does.

        Not to be mistaken for the literature's "partial labels", sets of candidate labels.
        """
        return "full" if self.label_fraction == 1 else "partial"

    @property
    def validation(self) -> str:
        """What the validation figures were taken on: the `test` images or a `holdout`."""
        return "holdout" if self.holdout else "test"

    @property
    def trial_id(self) -> str:
        """Ten hex digits of SHA-256 over the resolved config: equal trials have equal ids."""
        settings = dataclasses.asdict(self.resolved())
        for field in dataclasses.fields(self):
            if field.type in (Real, Real | None) and settings[field.name] is not None:
                # 1 equals 1.0, and -0.0 equals 0.0
                settings[field.name] = float(settings[field.name]) + 0.0
        canonical = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]

    @property
    def label(self) -> str:
        """A short name for people: what sets this trial apart in most sweeps."""
        parts = [self.model, self.config]
        if self.config == "partial":
            parts.append(f"{self.label_fraction:.4g}")
        if self.method != "pass":
            parts.append(self.method)
        return " ".join([*parts, f"seed {self.seed}"])


MANY = 10_000
"""Combinations above which a sweep is asked about before it starts."""

# A sweep's list on the left stands for the trial's setting on the right.
AXES = {
    "label_fractions": "label_fraction",
    "models": "model",
    "methods": "method",
    "seeds": "seed",
    "split_seeds": "split_seed",
}


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A named set of trials: every combination of its lists. `SweepConfig()` is the default study.

    Raises:
        ValueError: If a setting is out of its range; the message names value, rule and fix.
    """

    name: Text = setting("label_fractions", "name of the sweep, in the table and in file names")
    question: Text | None = setting(None, "what the study asks, for its table and its page")
    configs: tuple[Literal["full", "partial"], ...] = setting(
        ("full", "partial"), "full: all labels; partial: the label fractions"
    )
    label_fractions: tuple[Real, ...] = setting(
        (0.01, 0.05, 0.1, 0.25, 0.5), "label fractions of the partial trials"
    )
    models: tuple[Text, ...] = setting(("CNN",), "models")
    methods: tuple[Text, ...] = setting(("pass",), "methods of the partial trials")
    seeds: tuple[Whole, ...] = setting((0,), "seeds; each is a run of its own")
    split_seeds: tuple[Whole, ...] | None = setting(
        None, "split seeds, each combined with each seed; none: each trial's seed is its split seed"
    )
    cpus_per_trial: Real | None = setting(
        None, "CPUs, and so threads, of a trial over all its workers; none: one per worker"
    )
    checkpoint_steps: Whole | None = setting(
        None, "steps between checkpoints within an epoch; none: one after each epoch only"
    )
    gpus_per_trial: Real = setting(0.0, "GPUs of a trial over all its workers; 0.25 shares one")
    time_limit: Real | None = setting(
        None, "seconds that a trial may take before it is given up as failed; none: no limit"
    )
    max_concurrent: Whole | None = setting(None, "trials at a time; none: as many as fit")
    trial: TrialConfig = dataclasses.field(default_factory=TrialConfig)

    def __post_init__(self) -> None:
        allowed = self.name.replace("-", "").replace("_", "").replace(".", "")
        _require(
            allowed.isalnum()
            and allowed.isascii()
            and self.name[0] not in ".-"
            and len(self.name) <= 100,
            "name",
            "made of letters, digits, '-', '_' and '.', 100 at the most",
            self.name,
            "It becomes part of file names.",
        )
        for axis in ("configs", *AXES):
            values = getattr(self, axis)
            if values is None:
                continue
            _require(len(values) > 0, axis, "a list of at least one", list(values), "Name one.")
            (value, times), *_ = Counter(values).most_common(1)
            _require(times == 1, axis, "without repetition", value, "Name it once.")
        cpus, fix = self.cpus_per_trial, f"Try {self.trial.num_workers}."
        _require(cpus is None or 0 < cpus < math.inf, "cpus_per_trial", "more than 0", cpus, fix)
        steps, fix = self.checkpoint_steps, "Leave it out for one after each epoch."
        _require(steps is None or steps > 0, "checkpoint_steps", "at least 1", steps, fix)
        limit, fix = self.time_limit, "Leave it out for no limit."
        _require(limit is None or 0 < limit < 1e8, "time_limit", "in (0, 1e8)", limit, fix)
        fix = "0 trains on the CPU."
        gpus = self.gpus_per_trial
        _require(0 <= gpus < math.inf, "gpus_per_trial", "at least 0, and finite", gpus, fix)
        fix = "Leave it out for as many as fit."
        most = self.max_concurrent
        _require(most is None or most > 0, "max_concurrent", "at least 1", most, fix)
        workers = self.trial.num_workers
        each = gpus / workers
        fix = f"Try {workers * max(1, math.ceil(each))}, whole GPUs for each worker."
        _require(
            workers == 1 or each == int(each),
            "gpus_per_trial",
            f"a multiple of num_workers {workers}, which cannot share a GPU",
            gpus,
            fix,
        )
        for name in HYPERPARAMETERS:
            taken = {"mu"} if self.trial.order == "paired" else set()
            taken = taken.union(*map(defaults, self.methods))
            fix = f"Leave it out, or add a method that takes it to {', '.join(self.methods)}."
            value = getattr(self.trial, name)
            _require(value is None or name in taken, name, "of use to a method", value, fix)
        for axis, single in AXES.items():  # also what no trial uses, such as the methods of full
            for value in getattr(self, axis) or ():
                dataclasses.replace(self.trial, **{single: value})
        if self.size <= MANY:
            self.trials()  # every combination is checked now, not when its turn comes

    @property
    def size(self) -> int:
        """How many combinations the lists have: as many trials at the most."""
        fractions = {"full": 1, "partial": len(self.label_fractions)}
        each = math.prod(
            len(values) for values in (self.models, self.methods, self.seeds, self.split_seeds or (0,))
        )
        return each * sum(fractions[config] for config in self.configs)

    @property
    def cpus_per_worker(self) -> float:
        """CPUs of each worker of a trial."""
        workers = self.trial.num_workers
        return (self.cpus_per_trial or workers) / workers

    @property
    def threads(self) -> int:
        """Threads of each worker of a trial: as many as it has whole CPUs, and one at least."""
        return max(1, int(self.cpus_per_worker))

    def trials(self) -> tuple[TrialConfig, ...]:
        """Every combination once, full before partial, in the order of the lists."""
        made: dict[str, TrialConfig] = {}
        split_seeds = self.split_seeds or (None,)
        for config in self.configs:
            fractions = (1.0,) if config == "full" else self.label_fractions
            for model, fraction, method, seed, split_seed in itertools.product(
                self.models, fractions, self.methods, self.seeds, split_seeds
            ):
                # With all labels there is no unlabeled batch and no split: one such trial will do.
                is_full = fraction == 1
                chosen = split_seeds[0] if is_full else split_seed
                trial = dataclasses.replace(
                    self.trial,
                    model=model,
                    label_fraction=fraction,
                    method="pass" if is_full else method,
                    seed=seed,
                    split_seed=seed if chosen is None else chosen,
                )
                trial = trial.resolved()
                made.setdefault(trial.trial_id, trial)
        return tuple(sorted(made.values(), key=lambda trial: trial.config != "full"))
