"""TensorBoard, MLflow and Weights & Biases, each read back by its own library."""

import json
import os
import re
import signal
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssl_runner import identity
from ssl_runner.config import TrialConfig
from ssl_runner.results import ResultsFolder
from ssl_runner.testing.processes import Runs, wait_until
from ssl_runner.tune.loggers import TensorBoardCallback, build_loggers

SWEEP = (
    *("--subset", "600", "--label-fractions", "0.5", "--methods", "fixmatch", "--epochs", "2"),
    *("--patience", "0", "--name", "logged", "--log", "tensorboard", "mlflow", "wandb"),
)


class Trial:
    """What Tune hands to its callbacks, as far as ours looks."""

    def __init__(self, config: TrialConfig) -> None:
        self.config = {"trial": identity.Trial(config, "da").plain()}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard finds in a trial's folder: steps and values by tag."""
    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def served(folder: Path, runs: Runs, number: int) -> set[str]:
    """The runs that a real TensorBoard shows of a folder, once it shows that many: it finds them one
    by one."""
    server = runs.start(
        "tensorboard.main", "--logdir", str(folder), "--host", "localhost", "--port", "0"
    )
    shown = set[str]()

    def look() -> bool:
        if address := re.search(r"http://localhost:\d+/", server.stderr):
            with urllib.request.urlopen(f"{address[0]}data/runs") as answer:
                shown.update(json.load(answer))
        return len(shown) >= number

    server.wait_for(look)
    server.process.send_signal(signal.SIGTERM)
    server.end()
    return shown


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_every_logger_shows_every_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # to read it here; the command does so itself
    results = tmp_path / "results"
    environment = {k: value for k, value in os.environ.items() if k != "MLFLOW_ALLOW_FILE_STORE"}
    environment["WANDB_MODE"] = "offline"
    runs.start(
        *("ssl_runner.tune", *SWEEP, "--results", str(results)), environment=environment, cwd=tmp_path
    ).succeed()
    rows = {row["method"]: row for row in ResultsFolder(str(results)).trials().to_dict("records")}
    assert len(rows) == 2

    folder = results / "tensorboard" / "logged"
    names = {f"CNN-full-seed-0-{rows['pass']['trial_id']}"}
    names |= {f"CNN-partial-0.5-fixmatch-seed-0-{rows['fixmatch']['trial_id']}"}
    assert {path.name for path in folder.iterdir()} == names
    assert served(folder, runs, len(names)) == names
    for path in folder.iterdir():
        row = rows["fixmatch" if "fixmatch" in path.name else "pass"]
        shown = scalars(path)
        assert [step for step, _ in shown["loss/validation"]] == [row["steps"] // 2, row["steps"]]
        assert min(value for _, value in shown["loss/validation"]) == pytest.approx(
            row["validation_loss"]
        )
        ((step, accuracy),) = shown["accuracy/test"]
        assert step == row["steps"]
        assert accuracy == pytest.approx(row["test_accuracy"])
        assert ("pseudo_labels/confidence" in shown) == (row["method"] == "fixmatch")

    client = mlflow.MlflowClient((results / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("logged")
    assert experiment is not None
    logged = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in logged} == {
        "CNN full seed 0",
        "CNN partial 0.5 fixmatch seed 0",
    }
    for run in logged:
        row = rows[run.data.params["trial/settings/method"]]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["test_accuracy"] == pytest.approx(row["test_accuracy"])
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert [metric.step for metric in history] == [row["steps"] // 2, row["steps"]]

    offline = list((results / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(offline) == 2
    written = b"".join(path.read_bytes() for path in offline)
    for text in (b"CNN partial 0.5 fixmatch seed 0", b"validation_loss", b"test_accuracy"):
        assert text in written
    # Nothing beside the results folder.
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def result(epoch: int, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, "steps": 10 * epoch, "train_loss": epoch / 2, "confidence": None} | more


def is_past(second: int) -> bool:
    """Whether this second is over."""
    return int(time.time()) > second


def test_a_trial_that_goes_on_has_each_step_once(tmp_path: Path) -> None:
    trial, said = Trial(TrialConfig()), list[str]()
    for epochs in ((1, 2, 3), (3, 4)):  # the second process goes on from the end of epoch 2
        callback = TensorBoardCallback(tmp_path, said.append)
        for epoch in epochs:
            callback.on_trial_result(0, [], trial, result(epoch, train_loss=len(epochs) + epoch / 2))
        callback.on_experiment_end([])
        wait_until(partial(is_past, int(time.time())))  # the second is in the files' names
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 2
    assert scalars(folder) == {"loss/train": [(10, 3.5), (20, 4.0), (30, 3.5), (40, 4.0)]}
    callback = TensorBoardCallback(tmp_path, said.append)
    callback.on_trial_result(0, [], trial, result(1))  # and here it starts anew
    callback.on_experiment_end([])
    assert scalars(folder) == {"loss/train": [(10, 0.5)]}
    callback.on_trial_result(0, [], trial, {"status": "failed", "error": "it broke"})
    assert said == []


def test_a_folder_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = list[str]()
    callback = TensorBoardCallback(tmp_path / "file", said.append)
    for epoch in (1, 2):
        callback.on_trial_result(0, [], Trial(TrialConfig()), result(epoch))
    assert said == ["warning: TensorBoard's files can't be written (Not a directory)"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandb", "--log wandb must be able to log, got: No WandB API key found. Either set the "),
        ("mlflow", "--log mlflow must be able to log, got: "),
    ],
)
def test_a_logger_that_cannot_log_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    for variable in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody has logged in
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://x")
    with pytest.raises(ValueError, match=message) as error:
        build_loggers([name], ResultsFolder(str(tmp_path)), "s", print)
    assert len(str(error.value).splitlines()) == 1


def test_a_logger_without_its_package_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--log wandb must have the package wandb, which is not inst"):
        build_loggers(["wandb"], ResultsFolder(str(tmp_path)), "s", print)


def test_tensorboard_is_left_out_where_the_results_lie_in_a_cloud() -> None:
    results = ResultsFolder("s3://bucket/results?region=us-east-1")
    assert build_loggers(["tensorboard"], results, "s", print) == []
