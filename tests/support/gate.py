"""An HTTP proxy in front of a registry, as ingresses are: it can answer by itself, hold a request, or lose an answer.

It knows nothing of the product: the standard library alone, in threads. What it forwards it forwards as it is, with the
registry's own address in `Location` and `Link` headers replaced by its own.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}
_PIECE = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What the gate answers instead of the registry."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


NOT_FOUND_PAGE = Answer(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
BAD_GATEWAY = Answer(502, b"<html><h1>502 Bad Gateway</h1></html>", {"Content-Type": "text/html"})
WEB_PAGE = Answer(200, b"<html><body>Please sign in</body></html>", {"Content-Type": "text/html"})

Rule = Callable[[str, str], Answer | None]  # of method and path; None forwards
Note = Callable[[str, str, bytes, int], None]  # of method, path, the request's body and the answer's status


class Gate:
    """Listens on `url`. `rule` may be changed while it runs."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target)
        self.rule: Rule = lambda method, path: None
        self.hold: Callable[[str, str], float] = lambda method, path: 0.0  # seconds before it is forwarded
        self.requests: list[tuple[str, str]] = []  # in the order in which they came
        self.answered: list[tuple[str, str]] = []  # in the order in which they were answered
        self.note: Note = lambda method, path, body, status: None  # called after each answer
        gate = self

        class Handler(_Handler):
            owner = gate

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True, name="gate").start()

    def answers(self, answer: Answer) -> None:
        """Answers everything with `answer` until `opens`."""
        self.rule = lambda method, path: answer

    def opens(self) -> None:
        """Forwards everything again."""
        self.rule = lambda method, path: None

    def close(self) -> None:
        """Stops listening; requests under way are left to end by themselves."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of clients that were killed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Gate
    status = 0  # of the last answer

    def _serve(self) -> None:
        gate = self.owner
        gate.requests.append((self.command, self.path))
        pieces = list(self._body())  # read before anything is answered, so that the connection stays usable
        if (seconds := gate.hold(self.command, self.path)) > 0:
            time.sleep(seconds)
        answer = gate.rule(self.command, self.path)
        if answer is None:
            self._forward(pieces)
        else:
            self._send(answer.status, list(answer.headers.items()), answer.body)
        gate.answered.append((self.command, self.path))
        gate.note(self.command, self.path, b"".join(pieces), self.status)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815 - http.server calls these

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length") or 0)
        while left:
            piece = self.rfile.read(min(left, _PIECE))
            if not piece:
                return
            left -= len(piece)
            yield piece

    def _forward(self, pieces: list[bytes]) -> None:
        target = self.owner.target
        connection = HTTPConnection(str(target.hostname), target.port, timeout=120)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            headers |= {"Host": target.netloc}
            if pieces or self.command in ("PUT", "POST", "PATCH"):
                headers["Content-Length"] = str(sum(map(len, pieces)))
            connection.request(self.command, self.path, iter(pieces) if pieces else None, headers)
            answer = connection.getresponse()
            kept = [
                (name, self._ours(value))
                for name, value in answer.getheaders()
                if name.lower() not in _HOP_BY_HOP
            ]
            self._send(answer.status, kept, answer.read())
        except OSError:
            self._send(502, [], b"")
        finally:
            connection.close()

    def _ours(self, value: str) -> str:
        target = self.owner.target
        return value.replace(f"{target.scheme}://{target.netloc}", self.owner.url)

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        try:
            self.send_response_only(status)
            named = {name.lower() for name, _ in headers}
            for name, value in headers:
                self.send_header(name, value)
            if "content-length" not in named:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        except OSError:
            self.close_connection = True  # the client went away

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Says nothing."""


@contextmanager
def gate(target: str) -> Iterator[Gate]:
    """A gate in front of the registry at `target`, closed at the end."""
    made = Gate(target)
    try:
        yield made
    finally:
        made.close()
