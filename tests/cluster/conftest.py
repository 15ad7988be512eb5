"""A Ray cluster of three hosts, made once for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ssl_runner.testing.forks import Nursery
from ssl_runner.testing.hosts import Hosts, why_not
from ssl_runner.testing.processes import Runs

ON_A_NODE = ". ~/ray_env.sh && exec python -m"
"""What precedes a command on one of the nodes."""

LONG_SWEEP = (
    "ssl_runner.tune --subset 600 --configs partial --label-fractions 0.2 --batch-size 30 "
    "--methods freematch --seeds 0 1 2 --epochs 12 --patience 0 --checkpoint-steps 5 "
    "--precision fp32 --augment weak --name f"
)
"""Three trials alike, each long enough for something to happen meanwhile."""


@pytest.fixture(scope="package")
def hosts(fashion_mnist: object) -> Iterator[Hosts]:
    """A head and two workers, up by the page's recipe; skips where they can't be made."""
    if reason := why_not():
        pytest.skip(reason)
    with Hosts() as made:
        made.ray_up()
        yield made


@pytest.fixture(scope="package")
def alone(tmp_path_factory: pytest.TempPathFactory, nurseries: list[Nursery]) -> Path:
    """The results of the sweep on one machine."""
    results = tmp_path_factory.mktemp("alone")
    with Runs(nurseries) as runs:
        runs.start(*LONG_SWEEP.split(), "--results", str(results)).succeed()
    return results
