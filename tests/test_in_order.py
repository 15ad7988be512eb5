"""Trials that are known beforehand, given to Ray Tune one after another. Without Ray's processes."""

from collections.abc import Iterator
from typing import Any

import pytest
from ray import tune
from ray.tune.experiment import Experiment

from ssl_runner.tune.in_order import InOrder


class Counted(list[dict[str, Any]]):
    """Counts how many of its elements were looked at."""

    looked_at = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for each in super().__iter__():
            self.looked_at += 1
            yield each


def run(config: dict[str, Any]) -> None:
    """What Tune would run."""


@pytest.fixture
def experiment(tmp_path: Any) -> Experiment:
    return Experiment("s", run, storage_path=str(tmp_path), config={"trial": tune.grid_search([1, 2])})


def test_trials_come_in_their_order_and_as_many_as_may_run(experiment: Experiment) -> None:
    order = InOrder([{"place": place} for place in range(5)], max_concurrent=2)
    order.add_configurations([experiment])
    assert order.total_samples == 5
    given, running = [], []
    while not order.is_finished():
        while (trial := order.next_trial()) is not None:
            running.append(trial)
            assert len(running) <= 2
        if running:
            given.append(running.pop(0))
            order.on_trial_complete(given[-1].trial_id)
    assert [trial.config for trial in given] == [{"trial": {"place": place}} for place in range(5)]
    assert len({trial.trial_id for trial in given}) == 5


def test_no_trial_is_made_before_its_turn(experiment: Experiment) -> None:
    params = Counted({"place": place} for place in range(100_000))
    order = InOrder(params, max_concurrent=0)
    order.add_configurations([experiment])
    for count in (1, 2, 3):
        assert order.next_trial() is not None
        assert params.looked_at == count


def test_nothing_of_it_is_saved(experiment: Experiment, tmp_path: Any) -> None:
    order = InOrder([{"place": 0}], max_concurrent=0)
    order.add_configurations([experiment])
    order.save_to_dir(str(tmp_path), "session")
    assert not order.has_checkpoint(str(tmp_path))
