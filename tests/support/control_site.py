"""A whole control for tests, with log, table, database and HTTP server, and receivers of webhooks."""

import asyncio
import io
import secrets as randomness
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry
from standardwebhooks import Webhook as Verifier

from mesh.clock import Clock, SystemClock
from mesh.control import LOCAL_ONLY, ApiAccess, Control
from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.credentials.hosts import SecretHosts
from mesh.credentials.secrets import Secrets
from mesh.log.port import Append, Log, Record
from mesh.log.sqlite import open_log
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import topics
from schemas.codec import encode
from schemas.completions import Completion, Status, TaskError
from schemas.envelope import make_id


class EveryHost(Collection[str]):
    """The hosts of a secret that an operator named for all of them."""

    def __contains__(self, _: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
KEY = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
KEY_FOR_EVERY_HOST = {"ci-key": EveryHost()}  # receivers choose their ports after control has started
# In seconds. Nothing is trimmed by age, since completions have a date of their own.
QUICK = ControlSettings(
    webhook_timeout=2.0, webhook_first_wait=0.02, webhook_longest_wait=0.05,
    sync_log_retention=3.0e9, execution_retention=3.0e9,
)  # fmt: skip

MESH: dict[str, Any] = {
    "regions": [
        {"name": "beijing", "jurisdiction": "cn-mainland"},
        {"name": "frankfurt", "jurisdiction": "global"},
    ],
    "instances": [
        {"name": "game-cn", "account": "game", "region": "beijing", "url": "http://127.0.0.1:5001"},
        {"name": "game-eu", "account": "game", "region": "frankfurt", "url": "http://127.0.0.1:5002"},
    ],
    "rules": [{"name": "release-to-eu", "source": "game-cn", "destination": "game-eu"}],
}


def completion(number: int = 1, status: Status = Status.SUCCEED, **changes: Any) -> Completion:
    """Returns the completion of task `number`, which ended so many seconds after 08:00."""
    end = NOW + timedelta(seconds=number)
    fields = {
        "task_id": f"task-{number:04}", "execution_id": "execution-1", "rule": "release-to-eu", "account": "game",
        "destination_account": "game", "source_place": "game-cn", "destination_place": "game-eu",
        "source_region": "beijing", "destination_region": "frankfurt", "repository": "game/server",
        "destination_repository": "game/server", "tag": "1.0-global", "digest": DIGEST, "status": status,
        "resource_type": "image", "start_time": NOW, "end_time": end, "time": end, "bytes_total": 10,
        "bytes_transferred": 7, "bytes_skipped": 3, "lag_ms": 1000 * number, "rules_rev": 5, "origin": "game-cn",
    }  # fmt: skip
    if status in (Status.FAILED, Status.SKIPPED):
        fields["error"] = TaskError(code="unreachable", side="source", message="no answer")
    fields |= changes
    return Completion(id=make_id("completion", fields["task_id"], fields["status"]), **fields)


@dataclass
class Site:
    """A control that serves, and its log."""

    log: Log
    state: MeshState
    table: Table
    metrics: Metrics
    ports: ControlPorts
    control: Control
    http: ClientSession
    url: str

    async def report(self, *completions: Completion) -> None:
        """Appends completions as agents do."""
        await self.log.append(
            [Append(topics.completions(one.destination_region), one.key, encode(one)) for one in completions]
        )

    async def logs(self, **query: str) -> list[dict[str, Any]]:
        """Returns sync log entries."""
        async with self.http.get(f"{self.url}/api/v1/logs", params=query) as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.json())["items"]

    async def call(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **more: Any
    ) -> tuple[int, Any]:
        """Sends a request with a JSON `body` or `raw` bytes; returns the status and the JSON of the answer."""
        headers = {"Content-Type": "application/json"} | more.pop("headers", {})
        data = (
            io.BytesIO(orjson.dumps(body) if raw is None else raw)
            if raw is not None or body is not None
            else None
        )
        async with self.http.request(method, self.url + path, data=data, headers=headers, **more) as answer:
            text = await answer.read()
            return answer.status, orjson.loads(text) if text else None


@asynccontextmanager
async def control_site(
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    secret_hosts: SecretHosts = KEY_FOR_EVERY_HOST,
    clock: Clock | None = None,
    settings: ControlSettings = QUICK,
    database: str | None = None,
    access: ApiAccess = LOCAL_ONLY,
    running: bool = True,
) -> AsyncIterator[Site]:
    """Runs control on an embedded log in `folder`; run again on the same folder it acts as the next process."""
    clock = clock or SystemClock()
    secrets = Secrets({} if environment is None else environment, hosts=secret_hosts)
    log = await open_log(folder / "mesh.db", clock=clock)
    await log.ensure([topics.STATE])
    state, metrics = MeshState(), Metrics(CollectorRegistry())

    def apply(record: Record) -> None:
        state.apply(record.key, record.value, record.offset)

    async def unreadable(record: Record, reason: str) -> None:
        raise AssertionError(record, reason)

    table = Table(log, topics.STATE, apply, unreadable=unreadable, clock=clock)
    ports = ControlPorts(log=log, state=state, clock=clock, metrics=metrics, random=lambda: 0.5)
    control = Control(
        ports, table=table, secrets=secrets, database=database or f"sqlite:///{folder / 'control.db'}",
        settings=settings, access=access,
    )  # fmt: skip
    app = web.Application()
    control.routes(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    tasks = [asyncio.create_task(table.run())]
    if running:
        tasks.append(asyncio.create_task(control.run()))
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with ClientSession() as http:
            yield Site(log, state, table, metrics, ports, control, http, f"http://127.0.0.1:{port}")
    finally:
        await runner.cleanup()
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await control._database.close()
        await log.close()


@dataclass
class Receiver:
    """Answers each request with the next status of `answers`, and with 204 after these; for 0 it never answers."""

    answers: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.Response:
        """Answers one request."""
        self.requests.append((dict(request.headers), await request.read()))
        status = self.answers.pop(0) if self.answers else 204
        if not status:
            await asyncio.sleep(3600)
        headers = {"Location": f"{self.url}/elsewhere"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=headers)

    def verified(self, key: str = KEY) -> list[dict[str, Any]]:
        """Returns the bodies of all requests; raises when one was not signed with `key`."""
        return [Verifier(key).verify(body, headers) for headers, body in self.requests]


@asynccontextmanager
async def receiver(*answers: int) -> AsyncIterator[Receiver]:
    """Runs a receiver on a free port."""
    made = Receiver(list(answers))
    app = web.Application()
    # A path of its own, because somebody may still call a server that had this port before.
    own = f"/{randomness.token_hex(4)}"
    app.router.add_route("*", own + "{path:.*}", made.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}{own}"
    try:
        yield made
    finally:
        await runner.cleanup()


async def until(holds: Callable[[], bool | Awaitable[bool]], timeout: float = 10.0) -> None:
    """Waits until `holds` is true; raises TimeoutError after `timeout` seconds."""
    async with asyncio.timeout(timeout):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)
