"""What each trial of a sweep needs, checked before any of them starts; and how much work it is."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ssl_runner.config import TrialConfig
from ssl_runner.datasets import ImageDataset
from ssl_runner.errors import require
from ssl_runner.identity import Trial, chains
from ssl_runner.methods import build_method
from ssl_runner.models import check_models
from ssl_runner.rounds import check_selections, with_purchases
from ssl_runner.train import prepare
from ssl_runner.train.data import first_labeled, known_of
from ssl_runner.tune.loaded import LoadedSweep
from ssl_runner.tune.work import Pools, steps_of, work_of


def check_trials(sweep: LoadedSweep, trials: Sequence[Trial]) -> dict[str, int]:
    """Check what each trial needs before any of them starts, and say which weights start fresh;
    returns the work of each by its id.

    Raises:
        InputError: If the data or a model does not suit a trial.
    """
    dataset, configs = sweep.dataset, [trial.config for trial in trials]
    channels, height, width = dataset.train.images.shape[1:]
    classes = len(dataset.train.class_names)
    for known in dict.fromkeys(config.pools.labeled_classes for config in configs):
        some = [config for config in configs if config.pools.labeled_classes == known]
        classes = len(known_of(some[0], dataset).names)
        # Dropout is no reason why a model can't be built, and a search has as many as samples.
        networks = {replace(config.network, dropout=None): config.network for config in some}
        for line in check_models(networks.values(), channels, (height, width), classes):
            sweep.say(line)
    for settings in {config.unlabeled.method: config.unlabeled for config in configs}.values():
        build_method(settings, torch.full((classes,), 1 / classes))
    for network in {config.network.model: config.network for config in configs}.values():
        of_it = (config.data.selection for config in configs if config.network == network)
        check_selections(set(filter(None, of_it)), network, (channels, height, width), classes)
    pools: dict[tuple[object, ...], Pools] = {}
    asked = {
        trial.trial_id for chain in chains(trials) for trial, number in with_purchases(chain) if number
    }
    work = {}
    for trial in trials:
        data = trial.config.data
        # What the pools' sizes depend on: not on what their images are.
        sized = replace(
            trial.config.pools, label_noise=0.0, noise_kind=None, foreign=0.0, foreign_images=None
        )
        key = (data.subset, data.holdout, data.label_fraction, data.label_budgets, sized)
        if key not in pools:
            pools[key] = _pools(trial.config, dataset)
        steps, warmup = steps_of(trial.config, pools[key]), trial.config.optimizer.warmup_steps
        labeled, judges = pools[key].labeled, trial.place.get("holdout_labels")
        is_small = judges is None or judges <= labeled or sweep.config.large_holdout
        rule = f"at most the {labeled} labels of {trial.place.get('search_group')}"
        fix = "Choose a smaller one; --large-holdout allows it, and the page says so."
        require(is_small, "holdout", rule, judges, fix)
        rule = f"less than the {steps} steps of {sweep.config.describe(trial.config)}"
        require(warmup < steps, "warmup_steps", rule, warmup, "Train longer, or leave it out.")
        grace = sweep.config.grace_steps
        can_stop = grace is None or grace < steps or trial.place.get("role") != "search"
        require(can_stop, "grace_steps", rule, grace, "No trial would ever be stopped.")
        work[trial.trial_id] = work_of(trial.config, pools[key], trial.trial_id in asked)
    return work


def _pools(config: TrialConfig, dataset: ImageDataset) -> Pools:
    """The sizes of a trial's pools.

    Raises:
        InputError: If the data do not suit it.
    """
    first = first_labeled(config, dataset) if config.data.budgets else None
    data = prepare(config, dataset, first)
    bought = max(config.data.budgets, default=len(data.labeled)) - len(data.labeled)
    return Pools(len(data.labeled) + bought, len(data.unlabeled) - bought)
