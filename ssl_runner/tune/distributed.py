"""Ray Train: one trial's loop over several workers, each with its rank's slice of every batch."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import ray
import ray.train
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.torch.config import _TorchBackend
from ray.train.v2.api.config import LoggingConfig
from ray.tune import Callback
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import PlacementGroup, placement_group_table, remove_placement_group

from ssl_runner.identity import Trial
from ssl_runner.rounds import Buying
from ssl_runner.train import Rungs
from ssl_runner.trial import Rows, RunContext, failed_rows, run_trial
from ssl_runner.tune.notice import notice
from ssl_runner.tune.sharing import opened
from ssl_runner.tune.worker import RESTARTS, chain_of, for_loggers, last_line


def _work(shared: dict[str, Any]) -> Rows:
    """One worker: the same `run_trial` as without Ray Train, with the group it is in."""
    trial, buying = shared["trial"], shared["buying"]
    before = 0 if buying is None else buying.steps

    def on_epoch(metrics: dict[str, Any]) -> None:
        # A barrier: every rank must report after every epoch.
        ray.train.report(metrics | for_loggers(trial, metrics, before))

    with notice() if shared["may_leave"] else nullcontext() as is_asked:
        return run_trial(
            trial,
            opened(shared["dataset"]),
            shared["context"],
            on_epoch,
            device=get_device(),
            group=dist.group.WORLD,
            buying=buying,
            rungs=shared["rungs"],
            is_asked=is_asked,
        )


def _use_rays_interface() -> None:
    """Let a worker's gloo talk over the network that Ray talks over, unless the user chose another.

    By itself it takes the address that the host's own name stands for: in Debian 127.0.1.1, where no
    other host finds it, and anywhere perhaps that of another network.
    """
    import psutil  # comes inside ray

    address = ray.util.get_node_ip_address()
    for interface, addresses in psutil.net_if_addrs().items():
        if address in {each.address for each in addresses}:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


class _Backend(_TorchBackend):  # type: ignore[misc]
    """Ray Train's own, over Ray's network."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_use_rays_interface)
        super().on_start(worker_group, backend_config)


@dataclass
class _OverRaysNetwork(TorchConfig):  # type: ignore[misc]
    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend


def run_over_workers(
    trial: Trial,
    shared_dataset: Any,
    context: RunContext,
    *,
    buying: Buying | None,
    rungs: Rungs | None,
    cpus_per_worker: float,
    gpus_per_worker: float,
    storage: str,
    verbose: bool,
    may_leave: bool,
) -> Rows:
    """Run a trial over `num_workers` processes, from inside a Tune trial.

    Args:
        shared_dataset: The data set, from `sharing.share`.
        buying: Of a round: which labels it has, and how many it buys.
        rungs: Where it may be told to stop, or None.
        cpus_per_worker, gpus_per_worker: What Ray reserves for each worker.
        storage: Folder for Ray Train's own files, seen by all nodes.
        verbose: Whether Ray Train's own log lines are shown.
        may_leave: Whether a worker's node may be taken away, with notice.

    Returns:
        Rank 0's rows.
    """
    started, compute = datetime.now(UTC), trial.config.compute
    resources = {"CPU": cpus_per_worker, "memory": float(_owner_bytes(trial.trial_id))}
    if gpus_per_worker:
        resources["GPU"] = gpus_per_worker
    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "trial": trial,
            "buying": buying,
            "rungs": rungs,
            "dataset": shared_dataset,
            "context": context,
            "may_leave": may_leave,
        },
        torch_config=_OverRaysNetwork(),
        scaling_config=ScalingConfig(
            num_workers=compute.num_workers
            if compute.min_workers is None
            else (compute.min_workers, compute.num_workers),
            use_gpu=gpus_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=f"{context.sweep}--{trial.trial_id}",
            storage_path=storage,
            failure_config=FailureConfig(max_failures=RESTARTS, controller_failure_limit=RESTARTS),
            callbacks=[TuneReportCallback()],
            logging_config=LoggingConfig(log_level="INFO" if verbose else "ERROR"),
        ),
    )
    try:
        rows: Rows = trainer.fit().return_value
    except ray.train.TrainingFailedError as error:
        return failed_rows(trial, context, _reason(error), started)
    return rows


def _owner_bytes(trial_id: str) -> int:
    """Bytes of memory that each worker of a trial requests, at most a megabyte. They mark the owner
    of a reservation: the only value that Ray Train lets us set and Ray lets us read. Two trials have
    the same once in a million; one that is freed with the other resumes from its checkpoint."""
    return 2 + int(trial_id, 16) % (1 << 20)


def _free_workers(trial_id: str) -> None:
    """Free what Ray Train has reserved for a trial whose own process died, and end its workers.

    Ray frees it only when the whole job ends; Ray Train's own cleanup asks a dashboard which
    processes died, and a local Ray has none.
    """
    job = ray.get_runtime_context().get_job_id()
    for group_id, group in placement_group_table().items():
        marks = {bundle.get("memory") for bundle in group["bundles"].values()}
        # A group's id ends with that of its job: leave other sweeps' groups alone.
        if group_id.endswith(job) and group["state"] != "REMOVED" and marks == {_owner_bytes(trial_id)}:
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id))))


class FreeWorkers(Callback):  # type: ignore[misc]
    """Frees a trial's workers when its own process has died, before it is retried or marked failed."""

    def _free(self, trial: Any) -> None:
        for ours in chain_of(trial):  # only one of them runs
            _free_workers(ours.trial_id)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._free(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._free(trial)


def _reason(error: Exception) -> str:
    """The first worker's own error, where there is one."""
    failures = getattr(error, "worker_failures", None) or {}
    cause = next(iter(failures.values()), error)
    return last_line(str(cause)) or type(cause).__name__
