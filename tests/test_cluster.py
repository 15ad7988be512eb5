"""Whether a sweep's trials fit into a cluster, and how many of them beside each other; without Ray."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_runner.errors import InputError
from ssl_runner.study import sweep_from_settings
from ssl_runner.tune.cluster import Cluster, check_fits
from ssl_runner.tune.sweep import _concurrent


def cluster(*cpus: float, gpus: float = 0, to_come: int = 0) -> Cluster:
    """Nodes with so many CPUs, the last of them still to come."""
    nodes = [{"CPU": count, "GPU": gpus} for count in cpus]
    known = len(nodes) - to_come
    return Cluster({str(n): each for n, each in enumerate(nodes[:known])}, None, nodes[known:])


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.integers(1, 30), st.integers(1, 12))
def test_places_are_those_of_workers_put_one_after_another(
    cpus: list[int], numerator: int, denominator: int
) -> None:
    left, places = [Fraction(count) for count in cpus], 0
    per_worker = Fraction(numerator, denominator)
    for node in range(len(left)):
        while left[node] >= per_worker:
            left[node] -= per_worker
            places += 1
    assert cluster(*cpus).places({"CPU": float(per_worker)}) == places


@pytest.mark.parametrize(
    ("nodes", "settings", "expected"),
    [
        (cluster(2), {}, 1),  # two trials would each wait for the other's CPU
        (cluster(4), {}, 2),
        (cluster(5), {"max_concurrent": 1}, 1),
        (cluster(1), {}, 1),  # where more nodes may come that are not known
        (cluster(3, 3), {"cpus_per_trial": 4}, 1),
        # A worker is on one node: of nine CPUs, three workers of two can be used.
        (cluster(3, 3, 3), {"cpus_per_trial": 4}, 1),
        (cluster(4, 4, to_come=1), {"cpus_per_trial": 4}, 2),
        (cluster(8, gpus=2), {"gpus_per_trial": 2}, 1),
        (cluster(8, gpus=4), {"gpus_per_trial": 2}, 2),
    ],
)
def test_so_many_trials_of_two_workers_run_at_a_time(
    nodes: Cluster, settings: dict[str, float], expected: int
) -> None:
    sweep = sweep_from_settings({"num_workers": 2, **settings})
    for is_adaptive in (False, True):
        assert _concurrent(sweep, nodes, is_adaptive) == expected


def test_a_trial_whose_workers_find_no_node_each_is_refused() -> None:
    sweep = sweep_from_settings({"num_workers": 3, "cpus_per_trial": 6})
    check_fits(sweep, cluster(3, 3, 2))
    check_fits(sweep, cluster(4, 3))
    message = (
        "a trial must fit into the cluster, got --cpus-per-trial 6 with --num-workers 3: 2 nodes: 6 "
        "CPUs, 3 on the largest. Lower --cpus-per-trial or --num-workers."
    )
    with pytest.raises(InputError) as refused:
        check_fits(sweep, cluster(3, 3))
    assert str(refused.value) == message
