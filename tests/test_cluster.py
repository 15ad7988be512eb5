"""Whether a sweep's trials fit into a cluster, and how many of them beside each other; what is refused
of a cluster. Without Ray."""

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_runner.errors import InputError
from ssl_runner.study import sweep_from_settings
from ssl_runner.tune.__main__ import main
from ssl_runner.tune.cluster import Cluster, _other_versions, check_fits
from ssl_runner.tune.nodes import describe_lacking
from ssl_runner.tune.tuning import _concurrent
from tests.conftest import Answer


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


KINDS = ({"CPU": 2.0}, {"CPU": 3.0, "GPU": 1.0}, {"CPU": 16.0}, {"CPU": 0.0})


@given(st.lists(st.sampled_from(KINDS), max_size=6), st.integers(0, 6), st.data(), st.integers(1, 4))
def test_a_cluster_may_become_the_best_that_its_autoscaler_can_make_of_it(
    possible: list[dict[str, float]], room: int, data: st.DataObject, per_worker: int
) -> None:
    alone = Cluster({"head": {"CPU": 1.0}}, None, possible, room)
    order = data.draw(st.permutations(range(len(possible))))
    count = data.draw(st.integers(0, min(room, len(possible))))
    came, rest = order[:count], order[count:]
    nodes = {str(number): possible[number] | {"memory": 7.0} for number in came}
    grown = alone.when(alone.nodes | nodes)
    for name, amount in (("CPU", per_worker), ("GPU", 1)):
        best = max(
            sum(int(possible[number].get(name, 0.0) / amount) for number in (*came, *more))
            for size in range(room - count + 1)
            for more in combinations(rest, size)
        )
        own = int(alone.nodes["head"].get(name, 0.0) / amount)
        assert grown.places({name: amount}) == own + best
    back = grown.when(alone.nodes)
    assert (back.most("CPU"), back.most("GPU")) == (alone.most("CPU"), alone.most("GPU"))
    assert back.room == room


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


@pytest.mark.usefixtures("fashion_mnist")
def test_a_ray_client_is_refused(tmp_path: Path, call: Callable[..., Answer]) -> None:
    said = call(main, "--address", "ray://127.0.0.1:10001", "--results", str(tmp_path))
    assert said.returncode == 2
    assert said.stderr == (
        "error: --address must be host:port of the cluster's head, or auto, got "
        "'ray://127.0.0.1:10001': a sweep's driver must be on one of the nodes, and a Ray client is on "
        "none. Run the command there, or send it with ray job submit.\n"
    )


def test_the_versions_of_a_cluster_are_told_from_other_errors() -> None:
    said = "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.12.1\n"
    said += "This process on node 10.0.0.1 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    assert _other_versions(said) == (
        "Ray 2.59.0 and Python 3.12.1, where this has Ray 2.60.0 and Python 3.11.7"
    )
    assert _other_versions("Ray: 2.59.0\n Python: 3.12.1\n can't be reached") is None


def test_a_node_that_lacks_something_is_named() -> None:
    one = {"10.0.0.3": "No module named 'torch'"}
    assert describe_lacking(one, 3).startswith(
        "every node of a cluster must have what the trials need, got node 10.0.0.3: No module named "
        "'torch'. Install there"
    )
    several = one | {"10.0.0.2": "no answer", "10.0.0.4": "No module named 'torch'"}
    said = "got node 10.0.0.2: no answer (and 2 of the other 8 nodes lack something too). Install"
    assert said in describe_lacking(several, 9)
