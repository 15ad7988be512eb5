"""How much work a trial is, for the order of the trials and for the estimate of the time left."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ssl_runner.config import TrialConfig


class Pools(NamedTuple):
    """Images of the two pools."""

    labeled: int
    unlabeled: int


def images_of_work(labeled: int, unlabeled: int) -> int:
    """Work in images: an unlabeled one is seen in two views."""
    return labeled + 2 * unlabeled


def steps_of(config: TrialConfig, pools: Pools) -> int:
    """The most steps that a trial can take."""
    batches, budget = config.batches, config.budget
    steps = -(-pools.labeled // batches.batch_size)
    if batches.order == "paired":
        mu = config.unlabeled.mu or 1
        steps = max(steps, -(-pools.unlabeled // (batches.batch_size * mu)))
    return budget.max_steps or budget.epochs * steps


def work_of(config: TrialConfig, pools: Pools, is_asked: bool = False) -> int:
    """The most work that a trial has to do, in images.

    Args:
        config: The trial's settings.
        pools: Its pools.
        is_asked: Whether its model is asked about the unlabeled pool in the end, to buy labels: a
            forward pass is about a third of a step.
    """
    batches, mu = config.batches, config.unlabeled.mu or 1
    steps = steps_of(config, pools)
    unlabeled = 0 if config.unlabeled.method == "pass" else steps * mu
    asked = pools.unlabeled // 3 if is_asked and config.data.selection != "random" else 0
    return images_of_work(steps * batches.batch_size, unlabeled * batches.batch_size) + asked


def work_done(metrics: Mapping[str, Any]) -> int:
    """The work that a trial has done so far, in images, from the metrics of its last epoch."""
    return images_of_work(metrics["images"], metrics["unlabeled_images_seen"])
