"""A whole intake for tests: an HTTP server on a free port, an embedded log, and a table that follows it."""

import asyncio
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry

from mesh.clock import Clock, SystemClock
from mesh.credentials.secrets import Secrets
from mesh.log.port import Append, Log, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.node.engines import open_log
from mesh.rules.state import MeshState
from producer.intake import Intake
from producer.settings import ProducerSettings
from schemas import topics
from schemas.codec import decode, encode
from schemas.dead_letters import DeadLetter
from schemas.declared import Declared
from schemas.envelope import Record as Model
from schemas.envelope import make_id
from schemas.events import Event
from schemas.names import Region
from schemas.state import StateRecord
from schemas.topology import Instance

BEIJING = Region("beijing")
GAME_CN = Instance(name="game-cn", account="game", region="beijing", url="http://127.0.0.1:5001")
GUARDED = GAME_CN.model_copy(update={"intake_secret": "game-cn-intake"})
SECRET = "correct-horse"
ENVIRONMENT = {"REGMESH_SECRET_GAME_CN_INTAKE": SECRET}

M = TypeVar("M", bound=Model)


@dataclass
class Site:
    """An intake that serves, and its log."""

    log: Log
    table: Table
    metrics: Metrics
    clock: Clock
    runner: web.AppRunner
    http: ClientSession
    following: asyncio.Task[None]
    url: str = field(default="", init=False)

    async def declare(self, *things: Declared) -> int:
        """Appends to `mesh.state` and returns the revision, without waiting until it is applied."""
        rev = -1
        for thing in things:
            record = StateRecord(
                id=make_id(thing.key),
                time=self.clock.now(),
                noun=thing.noun,
                value=thing.model_dump(mode="json"),
            )
            (rev,) = await self.log.append([Append(topics.STATE, thing.key, encode(record))])
        return rev

    async def post(
        self, body: bytes, headers: Mapping[str, str] | None = None, to: str = "game-cn"
    ) -> tuple[int, dict[str, object], Mapping[str, str]]:
        """Posts a notification; returns status, JSON body and headers of the answer."""
        url = f"{self.url}/v1/notifications/{to}"
        async with self.http.post(url, data=io.BytesIO(body), headers=headers) as answer:
            return answer.status, await answer.json(), dict(answer.headers)

    async def records(self, topic: str) -> list[Record]:
        """Returns all records that are on `topic` now."""
        if await self.log.missing([topic]):
            return []
        ends = await self.log.end(topic)
        found: list[Record] = []
        async for batch in self.log.follow(topic):
            found += batch.records
            if all(batch.positions[number] >= end for number, end in ends.items()):
                break
        return found

    async def read(self, topic: str, model: type[M]) -> list[M]:
        """Returns the decoded records of `topic`, without tombstones."""
        return [decode(record.value, model) for record in await self.records(topic) if record.value]

    async def events(self) -> list[Event]:
        """Returns the events of Beijing."""
        return await self.read(topics.events(BEIJING), Event)

    async def dead_letters(self) -> list[DeadLetter]:
        """Returns the dead letters of Beijing."""
        return await self.read(topics.dead_letters(BEIJING), DeadLetter)

    def count(self, name: str, **labels: str) -> float:
        """Returns the value of the metric `regmesh_<name>`."""
        return self.metrics.registry.get_sample_value(f"regmesh_{name}", labels) or 0.0


@asynccontextmanager
async def intake_site(
    folder: Path, environment: Mapping[str, str] = ENVIRONMENT, settings: ProducerSettings | None = None
) -> AsyncIterator[Site]:
    """Runs an intake on an embedded log in `folder`, with nothing declared."""
    async with serving(f"sqlite://{folder / 'mesh.db'}", environment, settings) as site:
        yield site


@asynccontextmanager
async def serving(
    log_url: str, environment: Mapping[str, str] = ENVIRONMENT, settings: ProducerSettings | None = None
) -> AsyncIterator[Site]:
    """Runs an intake on the log at `log_url`."""
    clock = SystemClock()
    secrets = Secrets(environment)
    log = await open_log(log_url, clock=clock, secrets=secrets)
    await log.ensure(topics.all_topics([BEIJING]))
    state = MeshState()

    def apply(record: Record) -> None:
        state.apply(record.key, record.value, record.offset)

    async def unreadable(record: Record, reason: str) -> None:
        raise AssertionError(record, reason)

    table = Table(log, topics.STATE, apply, unreadable=unreadable, clock=clock)
    metrics = Metrics(CollectorRegistry())
    intake = Intake(
        log=log,
        state=state,
        table=table,
        secrets=secrets,
        clock=clock,
        metrics=metrics,
        name="intake-1",
        settings=settings,
    )
    app = web.Application()
    intake.routes(app)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    following = asyncio.create_task(table.run())
    reporting = asyncio.create_task(intake.run())
    try:
        async with ClientSession() as http:
            site = Site(log, table, metrics, clock, runner, http, following)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            host, port = runner.addresses[0][:2]
            site.url = f"http://{host}:{port}"
            yield site
    finally:
        await runner.cleanup()
        for task in (following, reporting):
            task.cancel()
        await asyncio.wait([following, reporting])
        await log.close()
