"""What one connection of a client is doing, and whether it makes progress: pure, `mesh.node.connections` asks it."""

from dataclasses import dataclass
from enum import StrEnum

_LEAST_BYTES = 1024  # of a body within its time-out; a client that sends one byte at a time makes no progress


class Ended(StrEnum):
    """Why this process ended a connection; a label of `regmesh_http_connections_ended_total`."""

    FULL = "full"  # refused: every connection is in use
    REPLACED = "replaced"  # it had no request in progress when a new one needed the room
    HEADERS = "headers"
    BODY = "body"
    SEND = "send"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a listener grants; times are in seconds.

    `headers` is for the headers of one request, `body` for progress of its body, `send` for progress of the response.
    """

    connections: int
    headers: float
    body: float
    send: float


@dataclass(slots=True)
class Activity:
    """What one connection is doing, and since when; times are monotonic."""

    headers_since: (
        float | None
    )  # since when the rest of a request is missing; None in a request and between two
    idle_since: float | None  # since when no request is in progress
    body_since: float | None = None  # since when too little of a body that is awaited arrived
    body_bytes: int = 0  # that arrived since then
    send_since: float | None = None  # since when nothing of the response was taken
    unsent: int = 0  # bytes, at that time

    @classmethod
    def new(cls, now: float) -> "Activity":
        """Returns that of a connection that was just accepted: it owes a request."""
        return cls(headers_since=now, idle_since=now)

    def received(self, size: int, now: float) -> None:
        """Notes that bytes arrived."""
        self.body_bytes += size
        if self.idle_since is not None and self.headers_since is None:
            self.headers_since = now

    def request_started(self) -> None:
        """Notes that the headers of a request are complete."""
        self.headers_since = self.idle_since = self.body_since = None

    def request_ended(self, now: float) -> None:
        """Notes that a request was handled; another may follow."""
        self.idle_since, self.body_since = now, None

    def why_end(self, now: float, limits: Limits, *, awaits_body: bool, unsent: int) -> Ended | None:
        """Returns why the connection has to be ended; None while it makes progress.

        Args:
            now: The time of the check.
            limits: Those of the listener.
            awaits_body: Whether the rest of a body is awaited, and the handler has room for it.
            unsent: Bytes of the response that the client has not taken.
        """
        if not awaits_body:
            self.body_since = None
        elif self.body_since is None or self.body_bytes >= _LEAST_BYTES:
            self.body_since, self.body_bytes = now, 0
        if not unsent or unsent != self.unsent or self.send_since is None:
            self.send_since, self.unsent = now, unsent
        if self.headers_since is not None and now - self.headers_since >= limits.headers:
            return Ended.HEADERS
        if self.body_since is not None and now - self.body_since >= limits.body:
            return Ended.BODY
        if unsent and now - self.send_since >= limits.send:
            return Ended.SEND
        return None
