"""Commands forked from a process that has imported what they import: real processes, sooner there.

The imports of `python -m ssl_runner.tune` alone take seconds of a core. A `Nursery` is a process that
has them behind it; each command is a fork of it in a session of its own, with its own arguments,
environment, folder and output, and ends as the interpreter ends.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from runpy import run_module
from typing import NoReturn

_OWN = ("SSL_RUNNER_", "AWS_", "PYTEST_")
"""How the variables begin that no library reads when it is imported."""

_MOST_BYTES = 1 << 17
"""More than a command's arguments and environment take."""


class Nursery:
    """A process from which commands are forked; it is started for the first.

    Args:
        imported: The modules that it imports: what takes the time, and starts no thread, which a fork
            would miss.
        environment: Variables that are set when it does so, beside those that are set here and now.
    """

    def __init__(self, imported: Sequence[str], environment: Mapping[str, str]) -> None:
        self._imported, self._set = imported, environment
        self._environment = dict(os.environ)
        self._asking, self._asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None

    def fits(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> bool:
        """Whether a command would import the same and in the same way, as far as is known."""
        changed = {name for name, _ in environment.items() ^ self._environment.items()}
        return (
            arguments[0].startswith("ssl_runner.")
            and "--address" not in arguments  # Ray is then told other things
            and all(name == "TMPDIR" or name.startswith(_OWN) for name in changed)
        )

    def start(
        self, arguments: tuple[str, ...], environment: Mapping[str, str], cwd: str, out: int, err: int
    ) -> "Forked":
        """Start a command.

        Args:
            arguments: What follows `python -m`.
            environment: All of its environment.
            cwd: The folder that it is called in.
            out: File descriptor of its output.
            err: The same for stderr.
        """
        if self._process is None:
            with self._asked as asked:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__, str(asked.fileno()), *self._imported],
                    stdin=subprocess.DEVNULL,
                    env={**self._environment, **self._set},
                    pass_fds=[asked.fileno()],
                    start_new_session=True,
                )
        told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps([arguments, dict(environment), cwd]).encode()
        with theirs:
            socket.send_fds(self._asking, [request], [theirs.fileno(), out, err])
        return Forked(arguments, told)

    def close(self) -> None:
        """End it; its commands go on."""
        self._asking.close()
        self._asked.close()
        if self._process is not None:
            self._process.wait()


class Forked:
    """A command that was forked, with what `subprocess.Popen` has.

    Attributes:
        args: Its arguments, the module first.
        pid: The id of its process, its session and its group.
        returncode: Its exit code, or minus its signal; None until `poll` or `wait` has seen its end.
        stdin: It reads nothing.
    """

    stdin = None

    def __init__(self, arguments: tuple[str, ...], told: socket.socket) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._told = told
        self.pid = self._number()

    def poll(self) -> int | None:
        """Its exit code, if it has ended."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: After so many seconds.
        """
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = self._number()
            except (BlockingIOError, TimeoutError) as error:
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from error
            self._told.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it was seen to end."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _number(self) -> int:
        """What is said next: by itself its id, by its parent its exit code."""
        if not (said := self._told.recv(32)):
            raise RuntimeError(f"the process from which {self.args[0]} was forked has died")
        return int(said)


def _serve(asking: socket.socket) -> str:
    """Fork commands for as long as somebody can ask; returns in each command, its module."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for their parents
    while True:
        asked, numbers, _, _ = socket.recv_fds(asking, _MOST_BYTES, 3)
        if not asked:
            os._exit(0)
        if os.fork() == 0:
            break
        for number in numbers:
            os.close(number)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asking.close()
    told, out, err = numbers
    teller = socket.socket(fileno=told)
    if command := os.fork():
        _tell_its_end(command, teller, (out, err))
    os.setsid()
    teller.send(str(os.getpid()).encode())
    teller.close()
    for number, usual in ((out, 1), (err, 2)):
        os.dup2(number, usual)
        os.close(number)
    (module, *arguments), environment, cwd = json.loads(asked)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    os.chdir(cwd)
    sys.path[0] = cwd
    sys.argv = [module, *arguments]
    return str(module)


def _tell_its_end(command: int, teller: socket.socket, outputs: tuple[int, int]) -> NoReturn:
    """What a command's parent does."""
    for number in outputs:
        os.close(number)
    _, status = os.waitpid(command, 0)
    with contextlib.suppress(OSError):  # nobody listens any more
        teller.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


if __name__ == "__main__":
    for _name in sys.argv[2:]:
        import_module(_name)
    gc.freeze()
    run_module(_serve(socket.socket(fileno=int(sys.argv[1]))), run_name="__main__", alter_sys=True)
