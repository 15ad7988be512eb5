"""Results in an object store: a real server that speaks S3, behind a proxy that makes it fail."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_runner import object_store
from ssl_runner.checkpoint import Checkpoints
from ssl_runner.config import SweepConfig
from ssl_runner.errors import InputError
from ssl_runner.export.__main__ import main as export
from ssl_runner.label_next.__main__ import main as label_next
from ssl_runner.object_store import above, join
from ssl_runner.predict.__main__ import main as predict
from ssl_runner.report.__main__ import main as report
from ssl_runner.results import ResultsFolder, lease
from ssl_runner.results.folder import LOCKS
from ssl_runner.results.lease import Claim, Lease, Process, claims
from ssl_runner.saved_model import results_of
from ssl_runner.shard import Shard
from ssl_runner.storage import open_folder, read_whole, write_whole
from ssl_runner.testing.processes import Runs, wait_until
from ssl_runner.testing.tables import leftovers, tables
from ssl_runner.train.__main__ import main as train
from ssl_runner.tune.__main__ import main as tune
from tests.builders import epoch_rows, trial_row
from tests.conftest import SWEEP, Answer
from tests.object_store import KEYS, Fault, Store, serving

CONFIGS = SweepConfig(configs=("partial",), label_fractions=(0.1,), seeds=tuple(range(5))).trials()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty bucket that this process, and those it starts, find by their environment."""
    made = Store.make(server)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.proxy.close()


# ---- locations ----


@pytest.mark.parametrize(
    ("location", "models", "parent"),
    [
        ("s3://b/r", "s3://b/r/models", ("s3://b", "r")),
        ("s3://b/r/", "s3://b/r/models", ("s3://b/r", "")),
        ("s3://b/r?region=x", "s3://b/r/models?region=x", ("s3://b?region=x", "r")),
        ("s3://b?endpoint_override=http://h:1/", "s3://b/models?endpoint_override=http://h:1/", None),
        ("/a/what?", "/a/what?/models", ("/a", "what?")),  # of a folder it is a letter like others
        ("results", "results/models", ("", "results")),
    ],
)
def test_names_come_before_the_options(
    location: str, models: str, parent: tuple[str, str] | None
) -> None:
    assert join(location, "models") == models
    assert results_of(join(location, "models", "m.safetensors")) == join(location)
    if parent is not None:
        assert above(location) == parent


def test_an_endpoint_in_the_uri(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS.keys() | {"AWS_ENDPOINT_URL"}:
        monkeypatch.delenv(name)
    options = f"endpoint_override={store.proxy.url}&region=us-east-1"
    results = ResultsFolder(f"s3://key:sec%2Fret@{store.bucket}/deep/results?{options}")
    results.check_writable()
    results.write(trial_row(CONFIGS[0]), epoch_rows(2))
    Checkpoints(results.checkpoints("s", "0")).save(state(1))
    assert [name.partition("/")[0] for name in store.names()] == ["checkpoints", "epochs", "trials"]
    assert results.under_way("s").keys() == {"0"}


def test_another_environment_is_another_file_system(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem, _ = open_folder(store.results)
    assert open_folder(store.results)[0] is filesystem  # its connections are used again
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert open_folder(store.results)[0] is not filesystem


# ---- what is written is read ----


def state(epochs: int) -> dict[str, Any]:
    """A state as `fit` has it."""
    history = [{"epoch": epoch} for epoch in range(epochs)]
    return {"weights": torch.arange(epochs), "progress": {"history": history, "steps": epochs}}


def test_a_bucket_does_what_a_folder_does(store: Store, tmp_path: Path) -> None:
    local, cloud = ResultsFolder(str(tmp_path / "local")), ResultsFolder(store.results)
    said: list[list[Any]] = [[], []]
    for results, answers in zip((local, cloud), said, strict=True):
        results.check_writable()
        for config in CONFIGS[:4]:
            results.write(trial_row(config), epoch_rows(3))
            model = f"{results.root}/models/s--{config.settings_id}.safetensors"
            write_whole(results.filesystem, model, b"weights")
        ids = [config.settings_id for config in CONFIGS]
        results.forget("s", [ids[3]])
        answers.append(results.keep_models("s", {ids[0]}))
        results.write_columns("s", {ids[1]: {"error": "none"}})
        answers.append([results.status("s", trial_id) for trial_id in ids])
        answers.append(sorted(map(str, results.known("s"))))
        answers.append(results.epochs("s").to_csv())
        answers.append(results.trials("another").to_csv())
        results.remove_leftovers("s", set(ids))
        assert not results.is_running(None)
    assert said[0] == said[1]
    copied = store.copy_to(tmp_path / "copied")
    assert tables(copied) == tables(tmp_path / "local")
    files = [path.relative_to(copied) for path in copied.rglob("*") if path.is_file()]
    there = (path.relative_to(local.root) for path in Path(local.root).rglob("*") if path.is_file())
    assert sorted(files) == sorted(there)


def test_checkpoints_in_a_bucket(store: Store) -> None:
    location = ResultsFolder(store.results).checkpoints("s", "0")
    checkpoints = Checkpoints(location)
    assert checkpoints.load() is None
    checkpoints.clear()  # of nothing
    for epochs in (1, 2, 3, 4):
        checkpoints.save(state(epochs))
    assert [name.split("/")[-1][:6] for name in store.names("checkpoints")] == ["000003", "000004"]
    newest = store.names()[-1]
    write_whole(store.filesystem(), f"{store.bucket}/deep/results/{newest}", b"cut short")
    again = Checkpoints(location)
    loaded = again.load()
    assert loaded is not None
    assert len(loaded["progress"]["history"]) == 3
    again.save(state(4))
    again.save(state(5))
    names = [name.split("/")[-1] for name in store.names("checkpoints")]
    assert [name[:6] for name in names if name.endswith(".pt")] == ["000004", "000005"]
    assert [name for name in names if not name.endswith(".pt")] == [f"{Path(newest).name}.unreadable"]
    again.clear()
    assert store.names() == []


# ---- bad input ----

ROW = "s3://no-such-bucket/results"
COMMANDS: dict[str, Callable[[str], tuple[Callable[[], int], tuple[str, ...]]]] = {
    "tune": lambda results: (tune, ("--smoke", "--results", results)),
    "train": lambda results: (train, ("--smoke", "--results", results)),
    "report": lambda results: (report, (results,)),
    "report --watch": lambda results: (report, (results, "--watch")),
    "predict": lambda results: (predict, (f"{results}/models/m.safetensors", "fashion_mnist")),
    "predict ID": lambda results: (predict, ("0123456789", "fashion_mnist", "--results", results)),
    "label_next": lambda results: (label_next, (f"{results}/models/m.safetensors", "--number", "1")),
    "export": lambda results: (export, (f"{results}/models/m.safetensors",)),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bucket_that_is_not_there(
    store: Store,
    call: Callable[..., Answer],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # in which no answers of an earlier command lie
    main, arguments = COMMANDS[command]("s3://no-such-bucket/results")
    answer = call(main, *arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "the bucket must exist, got 'no-such-bucket', which is not there" in answer.stderr
    assert answer.stderr.count("\n") == 1
    store.proxy.close()
    main, arguments = COMMANDS[command](store.results)
    answer = call(main, *arguments)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert f"Failed to connect to 127.0.0.1:{store.proxy.port}" in answer.stderr.replace(" port ", ":")
    assert "the endpoint right (AWS_ENDPOINT_URL)?" in answer.stderr
    assert answer.stderr.count("\n") == 1
    store.proxy.open()


def error_body(code: str, message: str) -> bytes:
    """An answer of S3's."""
    return (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    )


# As AWS answers; the server itself shows no region.
REDIRECT = Fault(
    status=301,
    headers={"x-amz-bucket-region": "eu-west-1", "Content-Type": "application/xml"},
    body=error_body("PermanentRedirect", "The bucket must be addressed using another endpoint."),
)
MALFORMED = Fault(
    status=400,
    headers={"Content-Type": "application/xml"},
    body=error_body(
        "AuthorizationHeaderMalformed",
        "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
    ),
)
SIGNATURE = Fault(
    status=403,
    headers={"Content-Type": "application/xml"},
    body=error_body("SignatureDoesNotMatch", "The request signature we calculated does not match."),
)


@pytest.mark.parametrize(
    ("fault", "fix"),
    [
        (REDIRECT, "Set AWS_REGION to the bucket's region."),
        (MALFORMED, "Set AWS_REGION to the bucket's region."),
        (SIGNATURE, "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        (Fault(status=0), "Is the network up, and the endpoint right"),
        (Fault(status=500), "Check the bucket's name, the keys and the endpoint, and try again."),
    ],
)
def test_a_store_that_refuses(
    store: Store, call: Callable[..., Answer], fault: Fault, fix: str
) -> None:
    store.proxy.fault = lambda method, path: fault
    answer = call(report, store.results)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"error: {store.results}: can't be reached (ListObjectsV2: ")
    assert fix in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_keys_that_the_server_does_not_know(
    monkeypatch: pytest.MonkeyPatch, call: Callable[..., Answer]
) -> None:
    with serving({"PATH": "/usr/bin:/bin", "INITIAL_NO_AUTH_ACTION_COUNT": "1"}) as url:
        store = Store.make(url)  # the one request that needs no key
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        answer = call(train, "--smoke", "--results", store.results)
        store.proxy.close()
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "INVALID_ACCESS_KEY_ID" in answer.stderr
    assert "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_store_that_hangs(
    store: Store, call: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_IMPATIENT_SECONDS", 1.0)
    is_over = threading.Event()
    store.proxy.fault = lambda method, path: Fault(status=0) if is_over.wait() else None
    answer = call(report, store.results)
    is_over.set()
    assert answer.returncode == 2
    assert "NETWORK_CONNECTION, Operation too slow" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_store_that_is_lost_in_mid_report(store: Store, call: Callable[..., Answer]) -> None:
    ResultsFolder(store.results).write(trial_row(CONFIGS[0]), epoch_rows(1))
    store.proxy.fault = lambda method, path: SIGNATURE if path.endswith(".parquet") else None
    answer = call(report, store.results)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: the results' store does not answer as it should (")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("s3:///results", "Name the bucket."),
        ("s3://b/r?regoin=x", "got 'regoin'. Did you mean region?"),
    ],
)
def test_a_uri_that_is_none(location: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        ResultsFolder(location)


# ---- faults ----


def every(number: int, fault: Fault, kind: str = "PUT") -> Callable[[str, str], Fault | None]:
    """One in so many requests of a kind meets a fault."""
    count = iter(range(1, 1_000_000))
    return lambda method, path: fault if method == kind and next(count) % number == 0 else None


def first(number: int, fault: Fault) -> Callable[[str, str], Fault | None]:
    """So many requests meet a fault, and no more."""
    left = iter(range(number))
    return lambda method, path: fault if next(left, None) is not None else None


@pytest.mark.parametrize(
    "fault",
    [
        every(2, Fault(seconds=0.2)),
        every(10, Fault(status=503, body=error_body("SlowDown", "Please reduce your rate."))),
        every(3, Fault(status=500)),
        every(4, Fault(status=0)),
        every(3, Fault(status=0), "GET"),
        first(7, Fault(status=0)),  # gone, and back after seven attempts
    ],
)
def test_no_row_is_lost(
    store: Store, tmp_path: Path, fault: Callable[[str, str], Fault | None]
) -> None:
    local, cloud = ResultsFolder(str(tmp_path / "local")), ResultsFolder(store.results)
    store.proxy.fault = fault
    for results in (local, cloud):
        for config in CONFIGS:
            results.write(trial_row(config), epoch_rows(2))
    assert cloud.trials().equals(local.trials())
    store.proxy.fault = lambda method, path: None
    assert tables(store.copy_to(tmp_path / "copied")) == tables(tmp_path / "local")


def test_a_row_that_cannot_be_written_is_an_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    results = ResultsFolder(store.results)
    store.proxy.fault = lambda method, path: Fault(status=503) if "/trials/" in path else None
    with pytest.raises(OSError, match="AWS Error"):
        results.write(trial_row(CONFIGS[0]), epoch_rows(1))
    of_row = [path for method, path in store.proxy.requests if "/trials/" in path]
    assert len(of_row) == 3
    store.proxy.fault = lambda method, path: None
    assert results.trials().empty  # its epochs may be there: it is run again, and writes them anew


# ---- locks ----

SHARDS = (None, Shard(1, 2), Shard(2, 2), Shard(1, 3), Shard(1, 12))


@pytest.mark.parametrize("held", SHARDS)
def test_what_excludes_what(store: Store, held: Shard | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_TRIES", 1)
    results = ResultsFolder(store.results)
    with results.lock_sweep("a", held) as is_lost, results.lock_sweep("a.b"):
        for wanted in SHARDS:
            are_shards = held is not None and wanted is not None
            if are_shards and held != wanted and str(held)[-2:] == str(wanted)[-2:]:
                with results.lock_sweep("a", wanted):
                    assert results.is_running("a")
            else:
                flag = "--name" if wanted is None else "--shard"
                refused = pytest.raises(InputError, match=f"{flag} must be.*expires 120 seconds after")
                with refused, results.lock_sweep("a", wanted):
                    pass
            assert results.is_running("a")
        assert not results.is_running("b")
        assert not is_lost()
    assert not results.is_running(None)
    assert store.names() == []


HOLD = """
import sys
from ssl_runner.results import ResultsFolder
with ResultsFolder(sys.argv[1]).lock_sweep("a"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_dead_driver_holds_nothing(store: Store, runs: Runs) -> None:
    run = runs.start(store.results, code=HOLD, stdin=-1)
    run.wait_for(lambda: "held" in run.stdout)
    results = ResultsFolder(store.results)
    assert results.is_running("a")
    with pytest.raises(InputError, match="--name must be"), results.lock_sweep("a"):
        pass
    run.process.send_signal(signal.SIGKILL)
    run.end()
    assert len(store.names(LOCKS)) == 1
    assert not results.is_running("a")
    with results.lock_sweep("a"):
        assert len(store.names(LOCKS)) == 1
    assert store.names(LOCKS) == []


def test_the_command_refuses_a_sweep_that_runs(store: Store, call: Callable[..., Answer]) -> None:
    with ResultsFolder(store.results).lock_sweep("smoke"):
        answer = call(tune, "--smoke", "--results", store.results)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith("error: --name must be of a sweep that no other process runs")
    assert answer.stderr.count("\n") == 1
    assert store.names() == []


def claim_of_another(store: Store, lock: str = "a") -> Claim:
    """A claim that a process of another machine has written just now."""
    claim = Claim(lock, Process("0123456789ab", 1, 1), "another")
    write_whole(store.filesystem(), f"{store.bucket}/deep/results/{LOCKS}/{claim}", b"")
    return claim


def test_a_lock_of_another_machine_expires(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_TRIES", 1)
    results = ResultsFolder(store.results)
    claim_of_another(store)
    assert results.is_running("a")
    with pytest.raises(InputError, match="--name must be"), results.lock_sweep("a"):
        pass
    assert len(store.names(LOCKS)) == 1
    monkeypatch.setattr(lease, "EXPIRES", -2.0)
    assert not results.is_running("a")
    with results.lock_sweep("a"):
        assert len(store.names(LOCKS)) == 1  # its own
    assert store.names(LOCKS) == []


def held_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> Lease:
    """A lock that is renewed very often."""
    monkeypatch.setattr(lease, "_RENEWED", 0.01)
    filesystem, root = open_folder(store.results)
    made = Lease(filesystem, f"{root}/{LOCKS}", "a", lambda name: False)
    assert made.acquire()
    return made


def test_a_lock_is_renewed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = held_lease(store, monkeypatch)
    (name,) = store.names(LOCKS)

    def renewals() -> int:
        return sum(method == "PUT" and name in path for method, path in store.proxy.requests)

    assert wait_until(lambda: renewals() > 3, progress=renewals)
    store.proxy.fault = first(3, Fault(status=403))  # it is not given up for a refusal
    before = renewals()
    assert wait_until(lambda: renewals() > before + 5, progress=renewals)
    held.release()
    assert not held.is_lost
    assert store.names(LOCKS) == []


@pytest.mark.parametrize("is_taken", [False, True])
def test_after_a_long_sleep_the_lock_may_be_anothers(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    held = held_lease(store, monkeypatch)
    own = store.names(LOCKS)
    if is_taken:
        claim_of_another(store)
    late = lease._clock() + 1000
    monkeypatch.setattr(lease, "_clock", lambda: late)
    progress = partial(len, store.proxy.requests)
    if is_taken:
        assert wait_until(lambda: held.is_lost, progress=progress)
        held.release()
        assert len(store.names(LOCKS)) == 1  # the other's
    else:
        assert wait_until(
            lambda: len(names := store.names(LOCKS)) == 1 and names != own, progress=progress
        )
        assert not held.is_lost
        held.release()
        assert store.names(LOCKS) == []


def test_of_many_at_once_at_most_one_gets_it(store: Store) -> None:
    filesystem, root = open_folder(store.results)
    got, begin = [], threading.Barrier(4)

    def want() -> None:
        made = Lease(filesystem, f"{root}/{LOCKS}", "a", lambda name: False)
        begin.wait()
        if made.acquire():
            got.append(made)

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) <= 1
    assert len(claims(filesystem, f"{root}/{LOCKS}")) == len(got)
    for made in got:
        made.release()


def test_a_store_whose_listings_lag_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = b"<?xml version='1.0'?><ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>"
    results = ResultsFolder(store.results)
    store.proxy.fault = lambda method, path: (
        Fault(status=200, body=empty, headers={"Content-Type": "application/xml"})
        if "list-type" in path and "locks" in path
        else None
    )
    refused = pytest.raises(InputError, match="a listing must show what was written")
    with refused, results.lock_sweep("a"):
        pass
    store.proxy.fault = lambda method, path: None
    assert store.names() == []


# ---- requests ----

SMALL = (
    *("--subset", "300", "--label-fraction", "0.2", "--patience", "0", "--batch-size", "30"),
    *("--precision", "fp32", "--cpus-per-trial", "1"),
)


@pytest.mark.usefixtures("fashion_mnist")
def test_requests_of_a_trial(store: Store, call: Callable[..., Answer]) -> None:
    counts = []
    for epochs in (2, 4):
        store.proxy.requests.clear()
        arguments = (*SMALL, "--epochs", str(epochs), "--name", f"t{epochs}")
        assert call(train, *arguments, "--results", store.results).returncode == 0
        counts.append(len(store.proxy.requests))
    assert counts[1] - counts[0] <= 2 * 4 + 3  # a checkpoint: one, and three for the one it replaces
    assert counts[0] <= 40
    writes = [path for method, path in store.proxy.requests if method == "PUT"]
    assert not any("uploads" in path for path in writes)  # no file takes three
    last = read_whole(store.filesystem(), f"{store.bucket}/deep/results/{store.names('trials')[-1]}")
    assert last[:4] == b"PAR1"


# ---- sweeps ----


def has_begun(store: Store) -> bool:
    """Whether a trial has its row, and has had a checkpoint."""
    sent = [path for method, path in list(store.proxy.requests) if method == "PUT"]
    # To ask the store each time would take a slow one as long as a trial.
    were_sent = all(any(f"/{folder}/" in path for path in sent) for folder in ("trials", "checkpoints"))
    return were_sent and bool(store.names("trials"))


def is_checkpoint(method: str, path: str) -> bool:
    """Whether a request writes one."""
    return method == "PUT" and "/checkpoints/" in path


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_a_sweep_killed_in_the_middle_ends_in_the_table_of_a_folder(
    store: Store, runs: Runs, undisturbed: Path, tmp_path: Path
) -> None:
    """The store is slow and refuses one request in ten; and when the sweep goes on, it is gone for half
    a minute."""
    refused = Fault(status=503, body=error_body("SlowDown", "Please reduce your request rate."))
    slow_and_refusing = every(10, refused)
    store.proxy.fault = lambda method, path: slow_and_refusing(method, path) or Fault(seconds=0.02)
    arguments = (*SWEEP, "--max-concurrent", "1", "--results", store.results)
    run = runs.start(*arguments)
    run.wait_for(lambda: has_begun(store))
    assert runs.kill("ssl_runner.tune"), "it had ended before it could be killed"
    assert runs.are_gone()  # Ray's processes end with it
    run.end()
    already = len(store.proxy.requests)
    again = runs.start(*arguments)
    again.wait_for(lambda: any(is_checkpoint(*sent) for sent in store.proxy.requests[already:]))
    store.proxy.close()
    time.sleep(30)
    store.proxy.open()
    watching = runs.start("ssl_runner.report", store.results, "--watch")
    output = again.succeed()
    assert f"of 3 trials are in {store.results} already" in output
    assert f"page: {store.results}/f.html" in output
    watched = watching.succeed()
    assert all(f"{trial_id}: finished" in watched for trial_id in ids(undisturbed))
    copied = store.copy_to(tmp_path / "copied")
    assert tables(copied) == tables(undisturbed)
    assert leftovers(copied) == set()
    assert "<html" in (copied / "f.html").read_text()
    model = next(name for name in store.names("models"))
    exported = tmp_path / "model.pt2"
    location = f"s3://{store.bucket}/deep/results/{model}"
    runs.start("ssl_runner.export", location, "--output", str(exported)).succeed()
    assert exported.stat().st_size


def ids(results: Path) -> list[str]:
    """The ids of the trials that have a row."""
    return [path.stem.rpartition("--")[2] for path in results.glob("trials/*.parquet")]


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_a_store_that_is_gone_for_good_is_said_and_the_same_command_goes_on(
    store: Store, runs: Runs, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    arguments = (*SWEEP, "--max-concurrent", "1", "--results", store.results)
    run = runs.start(*arguments)
    run.wait_for(lambda: has_begun(store))
    store.proxy.close()
    output = run.end()
    assert run.returncode == 1, output
    assert "stopped: the results' store does not answer as it should (" in run.stdout
    assert "The rows that are there stay; the same command runs the other trials." in run.stdout
    assert "Traceback" not in output
    assert runs.are_gone()
    store.proxy.open()
    before = store.names("trials")
    again = runs.start(*arguments).succeed()
    assert f"{len(before)} of 3 trials are in" in again
    copied = store.copy_to(tmp_path / "copied")
    assert tables(copied) == tables(undisturbed)
    assert leftovers(copied) == set()
