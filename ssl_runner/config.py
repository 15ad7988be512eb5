"""The settings of a trial, and of a sweep. Values only; nothing here needs torch or Ray.

A trial's settings come in groups, each a dataclass beside the code that uses it. Their names are
unique over all groups: flags, the keys of study files and the table's columns are one flat namespace.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from ssl_runner.datasets.settings import (
    DATASETS,
    SELECTIONS,
    DataSettings,
    FileSettings,
    budgets_text,
    check_budgets,
    check_selection,
    is_path,
)
from ssl_runner.errors import InputError, did_you_mean, require, shown
from ssl_runner.methods.settings import HYPERPARAMETERS, MethodSettings, Value, defaults, neutrals
from ssl_runner.models.settings import OF_SOME_MODELS, ModelSettings
from ssl_runner.pools.settings import MADE_UP, OF_OTHERS, PoolSettings
from ssl_runner.sampler.settings import BatchSettings
from ssl_runner.search.domains import REAL_KINDS, WHOLE_KINDS, Domain
from ssl_runner.search.domains import Value as Plain
from ssl_runner.search.sampling import sample_of
from ssl_runner.settings import (
    Real,
    Text,
    Whole,
    check,
    check_value,
    is_real,
    rule_of,
    setting,
    without_none,
)
from ssl_runner.train.settings import (
    OF_SOME_OPTIMIZERS,
    OPTIMIZERS,
    SCHEDULES,
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
    pools: PoolSettings = PoolSettings()
    network: ModelSettings = ModelSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    unlabeled: MethodSettings = MethodSettings()
    batches: BatchSettings = BatchSettings()
    budget: BudgetSettings = BudgetSettings()
    compute: ComputeSettings = ComputeSettings()

    def __post_init__(self) -> None:
        if self.data.label_budgets is not None:
            for name, value in self.pools.changed.items():
                fix = "What a round buys would depend on it. Compare at a label fraction instead."
                require(False, name, "left out with rounds", value, fix)
        named = self.pools.foreign_images
        fix = f"Try {MADE_UP}, or leave it out."
        is_other = named is None or named != self.data.dataset
        require(is_other, "foreign_images", "another set than the data set itself", named, fix)

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
            pools=self.pools.resolved(),
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
        return f"{self.described()} seed {self.batches.seed}"

    def described(self, names: Iterable[str] = (), digits: int = 4) -> str:
        """The same without its seed, and with the values of more settings that it takes."""
        parts = [self.network.model, self.config]
        if self.config == "partial":
            budgets = self.data.budgets
            share = f"{self.data.label_fraction:.{digits}g}"
            parts.append(f"{self.data.selection} {budgets[-1]}" if budgets else share)
        if self.unlabeled.method != "pass":
            parts.append(self.unlabeled.method)
        settings = self.resolved().flat()
        for name in names:
            value = settings[name]
            if value is not None:
                parts.append(f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}")
        return " ".join(parts)


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

DEFAULT_FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5)

# A sweep's list on the left stands for the trial's setting on the right.
AXES = {
    "label_fractions": "label_fraction",
    "models": "model",
    "methods": "method",
    "selections": "selection",
    "rounds": "label_budgets",
    "seeds": "seed",
    "split_seeds": "split_seed",
}

OF_ROUNDS = ("selections", "rounds")
"""Of these, those that take the place of the label fractions."""

LISTS = ("configs", *AXES, "full_methods")
"""The settings of a sweep that are lists."""

SEARCHERS = ("random", "optuna")

OF_A_SEARCH = {
    "samples": None,
    "search_seconds": None,
    "scheduler": "none",
    "grace_steps": None,
    "large_holdout": False,
    "untuned": False,
}
"""Settings of a sweep that need a search, each with the value that it has without one."""

SEARCH_KEYS = ("search", "searcher", "search_seed", "objective", "reduction", *OF_A_SEARCH)
"""The settings of a sweep that are about a search."""

NEVER_AN_AXIS = {
    "dataset": "A sweep is of one data set.",
    "num_workers": "It decides where a trial runs, not its outcome.",
    "min_workers": "It decides where a trial runs, not its outcome.",
}
"""Settings of a trial that are neither in the grid nor searched, each with the reason."""

_NEVER_SEARCHED = {
    "epochs": "All samples have the same budget.",
    "max_steps": "All samples have the same budget.",
    "holdout": "All samples are judged on the same images.",
    "subset": "All samples are judged on the same images.",
}

_TAKEN_BY = {"optimizer": OF_SOME_OPTIMIZERS, "schedule": OF_SOME_OPTIMIZERS, "order": ("mu",)}


@dataclass(frozen=True)
class Sample:
    """A sample of a search.

    Attributes:
        group: Its group's name.
        number: Its number in the group, from 0.
        trial: Its trial, resolved.
    """

    group: str
    number: int
    trial: TrialConfig


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A named set of trials: every combination of its lists. `SweepConfig()` is the default study.

    With a `search`, each combination without the seeds is a group. It gets `samples` trials, all under
    `search_seed`; the best of them by the holdout is trained again under each of the `seeds`.

    Raises:
        InputError: If a setting is out of its range; the message names value, rule and fix.
    """

    name: Text = setting("label_fractions", "name of the sweep, in the table and in file names")
    question: Text | None = setting(None, "the study's question, for its table and its page")
    configs: tuple[Literal["full", "partial"], ...] = setting(
        ("full", "partial"), "full: all labels; partial: the label fractions"
    )
    label_fractions: tuple[Real, ...] = setting(
        DEFAULT_FRACTIONS, "label fractions of the partial trials"
    )
    models: tuple[Text, ...] = setting(("CNN",), "models")
    methods: tuple[Text, ...] = setting(("pass",), "methods of the partial trials")
    full_methods: tuple[Text, ...] | None = setting(
        None,
        "methods of the full trials, where the data have images without labels; none: as methods, and "
        "if that is pass alone, pass and fixmatch, all trials in paired order so that steps are equal",
    )
    selections: tuple[Text, ...] | None = setting(
        None, f"with rounds: how each chooses the images to label next: {', '.join(SELECTIONS)}"
    )
    rounds: tuple[Whole, ...] | None = setting(
        None,
        "in place of label fractions: labels of each round, in images, such as 100 300 600; the first "
        "are random, each round's model chooses the next, by each of selections",
    )
    seeds: tuple[Whole, ...] = setting((0,), "seeds; each gives a trial of its own")
    split_seeds: tuple[Whole, ...] | None = setting(
        None, "split seeds, each combined with each seed; none: each trial's seed is its split seed"
    )
    grid: Mapping[str, tuple[Plain, ...]] = setting(
        {}, "more lists, of any setting of a trial: {lr: [0.001, 0.003]}, or several values to its flag"
    )
    grids: tuple[Mapping[str, tuple[Plain, ...]], ...] | None = setting(
        None,
        "grids one after another, each around the settings as they stand: [{label_noise: [0, 0.2]}, "
        "{foreign: [0.25, 0.5]}]; trials that are equal are run once",
    )
    search: Mapping[str, Domain] = setting(
        {},
        "settings to search, each with its domain: {lr: {log_uniform: [0.0001, 0.01]}}; domains: "
        "uniform, log_uniform, int_uniform, log_int_uniform, choice",
    )
    samples: Whole | None = setting(
        None,
        "samples that a search tries for each method, label fraction and model",
        least=1,
        fix="Try 30.",
    )
    searcher: Text = setting("random", f"what chooses the samples: {' or '.join(SEARCHERS)}")
    search_seed: Whole = setting(
        1000,
        "seed and split seed of a search's trials; also fixes the samples",
        least=0,
        fix="Try 1000.",
    )
    objective: Literal["loss", "accuracy"] = setting(
        "loss", "what makes a sample the best: loss or accuracy, of the holdout"
    )
    search_seconds: Real | None = setting(
        None,
        "seconds of a group's trials after which none of its samples is started; none: no limit",
        above=0,
        below=100_000_000,
        fix="Leave it out for no limit.",
    )
    scheduler: Literal["none", "asha", "median"] = setting(
        "none", "what stops a search's worse trials early: none, asha or median"
    )
    grace_steps: Whole | None = setting(
        None,
        "steps before which the scheduler stops no trial; none: a ninth of max_steps",
        least=1,
        fix="Try 100.",
    )
    reduction: Whole = setting(
        3, "asha: of so many trials that reach a rung, the best one goes on", least=2, fix="Try 3."
    )
    large_holdout: bool = setting(
        False, "allow a search whose holdout has more labels than the training"
    )
    untuned: bool = setting(
        False, "also train each group with its settings as they stand, under the seeds of the finals"
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
        self._check_rounds()
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
        for place, grid in (("grid", self.grid), *(("grids", each) for each in self.grids or ())):
            for name, values in grid.items():
                self._check_axis(place, name)
                self._check_values(place, name, values)
                fix = "Leave it out of one of them."
                is_once = grid is self.grid or name not in self.grid
                require(is_once, place, "without an entry in grid", name, fix)
        for name in HYPERPARAMETERS:
            value = getattr(self.trial.unlabeled, name)
            self._require_taken(name, value)
        network, compute = self.trial.network, self.trial.compute
        fix = "Leave one of them out."
        both = network.sync_batch_norm and compute.compile
        require(not both, "sync_batch_norm", "false with compile", network.sync_batch_norm, fix)
        for name in (*OF_SOME_MODELS, *OF_SOME_OPTIMIZERS):
            self._require_taken(name, self.trial.flat()[name])
        for name, needed in OF_OTHERS.items():
            value, fix = self.trial.flat()[name], f"Add {needed}, or leave it out."
            is_used = value is None or needed in self.search or any(self._choices(needed))
            require(is_used, name, f"left out without {needed}", value, fix)
        for axis, single in AXES.items():  # also values that no trial uses, such as the methods of full
            for value in () if axis in OF_ROUNDS else getattr(self, axis) or ():
                self.trial.replace(**{single: value})
        for method in self.full_methods or ():
            self.trial.replace(method=method)
        self._check_search()
        if self.size <= MANY:
            self.trials()  # check every combination now, not when it runs

    def _check_rounds(self) -> None:
        """Refuse rounds and selections that do not suit each other, or the other lists."""
        for selection in self.selections or ():
            check_selection(selection)
        if self.rounds is not None:
            check_budgets("rounds", self.rounds)
        for given, lacking, example in (
            ("rounds", "selections", "random margin"),
            ("selections", "rounds", "100 300 600"),
        ):
            values = getattr(self, given)
            if values is not None and getattr(self, lacking) is None:
                raise InputError(
                    f"{lacking} must be given with {given} {shown(list(values))}, got none. "
                    f"Try --{lacking} {example}."
                )
        if self.rounds is None:
            return
        fix = "Add partial, or leave rounds and selections out."
        require(
            "partial" in self.configs, "configs", "with partial for rounds", list(self.configs), fix
        )
        fix = "Leave them out: the rounds say how many labels there are."
        fractions, rule = self.label_fractions, "left out with rounds"
        require(fractions == DEFAULT_FRACTIONS, "label_fractions", rule, list(fractions), fix)

    def _check_axis(self, where: str, name: str) -> None:
        """Check that a setting may be in the grid, or searched.

        Raises:
            InputError: If it is unknown, has a list of its own, or decides nothing.
        """
        for axis, single in AXES.items():
            if name in (axis, single):
                raise InputError(
                    f"{where}: {name} is a list of its own. Write {axis}: [...] beside it."
                )
        if name not in FIELDS:
            known = [each for each in FIELDS if each not in (*AXES.values(), *NEVER_AN_AXIS)]
            raise InputError(f"{where}: unknown setting {name!r}. {did_you_mean(str(name), known)}")
        never = NEVER_AN_AXIS | (_NEVER_SEARCHED if where == "search" else {})
        if name in never:
            raise InputError(f"{where} must be without {name}. {never[name]}")

    def _check_values(self, where: str, name: str, values: tuple[Plain, ...]) -> None:
        """Check the values of a setting in a grid.

        Raises:
            InputError: If there is none, one comes twice, is out of range, or no trial takes it.
        """
        place = f"{where}: {name}"
        require(len(values) > 0, place, "a list of at least one", list(values), "Name one.")
        (value, times), *_ = Counter(values).most_common(1)
        require(times == 1, place, "without repetition", value, "Name it once.")
        for value in values:
            check_value(FIELDS[name], value)
            self._require_taken(name, value)

    def _choices(self, name: str) -> tuple[Any, ...]:
        """Every value that a setting has in this sweep, unless it is searched in a range."""
        if name in self.search:
            domain = self.search[name]
            return domain.values if domain.kind == "choice" else ()
        stands = self.trial.flat()[name]
        values = (each.get(name, (stands,)) for each in self._every_grid)
        return tuple(dict.fromkeys(itertools.chain(*values)))

    @property
    def _every_grid(self) -> tuple[Mapping[str, tuple[Plain, ...]], ...]:
        """The grids, one after another, each with what is in all of them."""
        return tuple({**self.grid, **grid} for grid in self.grids or ({},))

    @property
    def foreign_sets(self) -> set[str]:
        """The sets whose images may be in the unlabeled pool of some trial."""
        if "foreign" not in self.search and not any(self._choices("foreign")):
            return set()
        return {str(name or MADE_UP) for name in self._choices("foreign_images")}

    def _require_taken(self, name: str, value: Any) -> None:
        """Check that some trial takes this value of a setting that not every trial takes.

        Raises:
            InputError: If none does.
        """
        if name in HYPERPARAMETERS:
            methods = tuple(dict.fromkeys((*self.methods, *(self.full_methods or ()))))
            taken = {"mu"} if "paired" in self._choices("order") else set()
            taken = taken.union(*map(defaults, methods))
            fix = f"Leave it out, or add a method that takes it to {', '.join(methods)}."
            if name == "momentum":
                fix += " SGD's is --optimizer-momentum."
            is_used = value is None or name in taken
            require(is_used, name, "a hyperparameter of a selected method", value, fix)
        if value in (None, False):
            return
        fix = "Or name one that does."
        if name in OF_SOME_OPTIMIZERS:
            optimizers, schedules = self._choices("optimizer"), self._choices("schedule")
            takes = [OPTIMIZERS.get(each, {}) for each in optimizers]
            takes += [SCHEDULES.get(each, {}) for each in schedules]
            what = self.trial.optimizer.description
            if len(takes) > 2:
                what = f"none of {', '.join((*optimizers, *schedules))}"
            is_used = any(name in each for each in takes)
            require(is_used, name, f"left out, since {what} takes it", value, fix)
        if name in OF_SOME_MODELS:
            models = [
                dataclasses.replace(self.trial.network, model=model, **{name: value}).resolved()
                for model in self.models
            ]
            is_used = any(getattr(model, name) == value for model in models)
            require(is_used, name, "left out, since no selected model takes it", value, fix)

    def _check_search(self) -> None:
        """Check what a search needs, and what needs a search.

        Raises:
            InputError: For the first that is missing or does not fit.
        """
        for name, without in OF_A_SEARCH.items():
            value, fix = getattr(self, name), "Add search: {lr: {log_uniform: [0.0001, 0.01]}}."
            rule = "left out without a search"
            require(bool(self.search) or value == without, name, rule, value, fix)
        self._check_searcher()
        if not self.search:
            return
        for name, domain in self.search.items():
            self._check_axis("search", name)
            fix = "Leave it out of one of them."
            require(name not in self.grid, f"search: {name}", "without an entry in grid", name, fix)
            for depending in _TAKEN_BY.get(name, ()):
                fix = f"Whether a trial takes it depends on {name}, which is searched. Search it too."
                require(depending not in self.grid, "grid", f"without {depending}", depending, fix)
            _check_suits(name, domain)
            domain.check(name)
            for value in domain.values:
                check_value(FIELDS[name], value)
                self._require_taken(name, value)
        fix = "Search first, then run them with what it finds."
        require(not self.grids, "grids", "left out with a search", list(self.grids or ()), fix)
        fix = "Search at a label fraction, then run the rounds with what it finds."
        rule = "left out with a search"
        require(self.rounds is None, "rounds", rule, list(self.rounds or ()), fix)
        require(self.samples is not None, "samples", "a number with a search", self.samples, "Try 30.")
        for axis in ("seeds", "split_seeds"):
            fresh = self.search_seed not in (getattr(self, axis) or ())
            rule = f"without search_seed {self.search_seed}, under which the search chooses"
            require(fresh, axis, rule, self.search_seed, "Choose another --search-seed.")
        holdouts, dataset = self._choices("holdout"), self.trial.data.dataset
        require(
            min(holdouts) > 0 or (dataset not in DATASETS and "holdout" not in self.grid),
            "holdout",
            "more than 0 with a search, or the test images would choose",
            min(holdouts),
            "Try 600: so many training images then judge the samples.",
        )
        self._check_scheduler()

    def _check_searcher(self) -> None:
        name, known = self.searcher, " or ".join(SEARCHERS)
        fix = did_you_mean(name, SEARCHERS)
        if name.lower() in _OTHER_SEARCHERS:
            fix = "Ray has it, this program does not: optuna is installed by 'ssl_runner[search]'."
        require(name in SEARCHERS, "searcher", known, name, fix)
        if self.search and name == "optuna" and importlib.util.find_spec("optuna") is None:
            raise InputError(
                "searcher optuna must have the package optuna, which is not installed. "
                "Try pip install 'ssl_runner[search]'."
            )

    def _check_scheduler(self) -> None:
        grace, budgets = self.grace_steps, [each for each in self._choices("max_steps") if each]
        is_used = grace is None or self.scheduler != "none"
        fix = "Add --scheduler asha."
        require(is_used, "grace_steps", "left out without a scheduler", grace, fix)
        is_known = self.scheduler == "none" or self.first_rung is not None
        rule = "a number of steps with a scheduler and a budget in epochs"
        require(is_known, "grace_steps", rule, grace, "Try a ninth of the steps.")
        if grace is not None and budgets:
            fix = "No trial would ever be stopped."
            require(
                grace < min(budgets), "grace_steps", f"less than max_steps {min(budgets)}", grace, fix
            )

    @property
    def first_rung(self) -> int | None:
        """Steps of the scheduler's first rung: `grace_steps`, or a ninth of the budget; None: neither
        says."""
        budgets = [each for each in self._choices("max_steps") if each]
        return self.grace_steps or (max(1, min(budgets) // 9) if budgets else None)

    @property
    def size(self) -> int:
        """Number of combinations of the lists, and of the samples and finals where there is a search;
        there are at most as many trials."""
        fractions = {"full": 1, "partial": len(self._label_settings("partial"))}
        groups = len(self.models) * len(self.methods)
        groups *= sum(math.prod(map(len, grid.values())) for grid in self._every_grid)
        groups *= sum(fractions[config] for config in self.configs)
        seeds = len(self.seeds) * len(self.split_seeds or (0,))
        if not self.search:
            return groups * seeds
        return groups * ((self.samples or 0) + seeds * (2 if self.untuned else 1))

    @property
    def varying(self) -> tuple[str, ...]:
        """The settings that vary in this sweep without a list of their own."""
        return tuple(dict.fromkeys((*self.grid, *itertools.chain(*(self.grids or ())), *self.search)))

    @property
    def search_record(self) -> str | None:
        """What each row of a search says of it, as JSON: the study's keys that are about it, where
        they are not the default, and the seeds of the finals; None without a search."""
        if not self.search:
            return None
        default = SweepConfig()
        record = {name: getattr(self, name) for name in (*SEARCH_KEYS[1:], "seeds", "split_seeds")}
        kept = {name: value for name, value in record.items() if value != getattr(default, name)}
        kept["search"] = {name: domain.plain() for name, domain in self.search.items()}
        return json.dumps(kept, separators=(",", ":"), ensure_ascii=False)

    def describe(self, trial: TrialConfig) -> str:
        """A display name: what tells a trial apart in this sweep."""
        stands = self.trial.flat()
        changed = [name for name, value in trial.flat().items() if value != stands[name]]
        in_all = (*self.grid, *self.search)  # of the grids one after another, what was changed
        names = [name for name in self.varying if name in in_all or name in changed]
        return f"{trial.described(names)} seed {trial.batches.seed}"

    def _label_settings(self, config: str) -> list[dict[str, Any]]:
        """What says how many labels the trials of a config have: each value, as settings."""
        if config == "full":
            return [{"label_fraction": 1.0}]
        if self.rounds is None or self.selections is None:
            return [{"label_fraction": fraction} for fraction in self.label_fractions]
        return [
            {"selection": selection, "label_budgets": budgets_text(self.rounds[:count])}
            for selection in self.selections
            for count in range(1, len(self.rounds) + 1)
        ]

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
        """Every combination once, full before partial, in the order of the lists. With a search: the
        trials of its samples where they are known beforehand, which are those of the random searcher.

        Args:
            has_unlabeled: Whether the data have training images without a label. Full trials then
                have an unlabeled pool too, and take `full_methods`.
        """
        if self.search:
            samples = self.random_samples(has_unlabeled) if self.searcher == "random" else ()
            return tuple({each.trial.settings_id: each.trial for each in samples}.values())
        made: dict[str, TrialConfig] = {}
        for trial in self._combinations(has_unlabeled, self.seeds, self.split_seeds):
            trial = trial.resolved()
            made.setdefault(trial.settings_id, trial)
        return tuple(sorted(made.values(), key=lambda trial: trial.config != "full"))

    def _combinations(
        self, has_unlabeled: bool, seeds: tuple[int, ...], split_seeds: tuple[int, ...] | None
    ) -> Iterator[TrialConfig]:
        """Every combination of the lists under these seeds, not resolved; some are equal resolved."""
        full_methods: tuple[str, ...] = ("pass",)
        base = self.trial
        if has_unlabeled:
            full_methods = self.full_methods or self.methods
            if self.full_methods is None and self.methods == ("pass",):
                full_methods = ("pass", "fixmatch")
                base = base.replace(order="paired")
        grid = [
            dict(zip(each, values, strict=True))
            for each in self._every_grid
            for values in itertools.product(*each.values())
        ]
        for config in self.configs:
            for model, labels, settings, seed, split_seed in itertools.product(
                self.models, self._label_settings(config), grid, seeds, split_seeds or (None,)
            ):
                # With all labels there is no split: one such trial is enough.
                is_full = labels.get("label_fraction") == 1
                chosen = split_seeds[0] if is_full and split_seeds else split_seed
                for method in full_methods if is_full else self.methods:
                    yield base.replace(
                        **settings,
                        **labels,
                        model=model,
                        method=method,
                        seed=seed,
                        split_seed=seed if chosen is None else chosen,
                    )

    def groups(self, has_unlabeled: bool = False) -> dict[str, TrialConfig]:
        """The groups of a search by name: every combination of the lists but the seeds, under
        `search_seed`, with the searched settings as they stand, and not resolved."""
        made: dict[str, TrialConfig] = {}
        for base in self._combinations(has_unlabeled, (self.search_seed,), None):
            made.setdefault(base.settings_id, base)
        ordered = sorted(made.values(), key=lambda base: base.config != "full")
        return {base.described(self.grid, digits=10): base for base in ordered}

    def with_sample(self, group: TrialConfig, sample: Mapping[str, Plain]) -> TrialConfig:
        """A group's trial with the values of a sample, resolved."""
        return group.replace(
            **{
                name: float(value) if isinstance(value, int) and is_real(FIELDS[name]) else value
                for name, value in sample.items()
            }
        ).resolved()

    def searched_by(self, group: TrialConfig) -> dict[str, Domain]:
        """The settings that a group's trials take, of those that are searched.

        Args:
            group: One of `groups`.
        """
        deciding = [name for name in _TAKEN_BY if name in self.search]
        values = itertools.product(*(self.search[name].values for name in deciding))
        decided = [dict(zip(deciding, each, strict=True)) for each in values]
        found = {}
        for name, domain in self.search.items():
            value = next((each for each in domain.values if each is not None), None)
            trials = (self.with_sample(group, {**each, name: value}) for each in decided)
            if name in deciding or any(trial.flat()[name] is not None for trial in trials):
                found[name] = domain
        return found

    def random_samples(self, has_unlabeled: bool = False) -> tuple[Sample, ...]:
        """The samples of the random searcher, group by group; equal trials are there once, under
        their first number, so a group may have fewer than `samples`."""
        made: dict[str, Sample] = {}
        drawn = [sample_of(self.search, self.search_seed, n) for n in range(self.samples or 0)]
        for name, base in self.groups(has_unlabeled).items():
            for n, values in enumerate(drawn):
                trial = self.with_sample(base, values)
                made.setdefault(trial.settings_id, Sample(name, n, trial))
        return tuple(made.values())

    def finals(self, winner: TrialConfig) -> tuple[TrialConfig, ...]:
        """The trials of a search's winner, or of any settings, under each of the seeds."""
        splits = self.split_seeds or (None,)
        if winner.config == "full":
            splits = splits[:1]
        return tuple(
            winner.replace(seed=seed, split_seed=seed if split is None else split).resolved()
            for seed, split in itertools.product(self.seeds, splits)
        )


_OTHER_SEARCHERS = ("hyperopt", "bayesopt", "bohb", "ax", "hebo", "nevergrad", "zoopt")
"""Ray Tune's other integrations."""


def _check_suits(name: str, domain: Domain) -> None:
    """Check that a domain is of a setting's kind: a range of real or of whole numbers, or a choice.

    Raises:
        InputError: If it is not.
    """
    kind, place = without_none(FIELDS[name].type), f"search: {name}"
    ranges = {Real: REAL_KINDS, Whole: WHOLE_KINDS}.get(kind, ())
    rule = " or ".join((*ranges, "choice"))
    fix = "It is a whole number." if kind == Whole else "Write {choice: [...]}."
    known = domain.kind not in (*REAL_KINDS, *WHOLE_KINDS) or domain.kind in ranges
    require(known, place, rule, domain.kind, fix)
