"""A real server that speaks S3, on loopback, and a proxy before it that counts, delays and refuses."""

import contextlib
import http.client
import re
import socket
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from pyarrow import fs

from ssl_runner.testing.processes import Runs

SERVE = "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
"""What the server takes; it lets any key in unless it is told of its users."""


@contextlib.contextmanager
def serving(environment: dict[str, str] | None = None) -> Iterator[str]:
    """Moto's server, in a process of its own; its URL."""
    with Runs() as runs:
        run = runs.start(code=SERVE, environment=environment)
        run.wait_for(lambda: "Running on http://" in run.stderr)
        found = re.search(r"Running on (http://[\d.:]+)", run.stderr)
        assert found is not None
        yield found[1]


@dataclass
class Fault:
    """What befalls a request before it reaches the server, by its method and path; None: nothing.

    Attributes:
        seconds: How long it waits.
        status: With what it is answered instead; 0: its connection is closed without an answer.
        body: What the answer says.
        headers: And how.
    """

    seconds: float = 0.0
    status: int | None = None
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Proxy:
    """Passes requests on to a server, real sockets on both sides, and notes them.

    Attributes:
        requests: Method and path of each request.
        fault: Says what befalls a request.
    """

    def __init__(self, target: str) -> None:
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str], Fault | None] = lambda method, path: None
        self._host = target.removeprefix("http://")
        self._server = self._start(0)
        self.port = self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Refuse connections from now on, and cut those there are."""
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()

    def open(self) -> None:
        """Accept connections again."""
        self._server = self._start(self.port)

    def _start(self, port: int) -> "_Server":
        server = _Server(("127.0.0.1", port), _handler(self, self._host))
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: object) -> None:
        self.sockets: set[socket.socket] = set()
        super().__init__(*arguments)  # type: ignore[arg-type]

    def process_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        self.sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        self.sockets.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """Close the connections."""
        for each in tuple(self.sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has gone is no error."""


def _handler(proxy: Proxy, host: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            self.upstream = http.client.HTTPConnection(host)

        def finish(self) -> None:
            self.upstream.close()
            super().finish()

        def log_message(self, format: str, *args: object) -> None:
            pass

        def pass_on(self) -> None:
            body = self._body()
            proxy.requests.append((self.command, self.path))
            fault = proxy.fault(self.command, self.path)
            if fault is not None:
                time.sleep(fault.seconds)
                if fault.status == 0:
                    self.close_connection = True
                    return
                if fault.status is not None:
                    self._answer(fault.status, fault.headers, fault.body)
                    return
            # The host too is as the client named it: it is part of the signature.
            self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "transfer-encoding", "content-length"):
                    self.upstream.putheader(name, value)
            self.upstream.putheader("Content-Length", str(len(body)))
            self.upstream.endheaders(body)
            answer = self.upstream.getresponse()
            self._answer(answer.status, dict(answer.getheaders()), answer.read())

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            while self.rfile.readline().strip():  # trailers
                pass
            return b"".join(parts)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            hop_by_hop = ("connection", "transfer-encoding", "server", "date")
            for name, value in headers.items():
                if name.lower() not in hop_by_hop:
                    self.send_header(name, value)
            if "content-length" not in {name.lower() for name in headers}:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


@dataclass(frozen=True)
class Store:
    """A bucket of its own behind a proxy of its own.

    Attributes:
        proxy: What is before the server.
        bucket: The bucket's name.
    """

    proxy: Proxy
    bucket: str

    @classmethod
    def make(cls, server: str) -> "Store":
        """A new bucket."""
        store = cls(Proxy(server), f"bucket-{uuid.uuid4().hex[:8]}")
        request = urllib.request.Request(f"{server}/{store.bucket}", method="PUT")
        urllib.request.urlopen(request).close()
        return store

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return KEYS | {"AWS_ENDPOINT_URL": self.proxy.url, "AWS_EC2_METADATA_DISABLED": "true"}

    @property
    def results(self) -> str:
        """A results folder in it."""
        return f"s3://{self.bucket}/deep/results"

    def filesystem(self) -> fs.FileSystem:
        """As any other program would see it."""
        return fs.S3FileSystem(
            access_key="key", secret_key="secret", region="us-east-1", endpoint_override=self.proxy.url
        )

    def names(self, folder: str = "") -> list[str]:
        """The objects under a folder of the results; not the empty ones that stand for folders."""
        root = f"{self.bucket}/deep/results"
        selector = fs.FileSelector(f"{root}/{folder}".rstrip("/"), recursive=True, allow_not_found=True)
        found = self.filesystem().get_file_info(selector)
        return sorted(info.path.removeprefix(f"{root}/") for info in found if info.is_file)

    def copy_to(self, folder: Path) -> Path:
        """The results as a local folder."""
        fs.copy_files(
            f"{self.bucket}/deep/results",
            str(folder),
            source_filesystem=self.filesystem(),
            destination_filesystem=fs.LocalFileSystem(),
            use_threads=False,
        )
        return folder
