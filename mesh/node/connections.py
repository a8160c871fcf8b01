"""The connections of one HTTP listener: how many there are, and how long a client may keep one without progress.

aiohttp waits for ever for the rest of a request, and accepts connections until the process has no file descriptors
left. So each connection passes through a `GuardedConnection`, which counts what arrives and what the client takes, and
`Connections` ends those that make no progress. No time-out is for a whole transfer: a large blob on a slow link may
take hours, as long as bytes flow.
"""

import asyncio
import fcntl
import struct
import termios
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from mesh.clock import Clock
from mesh.metrics import Metrics
from mesh.node.activity import Activity, Ended, Limits

LOG = structlog.get_logger()

_CHECK_SECONDS = 0.5
_LOG_SECONDS = 10.0  # between two lines about ended connections
_REPLACEABLE_SECONDS = 1.0  # without a request, after which a connection makes room for a new one
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 49\r\n\r\n"
    b'{"error": "too many connections; try again soon"}'
)


class GuardedConnection(asyncio.Protocol):
    """One connection: passes everything on to aiohttp's protocol once it is admitted."""

    def __init__(self, connections: "Connections", serve: Callable[[], asyncio.Protocol], now: float) -> None:
        self.activity = Activity.new(now)
        self.request: web.BaseRequest | None = None  # in progress
        self._connections, self._serve = connections, serve
        self._protocol: asyncio.Protocol | None = None  # None when it was refused
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admits the connection, or refuses it with 503."""
        self._transport = cast(asyncio.Transport, transport)
        if not self._connections.admit():
            self._transport.write(_FULL)
            self._transport.close()
            return
        self._protocol = self._serve()
        self._connections.add(self, self._protocol)
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Counts what arrived."""
        if self._protocol is not None:
            self.activity.received(len(data), self._connections.now())
            self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """Passes the end of the client's data on."""
        return self._protocol.eof_received() if self._protocol is not None else None

    def pause_writing(self) -> None:
        """Passes it on."""
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Passes it on."""
        if self._protocol is not None:
            self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Makes room for another connection."""
        if self._protocol is not None:
            self._connections.remove(self, self._protocol)
            self._protocol.connection_lost(exc)

    def why_end(self, now: float, limits: Limits) -> Ended | None:
        """Returns why the connection has to be ended; None while it makes progress."""
        if self._transport is None:
            return None
        awaits_body = (
            self.request is not None
            and not self.request.content.is_eof()
            and not self._transport.is_closing()
            and self._transport.is_reading()
        )
        return self.activity.why_end(now, limits, awaits_body=awaits_body, unsent=_unsent(self._transport))

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()


class Connections:
    """The open connections of one listener."""

    def __init__(self, name: str, limits: Limits, clock: Clock, metrics: Metrics) -> None:
        """`name` is the listener's, for metrics and log lines."""
        self._name, self._limits, self._clock = name, limits, clock
        self._open: dict[asyncio.Protocol, GuardedConnection] = {}
        self._ending = set[
            GuardedConnection
        ]()  # aborted; their descriptors are free within one turn of the loop
        self._unlogged = Counter[Ended]()
        self._logged_at: float | None = None
        self._count = metrics.http_connections.labels(name)
        self._ended = metrics.http_connections_ended

    def now(self) -> float:
        """Returns the monotonic time."""
        return self._clock.monotonic()

    def guard(self, serve: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Returns the factory of protocols for the listener; `serve` makes aiohttp's."""
        return lambda: GuardedConnection(self, serve, self.now())

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Notes for each connection whether a request is in progress; the outermost middleware."""
        found = self._open.get(request.protocol)
        if found is None:
            return await handler(request)
        found.request = request
        found.activity.request_started()
        try:
            return await handler(request)
        finally:
            found.request = None
            found.activity.request_ended(self.now())

    def admit(self) -> bool:
        """Returns whether one more connection is accepted; a client without a request makes room for it."""
        if len(self._open) - len(self._ending) < self._limits.connections:
            return True
        waits = [
            it for it in self._open.values() if it.activity.idle_since is not None and it not in self._ending
        ]
        oldest = min(waits, key=lambda it: it.activity.idle_since or 0.0, default=None)
        if oldest is None or self.now() - (oldest.activity.idle_since or 0.0) < _REPLACEABLE_SECONDS:
            self._note(Ended.FULL)
            return False
        self._end(oldest, Ended.REPLACED)
        return True

    def add(self, new: GuardedConnection, protocol: asyncio.Protocol) -> None:
        """Adds a connection that was admitted."""
        self._open[protocol] = new
        self._count.set(len(self._open))

    def remove(self, lost: GuardedConnection, protocol: asyncio.Protocol) -> None:
        """Removes a connection that has ended."""
        self._open.pop(protocol, None)
        self._ending.discard(lost)
        self._count.set(len(self._open))

    async def run(self) -> None:
        """Ends connections that make no progress, until cancelled."""
        while True:
            await self._clock.sleep(_CHECK_SECONDS)
            self.check()

    def check(self) -> None:
        """Ends connections that make no progress, and logs once in a while how many were ended."""
        now = self.now()
        for one in list(self._open.values()):
            if one not in self._ending and (reason := one.why_end(now, self._limits)) is not None:
                self._end(one, reason)
        if self._unlogged and (self._logged_at is None or now - self._logged_at >= _LOG_SECONDS):
            LOG.warning(
                "connections of clients were refused or ended", action="http_connections_ended",
                listener=self._name, open=len(self._open), most=self._limits.connections,
                **{str(reason): count for reason, count in self._unlogged.items()},
            )  # fmt: skip
            self._unlogged.clear()
            self._logged_at = now

    def _end(self, one: GuardedConnection, reason: Ended) -> None:
        self._note(reason)
        self._ending.add(one)
        one.abort()

    def _note(self, reason: Ended) -> None:
        self._unlogged[reason] += 1
        self._ended.labels(self._name, reason.value).inc()


class GuardedSite(web.BaseSite):
    """An address on which connections are guarded."""

    def __init__(self, runner: web.AppRunner, host: str, port: int, connections: Connections) -> None:
        super().__init__(runner)
        self._host, self._port, self._connections = host, port, connections

    @property
    def name(self) -> str:
        """Returns the address as a URL."""
        return f"http://{self._host}:{self._port}"

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: The address cannot be listened on.
        """
        await super().start()
        serve = cast(Callable[[], asyncio.Protocol], self._runner.server)
        self._server = await asyncio.get_running_loop().create_server(
            self._connections.guard(serve), self._host, self._port, backlog=128, start_serving=True
        )


def _unsent(transport: asyncio.Transport) -> int:
    """Returns the bytes that the client has not acknowledged: ours and those in the kernel's buffer."""
    waiting = transport.get_write_buffer_size()
    with suppress(OSError, AttributeError, ValueError):
        number = transport.get_extra_info("socket").fileno()
        answer = fcntl.ioctl(number, termios.TIOCOUTQ, struct.pack("i", 0))
        waiting += struct.unpack("i", answer)[0]
    return waiting
