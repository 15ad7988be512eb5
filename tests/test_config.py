"""What a config accepts, what it says when it does not, and its way through a study file."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssl_runner.config import FIELDS, SweepConfig, TrialConfig
from ssl_runner.methods.settings import HYPERPARAMETERS, METHODS, defaults
from ssl_runner.models.settings import OF_SOME_MODELS
from ssl_runner.pools.settings import OF_OTHERS
from ssl_runner.study import (
    KEYS,
    load_settings,
    load_sweep,
    read_yaml,
    sweep_from_settings,
)
from ssl_runner.train.settings import OF_SOME_OPTIMIZERS, OPTIMIZERS, SCHEDULES
from tests.builders import sweep_settings

EXPERIMENTS = Path(__file__).parent.parent / "experiments"

# ---- strategies: any valid config ----

whole = st.integers(0, 2**63 - 1)
fractions = st.floats(0, 1, exclude_min=True)
RESNET = "torchvision:resnet18"
models = st.sampled_from(
    ["CNN", "AdaptiveCNN", "WRN-28-2", RESNET, "tests.models:Linear", "größe_1.b:C"]
)

TRIAL_VALUES: dict[str, st.SearchStrategy[Any]] = {
    # But for a line break that PyYAML writes as it is and reads as a space.
    "dataset": st.text(st.characters(exclude_characters="\x85", codec="utf-8"), max_size=20),
    "subset": st.none() | st.integers(1, 10**9),
    "epochs": st.integers(1, 10**9),
    "max_steps": st.none() | st.integers(1, 10**9),
    "patience": whole,
    "batch_size": st.integers(1, 10**9),
    "optimizer": st.sampled_from([*OPTIMIZERS]),
    "lr": st.floats(0, 10, exclude_min=True, exclude_max=True),
    "weight_decay": st.none() | st.floats(0, 1),
    "optimizer_momentum": st.none() | st.floats(0, 1, exclude_max=True),
    "nesterov": st.none() | st.booleans(),
    "beta1": st.none() | st.floats(0, 1, exclude_max=True),
    "beta2": st.none() | st.floats(0, 1, exclude_max=True),
    "eps": st.none() | st.floats(0, 1, exclude_min=True),
    "schedule": st.sampled_from(["none", "linear", "cosine", "fixmatch", "step"]),
    "decay_every": st.none() | st.floats(0, 1, exclude_min=True),
    "decay_factor": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
    "warmup_steps": whole,
    "unlabeled_fraction": st.floats(0, 1, exclude_min=True),
    "labeled_classes": st.none() | st.sampled_from(["0-4", "größe, 3"]),
    "unlabeled_classes": st.none() | st.just("1, 0"),
    "labeled_imbalance": st.floats(1, 1000),
    "unlabeled_imbalance": st.floats(1, 1000),
    "label_noise": st.floats(0, 1, exclude_max=True),
    "noise_kind": st.sampled_from([None, "symmetric", "confusion"]),
    "foreign": st.floats(0, 1),
    "foreign_images": st.sampled_from([None, "noise", "KMNIST"]),
    "dropout": st.none() | st.floats(0, 1, exclude_max=True),
    "small_images": st.booleans(),
    "weights_file": st.none() | st.sampled_from(["weights.pt", "über/weights 2.pth"]),
    "sync_batch_norm": st.booleans(),
    "precision": st.sampled_from(["auto", "fp32", "bf16", "fp64"]),
    "compile": st.booleans(),
    "keep": st.sampled_from(["best", "last"]),
    "holdout": whole,
    "order": st.sampled_from(["interleave", "shuffle", "labeled_first", "paired"]),
    "last_batch": st.sampled_from(["partial", "drop", "pad"]),
    "augment": st.sampled_from(["none", "weak", "strong"]),
    "magnitude": st.floats(0, 1, exclude_min=True),
    "flip": st.booleans(),
    "mu": st.none() | st.integers(1, 100),
    "unlabeled_weight": st.none() | st.floats(0, 1e6),
    "ramp": st.none() | st.floats(0, 1),
    "threshold": st.none() | st.floats(0, 1),
    "temperature": st.none() | st.floats(0, 100),
    "alignment": st.none() | st.booleans(),
    "momentum": st.none() | st.floats(0, 1, exclude_max=True),
    "ema": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
}
methods = st.sampled_from([*METHODS, "tests.models:Method", "größe_1.b:C"])


def lists(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(values, min_size=1, max_size=3, unique=True)


SWEEP_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
    "question": st.none() | st.text(min_size=1, max_size=20),
    "configs": lists(st.sampled_from(["full", "partial"])),
    "label_fractions": lists(fractions),
    "models": lists(models),
    "methods": lists(methods),
    "seeds": lists(whole),
    "split_seeds": st.none() | lists(whole),
    "cpus_per_trial": st.none() | st.floats(0, 100, exclude_min=True),
    "gpus_per_trial": st.floats(0, 100),
    "checkpoint_steps": st.none() | st.integers(1, 10**9),
    "time_limit": st.none() | st.floats(0, 1e8, exclude_min=True, exclude_max=True),
    "max_concurrent": st.none() | st.integers(1, 10**9),
}


@st.composite
def valid_settings(draw: st.DrawFn) -> dict[str, object]:
    """Some keys of a study file, each with a value that it takes."""
    drawn = draw(st.fixed_dictionaries({}, optional=TRIAL_VALUES | SWEEP_VALUES))
    workers = draw(st.integers(1, 8))
    fewest = draw(st.none() | st.integers(1, workers))
    if workers > 1:
        drawn.pop("gpus_per_trial", None)
    taken = set().union(*map(defaults, drawn.get("methods", ["pass"])))
    for name in set(HYPERPARAMETERS) - taken - ({"mu"} if drawn.get("order") == "paired" else set()):
        drawn.pop(name, None)
    if drawn.get("sync_batch_norm"):
        drawn.pop("compile", None)
    keep_valid(drawn)
    for name in {*OF_SOME_MODELS, *OF_SOME_OPTIMIZERS} & drawn.keys():  # refused where nothing takes it
        some = {each: value for each, value in drawn.items() if each in TRIAL_VALUES}
        trials = [
            TrialConfig.of(**some, model=model).resolved() for model in drawn.get("models", ["CNN"])
        ]
        if all(trial.flat()[name] != drawn[name] for trial in trials):
            del drawn[name]
    return dict(drawn) | {"num_workers": workers, "min_workers": fewest}


def keep_valid(values: dict[str, Any]) -> dict[str, Any]:
    """Without Nesterov's momentum where there is no momentum, and what else needs another setting."""
    for name, needed in OF_OTHERS.items():
        if not values.get(needed):
            values.pop(name, None)
    if not values.get("optimizer_momentum"):
        values.pop("nesterov", None)
    return values


trial_configs = st.builds(
    lambda workers, **values: TrialConfig.of(
        min_workers=workers[0], num_workers=workers[1], **keep_valid(values)
    ),
    workers=st.tuples(st.none() | st.integers(1, 4), st.integers(4, 8)),
    label_fraction=fractions,
    method=methods,
    model=models,
    seed=whole,
    split_seed=whole,
    **TRIAL_VALUES,
)


# ---- one trial ----


@pytest.mark.parametrize(
    "settings",
    [
        {"label_fraction": 1.0},  # the edges themselves
        {"label_fraction": 5e-324},
        {"subset": 1},
        {"seed": 0, "split_seed": 2**63 - 1},  # the largest that the table holds
        {"epochs": 1},
        {"max_steps": 1},
        {"patience": 0},
        {"batch_size": 1},
        {"lr": 5e-324},
        {"lr": 9.999},
        {"dropout": 0.0},
        {"dropout": 0.999},
        {"holdout": 0},
        {"num_workers": 1, "min_workers": 1},
        {"model": "a:B"},
        {"model": "WRN-28-2"},
        {"model": "torchvision:resnet18", "small_images": True},
        {"model": "torchvision:no_such_model"},  # known when torchvision is loaded
        {"optimizer": "SGD", "optimizer_momentum": 0.0, "nesterov": False},
        {"optimizer": "SGD", "optimizer_momentum": 5e-324, "nesterov": True},
        {"schedule": "step", "decay_every": 1.0, "decay_factor": 0.999},
        {"model": "my_package.models_2:Größer"},
    ],
)
def test_a_trial_takes_the_edges_of_its_ranges(settings: dict[str, Any]) -> None:
    config = TrialConfig.of(**settings)
    assert {name: config.flat()[name] for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_fraction": 0.0}, "label_fraction must be in (0, 1], got 0.0. 10 % is 0.1."),
        ({"label_fraction": -0.1}, "label_fraction must be in (0, 1], got -0.1. 10 % is 0.1."),
        # Percent in place of a share
        ({"label_fraction": 10}, "label_fraction must be in (0, 1], got 10. Did you mean 0.10?"),
        ({"label_fraction": 1.5}, "label_fraction must be in (0, 1], got 1.5. Did you mean 0.015?"),
        ({"label_fraction": 12.5}, "label_fraction must be in (0, 1], got 12.5. Did you mean 0.125?"),
        ({"label_fraction": 100}, "label_fraction must be in (0, 1], got 100. Did you mean 1.00?"),
        ({"label_fraction": 101}, "label_fraction must be in (0, 1], got 101. 10 % is 0.1."),
        ({"label_fraction": float("nan")}, "label_fraction must be in (0, 1], got nan. 10 % is 0.1."),
        ({"label_fraction": float("inf")}, "label_fraction must be in (0, 1], got inf. 10 % is 0.1."),
        ({"subset": 0}, "subset must be at least 1, got 0. Leave it out to use all images."),
        ({"seed": -1}, "seed must be at least 0, got -1. Try 0."),
        (
            {"seed": 2**63},
            "seed must be less than 2**63, got 9223372036854775808. The table holds no larger number.",
        ),
        (
            {"split_seed": 16**5000},  # Python refuses to write it out
            "split_seed must be less than 2**63, got a very long number. "
            "The table holds no larger number.",
        ),
        ({"split_seed": -1}, "split_seed must be at least 0, got -1. Try 0."),
        ({"epochs": 0}, "epochs must be at least 1, got 0. The default is 10."),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0. Leave it out to train by epochs."),
        ({"patience": -1}, "patience must be at least 0, got -1. 0 turns early stopping off."),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0. The default is 64."),
        ({"lr": 0.0}, "lr must be in (0, 10), got 0.0. The default is 0.001."),
        ({"lr": 10.0}, "lr must be in (0, 10), got 10.0. The default is 0.001."),
        ({"lr": float("nan")}, "lr must be in (0, 10), got nan. The default is 0.001."),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0. Leave it out for the model's own."),
        ({"dropout": -0.1}, "dropout must be in [0, 1), got -0.1. Leave it out for the model's own."),
        (
            {"model": "torchvision:vgg11", "small_images": True},
            "small_images must be false for torchvision:vgg11, got True. Families with a stem for "
            "small images: resnet…, resnext…, wide_resnet…, densenet….",
        ),
        (
            {"method": "torchvision:resnet18"},
            "method must be a known name or an import path such as package.module:Name, got "
            "'torchvision:resnet18'. Known: pass, pseudo_label, pi_model, mean_teacher, fixmatch, "
            "freematch, softmatch, adamatch.",
        ),
        (
            {"optimizer": "sgd"},
            "optimizer must be one of Adam, AdamW, NAdam, RAdam, Adamax, Adagrad, RMSprop, SGD, got "
            "'sgd'. Did you mean SGD?",
        ),
        ({"weight_decay": 5.0}, "weight_decay must be in [0, 1], got 5.0. Try 0.0005."),
        ({"optimizer_momentum": 1.0}, "optimizer_momentum must be in [0, 1), got 1.0. Try 0.9."),
        ({"beta1": 1.0}, "beta1 must be in [0, 1), got 1.0. Try 0.9."),
        ({"beta2": -0.1}, "beta2 must be in [0, 1), got -0.1. Try 0.999."),
        ({"eps": 0.0}, "eps must be in (0, 1], got 0.0. Try 1e-8."),
        (
            {"optimizer": "SGD", "nesterov": True},
            "nesterov must be false without a momentum, got True. Try --optimizer-momentum 0.9.",
        ),
        (
            {"schedule": "cosin"},
            "schedule must be one of none, linear, cosine, fixmatch, step, got 'cosin'. Try none.",
        ),
        ({"decay_every": 80.0}, "decay_every must be in (0, 1], got 80.0. 0.8 is once, after 80 %."),
        ({"decay_factor": 1.0}, "decay_factor must be in (0, 1), got 1.0. Try 0.1."),
        ({"warmup_steps": -1}, "warmup_steps must be at least 0, got -1. 0 is no warm-up."),
        ({"holdout": -1}, "holdout must be at least 0, got -1. 0 validates on the test images."),
        ({"num_workers": 0}, "num_workers must be at least 1, got 0. Try 1."),
        (
            {"num_workers": 2, "min_workers": 3},
            "min_workers must be in [1, num_workers] = [1, 2], got 3. Try num_workers: [1, 2].",
        ),
        (
            {"num_workers": 2, "min_workers": 0},
            "min_workers must be in [1, num_workers] = [1, 2], got 0. Try num_workers: [1, 2].",
        ),
        ({"augment": "all"}, "augment must be one of none, weak, strong, got 'all'. Try none."),
        ({"magnitude": 0.0}, "magnitude must be in (0, 1], got 0.0. Try 0.5."),
        ({"mu": 0}, "mu must be at least 1, got 0. Try 1."),
        ({"unlabeled_weight": -1.0}, "unlabeled_weight must be in [0, 1000000], got -1.0. Try 1."),
        (
            {"unlabeled_weight": float("nan")},
            "unlabeled_weight must be in [0, 1000000], got nan. Try 1.",
        ),
        ({"ramp": 1.1}, "ramp must be in [0, 1], got 1.1. 0 is full weight from the start."),
        ({"threshold": 95.0}, "threshold must be in [0, 1], got 95.0. Try 0.95."),
        ({"temperature": -0.5}, "temperature must be in [0, 100], got -0.5. 0 takes hard labels."),
        ({"momentum": 1.0}, "momentum must be in [0, 1), got 1.0. Try 0.99."),
        ({"ema": 1.0}, "ema must be in [0, 1), got 1.0. 0 averages no weights."),
        (
            {"method": "mean_teacher", "ema": 0.0},
            "ema must be more than 0 for mean_teacher, got 0.0. Try 0.99.",
        ),
        ({"keep": "first"}, "keep must be one of best, last, got 'first'. Try best."),
        (
            {"method": "pas"},
            "method must be a known name or an import path such as package.module:Name, got "
            "'pas'. Did you mean pass?",
        ),
        (
            {"order": "random"},
            "order must be one of interleave, shuffle, labeled_first, paired, got 'random'. "
            "Try interleave.",
        ),
        ({"last_batch": ""}, "last_batch must be one of partial, drop, pad, got ''. Try partial."),
        (
            {"precision": "fp16"},
            "precision must be one of auto, fp32, bf16, fp64, got 'fp16'. Try auto.",
        ),
    ],
)
def test_a_trial_refuses_what_is_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        TrialConfig.of(**settings)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("model", "fix"),
    [
        ("adaptivecnn", "Did you mean AdaptiveCNN?"),
        ("", "Known: CNN, AdaptiveCNN, WRN-28-2."),
        ("torchvision:", "Known: CNN, AdaptiveCNN, WRN-28-2."),
        ("wrn-28", "Did you mean WRN-28-2?"),
        (":", "Known: CNN, AdaptiveCNN, WRN-28-2."),
        ("package:", "Known: CNN, AdaptiveCNN, WRN-28-2."),
        (".relative:Model", "Known: CNN, AdaptiveCNN, WRN-28-2."),
        ("package.2:Model", "Known: CNN, AdaptiveCNN, WRN-28-2."),
        ("package:Model.inner", "Known: CNN, AdaptiveCNN, WRN-28-2."),
        ("package:[red]", "Known: CNN, AdaptiveCNN, WRN-28-2."),  # rich would take it for its markup
        ("package:Model\n", "Known: CNN, AdaptiveCNN, WRN-28-2."),
    ],
)
def test_a_model_is_a_known_name_or_an_import_path(model: str, fix: str) -> None:
    with pytest.raises(ValueError) as refused:
        TrialConfig.of(model=model)
    rule = "model must be a known name or an import path such as package.module:Name"
    assert str(refused.value) == f"{rule}, got {model!r}. {fix}"


@pytest.mark.parametrize(
    ("fraction", "config"), [(1.0, "full"), (0.9999999, "partial"), (0.1, "partial")]
)
def test_full_means_every_label(fraction: float, config: str) -> None:
    assert TrialConfig.of(label_fraction=fraction).config == config


def test_the_validation_images_are_named() -> None:
    assert TrialConfig().data.validation == "test"
    assert TrialConfig.of(holdout=1).data.validation == "holdout"


CHANGED: dict[str, Any] = {
    "dataset": "tests.data:make",
    "subset": 1,
    "label_fraction": 0.5,
    "selection": "margin",
    "label_budgets": "100 300",
    "unlabeled_fraction": 0.5,
    "labeled_classes": "0-4",
    "unlabeled_classes": "Coat, Bag",
    "labeled_imbalance": 10,
    "unlabeled_imbalance": 10,
    "label_noise": 0.2,
    "noise_kind": "confusion",
    "foreign": 0.25,
    "foreign_images": "digits",
    "method": "freematch",
    "model": "AdaptiveCNN",
    "seed": 1,
    "split_seed": 1,
    "epochs": 11,
    "max_steps": 10,
    "patience": 4,
    "batch_size": 65,
    "optimizer": "AdamW",
    "lr": 0.0010000000000000002,  # the next float
    "weight_decay": 0.5,
    "optimizer_momentum": 0.9,
    "nesterov": True,
    "beta1": 0.8,
    "beta2": 0.9,
    "eps": 1e-7,
    "schedule": "linear",
    "decay_every": 0.8,
    "decay_factor": 0.2,
    "warmup_steps": 1,
    "dropout": 0.0,
    "small_images": True,
    "weights_file": "weights.pt",
    "sync_batch_norm": True,
    "precision": "fp32",
    "compile": True,
    "keep": "last",
    "holdout": 1,
    "order": "shuffle",
    "last_batch": "drop",
    "augment": "weak",
    "magnitude": 0.5,
    "flip": False,
    "num_workers": 2,
    "min_workers": 1,
    "mu": 2,
    "unlabeled_weight": 2,
    "ramp": 0.5,
    "threshold": 0.9,
    "temperature": 0.5,
    "alignment": True,
    "momentum": 0.9,
    "ema": 0.9,
}


WORKERS = ("num_workers", "min_workers")
TAKERS: dict[str, dict[str, Any]] = {
    "selection": {"selection": "random", "label_budgets": "100"},
    "label_budgets": {"selection": "random", "label_budgets": "100"},
    "noise_kind": {"label_noise": 0.5},
    "foreign_images": {"foreign": 0.5},
    "small_images": {"model": RESNET},
    "weights_file": {"model": RESNET},
    "sync_batch_norm": {"model": RESNET},
    "optimizer_momentum": {"optimizer": "RMSprop"},
    "nesterov": {"optimizer": "SGD", "optimizer_momentum": 0.5},
    "decay_every": {"schedule": "step"},
    "decay_factor": {"schedule": "step"},
}
"""What takes a setting that by default nothing does."""


def test_any_changed_setting_changes_the_trial_id() -> None:
    # With any method but `pass` the order is always paired.
    assert CHANGED.keys() == FIELDS.keys()
    default = TrialConfig()
    assert default.replace(order="shuffle").settings_id != default.settings_id
    default = TrialConfig.of(method="fixmatch")
    ids = set()
    for name, value in CHANGED.items():
        unchanged = default.replace(**TAKERS.get(name, {}))
        changed = unchanged.replace(**{name: value})
        ids.add(changed.settings_id)
        same = changed.settings_id == unchanged.settings_id
        assert same == (name in (*WORKERS, "order")), name
    # Workers are where a trial runs, not what it is: with them changed, as with the order, the id is
    # the unchanged one's.
    assert default.settings_id in ids
    assert len(ids) == len(CHANGED) - len(WORKERS)
    assert default.replace(**{name: CHANGED[name] for name in WORKERS}).settings_id in ids
    assert all(re.fullmatch(r"[0-9a-f]{10}", trial_id) for trial_id in ids)


@given(one=trial_configs, other=trial_configs)
def test_configs_are_equal_exactly_when_their_ids_are(one: TrialConfig, other: TrialConfig) -> None:
    same_workers = {name: one.flat()[name] for name in WORKERS}
    are_equal = one.resolved() == other.replace(**same_workers).resolved()
    assert are_equal == (one.settings_id == other.settings_id)
    assert one.settings_id == other.replace(**one.flat()).settings_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TrialConfig.of(label_fraction=1), TrialConfig.of(label_fraction=1.0)),
        (TrialConfig.of(lr=1), TrialConfig.of(lr=1.0)),
        (TrialConfig.of(dropout=-0.0), TrialConfig.of(dropout=0)),
        (
            TrialConfig.of(method="fixmatch", threshold=1),
            TrialConfig.of(method="fixmatch", threshold=1.0),
        ),
    ],
)
def test_equal_numbers_make_equal_ids(one: TrialConfig, other: TrialConfig) -> None:
    assert one == other
    assert one.settings_id == other.settings_id


def test_the_trial_id_is_the_same_in_every_process() -> None:
    code = (
        "from ssl_runner.config import TrialConfig; print(TrialConfig.of(lr=0.1, seed=3).settings_id)"
    )
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == TrialConfig.of(lr=0.1, seed=3).settings_id


def test_a_config_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrialConfig().optimizer.lr = 0.1  # type: ignore[misc]
    assert len({TrialConfig(), TrialConfig(), TrialConfig.of(seed=1)}) == 2


@pytest.mark.parametrize("method", [*METHODS, "tests.models:Method"])
def test_a_resolved_trial_names_what_its_method_takes_and_nothing_else(method: str) -> None:
    everything: dict[str, Any] = dict(defaults("tests.models:Method")) | {"ema": 0.5, "threshold": 0.75}
    given_all = TrialConfig.of(method=method, **everything).resolved()
    for resolved in (TrialConfig.of(method=method).resolved(), given_all):
        named = {name for name in HYPERPARAMETERS if getattr(resolved.unlabeled, name) is not None}
        assert named == defaults(method).keys()
        assert resolved.batches.order == ("interleave" if method == "pass" else "paired")
        assert resolved.resolved() == resolved
        assert resolved.settings_id == resolved.replace().settings_id
    assert given_all.unlabeled.ema == 0.5
    assert given_all.unlabeled.threshold == (0.75 if "threshold" in defaults(method) else None)


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("CNN", {"dropout"}),
        ("tests.models:Linear", {"dropout", "sync_batch_norm"}),
        ("WRN-28-2", {"sync_batch_norm"}),
        (RESNET, {"small_images", "weights_file", "sync_batch_norm"}),
        ("torchvision:densenet121", {"dropout", "small_images", "weights_file", "sync_batch_norm"}),
    ],
)
def test_what_a_model_does_not_take_changes_no_id(model: str, kept: set[str]) -> None:
    given = {"dropout": 0.125, "small_images": True, "weights_file": "w.pt", "sync_batch_norm": True}
    plain, resolved = TrialConfig.of(model=model), TrialConfig.of(model=model, **given).resolved()
    assert {name for name in given if resolved.flat()[name] == given[name]} == kept
    for name, value in given.items():
        changes = plain.replace(**{name: value}).settings_id != plain.settings_id
        assert changes == (name in kept), name


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resolved_trial_names_what_its_optimizer_takes(optimizer: str) -> None:
    given = {name: CHANGED[name] for name in OF_SOME_OPTIMIZERS if name != "nesterov"}
    for schedule in ("none", "step"):
        takes = {**OPTIMIZERS[optimizer], **SCHEDULES.get(schedule, {})}
        plain = TrialConfig.of(optimizer=optimizer, schedule=schedule)
        written = {
            name: value for name, value in vars(plain.resolved().optimizer).items() if value is not None
        }
        assert takes.items() <= written.items()
        assert written.keys() - takes.keys() == {"optimizer", "lr", "schedule", "warmup_steps"}
        for name, value in given.items():
            changes = plain.replace(**{name: value}).settings_id != plain.settings_id
            assert changes == (name in takes), name


def test_a_file_of_weights_is_known_by_its_name_and_content_and_not_by_its_place() -> None:
    one, other = (
        TrialConfig.of(model=RESNET, weights_file=f"{place}weights.pt") for place in ("", "/a/b/")
    )
    assert one.settings_id == other.settings_id != TrialConfig.of(model=RESNET).settings_id


def test_what_a_method_takes_by_itself_may_be_said_too() -> None:
    plain, said = TrialConfig.of(method="fixmatch"), TrialConfig.of(method="fixmatch", threshold=0.95)
    assert plain != said
    assert plain.settings_id == said.settings_id
    paired = TrialConfig.of(order="paired")
    assert paired.settings_id == paired.replace(mu=1).settings_id != TrialConfig().settings_id


def test_a_hyper_parameter_that_no_method_takes_is_refused() -> None:
    settings = {"methods": ["pass", "pi_model"], "threshold": 0.9}
    with pytest.raises(ValueError) as refused:
        sweep_from_settings(settings)
    assert str(refused.value) == (
        "threshold must be a hyperparameter of a selected method, got 0.9. Leave it out, or add a "
        "method that takes it to pass, pi_model."
    )
    partial = sweep_from_settings(settings | {"methods": ["pass", "fixmatch"]}).trials()[1:]
    assert {(trial.unlabeled.method, trial.unlabeled.threshold) for trial in partial} == {
        ("pass", None),
        ("fixmatch", 0.9),
    }


@pytest.mark.parametrize(
    ("config", "description"),
    [
        (TrialConfig(), "CNN full seed 0"),
        (TrialConfig.of(label_fraction=0.1, seed=7), "CNN partial 0.1 seed 7"),
        (TrialConfig.of(label_fraction=1 / 3, model="a.b:C"), "a.b:C partial 0.3333 seed 0"),
    ],
)
def test_the_description_says_what_sets_a_trial_apart(config: TrialConfig, description: str) -> None:
    assert config.description == description


# ---- the grid ----


def grid(sweep: SweepConfig) -> list[tuple[str, float, int, int]]:
    return [
        (t.network.model, t.data.label_fraction, t.batches.seed, t.data.split_seed)
        for t in sweep.trials()
    ]


def test_the_default_study() -> None:
    assert grid(SweepConfig()) == [
        ("CNN", fraction, 0, 0) for fraction in (1.0, 0.01, 0.05, 0.1, 0.25, 0.5)
    ]
    assert {trial.budget.epochs for trial in SweepConfig().trials()} == {10}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Full before partial, whatever order they are named in
        (
            {"configs": ("partial", "full"), "label_fractions": (0.5, 0.1)},
            [("CNN", 1.0, 0, 0), ("CNN", 0.5, 0, 0), ("CNN", 0.1, 0, 0)],
        ),
        ({"configs": ("full",)}, [("CNN", 1.0, 0, 0)]),
        ({"configs": ("partial",), "label_fractions": (0.1,)}, [("CNN", 0.1, 0, 0)]),
        # Without split seeds each seed is its own
        (
            {"configs": ("partial",), "label_fractions": (0.1,), "seeds": (3, 5)},
            [("CNN", 0.1, 3, 3), ("CNN", 0.1, 5, 5)],
        ),
        # With them every pair, but full once per seed
        (
            {"label_fractions": (0.1,), "seeds": (0, 1), "split_seeds": (7, 8)},
            [
                *[("CNN", 1.0, 0, 7), ("CNN", 1.0, 1, 7)],
                *[("CNN", 0.1, 0, 7), ("CNN", 0.1, 0, 8), ("CNN", 0.1, 1, 7), ("CNN", 0.1, 1, 8)],
            ],
        ),
        # A fraction of 1 is full, and full comes once
        (
            {"label_fractions": (1.0, 0.1), "split_seeds": (7, 8)},
            [("CNN", 1.0, 0, 7), ("CNN", 0.1, 0, 7), ("CNN", 0.1, 0, 8)],
        ),
        ({"configs": ("partial",), "label_fractions": (1,)}, [("CNN", 1.0, 0, 0)]),
        (
            {"configs": ("full",), "models": ("CNN", "AdaptiveCNN"), "seeds": (0, 1)},
            [
                *[("CNN", 1.0, 0, 0), ("CNN", 1.0, 1, 1)],
                *[("AdaptiveCNN", 1.0, 0, 0), ("AdaptiveCNN", 1.0, 1, 1)],
            ],
        ),
    ],
)
def test_the_trials_of_a_sweep(
    settings: dict[str, Any], expected: list[tuple[str, float, int, int]]
) -> None:
    assert grid(SweepConfig(**settings)) == expected


@given(valid_settings())
def test_a_sweep_names_each_trial_once_full_first(some: dict[str, object]) -> None:
    sweep = sweep_from_settings(some)
    trials = sweep.trials()
    assert len({trial.settings_id for trial in trials}) == len(trials) > 0
    assert [trial.config for trial in trials] == sorted(trial.config for trial in trials)
    # Compared with a slow, obvious version: every wanted pair of pools and seeds is there.
    wanted = {
        (model, 1.0 if config == "full" else fraction, seed)
        for config in sweep.configs
        for model in sweep.models
        for fraction in sweep.label_fractions
        for seed in sweep.seeds
    }
    assert {(t.network.model, t.data.label_fraction, t.batches.seed) for t in trials} == wanted
    partial = {(t.batches.seed, t.data.split_seed) for t in trials if t.config == "partial"}
    splits = sweep.split_seeds
    pairs = {(s, p) for s in sweep.seeds for p in ((s,) if splits is None else splits)}
    assert partial in (set(), pairs)
    full = [(t.network.model, t.batches.seed) for t in trials if t.config == "full"]
    assert len(full) == len(set(full))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": ""},
            "name must be made of letters, digits, .* got ''. It becomes part of file names",
        ),
        ({"name": "../up"}, "name must be made of .* got '../up'"),
        ({"name": ".hidden"}, "name must be made of"),
        ({"name": "-x"}, "name must be made of"),
        ({"name": "..."}, "name must be made of"),
        ({"name": "größe"}, "name must be made of"),
        ({"name": "a b"}, "name must be made of"),
        ({"name": "a" * 101}, "at most 100, got 'aaaa"),
        ({"seeds": ()}, r"seeds must be a list of at least one, got \[\]. Name one."),
        ({"split_seeds": ()}, r"split_seeds must be a list of at least one, got \[\]"),
        ({"configs": ()}, r"configs must be a list of at least one, got \[\]"),
        ({"seeds": (3, 0, 3)}, "seeds must be without repetition, got 3. Name it once."),
        ({"label_fractions": (0.1, 0.1)}, "label_fractions must be without repetition, got 0.1"),
        ({"label_fractions": (0.1, 1.5)}, r"label_fraction must be in \(0, 1\], got 1.5"),
        ({"models": ("CNM",)}, r"model must be a known .* got 'CNM'. Did you mean CNN\?"),
        # Also where no trial would use them
        ({"configs": ("full",), "methods": ("pas",)}, "method must be .* Did you mean pass?"),
        ({"configs": ("full",), "label_fractions": (0,)}, "label_fraction must be in"),
        # What no model, optimizer or schedule takes
        (
            {"trial": TrialConfig.of(small_images=True), "models": ("CNN", "WRN-28-2")},
            "small_images must be left out, since no selected model takes it, got True.",
        ),
        (
            {"trial": TrialConfig.of(dropout=0.5), "models": (RESNET,)},
            "dropout must be left out, since no selected model takes it, got 0.5.",
        ),
        (
            {"trial": TrialConfig.of(optimizer="SGD", beta1=0.5)},
            "beta1 must be left out, since neither SGD nor schedule none takes it, got 0.5.",
        ),
        (
            {"trial": TrialConfig.of(schedule="cosine", decay_every=0.5)},
            "decay_every must be left out, since neither Adam nor schedule cosine takes it, got 0.5.",
        ),
        (
            {"trial": TrialConfig.of(optimizer="SGD", momentum=0.9)},
            "momentum must be a hyperparameter of .* got 0.9. .* SGD's is --optimizer-momentum.",
        ),
        (
            {"trial": TrialConfig.of(sync_batch_norm=True, compile=True), "models": (RESNET,)},
            "sync_batch_norm must be false with compile, got True. Leave one of them out.",
        ),
        ({"cpus_per_trial": 0}, "cpus_per_trial must be more than 0, got 0. Try 1"),
        (
            {"cpus_per_trial": float("inf"), "trial": TrialConfig.of(num_workers=2)},
            "cpus_per_trial must be more than 0, got inf. Try 2",
        ),
        ({"checkpoint_steps": 0}, "checkpoint_steps must be at least 1, got 0. Leave it out for one"),
        ({"gpus_per_trial": -1.0}, r"gpus_per_trial must be in \[0, inf\), got -1.0"),
        ({"gpus_per_trial": float("inf")}, "gpus_per_trial must be .* got inf. 0 trains on the CPU"),
        (
            {"gpus_per_trial": 1.0, "trial": TrialConfig.of(num_workers=2)},
            "gpus_per_trial must be a multiple of num_workers 2, .* got 1.0. Try 2, whole GPUs",
        ),
        ({"gpus_per_trial": float("nan")}, "gpus_per_trial must be .* got nan"),
        ({"max_concurrent": 0}, "max_concurrent must be at least 1, got 0. Leave it out for as many"),
    ],
)
def test_a_sweep_refuses_what_is_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        SweepConfig(**settings)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a", "A-b_c.9", "2024-01-01", "_a", "a--b", "a" * 100])
def test_names_that_do(name: str) -> None:
    assert SweepConfig(name=name).name == name


@pytest.mark.parametrize(
    ("cpus_per_trial", "num_workers", "cpus_per_worker", "threads"),
    [
        (None, 1, 1, 1),
        (None, 3, 1, 1),
        (2, 1, 2, 2),
        (6, 3, 2, 2),
        (3, 2, 1.5, 1),  # a share of a CPU is no thread
        (0.5, 1, 0.5, 1),  # and no CPU is one all the same
    ],
)
def test_cpus_and_threads_of_a_worker(
    cpus_per_trial: float | None, num_workers: int, cpus_per_worker: float, threads: int
) -> None:
    sweep = SweepConfig(cpus_per_trial=cpus_per_trial, trial=TrialConfig.of(num_workers=num_workers))
    assert (sweep.cpus_per_worker, sweep.threads) == (cpus_per_worker, threads)


# ---- study files ----


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A path for a study file; each test writes its own there."""
    return tmp_path_factory.mktemp("studies") / "my-study.yaml"


def load_text(study: Path, text: str) -> SweepConfig:
    study.write_text(text, encoding="utf-8")
    return load_sweep(study)


def refusal(study: Path, content: str | bytes) -> str:
    """What is said of a study file that does not do, without the file's name."""
    study.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError) as refused:
        load_sweep(study)
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{study}: ")
    return message.removeprefix(f"{study}: ")


def test_the_default_study_is_written_out() -> None:
    assert load_sweep(EXPERIMENTS / "label_fractions.yaml") == SweepConfig()


@given(valid_settings())
def test_settings_make_the_round_trip_through_a_file(study: Path, some: dict[str, object]) -> None:
    sweep = sweep_from_settings(some)
    all_settings = sweep_settings(sweep)
    assert tuple(all_settings) == KEYS
    assert sweep_from_settings(all_settings) == sweep
    for key, value in some.items():  # nothing was lost on the way in
        assert all_settings[key] == value
    loaded = load_text(study, yaml.safe_dump(all_settings, allow_unicode=True))
    assert loaded == sweep
    assert loaded.trials() == sweep.trials()


def test_two_numbers_of_workers_are_the_fewest_and_the_most(study: Path) -> None:
    elastic = load_text(study, "num_workers: [1, 3]").trial
    assert (elastic.compute.min_workers, elastic.compute.num_workers) == (1, 3)
    fixed = load_text(study, "num_workers: [3]").trial
    assert (fixed.compute.min_workers, fixed.compute.num_workers) == (None, 3)


def test_a_study_is_called_as_its_file_unless_it_says_otherwise(study: Path) -> None:
    assert load_text(study, "epochs: 1").name == "my-study"
    assert load_text(study, "name: other").name == "other"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("lr: 1e-3", "lr", 0.001),  # a text to YAML 1.1
        ("lr: 1", "lr", 1.0),
        ("epochs: '5'", "epochs", 5),
        ("subset: null", "subset", None),
        ("subset: ~", "subset", None),
        ("\ufeffepochs: 5", "epochs", 5),  # an editor's byte order mark
        ("{epochs: 5}", "epochs", 5),
    ],
)
def test_values_that_need_reading(study: Path, text: str, name: str, value: object) -> None:
    read = load_text(study, text).trial.flat()[name]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Keys
        ("epoch: 3", "unknown key 'epoch'. Did you mean epochs?"),
        ("Epochs: 3", "unknown key 'Epochs'. Did you mean epochs?"),
        ("label_fractoins: [0.1]", "unknown key 'label_fractoins'. Did you mean label_fractions?"),
        (
            "trial: {epochs: 3}",
            r"unknown key 'trial'. Known: name, question, configs, label_fractions, ",
        ),
        ("zzzzzzzz: 3", r"unknown key 'zzzzzzzz'. Known: name, question, configs, label_fractions, "),
        ("x" * 9999 + ": 3", r"line 1: invalid YAML|unknown key 'xxx"),
        ("seed: 3", r"'seed' is a list here: seeds: \[3\]"),
        ("model: CNN", r"'model' is a list here: models: \['CNN'\]"),
        ("model: [CNN]", r"'model' is a list here: models: \['CNN'\]"),
        ('seed: "a\\nb"', r"'seed' is a list here: seeds: \['a\\nb'\]"),
        ("epochs: 3\nlr: 1\nepochs: 3", "line 3: duplicate key 'epochs'. Keep one."),
        ("? epochs\n: 1\n'epochs': 2", "line 3: duplicate key 'epochs'. Keep one."),
        ("1: 2", "line 1: a key must be a word, got 1."),
        ("yes: 2", "line 1: a key must be a word, got True."),
        ("? [a]\n: 2", r"line 1: a key must be a word, got \['a'\]."),
        ("? {a: b}\n: 2", r"line 1: a key must be a word, got \{'a': 'b'\}."),
        # Lists and scalars
        ("seeds: 3", r"seeds must be a list, got 3. Did you mean \[3\]\?"),
        ("models: CNN", r"models must be a list, got 'CNN'. Did you mean \['CNN'\]\?"),
        ("configs: full", r"configs must be a list, got 'full'. Did you mean \['full'\]\?"),
        ('seeds: "a\\nb"', r"seeds must be a list, got 'a\\nb'. Did you mean \['a\\nb'\]\?"),
        ("seeds: {a: 1}", r"seeds must be a list, got \{'a': 1\}."),
        ("seeds: []", r"seeds must be a list of at least one, got \[\]. Name one."),
        ("seeds: null", "seeds: .*, got None. See --help for what it takes."),
        ("epochs: [3]", r"epochs: .* valid integer, got \[3\]. See --help for what it takes."),
        ("label_fractions: [[0.1]]", r"label_fractions.0: .* valid number, got \[0.1\]."),
        ("name: [a]", r"name: must be text.*, got \['a'\]."),
        # Kinds
        ("epochs: yes", "epochs: must be a number, not true or false, got True."),
        ("lr: off", "lr: must be a number, not true or false, got False."),
        ("subset: true", "subset: must be a number, not true or false, got True."),
        ("seeds: [0, true]", "seeds.1: must be a number, not true or false, got True."),
        ("gpus_per_trial: no", "gpus_per_trial: must be a number, not true or false"),
        ("epochs: 2.0", "epochs: must be a whole number, got 2.0."),
        ("epochs: .inf", "epochs: must be a whole number, got inf."),
        ("epochs: .nan", "epochs: must be a whole number, got nan."),
        ("num_workers: [1, 2, 3]", r"num_workers must be a number or two, .* got \[1, 2, 3\]. Try \["),
        ("num_workers: []", r"num_workers must be a number or two, .* got \[\]. Try \[1, 2\]"),
        ("num_workers: [3, 2]", r"min_workers must be in \[1, num_workers\] = \[1, 2\], got 3."),
        ("num_workers: [yes, 2]", "min_workers: must be a number, not true or false"),
        ("num_workers: two", "num_workers: .* valid integer, .* got 'two'. See --help"),
        ("flip: maybe", "flip: .* valid boolean, .* got 'maybe'. See --help"),
        ("flip: 2", "flip: .* valid boolean, .* got 2. See --help"),
        ("seeds: [1.5]", "seeds.0: must be a whole number, got 1.5."),
        ("epochs: many", "epochs: .* valid integer, .* got 'many'. See --help"),
        ("epochs: null", "epochs: .* valid integer, got None. See --help"),
        ("epochs: ''", "epochs: .* valid integer, .* got ''. See --help"),
        ("epochs: 2024-01-01", r"epochs: .* got datetime.date\(2024, 1, 1\)"),
        ("epochs: 0x" + "f" * 5000, "epochs must be less than 2\\*\\*63, got a very long number."),
        ("epochs: " + "9" * 5000, r"line 1: '9999\d*\.\.\.9*' is not a valid int. Put it in quotes"),
        ("lr: fast", "lr: .* valid number, .* got 'fast'. See --help"),
        ("lr: .nan", r"lr must be in \(0, 10\), got nan."),
        ("lr: .inf", r"lr must be in \(0, 10\), got inf."),
        ("lr: 'nan'", r"lr must be in \(0, 10\), got nan."),
        ("dropout: -.inf", r"dropout must be in \[0, 1\), got -inf."),
        ("label_fractions: [.nan]", r"label_fraction must be in \(0, 1\], got nan."),
        ("gpus_per_trial: .inf", r"gpus_per_trial must be in \[0, inf\), got inf."),
        ("label_fractions: [10]", r"label_fraction must be in \(0, 1\], got 10.0. Did you mean 0.10\?"),
        ("name: 2024-01-01", "name: must be text, in quotes if it looks like another type"),
        ("name: 7", "name: must be text, .*, got 7."),
        ("models: [1]", "models.0: must be text, .*, got 1."),
        ("configs: [ful]", "configs.0: .* 'full' or 'partial', got 'ful'. See --help"),
        ("precision: fp16", "precision: .* 'auto', 'fp32', 'bf16' or 'fp64', got 'fp16'. See --help"),
        ("order: [shuffle]", r"order: .*, got \['shuffle'\]"),
        ("dataset: !!binary aGk=", "dataset: must be text, .*, got b'hi'"),
        # Not a list of `key: value` lines
        ("", "a study must be lines of 'key: value', got nothing. Compare with experiments/"),
        ("# only a comment", "a study must be lines of 'key: value', got nothing."),
        ("- epochs: 3", "a study must be lines of 'key: value', got list."),
        ("epochs 3", "a study must be lines of 'key: value', got str."),
        # Not YAML
        ("[[[", r"line 1: invalid YAML \(.*\). Compare with experiments/label_fractions.yaml"),
        ("a: 1\n b: 2", r"line 2: invalid YAML \(mapping values are not allowed here\)"),
        ("a: *nothing", r"line 1: invalid YAML \(found undefined alias 'nothing'\)"),
        ("--- {}\n--- {}", r"line 2: invalid YAML \(but found another document\)"),
        (
            "lr: 1\n\tepochs: 3",
            r"line 2: invalid YAML \(found character '\\t' that cannot start any token",
        ),
        ("a\0b", r"invalid YAML \(unacceptable character #x0000"),
        ("<<: {epochs: 3}", r"line 1: invalid YAML \(could not determine a constructor"),
        # Tags
        (
            "name: !!python/object/apply:os.getcwd []",
            r"line 1: invalid YAML \(could not .*os.getcwd'\)",
        ),
        ("name: !!python/name:os.system", r"line 1: invalid YAML \(could not determine a constructor"),
        (
            "name: !mine x",
            r"line 1: invalid YAML \(could not determine a constructor for the tag '!mine'",
        ),
        ("name: !!bool maybe", "line 1: 'maybe' is not a valid bool. Put it in quotes if it is text."),
        ("name: !!timestamp soon", "line 1: 'soon' is not a valid timestamp. Put it in quotes if"),
        ("name: !!int ''", "line 1: '' is not a valid int. Put it in quotes if it is text."),
        ("\nname: !!float x", "line 2: 'x' is not a valid float. Put it in quotes if it is text."),
        ("name: 2024-13-45", "line 1: '2024-13-45' is not a valid timestamp. Put it in quotes"),
        ("name: !!timestamp {=: soon}", r"line 1: .* is not a valid timestamp. Put it in quotes"),
        # Deep, wide and cyclic
        ("[" * 5000, "nested too deeply."),
        ("- " * 5000, "nested too deeply."),
        ("seeds: &a [*a]", r"seeds.0: .* valid integer, got \[+\.\.\.\]+\. See"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]",
            "unknown key 'a'. Known: name",
        ),
    ],
)
def test_a_study_that_does_not_do_is_refused_in_a_line(study: Path, text: str, message: str) -> None:
    assert re.match(message, refusal(study, text))


def test_a_value_that_unfolds_without_end_is_cut_short(study: Path) -> None:
    # 2**40 leaves: written out it would fill the memory.
    levels = ["&x0 [1, 1]"] + [f"&x{n + 1} [*x{n}, *x{n}]" for n in range(40)]
    nested = "[" + ", ".join(levels) + "]"
    assert len(refusal(study, f"epochs: {nested}")) < 1000
    assert len(refusal(study, f"seed: {nested}")) < 1000
    assert len(refusal(study, "epochs: " + "x" * 10**6)) < 1000


def test_tags_build_nothing(study: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    refusal(study, f"name: !!python/object/apply:pathlib.Path.touch [!!python/name:x '{mark}']")
    refusal(study, f"name: !!python/object/apply:os.mkdir ['{mark}']")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", r"not UTF-8 text \(byte 0\). Is it a study\?"),
        ("name: größe".encode("latin-1"), r"not UTF-8 text \(byte 8\). Is it a study\?"),
        ("epochs: 3".encode("utf-16"), r"not UTF-8 text \(byte 0\)"),
        (b"PK\x03\x04", r"invalid YAML \(unacceptable character #x0003"),
    ],
)
def test_files_that_are_not_text(study: Path, content: bytes, message: str) -> None:
    assert re.match(message, refusal(study, content))


@pytest.mark.parametrize(
    ("place", "reason"),
    [("nowhere.yaml", "No such file or directory"), (".", "Is a directory")],
)
def test_a_path_that_can_not_be_read(tmp_path: Path, place: str, reason: str) -> None:
    path = tmp_path / place
    with pytest.raises(ValueError) as refused:
        load_sweep(path)
    assert str(refused.value) == f"{path}: can't be read ({reason}). Is the path right?"


def sweep_or_a_line(study: Path, content: bytes) -> None:
    """Loading makes a sweep, or a ValueError in one line that names the file; nothing else."""
    study.write_bytes(content)
    try:
        assert load_sweep(study).trials()
    except ValueError as error:
        message, cause = str(error), error.__cause__
    else:
        return
    assert message.startswith(f"{study}: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 1500
    assert cause is None  # and no traceback of what lies beneath


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_make_a_sweep_or_a_line(study: Path, content: bytes) -> None:
    sweep_or_a_line(study, content)


pieces = st.sampled_from(
    [
        *KEYS,
        *(
            "seed",
            "model",
            "<<",
            "=",
            ":",
            ": ",
            " ",
            "\n",
            "\n  ",
            "- ",
            "? ",
            "[",
            "]",
            "{",
            "}",
            ",",
        ),
        *("'", '"', "#", "&a ", "*a", "!", "!!int ", "!!float ", "!!bool ", "!!null ", "!!timestamp "),
        *("!!set ", "!!omap ", "!!pairs ", "!!binary ", "!!str ", "!!seq ", "!!map ", "!!merge "),
        *(
            "|",
            ">",
            "%",
            "@",
            "`",
            "\t",
            "\\",
            "\\n",
            "\0",
            "\x85",
            "\u2028",
            "\ud7ff",
            "\ufeff",
            "---",
        ),
        *("...", "~", "yes", "0", "1", "-1", "0.1", "1e400", ".nan", ".inf", "0x", "0b_", "1:60", "_"),
        *("2024-13-45", "2024-01-01 25:00:00", "CNN", "a.b:C", "full", "partial", "pass", "shuffle"),
    ]
)


@settings(max_examples=500)
@given(st.lists(pieces, max_size=12).map("".join))
@example("name: !!timestamp {=: x}")
@example("0b_: 1")
@example("seeds: [0b_]")
def test_any_text_like_yaml_makes_a_sweep_or_a_line(study: Path, text: str) -> None:
    sweep_or_a_line(study, text.encode())


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.dates()
    | st.datetimes()
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), values, max_size=4))
def test_any_value_under_a_known_key_makes_a_sweep_or_a_line(
    study: Path, some: Mapping[str, object]
) -> None:
    sweep_or_a_line(study, yaml.safe_dump(dict(some)).encode())


def test_settings_are_read_without_a_judgment(study: Path) -> None:
    study.write_text("epochs: 0\nnonsense: [1]")
    assert load_settings(study) == {"name": "my-study", "epochs": 0, "nonsense": [1]}


def test_yaml_is_read_as_yaml() -> None:
    assert read_yaml("{a: [1, 2.5, yes, x, null], b: '1'}") == {
        "a": [1, 2.5, True, "x", None],
        "b": "1",
    }
