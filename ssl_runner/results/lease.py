"""Locks in an object store: each a small object whose writer renews it while it lives.

Who wants a lock writes a claim first and lists the claims then. Of two who want it at once at least one
sees the other's, because a listing shows what was written before it, as S3's and Google's do. Who sees
one withdraws, and tries again after a random pause: so one of the two gets it. It needs no conditional
writes, which pyarrow does not have. A dead driver's claim is no longer renewed, and expires; that of
one on this machine is known to be dead at once.
"""

import functools
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pyarrow import fs

from ssl_runner.errors import InputError
from ssl_runner.storage import write_whole

EXPIRES = 120.0
"""Seconds after its last renewal at which a claim no longer counts."""

_RENEWED = 20.0
"""Seconds between renewals."""

_TRIES = 4
"""How often a lock is tried that another holds, or tries at the same time."""

_SUFFIX = ".claim"


class Process(NamedTuple):
    """A process, as others know it.

    Attributes:
        machine: Digest of its machine as long as that is up, and of its process namespace; `other`
            where that can't be had.
        number: Its id there.
        start: When it started, in the machine's ticks: ids are used again.
    """

    machine: str
    number: int
    start: int

    @classmethod
    def this(cls) -> "Process":
        """This one."""
        number = os.getpid()
        start = _start_of(number)
        return cls(_machine() if start else "other", number, start)

    def is_dead(self) -> bool:
        """Whether it is known to have ended: of another machine's that is unknown."""
        return self.machine == _machine() != "other" and _start_of(self.number) != self.start


def _start_of(process: int) -> int:
    """When a process started, in ticks; 0 if it is none, a zombie, or the system does not tell."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0
    state, *fields = stat.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(fields[18])


@functools.cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return "other"
    return sha256(f"{socket.gethostname()} {boot} {namespace}".encode()).hexdigest()[:12]


class Claim(NamedTuple):
    """A claim on a lock.

    Attributes:
        lock: The lock's name.
        process: Who wants or holds it.
        token: Tells it from others of the same process.
        renewed: When it was written last, in seconds of the store's clock.
    """

    lock: str
    process: Process
    token: str
    renewed: float = 0.0

    def __str__(self) -> str:
        machine, number, start = self.process
        return f"{self.lock}--{machine}-{number}-{start}-{self.token}{_SUFFIX}"

    @classmethod
    def parse(cls, name: str, renewed: float) -> "Claim | None":
        """A claim's object; None if it is none."""
        lock, _, rest = name.removesuffix(_SUFFIX).rpartition("--")
        match rest.split("-"):
            case [machine, number, start, token] if number.isdecimal() and start.isdecimal():
                return cls(lock, Process(machine, int(number), int(start)), token, renewed)
        return None

    def is_dead(self, now: float) -> bool:
        """Whether nobody renews it any more."""
        return now - self.renewed > EXPIRES or self.process.is_dead()


def claims(filesystem: fs.FileSystem, folder: str) -> list[Claim]:
    """All claims in a folder, also those of the dead."""
    found = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    read = (Claim.parse(info.base_name, (info.mtime_ns or 0) / 1e9) for info in found if info.is_file)
    return [claim for claim in read if claim is not None]


class Lease:
    """A lock that this process holds, renewed by a thread until it is released.

    Args:
        filesystem: The object store. It should fail within seconds, so that a renewal is on time.
        folder: Where all claims are.
        lock: The lock's name.
        excludes: Whether a lock, by its name, excludes holding this one; not the lock's own name.
    """

    def __init__(
        self, filesystem: fs.FileSystem, folder: str, lock: str, excludes: Callable[[str], bool]
    ) -> None:
        self._filesystem, self._folder, self._excludes = filesystem, folder, excludes
        self._claim = self._new(lock)
        self._renewed = 0.0
        self._is_released = threading.Event()
        self._is_lost = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lock {lock}", daemon=True)

    @staticmethod
    def _new(lock: str) -> Claim:
        return Claim(lock, Process.this(), uuid.uuid4().hex[:12])

    @property
    def is_lost(self) -> bool:
        """Whether another process has the lock, since this one could not renew it in time."""
        return self._is_lost.is_set()

    def acquire(self) -> bool:
        """Take the lock; returns whether it could be had.

        Raises:
            OSError: If the store does not answer.
            InputError: If its listings lag behind its writes.
        """
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(random.uniform(0.2, 1.0) * attempt)
            if self._take():
                self._thread.start()
                return True
        return False

    def release(self) -> None:
        """Give the lock back. If the store does not answer, it expires."""
        self._is_released.set()
        self._thread.join()
        if not self.is_lost:
            self._remove(self._claim)

    def _take(self) -> bool:
        """Write a claim; withdraw it if another's counts."""
        try:
            self._write()
            if not self._rivals():
                return True
        except (OSError, InputError):
            self._remove(self._claim)
            raise
        self._remove(self._claim)
        return False

    def _write(self) -> None:
        now = _clock()
        write_whole(self._filesystem, f"{self._folder}/{self._claim}", b"")
        self._renewed = now

    def _rivals(self) -> list[Claim]:
        """The living claims that exclude this one, which was written just now. The dead are removed."""
        listed = claims(self._filesystem, self._folder)
        now = next((claim.renewed for claim in listed if claim.token == self._claim.token), None)
        if now is None:
            raise InputError(
                f"{self._folder}: a listing must show what was written before it, and this store's "
                "does not: two commands could run one sweep at once. Choose another --results."
            )
        rivals = [
            claim
            for claim in listed
            if claim.token != self._claim.token
            and (claim.lock == self._claim.lock or self._excludes(claim.lock))
        ]
        for claim in rivals:
            if claim.is_dead(now):
                self._remove(claim)
        return [claim for claim in rivals if not claim.is_dead(now)]

    def _remove(self, claim: Claim) -> None:
        try:
            self._filesystem.delete_file(f"{self._folder}/{claim}")
        except OSError:  # gone, or the store is: then it expires
            return

    def _renew(self) -> None:
        while not self._is_released.wait(_RENEWED):
            try:
                if _clock() - self._renewed < EXPIRES / 2:
                    self._write()
                # It may have expired meanwhile, and another may have taken the lock.
                elif not self._take_again():
                    self._is_lost.set()
                    return
            except (OSError, InputError):
                continue  # the store may be itself again the next time

    def _take_again(self) -> bool:
        """Take the lock by another claim, beside the old one, which counts for others until then."""
        old = self._claim
        self._claim = self._new(old.lock)
        self._remove(old)
        return self._take()


def _clock() -> float:
    """Seconds, those too in which the machine was asleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()
