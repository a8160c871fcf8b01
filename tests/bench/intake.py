"""The rate and latency of durable intake: `python -m tests.bench.intake [--log URL] [--rate 2000]`.

A server process (uvloop, the given log, by default SQLite in a temporary folder) receives the load of this process:
keep-alive connections, each notification another event. With `--rate`, notifications are due at fixed times and latency
counts from then, so that a stall shows in full; without it, every connection sends as fast as it is answered.
"""

import argparse
import asyncio
import re
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvloop

from tests.bench import mesh_between, workplace
from tests.bench.table import Options, Row
from tests.support.parts import Process, until

NEEDS: tuple[str, ...] = ()  # Kafka's rows need Kafka
_PORT = re.compile(r"^serving on port (\d+)$", re.MULTILINE)
DIGEST = "sha256:" + "ab" * 32


def notification(number: int) -> bytes:
    """Returns an HTTP request with one event, as a registry sends it."""
    event = {
        "id": f"6f1c0f2e-0000-4000-8000-{number:012d}",
        "timestamp": "2026-03-01T08:00:00.125456789Z",
        "action": "push",
        "target": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "size": 708,
            "digest": DIGEST,
            "length": 708,
            "repository": f"game/server-{number % 200}",
            "url": f"http://127.0.0.1:5001/v2/game/server-{number % 200}/manifests/{DIGEST}",
            "tag": f"1.{number % 1000}",
        },
        "request": {"id": "b7", "addr": "127.0.0.1:40312", "host": "127.0.0.1:5001", "method": "PUT"},
        "actor": {"name": "ci"},
        "source": {"addr": "node:5001", "instanceID": "8a64"},
    }
    body = orjson.dumps({"events": [event]})
    head = (
        "POST /v1/notifications/game-cn HTTP/1.1\r\nHost: intake\r\n"
        "Content-Type: application/vnd.docker.distribution.events.v2+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass(frozen=True)
class LoadPlan:
    """The load on one server: `total` notifications at each of the rates (per second; 0 is unbounded)."""

    total: int = 20_000
    rates: tuple[float, ...] = (0, 2000)
    connections: int = 64


@dataclass
class Load:
    """Notifications over connections that are open."""

    total: int
    rate: float  # notifications a second; 0 = as fast as answered
    sent: int = 0
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    idle: "deque[Connection]" = field(default_factory=deque)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def answered(self, connection: "Connection", ok: bool) -> None:
        """Counts an answer, and sends the next notification when there is no fixed rate."""
        self.seconds.append(time.perf_counter() - connection.due)
        self.refused += not ok
        if len(self.seconds) == self.total:
            self.done.set()
        elif not self.rate and self.sent < self.total:
            self.send(connection, time.perf_counter())
        else:
            self.idle.append(connection)

    def send(self, connection: "Connection", due: float) -> None:
        """Sends the next notification, which was due at `due`."""
        connection.send(notification(self.sent), due)
        self.sent += 1

    async def run(self) -> float:
        """Sends all notifications, and returns the seconds until the last answer."""
        began = time.perf_counter()
        if self.rate:
            await self._paced(began)
        else:
            while self.idle and self.sent < self.total:
                self.send(self.idle.popleft(), began)
        await self.done.wait()
        return time.perf_counter() - began

    async def _paced(self, began: float) -> None:
        while self.sent < self.total:
            due = began + self.sent / self.rate
            if due > time.perf_counter() or not self.idle:
                await asyncio.sleep(0.0005)
            else:
                self.send(self.idle.popleft(), due)


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: Any = None
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # of a class of uvloop
        self._load.idle.append(self)

    def send(self, request: bytes, due: float) -> None:
        """Writes a request that was due at `due`."""
        assert self._transport is not None
        self.due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._load.answered(self, data.startswith(b"HTTP/1.1 202"))


async def measure(port: int, *, total: int, rate: float, connections: int) -> dict[str, float]:
    """Sends the load and returns rate, latencies and refusals."""
    load = Load(total, rate)
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port) for _ in range(connections)
    ]
    seconds = await load.run()
    for transport, _ in opened:
        transport.close()
    load.seconds.sort()
    return {
        "events_per_second": round(total / seconds),
        "p50_ms": round(load.seconds[total // 2] * 1000, 2),
        "p99_ms": round(load.seconds[total * 99 // 100] * 1000, 2),
        "max_ms": round(load.seconds[-1] * 1000, 2),
        "refused": load.refused,
    }


async def serve(log_url: str) -> None:
    """Runs an intake on the log until SIGTERM, and prints its port."""
    from tests.support.intake_site import GAME_CN, serving

    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with serving(log_url) as site:
        await site.declare(GAME_CN)
        print("serving on port", site.url.rpartition(":")[2], flush=True)
        await stopping.wait()


@contextmanager
def serving_on(log_url: str, folder: Path) -> Iterator[int]:
    """An intake in a process of its own; its port."""
    command = [sys.executable, "-m", "tests.bench.intake", "--serve", "--log", log_url]
    server = Process(command, folder / "intake.log")
    try:
        printed = until("the intake", lambda: _PORT.search(server.output()), within=60, needs=[server])
        yield int(printed[1])
    finally:
        server.end()


def figures(log_url: str, folder: Path, load: LoadPlan) -> Iterator[tuple[float, dict[str, float]]]:
    """Yields what was measured at each rate, one after the other against one server."""
    with serving_on(log_url, folder) as port:
        uvloop.run(measure(port, total=max(1, load.total // 20), rate=0, connections=16))  # warm
        for rate in load.rates:
            found = uvloop.run(measure(port, total=load.total, rate=rate, connections=load.connections))
            yield rate, found


def rows(options: Options) -> Iterator[Row]:
    """Yields the rows of the group `intake`."""
    load = LoadPlan(total=500) if options.quick else LoadPlan()
    for log in mesh_between.logs():
        with workplace.on_disk() as folder, ExitStack() as stack:
            embedded = log == mesh_between.EMBEDDED
            url = (
                f"sqlite://{folder}/mesh.db"
                if embedded
                else stack.enter_context(mesh_between.broker(folder)).url
            )
            for rate, found in figures(url, folder, load):
                yield _row(rate, found, f"disk, {log}")


def _row(rate: float, found: dict[str, float], where: str) -> Row:
    assert not found["refused"], f"{found['refused']} notifications were refused"
    measured = (
        f"{found['events_per_second']:.0f} events/s; p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms, "
        f"max {found['max_ms']} ms"
    )
    if not rate:
        return Row("intake, as fast as it answers", where, measured, "2000 events/s")
    return Row(f"intake, {rate:.0f} notifications/s due at fixed times", where, measured, "p99 under 50 ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", help="sqlite:///PATH or kafka://HOST:PORT")
    parser.add_argument("--rate", type=float, action="append", help="notifications a second; may be repeated")
    parser.add_argument("--total", type=int, default=LoadPlan.total)
    parser.add_argument("--connections", type=int, default=LoadPlan.connections)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        uvloop.run(serve(arguments.log))
        return
    load = LoadPlan(arguments.total, tuple(arguments.rate or LoadPlan.rates), arguments.connections)
    with workplace.on_disk() as folder:
        for rate, found in figures(arguments.log or f"sqlite://{folder}/mesh.db", folder, load):
            print(f"rate {rate or 'unbounded'}:", orjson.dumps(found).decode())


if __name__ == "__main__":
    main()
