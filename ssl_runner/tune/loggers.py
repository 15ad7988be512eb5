"""Loggers that get a sweep's epochs too: TensorBoard, MLflow, Weights & Biases."""

import contextlib
import importlib.util
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from tensorboardX.event_file_writer import EventsWriter  # comes inside ray[tune]
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from ssl_runner.errors import InputError
from ssl_runner.identity import Trial
from ssl_runner.metrics import METRICS
from ssl_runner.results import ResultsFolder
from ssl_runner.storage import is_local
from ssl_runner.tune.worker import trial_of

# What TensorBoard shows, grouped by the part of a name before the slash.
_TAGS = {metric.name: metric.tag for metric in METRICS} | {
    "test_loss": "loss/test",
    "test_accuracy": "accuracy/test",
    "images_per_second": "speed/images_per_second",
}


def build_loggers(
    names: Sequence[str], results: ResultsFolder, sweep: str, say: Callable[[str], None]
) -> list[tune.Callback]:
    """Tune's callbacks for the loggers that were asked for, tried out before any trial starts.

    Args:
        names: Of `tensorboard`, `mlflow`, `wandb`.
        results: Where their files go: TensorBoard's only if that is a local folder, the others' if
            the user's own settings (MLFLOW_TRACKING_URI, WANDB_MODE, …) name no server.
        say: Called with each line for the user.

    Raises:
        InputError: If one lacks its package or its login.
    """
    made: list[tune.Callback] = []
    for name in names:
        if name == "tensorboard":
            if is_local(results.filesystem):
                made.append(TensorBoardCallback(Path(results.root, "tensorboard", sweep), say))
            continue
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"--log {name} must have the package {name}, which is not installed. "
                f"Try pip install {name}."
            )
        callback = _mlflow(results, sweep) if name == "mlflow" else _wandb(results, sweep)
        try:
            callback.setup()
        except Exception as error:  # whatever its library raises for its own settings
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"--log {name} must be able to log, got: {reason} Leave it out, or see "
                "ssl_runner/README.md."
            ) from None
        made.append(callback)
    return made


def count_nothing() -> None:
    """Keep Tune from importing MLflow and wandb, two seconds where they are installed, only to count
    the callbacks of their kind for a telemetry that is off here."""
    with contextlib.suppress(ImportError):
        from ray.air._internal import usage

        usage.tag_callbacks = lambda callbacks: False


def _mlflow(results: ResultsFolder, sweep: str) -> tune.Callback:
    """Ray's own, into the user's tracking server, or else into files in the results folder."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if uri is None and is_local(results.filesystem):
        uri = Path(results.root, "mlflow").as_uri()
        # Its newer releases refuse to log to files without this.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return MLflowLoggerCallback(tracking_uri=uri, experiment_name=sweep)


def _wandb(results: ResultsFolder, sweep: str) -> tune.Callback:
    """Ray's own; its files lie in the results folder, where that is a local one."""
    from ray.air.integrations.wandb import WandbLoggerCallback

    folder = {"dir": results.root} if is_local(results.filesystem) else {}
    project = os.environ.get("WANDB_PROJECT", "ssl_runner")
    return WandbLoggerCallback(project=project, group=sweep, **folder)


class TensorBoardCallback(tune.Callback):  # type: ignore[misc]
    """Writes each trial's epochs as TensorBoard reads them, over optimizer steps.

    Ray's own callback counts a trial's reports in this run of the command, and writes into Ray's own
    folder; neither suits a trial that resumes.

    Args:
        folder: Where each trial gets a folder.
        say: Called with a line if that can't be written; the trial itself continues.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.writers: dict[str, EventsWriter] = {}
        self.failed = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune saves its callbacks for a restore, which we never use."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if self.failed or "steps" not in result:  # a failed trial has no figures
            return
        try:
            self._write(trial_of(trial, result), result)
        except OSError as error:
            self.failed = True
            self.say(f"warning: TensorBoard's files can't be written ({error.strerror or error})")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        with contextlib.suppress(OSError):
            for writer in self.writers.values():
                writer.close()

    def _write(self, trial: Trial, result: Mapping[str, Any]) -> None:
        steps, trial_id = int(result["steps"]), trial.trial_id
        if trial_id not in self.writers:
            words = re.sub(r"[^\w.=+-]+", "-", trial.config.description)
            folder = self.folder / f"{words}-{trial_id}"
            if result.get("epoch") == 1:
                shutil.rmtree(folder, ignore_errors=True)  # an earlier start's
            folder.mkdir(parents=True, exist_ok=True)
            suffix = f".{os.getpid()}"
            self.writers[trial_id] = EventsWriter(str(folder / "events"), suffix)
            # What an earlier process wrote of these steps or later ones no longer counts.
            self._add(trial_id, steps, session_log=SessionLog(status=SessionLog.START))
        values = [
            Summary.Value(tag=tag, simple_value=float(result[name]))
            for name, tag in _TAGS.items()
            if result.get(name) is not None
        ]
        self._add(trial_id, steps, summary=Summary(value=values))
        self.writers[trial_id].flush()
        if "status" in result:
            self.writers.pop(trial_id).close()

    def _add(self, trial_id: str, steps: int, **content: Any) -> None:
        self.writers[trial_id].write_event(Event(wall_time=time.time(), step=steps, **content))
