import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import hypothesis
import pytest
import torch
from filelock import FileLock

from ssl_runner.command import run_main
from ssl_runner.datasets import ImageDataset, load_dataset
from ssl_runner.testing.forks import Nursery
from ssl_runner.testing.processes import Runs
from ssl_runner.tune.environment import set_environment

# A busy machine is no failure: nothing here is timed.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Several processes test side by side: threads that wait for each other's cores take many times as long.
torch.set_num_threads(1)

# Three trials with one method that keeps a state of its own; a checkpoint every few steps.
SWEEP = (
    *("ssl_runner.tune", "--subset", "600", "--label-fractions", "0.2", "--batch-size", "30"),
    *("--methods", "pass", "freematch", "--epochs", "4", "--patience", "0"),
    *("--checkpoint-steps", "5", "--precision", "fp32", "--augment", "weak", "--name", "f"),
)


RAY_BY_THE_DOZEN = "ray by the dozen"
"""The xdist group of the tests that start many of Ray's processes: no two of them overlap."""

IMPORTED = ("ssl_runner.tune.sweep", "ssl_runner.trial", "ssl_runner.train.data", "scipy.special")
"""What the commands import that takes seconds."""

PASSED = pytest.StashKey[bool]()
"""Of a test: whether it has passed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets fixtures know how a test went: where it failed, they have nothing to find fault with."""
    report = yield
    item.stash[PASSED] = report.when == "call" and report.passed
    return report


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist notes the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first, so that none of them is left for the end, each by itself; the others stay
    with those of their file, which share what they made."""

    def place(item: pytest.Item) -> tuple[bool, bool]:
        group, slow = item.get_closest_marker("xdist_group"), item.get_closest_marker("slow")
        if group is None and not (slow and "runs" in getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        return group is None, slow is None

    items.sort(key=place)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuses releases of pytest and pytest-xdist that don't understand each other: nothing but the
    time would show that no group is kept together."""
    is_part = "PYTEST_XDIST_WORKER" in os.environ and session.config.getoption("loadgroup", False)
    grouped = [item for item in session.items if item.get_closest_marker("xdist_group")]
    if is_part and not all("@" in item.nodeid for item in grouped):
        raise pytest.UsageError("this pytest-xdist groups nothing with this pytest")


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test, or a library in its process, sets in the environment ends with the test: the next
    one's commands would be others for it."""
    with mock.patch.dict(os.environ):
        yield


@dataclass(frozen=True)
class Answer:
    """What a command has answered."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Calls a command's main function as `python -m` does, without the seconds of a new process."""

    def call(main: Callable[[], int], *arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        usual = signal.getsignal(signal.SIGINT)
        with mock.patch.dict(os.environ), pytest.raises(SystemExit) as ended:
            run_main(main)
        signal.signal(signal.SIGINT, usual)
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def nurseries() -> Iterator[list[Nursery]]:
    """Where commands are forked from: two processes, so that a command and its rerun differ in their
    seed for hashes, as they do where each is started anew. Elsewhere than on Linux there are none."""
    with mock.patch.dict(os.environ):
        before = dict(os.environ)
        set_environment(local=True)
        changed = dict(os.environ.items() - before.items())
    both = [Nursery(IMPORTED, changed) for _ in range(2 if sys.platform == "linux" else 0)]
    yield both
    for nursery in both:
        nursery.close()


@pytest.fixture
def runs(nurseries: list[Nursery]) -> Iterator[Runs]:
    """Starts processes, all of which end with the test, passed or failed."""
    with Runs(nurseries) as started:
        yield started


@pytest.fixture(scope="session")
def fashion_mnist() -> ImageDataset:
    """The real data, from the person's own cache: fetched once per machine, read once per run."""
    return load_dataset("fashion_mnist")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, nurseries: list[Nursery]) -> Path:
    """The results of `SWEEP` when nobody disturbs it: run once, whichever process asks first."""
    results = of_all_processes(tmp_path_factory) / "undisturbed"
    with FileLock(f"{results}.lock"):
        if not results.exists():
            with Runs(nurseries) as runs:
                runs.start(*SWEEP, "--results", str(results)).succeed()
    assert len(list(results.glob("trials/*.parquet"))) == 3
    return results


def of_all_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all of pytest's processes share."""
    shared = tmp_path_factory.getbasetemp()
    return shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Start web servers on this machine: a folder in, its URL out."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    servers = []

    def start_server(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/"

    yield start_server
    for server in servers:
        server.shutdown()
        server.server_close()
