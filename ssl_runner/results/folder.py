"""A results folder: its two Parquet data sets, written and read."""

import contextlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from pyarrow.fs import FileSelector

from ssl_runner.checkpoint_name import SUFFIX, CheckpointName
from ssl_runner.config import FIELDS, TrialConfig
from ssl_runner.errors import InputError
from ssl_runner.metrics import AT_A_RUNG
from ssl_runner.object_store import check_reachable, join, open_s3, said_of
from ssl_runner.results.compaction import (
    Compacted,
    change_rows,
    compact_folder,
    drop_rows,
    find_rows,
    is_compacted,
    sorted_rows,
    working_folder,
)
from ssl_runner.results.lease import EXPIRES, Lease, claims
from ssl_runner.results.matching import (
    KnownTrial,
    config_of,
    known_trial,
    settings_id_of,
    sources_of,
)
from ssl_runner.results.reading import read_files
from ssl_runner.results.schema import EPOCHS, IDENTITY, RENAMED, SCHEMA_VERSION, TRIALS
from ssl_runner.shard import Shard, excludes, lock_name, sweep_of_lock
from ssl_runner.storage import (
    is_local,
    list_files,
    open_folder,
    read_whole,
    remove_drafts,
    write_whole,
)

MODEL = ".safetensors"
"""Ending of a model's file."""

LOCKS = ".locks"
"""Folder of the locks in an object store."""


class ResultsFolder:
    """The two Parquet data sets of a results folder: one small file per trial in each, and a few large
    ones where many were compacted.

    Args:
        location: The folder: a local path, `s3://…`, `gs://…` or a directory that all nodes share.

    Raises:
        InputError: If the location is of an unknown kind.
    """

    def __init__(self, location: str) -> None:
        self.filesystem, self.root = open_folder(location)
        # Absolute, for processes with another working directory.
        self.location = self.root if is_local(self.filesystem) else join(location)

    def write(self, trial: Mapping[str, Any], epochs: Iterable[Mapping[str, Any]]) -> None:
        """Write a trial's row, replacing an older one of the same sweep and id, and its epochs' rows.

        The epochs come first: a trial that is in the table has all its epochs there.

        Raises:
            OSError: If it can't be written.
        """
        name = f"{trial['sweep']}--{trial['trial_id']}.parquet"
        identity = {key: trial[key] for key in IDENTITY if key != "schema_version"}
        epoch_rows = [identity | dict(row) for row in epochs]
        for folder, schema, rows in (("epochs", EPOCHS, epoch_rows), ("trials", TRIALS, [trial])):
            versioned = [{"schema_version": SCHEMA_VERSION} | dict(row) for row in rows]
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(versioned, schema=schema), buffer)
            write_whole(self.filesystem, f"{self.root}/{folder}/{name}", buffer.getvalue())

    @contextlib.contextmanager
    def lock_sweep(self, sweep: str, shard: Shard | None = None) -> Iterator[Callable[[], bool]]:
        """Lock a sweep, or a shard of it, against other processes.

        Yields:
            Whether the lock is lost: in an object store, that did not answer for so long that another
            process took it.

        Raises:
            InputError: If another process runs it.
            OSError: If an object store does not answer.
        """
        if not is_local(self.filesystem):
            lease = self._lease(sweep, shard)
            if not lease.acquire():
                raise self._runs(sweep, shard)
            try:
                yield lambda: lease.is_lost
            finally:
                lease.release()
            return
        path = Path(self.root, f".{lock_name(sweep, shard)}.lock")
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise self._runs(sweep, shard) from None
        try:
            # Other shards of as many may run beside this one; who looks last sees the other.
            for other in Path(self.root).glob(f".{sweep}*.lock"):
                if excludes(other.name[1:].removesuffix(".lock"), sweep, shard) and _is_held(other):
                    raise self._runs(sweep, shard)
            # Who compacts refuses to while a sweep is locked; if it came first, it is waited for.
            if self._compacting.exists():
                FileLock(self._compacting).acquire().lock.release()
            yield lambda: False
        finally:
            path.unlink(missing_ok=True)
            lock.release()

    def _lease(self, sweep: str, shard: Shard | None) -> Lease:
        """The same lock where there are no lock files."""
        is_s3 = self.location.startswith("s3://")
        filesystem = open_s3(self.location, impatient=True)[0] if is_s3 else self.filesystem
        return Lease(
            filesystem,
            f"{self.root}/{LOCKS}",
            lock_name(sweep, shard),
            lambda name: excludes(name, sweep, shard),
        )

    def _runs(self, sweep: str, shard: Shard | None) -> InputError:
        """Another process runs a sweep, this shard of it, or shards of another number."""
        fix = "choose another --name or --results."
        if not is_local(self.filesystem):
            fix = f"{fix} If it has died: its lock expires {EXPIRES:.0f} seconds after that."
        if shard is None:
            return InputError(
                f"--name must be of a sweep that no other process runs in {self.location}, got "
                f"{sweep!r}. Wait for it, or {fix}"
            )
        return InputError(
            f"--shard must be one that no other process runs, beside shards of as many, got {shard} of "
            f"{sweep!r} in {self.location}. Wait for the other, or {fix}"
        )

    @property
    def _compacting(self) -> Path:
        """The lock file of a compaction; without one there is no such file."""
        return Path(self.root, ".compacting")

    def is_running(self, sweep: str | None, apart_from: str | None = None) -> bool:
        """Whether the sweep, or any, is being run: of a local folder, by a process that shares this
        machine's locks; of one in an object store, by any whose lock has not expired by this clock.

        Args:
            apart_from: The lock that does not count, by `lock_name`.
        """
        if not is_local(self.filesystem):
            now = time.time()
            return any(
                sweep in (None, sweep_of_lock(claim.lock))
                and claim.lock != apart_from
                and not claim.is_dead(now)
                for claim in claims(self.filesystem, f"{self.root}/{LOCKS}")
            )
        for path in Path(self.root).glob(".*.lock"):
            name = path.name[1:].removesuffix(".lock")
            if sweep in (None, sweep_of_lock(name)) and name != apart_from and _is_held(path):
                return True
        return False

    def compact(self, running: str | None = None) -> dict[str, Compacted]:
        """Make a few large files of many small ones, for all readers in one step.

        Args:
            running: The lock that the caller holds, by `lock_name`.

        Returns:
            What was done to each data set that is there.

        Raises:
            InputError: If it is not a local folder, a sweep is running, or a file is not one of ours;
                nothing has changed then.
        """
        if not is_local(self.filesystem):
            raise InputError(
                f"only a local folder can be compacted, got {self.location!r}: an object store can't "
                "replace many files in one step. Copy it to a folder, and compact that."
            )
        lock, done = FileLock(self._compacting), {}
        try:
            lock.acquire(timeout=0)
            try:
                if self.is_running(None, apart_from=running):
                    raise Timeout(str(self._compacting))
                stay: frozenset[str] = frozenset()
                for folder, schema in (("trials", TRIALS), ("epochs", EPOCHS)):
                    if Path(self.root, folder).is_dir():
                        done[folder] = self._compact(folder, schema, stay)
                        stay = done[folder].stay
            finally:
                self._compacting.unlink(missing_ok=True)
                lock.release()
        except Timeout:
            raise InputError(
                "no other process may be running a sweep in a folder that is compacted, or compacting "
                f"it, got {self.location!r}. Wait for its end."
            ) from None
        return done

    def _compact(self, folder: str, schema: pa.Schema, stay: Container[str]) -> Compacted:
        try:
            return compact_folder(self.root, folder, schema, stay)
        except OSError as error:
            raise InputError(
                f"{self.root}/{folder}: it can't be compacted ({error.strerror or error}). It is as it "
                "was, and its many files are as good."
            ) from None
        except (pa.ArrowException, ValueError):
            self._load(folder, schema, None)  # names the file
            raise

    def small_files(self) -> int:
        """How many trials have a file of their own."""
        names = list_files(self.filesystem, f"{self.root}/trials", ".parquet")
        return sum(not is_compacted(name) for name in names)

    def under_way(self, sweep: str | None) -> dict[str, CheckpointName]:
        """The last checkpoint of each unfinished trial, by its id."""
        found = {}
        for of_sweep, trial_id, path in self._checkpoints():
            names = list_files(self.filesystem, path, SUFFIX) if sweep in (None, of_sweep) else []
            if names and (last := CheckpointName.parse(names[-1])):
                found[trial_id] = last
        return found

    def with_checkpoints(self, sweep: str) -> set[str]:
        """The ids of a sweep's trials that have a folder of checkpoints, readable or not."""
        return {trial_id for of_sweep, trial_id, _ in self._checkpoints() if of_sweep == sweep}

    def _checkpoints(self) -> list[tuple[str, str, str]]:
        """Sweep, trial's id and path of each folder of checkpoints."""
        selector = FileSelector(f"{self.root}/checkpoints", allow_not_found=True)
        found = []
        for info in self.filesystem.get_file_info(selector):
            of_sweep, _, trial_id = info.base_name.rpartition("--")
            found.append((of_sweep, trial_id, info.path))
        return found

    def remove_leftovers(
        self, sweep: str, trial_ids: Container[str], own: Container[str] | None = None
    ) -> None:
        """Remove what killed processes left: half-written files, checkpoints of trials that have a row,
        and models that no row names.

        Args:
            sweep: The sweep.
            trial_ids: Its trials that have a row.
            own: Those of its trials that no other process may be running; None: all of them.
        """
        folders = [self.root, *(f"{self.root}/{name}" for name in ("trials", "epochs", "models"))]
        for name, trial_id in self._models(sweep):
            is_own = own is None or trial_id in own
            if is_own and self._weights_of(sweep, trial_id) is None:
                self.filesystem.delete_file(f"{self.root}/models/{name}")
        for of_sweep, trial_id, path in self._checkpoints():
            if of_sweep == sweep and trial_id in trial_ids:
                self.filesystem.delete_dir(path)
            else:
                folders.append(path)
        for folder in folders:
            remove_drafts(self.filesystem, folder)
        for name in ("trials", "epochs") if is_local(self.filesystem) else ():
            shutil.rmtree(working_folder(self.root, name), ignore_errors=True)

    def status(self, sweep: str, trial_id: str) -> dict[str, str] | None:
        """Status and error of a trial that has a row; None if it has none."""
        return self._row(sweep, trial_id, ["status", "error"])

    def purchase(self, sweep: str, trial_id: str) -> dict[str, Any] | None:
        """What a round's row says of what it bought: `status`, `error`, `steps`, `next_images`; None if
        it has no row."""
        return self._row(sweep, trial_id, ["status", "error", "steps", "next_images"])

    def outcome(self, sweep: str, trial_id: str) -> dict[str, Any] | None:
        """What a sample's row says of how good it is: `status`, `seconds`, `rungs` and the figures that
        they have, too; None if it has no row."""
        return self._row(sweep, trial_id, ["status", "seconds", "rungs", *AT_A_RUNG])

    def config(self, sweep: str, trial_id: str) -> TrialConfig | None:
        """The settings of a trial that has a row; None if it has none.

        Raises:
            InputError: If this version does not accept them.
        """
        row = self._row(sweep, trial_id, [*FIELDS])
        return None if row is None else config_of(row)

    def _row(self, sweep: str, trial_id: str, columns: Sequence[str]) -> dict[str, Any] | None:
        """Some columns of a trial's row; None if it has none."""
        try:  # to look first would cost a cloud twice as many requests
            rows = self._read(f"{self.root}/trials/{sweep}--{trial_id}.parquet", columns)
        except FileNotFoundError:
            where = {"sweep": sweep, "trial_id": trial_id}
            rows = find_rows(self.filesystem, f"{self.root}/trials", TRIALS, columns, where)
        return rows[0] if rows else None

    def _read(
        self, path: str, columns: Sequence[str], older: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Some columns of a file of trials, row by row; None for those that an older version lacks.

        Args:
            older: Columns that are needed too where the file has no settings ids yet.

        Raises:
            InputError: If it is not such a file.
        """
        content = read_whole(self.filesystem, path)
        try:
            # Not read_table: it reads in threads, which can fail in a program that exits at once.
            file = pq.ParquetFile(pa.BufferReader(content))
            names = file.schema_arrow.names
            wanted = columns if "settings_id" in names else [*columns, *older]
            there = [name for name in wanted if name in names]
            rows: list[dict[str, Any]] = file.read(columns=there, use_threads=False).to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unreadable(path, str(error)) from None
        if lacking := {"trial_id", "status"} & set(columns) - set(there):
            raise _unreadable(path, f"it lacks {', '.join(sorted(lacking))}")
        return [dict.fromkeys(wanted) | row for row in rows]

    def known(self, sweep: str) -> list[KnownTrial]:
        """Every trial of a sweep that has a row.

        Raises:
            InputError: If a file is not one of ours; names it.
        """
        found = []
        for name in list_files(self.filesystem, f"{self.root}/trials", ".parquet"):
            if name.rpartition("--")[0] != sweep:  # the sweep's own name may hold a --
                continue
            for row in self._read(f"{self.root}/trials/{name}", _IDENTIFIED, older=list(FIELDS)):
                found.append(known_trial(row))
        folder = f"{self.root}/trials"
        for row in find_rows(self.filesystem, folder, TRIALS, _IDENTIFIED, {"sweep": sweep}):
            found.append(known_trial(row))
        return found

    def check_name(self, sweep: str, is_search: bool) -> None:
        """Refuse a search under a name whose rows are a plain sweep's, and the other way around: a
        comparison is of a search's finals or of all trials, and a command runs either again.

        Raises:
            InputError: Naming the sweep and the fix.
        """
        folder = f"{self.root}/trials"
        names = list_files(self.filesystem, folder, ".parquet")
        own = [name for name in names if name.rpartition("--")[0] == sweep]
        rows = (
            self._read(f"{folder}/{own[0]}", ["role"])
            if own
            else find_rows(self.filesystem, folder, TRIALS, ["role"], {"sweep": sweep})
        )
        if not rows or (rows[0]["role"] is not None) == is_search:  # they are all alike
            return
        both = "a search", "a sweep without a search"
        rule, those = both if is_search else both[::-1]
        raise InputError(
            f"--name must be of {rule}, or new, got {sweep!r}: its rows in {self.location} are of "
            f"{those}. Choose another --name."
        )

    def check_reachable(self) -> None:
        """Ask for the folder, if it is in a cloud.

        Raises:
            InputError: If it does not answer within seconds, refuses, or has no such bucket.
        """
        check_reachable(self.location)

    def check_writable(self) -> None:
        """Create the folder, and a file in it that is deleted at once.

        Raises:
            InputError: If that fails; names the folder and the fix.
        """
        self.check_reachable()
        path = f"{self.root}/.writable-{uuid.uuid4().hex}"
        try:
            write_whole(self.filesystem, path, b"")
            self.filesystem.delete_file(path)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
            raise InputError(
                f"--results must be a writable folder, got {self.location!r} ({reason}). "
                "Choose another, or check its permissions."
            ) from None

    def forget(self, sweep: str, trial_ids: Iterable[str]) -> None:
        """Delete the rows and models of these trials of a sweep, where there are any."""
        ids = set(trial_ids)
        # The trials' rows first: they imply the others.
        for folder in ("trials", "epochs") if ids else ():
            drop_rows(self.filesystem, f"{self.root}/{folder}", sweep, ids)
        for trial_id in ids:
            name = f"{sweep}--{trial_id}"
            for path in (f"trials/{name}.parquet", f"epochs/{name}.parquet", f"models/{name}{MODEL}"):
                path = f"{self.root}/{path}"
                if self.filesystem.get_file_info(path).is_file:
                    self.filesystem.delete_file(path)

    def keep_models(
        self, sweep: str, trial_ids: Container[str], among: Container[str] | None = None
    ) -> int:
        """Delete the models of a sweep's other trials, whose rows then name none.

        Args:
            among: Those that are compared; the models of others stay. None: all of them.

        Returns:
            The number of models that are kept.
        """
        models = [each for each in self._models(sweep) if among is None or each[1] in among]
        others = [(name, trial_id) for name, trial_id in models if trial_id not in trial_ids]
        # The rows first: what they name is there. A model that no row names is a leftover.
        self.write_columns(sweep, {trial_id: {"weights": None} for _, trial_id in others})
        for name, _ in others:
            self.filesystem.delete_file(f"{self.root}/models/{name}")
        return len(models) - len(others)

    def write_columns(self, sweep: str, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Write other values into some columns of trials' rows, the others unchanged.

        Args:
            values: The values by column, by trial.

        Raises:
            OSError: If a trial has no row, or it can't be written.
        """
        folder, large = f"{self.root}/trials", {}
        for trial_id, of_trial in values.items():
            path = f"{folder}/{sweep}--{trial_id}.parquet"
            if self.filesystem.get_file_info(path).is_file:
                self._write_columns(path, of_trial)
            else:
                large[trial_id] = of_trial
        missing = large.keys() - (change_rows(self.filesystem, folder, sweep, large) if large else ())
        if missing:
            raise FileNotFoundError(f"{folder}: {sweep} has no row of {', '.join(sorted(missing))}")

    def _write_columns(self, path: str, values: Mapping[str, Any]) -> None:
        """The same for the file of one trial."""
        table = pq.ParquetFile(pa.BufferReader(read_whole(self.filesystem, path))).read()
        for name, value in values.items():
            field = TRIALS.field(name)
            column = pa.array([value], field.type)
            place = table.schema.get_field_index(name)
            if place < 0:  # written by an older version
                table = table.append_column(field, column)
            else:
                table = table.set_column(place, field, column)
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        write_whole(self.filesystem, path, buffer.getvalue())

    def _models(self, sweep: str) -> list[tuple[str, str]]:
        """The files of a sweep's models, each with its trial's id."""
        names = list_files(self.filesystem, f"{self.root}/models", MODEL)
        split = [(name, name.removesuffix(MODEL).rpartition("--")) for name in names]
        return [(name, trial_id) for name, (of_sweep, _, trial_id) in split if of_sweep == sweep]

    def _weights_of(self, sweep: str, trial_id: str) -> str | None:
        """The model that a trial's row names; None if it has no row, or names none."""
        row = self._row(sweep, trial_id, ["weights"])
        return None if row is None else row["weights"]

    def place(self, *names: str) -> str:
        """The location of something in this folder."""
        return join(self.location, *names)

    def checkpoints(self, sweep: str, trial_id: str) -> str:
        """Folder of a trial's checkpoints while it is unfinished."""
        return join(self.location, "checkpoints", f"{sweep}--{trial_id}")

    def ray_folder(self, name: str) -> str:
        """Folder for Ray's own files while a sweep, or a shard of one, runs on a cluster. Nothing is
        read from it later."""
        return self.place("ray", name)

    def remove_ray_folder(self, name: str) -> None:
        """Remove it, where there is one, as far as nobody writes there any more."""
        path = f"{self.root}/ray/{name}"
        with contextlib.suppress(OSError):
            if self.filesystem.get_file_info(path).type.name == "Directory":
                self.filesystem.delete_dir(path)
                if is_local(self.filesystem):
                    Path(self.root, "ray").rmdir()  # unless others have one too

    def tidy(self) -> None:
        """Remove the folder of checkpoints when no unfinished trial has one there."""
        if is_local(self.filesystem):
            with contextlib.suppress(OSError):  # it is not empty, or not there
                Path(self.root, "checkpoints").rmdir()

    def trials(self, sweep: str | None = None) -> pd.DataFrame:
        """The rows of one sweep's trials, or of all. Raises InputError if a file is not one of ours."""
        return self._load("trials", TRIALS, sweep)

    def epochs(self, sweep: str | None = None) -> pd.DataFrame:
        """The rows of one sweep's epochs, or of all. Raises InputError if a file is not one of ours."""
        return self._load("epochs", EPOCHS, sweep)

    def _load(self, folder: str, schema: pa.Schema, sweep: str | None) -> pd.DataFrame:
        table = self._whole_table(folder, schema)
        frame: pd.DataFrame = table.to_pandas()
        if folder == "trials" and (old := frame["settings_id"].isna()).any():
            rows = table.select([*FIELDS]).filter(pa.array(old)).to_pylist()
            frame.loc[old, "settings_id"] = [settings_id_of(row) for row in rows]
            frame.loc[old, "sources"] = [sources_of(row) for row in rows]
        if folder == "trials" and (old := frame["optimizer"].isna()).any():
            for name, value in _BEFORE_OPTIMIZERS.items():
                frame[name] = frame[name].astype(object).where(~old, value).infer_objects()
        if folder == "trials":
            frame = frame.fillna(_BEFORE_POOLS)
        return (
            frame
            if sweep is None
            else pd.DataFrame(frame[frame["sweep"] == sweep]).reset_index(drop=True)
        )

    def _whole_table(self, folder: str, schema: pa.Schema) -> pa.Table:
        """All rows of a data set, in the order of their trials."""
        path = f"{self.root}/{folder}"
        last: list[str] = []
        while True:
            names = list_files(self.filesystem, path, ".parquet")
            try:
                table = self._table(path, names, schema) if names else schema.empty_table()
                break
            except FileNotFoundError:  # compacted, or forgotten, since they were listed
                if names == last:
                    raise
                last = names
        if not any(map(is_compacted, names)):
            return table
        return sorted_rows(table)

    def _table(self, folder: str, names: list[str], schema: pa.Schema) -> pa.Table:
        """Files of one schema, or of an older version of it, as one table."""
        older = [
            pa.field(old, schema.field(new).type) for old, new in RENAMED.items() if new in schema.names
        ]
        schema = pa.schema([*schema, *older])
        try:
            table = read_files(self.filesystem, folder, names, schema)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            if isinstance(error, OSError) and said_of(error):
                raise  # the store's fault, not a file's
            for path in (f"{folder}/{name}" for name in names):  # which one?
                try:
                    pq.read_table(path, schema=schema, filesystem=self.filesystem)
                except (pa.ArrowException, OSError, ValueError) as reason:
                    raise _unreadable(path, str(reason)) from None
            raise
        versions = set(table["schema_version"].unique().to_pylist())
        if not versions <= set(range(1, SCHEMA_VERSION + 1)):
            strange = ", ".join(str(version) for version in versions - {1, SCHEMA_VERSION})
            raise InputError(
                f"{self.location}: the rows must be of version {SCHEMA_VERSION} or older, got "
                f"{strange.replace('None', 'none')}. Read them with the release that wrote them."
            )
        for field in older:
            new = RENAMED[field.name]
            both = [table[new], table[field.name]]
            table = table.set_column(
                table.schema.get_field_index(new), schema.field(new), pc.coalesce(*both)
            ).drop_columns([field.name])
        return table


def _is_held(path: Path) -> bool:
    """Whether a process holds a lock file."""
    try:
        FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    return False


# What rows were trained with that were written before these settings existed.
_BEFORE_OPTIMIZERS = {
    name: value
    for name, value in vars(TrialConfig().resolved().optimizer).items()
    if value is not None and name != "lr"
} | {"small_images": False, "sync_batch_norm": False}

# The same for settings that are null in no row of a release that has them.
_BEFORE_POOLS = {
    name: FIELDS[name].default
    for name in (
        *("unlabeled_fraction", "labeled_imbalance", "unlabeled_imbalance"),
        *("label_noise", "foreign", "magnitude"),
    )
}

_IDENTIFIED = (
    *("trial_id", "settings_id", "data_digest", "sources", "status", "ended_at"),
    "next_images",
)


def _unreadable(path: str, reason: str) -> InputError:
    return InputError(
        f"{path}: not a file of this program's results ({reason.splitlines()[0][:200]}). "
        "Move it elsewhere; a trial without its row is run again."
    )


def load_trials(location: str, sweep: str | None = None) -> pd.DataFrame:
    """A row for each trial of a results folder, or of one sweep in it."""
    return ResultsFolder(location).trials(sweep)


def load_epochs(location: str, sweep: str | None = None) -> pd.DataFrame:
    """A row for each trial and epoch of a results folder, or of one sweep in it."""
    return ResultsFolder(location).epochs(sweep)
