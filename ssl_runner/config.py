"""The settings of a trial, and of a sweep. Values only; nothing here needs torch or Ray.

A trial's settings come in groups, each a dataclass beside the code that uses it. Their names are
unique over all groups: flags, the keys of study files and the table's columns are one flat namespace.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from ssl_runner.datasets.settings import DataSettings, FileSettings, is_path
from ssl_runner.errors import require
from ssl_runner.methods.settings import HYPERPARAMETERS, MethodSettings, Value, defaults, neutrals
from ssl_runner.models.settings import OF_SOME_MODELS, ModelSettings
from ssl_runner.sampler.settings import BatchSettings
from ssl_runner.settings import Real, Text, Whole, check, is_real, rule_of, setting
from ssl_runner.train.settings import (
    OF_SOME_OPTIMIZERS,
    BudgetSettings,
    ComputeSettings,
    OptimizerSettings,
)


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """The settings of one training run, in groups.

    `TrialConfig.of(lr=0.1)` builds one from flat names, `flat()` gives the flat names back, and
    `replace(lr=0.2)` makes a changed copy.

    Raises:
        InputError: If a setting is out of its range; the message names value, rule and fix.
    """

    data: DataSettings = DataSettings()
    network: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    unlabeled: MethodSettings = MethodSettings()
    batches: BatchSettings = BatchSettings()
    budget: BudgetSettings = BudgetSettings()
    compute: ComputeSettings = ComputeSettings()

    @classmethod
    def of(cls, **settings: Any) -> "TrialConfig":
        """A config from flat names; what is left out keeps its default."""
        return cls().replace(**settings)

    def flat(self) -> dict[str, Any]:
        """Every setting by its flat name."""
        return {name: getattr(getattr(self, group), name) for name, group in GROUP_OF.items()}

    def replace(self, **settings: Any) -> "TrialConfig":
        """The same with other values, by their flat names."""
        changed: dict[str, dict[str, Any]] = {}
        for name, value in settings.items():
            changed.setdefault(GROUP_OF[name], {})[name] = value
        groups = {
            group: dataclasses.replace(getattr(self, group), **values)
            for group, values in changed.items()
        }
        return dataclasses.replace(self, **groups)

    def resolved(self) -> "TrialConfig":
        """The same trial with a value for each hyperparameter that its method, model, optimizer and
        schedule take, and for no other. Sweeps run resolved trials, and rows record them."""
        return self._resolved(defaults(self.unlabeled.method))

    def _resolved(self, takes: Mapping[str, Value]) -> "TrialConfig":
        order = self.batches.order if self.unlabeled.method == "pass" else "paired"
        if order == "paired":  # `pass` has as many steps in such an epoch as the other methods
            takes = {"mu": 1, **takes}
        return dataclasses.replace(
            self,
            network=self.network.resolved(),
            optimizer=self.optimizer.resolved(),
            batches=dataclasses.replace(self.batches, order=order),
            unlabeled=self.unlabeled.with_values(takes),
        )

    def identity(self) -> dict[str, Any]:
        """The settings that decide the outcome and differ from their neutral values.

        A setting that is added later is left out while it has its neutral value, so that
        earlier trials keep their ids.
        """
        settings = self.resolved().flat()
        differing: dict[str, Any] = {}
        neutral = _neutral_settings(**{name: settings[name] for name in (*DETERMINING, "schedule")})
        for name, value in settings.items():
            if name == "dataset" and is_path(value):
                continue
            if rule_of(FIELDS[name]).decides and value != neutral[name]:
                # 1 equals 1.0, and -0.0 equals 0.0
                as_float = value is not None and is_real(FIELDS[name])
                differing[name] = float(value) + 0.0 if as_float else value
        if "weights_file" in differing:  # its content is known too: `identity.Trial.sources`
            differing["weights_file"] = PurePath(differing["weights_file"]).name
        return differing

    @property
    def settings_id(self) -> str:
        """Ten hex digits over `identity()`: equal settings have equal ids, whatever the data."""
        return short_hash(self.identity())

    @property
    def config(self) -> str:
        """`full` or `partial`; see `DataSettings.config`."""
        return self.data.config

    @property
    def description(self) -> str:
        """A short display name: what tells this trial apart in most sweeps."""
        parts = [self.network.model, self.config]
        if self.config == "partial":
            parts.append(f"{self.data.label_fraction:.4g}")
        if self.unlabeled.method != "pass":
            parts.append(self.unlabeled.method)
        return " ".join([*parts, f"seed {self.batches.seed}"])


GROUPS: dict[str, type[Any]] = {
    field.name: type(field.default) for field in dataclasses.fields(TrialConfig)
}
"""The groups of a trial's settings, by their names in `TrialConfig`."""

GROUP_OF = {field.name: name for name, group in GROUPS.items() for field in dataclasses.fields(group)}
"""The group of each setting."""

FIELDS = {field.name: field for group in GROUPS.values() for field in dataclasses.fields(group)}
"""The field of each setting, by its flat name."""


DETERMINING = {"model": OF_SOME_MODELS, "method": HYPERPARAMETERS, "optimizer": OF_SOME_OPTIMIZERS}
"""What decides which settings a trial takes, each with those settings."""


@functools.cache
def _neutral_settings(**chosen: str) -> dict[str, Any]:
    """The neutral value of every setting, written out for a model, method, optimizer and schedule."""
    neutral = {name: rule_of(field).neutral for name, field in FIELDS.items()}
    resolved = TrialConfig.of(**neutral | chosen)._resolved(neutrals(chosen["method"]))
    return resolved.flat() | {name: neutral[name] for name in chosen}


def short_hash(value: object) -> str:
    """Ten hex digits of SHA-256 over a plain value's JSON, the same in every process."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


FILE_FIELDS = {field.name: field for field in dataclasses.fields(FileSettings)}
"""The settings of how a data set's files are read, by name: of a sweep, not of a trial."""

MANY = 10_000
"""Combinations above which a sweep asks before it starts."""

# A sweep's list on the left stands for the trial's setting on the right.
AXES = {
    "label_fractions": "label_fraction",
    "models": "model",
    "methods": "method",
    "seeds": "seed",
    "split_seeds": "split_seed",
}

LISTS = ("configs", *AXES, "full_methods")
"""The settings of a sweep that are lists."""


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A named set of trials: every combination of its lists. `SweepConfig()` is the default study.

    Raises:
        InputError: If a setting is out of its range; the message names value, rule and fix.
    """

    name: Text = setting("label_fractions", "name of the sweep, in the table and in file names")
    question: Text | None = setting(None, "the study's question, for its table and its page")
    configs: tuple[Literal["full", "partial"], ...] = setting(
        ("full", "partial"), "full: all labels; partial: the label fractions"
    )
    label_fractions: tuple[Real, ...] = setting(
        (0.01, 0.05, 0.1, 0.25, 0.5), "label fractions of the partial trials"
    )
    models: tuple[Text, ...] = setting(("CNN",), "models")
    methods: tuple[Text, ...] = setting(("pass",), "methods of the partial trials")
    full_methods: tuple[Text, ...] | None = setting(
        None,
        "methods of the full trials, where the data have images without labels; none: as methods, and "
        "if that is pass alone, pass and fixmatch, all trials in paired order so that steps are equal",
    )
    seeds: tuple[Whole, ...] = setting((0,), "seeds; each gives a trial of its own")
    split_seeds: tuple[Whole, ...] | None = setting(
        None, "split seeds, each combined with each seed; none: each trial's seed is its split seed"
    )
    cpus_per_trial: Real | None = setting(
        None, "CPUs, and so threads, of a trial over all its workers; none: one per worker"
    )
    checkpoint_steps: Whole | None = setting(
        None,
        "steps between checkpoints within an epoch; none: one after each epoch only",
        least=1,
        fix="Leave it out for one after each epoch.",
    )
    gpus_per_trial: Real = setting(
        0.0,
        "GPUs of a trial over all its workers; 0.25 shares one",
        least=0,
        below=math.inf,
        fix="0 trains on the CPU.",
    )
    time_limit: Real | None = setting(
        None,
        "seconds after which a trial is stopped and marked failed; none: no limit",
        above=0,
        below=100_000_000,
        fix="Leave it out for no limit.",
    )
    save: Literal["best", "all", "none"] = setting(
        "best",
        "trained models that are kept: best (of each configuration, by validation accuracy), all, none",
    )
    max_concurrent: Whole | None = setting(
        None,
        "trials at a time; none: as many as fit",
        least=1,
        fix="Leave it out for as many as fit.",
    )
    files: FileSettings = FileSettings()
    trial: TrialConfig = TrialConfig()

    def __post_init__(self) -> None:
        allowed = self.name.replace("-", "").replace("_", "").replace(".", "")
        require(
            allowed.isalnum()
            and allowed.isascii()
            and self.name[0] not in ".-"
            and len(self.name) <= 100,
            "name",
            "made of letters, digits, '-', '_' and '.', at most 100",
            self.name,
            "It becomes part of file names.",
        )
        for axis in LISTS:
            values = getattr(self, axis)
            if values is None:
                continue
            require(len(values) > 0, axis, "a list of at least one", list(values), "Name one.")
            (value, times), *_ = Counter(values).most_common(1)
            require(times == 1, axis, "without repetition", value, "Name it once.")
        workers = self.trial.compute.num_workers
        cpus, fix = self.cpus_per_trial, f"Try {workers}."
        require(cpus is None or 0 < cpus < math.inf, "cpus_per_trial", "more than 0", cpus, fix)
        check(self)
        gpus = self.gpus_per_trial
        each = gpus / workers
        fix = f"Try {workers * max(1, math.ceil(each))}, whole GPUs for each worker."
        require(
            workers == 1 or each == int(each),
            "gpus_per_trial",
            f"a multiple of num_workers {workers}, which cannot share a GPU",
            gpus,
            fix,
        )
        for name in HYPERPARAMETERS:
            taken = {"mu"} if self.trial.batches.order == "paired" else set()
            methods = tuple(dict.fromkeys((*self.methods, *(self.full_methods or ()))))
            taken = taken.union(*map(defaults, methods))
            fix = f"Leave it out, or add a method that takes it to {', '.join(methods)}."
            value = getattr(self.trial.unlabeled, name)
            is_used = value is None or name in taken
            if name == "momentum":
                fix += " SGD's is --optimizer-momentum."
            require(is_used, name, "a hyperparameter of a selected method", value, fix)
        network, compute = self.trial.network, self.trial.compute
        fix = "Leave one of them out."
        both = network.sync_batch_norm and compute.compile
        require(not both, "sync_batch_norm", "false with compile", network.sync_batch_norm, fix)
        models = [self.trial.replace(model=name).resolved() for name in self.models]
        for name in (*OF_SOME_MODELS, *OF_SOME_OPTIMIZERS):
            value = self.trial.flat()[name]
            is_used = value in (None, False) or any(trial.flat()[name] == value for trial in models)
            what = "no selected model" if name in OF_SOME_MODELS else self.trial.optimizer.description
            fix = "Or name one that does."
            require(is_used, name, f"left out, since {what} takes it", value, fix)
        for axis, single in AXES.items():  # also values that no trial uses, such as the methods of full
            for value in getattr(self, axis) or ():
                self.trial.replace(**{single: value})
        for method in self.full_methods or ():
            self.trial.replace(method=method)
        if self.size <= MANY:
            self.trials()  # check every combination now, not when it runs

    @property
    def size(self) -> int:
        """Number of combinations of the lists; there are at most as many trials."""
        fractions = {"full": 1, "partial": len(self.label_fractions)}
        each = math.prod(
            len(values) for values in (self.models, self.methods, self.seeds, self.split_seeds or (0,))
        )
        return each * sum(fractions[config] for config in self.configs)

    @property
    def cpus_per_worker(self) -> float:
        """CPUs of each worker of a trial."""
        workers = self.trial.compute.num_workers
        return (self.cpus_per_trial or workers) / workers

    @property
    def threads(self) -> int:
        """Threads of each worker of a trial: as many as it has whole CPUs, and at least one."""
        return max(1, int(self.cpus_per_worker))

    def trials(self, has_unlabeled: bool = False) -> tuple[TrialConfig, ...]:
        """Every combination once, full before partial, in the order of the lists.

        Args:
            has_unlabeled: Whether the data have training images without a label. Full trials then
                have an unlabeled pool too, and take `full_methods`.
        """
        made: dict[str, TrialConfig] = {}
        split_seeds = self.split_seeds or (None,)
        full_methods: tuple[str, ...] = ("pass",)
        base = self.trial
        if has_unlabeled:
            full_methods = self.full_methods or self.methods
            if self.full_methods is None and self.methods == ("pass",):
                full_methods = ("pass", "fixmatch")
                base = base.replace(order="paired")
        for config in self.configs:
            fractions = (1.0,) if config == "full" else self.label_fractions
            for model, fraction, seed, split_seed in itertools.product(
                self.models, fractions, self.seeds, split_seeds
            ):
                # With all labels there is no split: one such trial is enough.
                is_full = fraction == 1
                chosen = split_seeds[0] if is_full else split_seed
                for method in full_methods if is_full else self.methods:
                    trial = base.replace(
                        model=model,
                        label_fraction=fraction,
                        method=method,
                        seed=seed,
                        split_seed=seed if chosen is None else chosen,
                    ).resolved()
                    made.setdefault(trial.settings_id, trial)
        return tuple(sorted(made.values(), key=lambda trial: trial.config != "full"))
