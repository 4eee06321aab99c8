"""The HTTP side of the loopback Hub: the routes that huggingface_hub calls, with faults on demand."""

import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from hub import lfs, routes
from hub.store import ADA, BOB, READER, Repo, User


@dataclass(frozen=True)
class Request:
    """What a client asked."""

    method: str
    path: str  # unquoted, without the query
    query: str
    user: User | None
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


@dataclass
class Response:
    """What it gets: JSON, or raw bytes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> bytes:
        """The bytes to send."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match."""

    method: str
    pattern: str
    times: int
    status: int = 0
    cut_after: int = 0  # bytes of the body that are read before the connection is cut
    hold: threading.Event | None = None  # set once such a request is here; it is then never answered


class Hub:
    """A Hub on 127.0.0.1. `xet`: with an on-disk xet store; else it speaks LFS only, as many self-hosted ones do."""

    def __init__(self, folder: Path, *, xet: bool = False, part: int | None = None) -> None:
        self.folder = folder
        self.xet = folder / "xet" if xet else None
        self.part = part  # bytes; larger files are uploaded in parts
        self.users = {user.token: user for user in (ADA, BOB, READER)}
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}  # large files, by sha256
        self.parts: dict[tuple[str, int], bytes] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.closing = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.http.shutdown()
        self.http.server_close()

    def fail(self, method: str, pattern: str, status: int, times: int = 1) -> None:
        """Answer the next requests like this with `status`."""
        self.faults.append(Fault(method, pattern, times, status=status))

    def cut(self, method: str, pattern: str, after: int, times: int = 1) -> None:
        """Cut the connection of the next requests like this after so many bytes of their body."""
        self.faults.append(Fault(method, pattern, times, cut_after=after))

    def hold(self, method: str, pattern: str) -> threading.Event:
        """Never answer the next request like this; the event is set when it is here."""
        event = threading.Event()
        self.faults.append(Fault(method, pattern, 1, hold=event))
        return event

    def seen(self, method: str, pattern: str = "") -> list[str]:
        """The paths of such requests, in order, answered or not."""
        return [r.path for r in self.requests if r.method == method and re.search(pattern, r.path)]

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes | None]:
        """What a revision holds; None for a large file in the xet store."""
        commit = self.repos[repo].at(revision)
        assert commit is not None
        return {p: f.content if f.sha256 is None else self.blobs.get(f.sha256) for p, f in commit.files.items()}

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that this request runs into."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def answer(self, request: Request) -> Response:
        """Route a request."""
        with self.lock:
            for method, pattern, route in ROUTES:
                if method == request.method and (found := re.fullmatch(pattern, request.path)):
                    return route(self, request, **found.groupdict())
        return Response(404, {"error": "Not Found"})


REPO = r"(?P<repo>[^/]+/[^/]+)"
Route = Callable[..., Response]
ROUTES: list[tuple[str, str, Route]] = [
    ("GET", "/api/whoami-v2", routes.whoami),
    ("POST", "/api/repos/create", routes.create),
    ("POST", "/api/validate-yaml", routes.validate),
    ("POST", f"/api/models/{REPO}/preupload/(?P<revision>.+)", routes.preupload),
    ("POST", f"/api/models/{REPO}/commit/(?P<revision>.+)", routes.commit),
    ("POST", f"/api/models/{REPO}/branch/(?P<branch>.+)", routes.branch),
    ("GET", f"/api/models/{REPO}/refs", routes.refs),
    ("GET", f"/api/models/{REPO}/tree/(?P<revision>.+)", routes.tree),
    ("GET", f"/api/models/{REPO}/xet-(?P<kind>read|write)-token/(?P<revision>.+)", lfs.xet_token),
    ("GET", f"/api/models/{REPO}(/revision/(?P<revision>.+))?", routes.info),
    ("POST", f"/{REPO}\\.git/info/lfs/objects/batch", lfs.batch),
    ("PUT", "/storage/(?P<oid>[0-9a-f]{64})", lfs.put),
    ("PUT", "/storage/(?P<oid>[0-9a-f]{64})/(?P<part>[0-9]+)", lfs.put_part),
    ("POST", "/storage/(?P<oid>[0-9a-f]{64})/complete", lfs.complete),
    ("POST", "/lfs/verify", lfs.verify),
    ("HEAD", f"/{REPO}/resolve/(?P<revision>refs/pr/[0-9]+|[^/]+)/(?P<path>.+)", routes.resolve),
    ("GET", f"/{REPO}/resolve/(?P<revision>refs/pr/[0-9]+|[^/]+)/(?P<path>.+)", routes.resolve),
]


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """The request handler of one Hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _body(self, most: int | None = None) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                length = int(self.headers.get("Content-Length", 0))
                return self.rfile.read(length if most is None else min(most, length))
            body = b""
            while (size := int(self.rfile.readline(), 16)) and (most is None or len(body) < most):
                body += self.rfile.read(size)
                self.rfile.readline()
            if most is None:
                self.rfile.readline()
            return body

        def _any(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            fault = hub.fault(self.command, path)
            body = self._body(fault.cut_after if fault and not fault.status else None)
            request = Request(self.command, path, parts.query, hub.users.get(token), dict(self.headers), body)
            hub.requests.append(request)
            if fault and not fault.status:
                if fault.hold:
                    fault.hold.set()
                    hub.closing.wait(60)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault:
                response = Response(fault.status, {"error": "told to fail"})
            elif token and request.user is None:
                said = "Invalid credentials in Authorization header"
                response = Response(401, {"error": said}, {"X-Error-Message": said})
            else:
                response = hub.answer(request)
            self.send_response(response.status)
            headers = {"Content-Length": str(len(response.raw)), "Content-Type": "application/json"}
            for name, value in {**headers, **response.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(response.raw)

        do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
