"""The built-in registry's notifications: the distribution registry's envelopes, sent one by one from memory.

As with the real registry, events that are queued when the registry stops are lost.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import orjson
from aiohttp import web

from mesh.clock import Clock
from mesh.registry.builtin.request_parsing import credentials_in

ENVELOPE = "application/vnd.docker.distribution.events.v1+json"


@dataclass(frozen=True, slots=True)
class Notify:
    """The endpoint of notifications. Its headers may contain a secret."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 1.0  # seconds for one attempt
    backoff: float = 1.0  # seconds between attempts


@dataclass(slots=True)
class _QueuedEvent:
    body: bytes
    attempted: asyncio.Event = field(default_factory=asyncio.Event)


class Notifier:
    """Sends the events in order, each until it is accepted (2xx). Without a `notify` it sends nothing."""

    def __init__(self, notify: Notify | None, *, clock: Clock, new_id: Callable[[], str]) -> None:
        self._notify = notify
        self._clock = clock
        self._new_id = new_id
        self._queue: asyncio.Queue[_QueuedEvent] = asyncio.Queue()
        self._sender: asyncio.Task[None] | None = None
        self._source: dict[str, str] = {}
        self._base = ""

    def start(self, base: str) -> None:
        """Starts sending. `base` is the registry's own URL, for the events."""
        self._base = base
        self._source = {"addr": base.partition("://")[2], "instanceID": self._new_id()}
        if self._notify is not None:
            self._sender = asyncio.create_task(self._send_all(self._notify), name="builtin-registry-notifier")

    async def stop(self) -> None:
        """Stops sending and drops queued events."""
        if self._sender is not None:
            self._sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sender
        self._sender = None
        while not self._queue.empty():
            self._queue.get_nowait().attempted.set()
            self._queue.task_done()

    async def drained(self) -> None:
        """Waits until every event is accepted, or dropped by `stop`."""
        await self._queue.join()

    def announce(self, action: str, request: web.Request, target: Mapping[str, object]) -> asyncio.Event:
        """Queues one event; returns an `asyncio.Event` that is set after the first attempt to send it."""
        queued = _QueuedEvent(orjson.dumps({"events": [self._event(action, request, target)]}))
        if self._notify is None:
            queued.attempted.set()
        else:
            self._queue.put_nowait(queued)
        return queued.attempted

    def _event(self, action: str, request: web.Request, target: Mapping[str, object]) -> dict[str, object]:
        where = target.get("path")
        sender = credentials_in(request)
        shown = {key: value for key, value in target.items() if key != "path"}
        return {
            "id": self._new_id(),
            "timestamp": self._clock.now().isoformat().replace("+00:00", "Z"),
            "action": action,
            "target": shown | ({"url": f"{self._base}{where}"} if where else {}),
            "request": {
                "id": self._new_id(),
                "addr": request.remote or "",
                "host": request.host,
                "method": request.method,
                "useragent": request.headers.get("User-Agent", ""),
            },
            "actor": {"name": sender[0]} if sender else {},
            "source": self._source,
        }

    async def _send_all(self, notify: Notify) -> None:
        timeout = aiohttp.ClientTimeout(total=notify.timeout)
        headers = {**notify.headers, "Content-Type": ENVELOPE}
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(timeout=timeout, headers=headers, cookie_jar=jar) as session:
            while True:
                queued = await self._queue.get()
                try:
                    while not await self._send(session, notify.url, queued):
                        await self._clock.sleep(notify.backoff)
                finally:
                    self._queue.task_done()

    async def _send(self, session: aiohttp.ClientSession, url: str, queued: _QueuedEvent) -> bool:
        try:
            async with session.post(url, data=queued.body, allow_redirects=False) as answer:
                return 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        finally:
            queued.attempted.set()
