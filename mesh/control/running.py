"""What runs now: agents that live and tasks in progress, followed from the status topics of all regions into memory."""

import asyncio
from collections.abc import Callable, Iterable
from datetime import timedelta

import structlog

from mesh.clock import Clock
from mesh.control.patience import Patience
from mesh.errors import LogError, LogUnavailable
from mesh.log.port import Log, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.completions import Heartbeat, Progress
from schemas.names import Region

LOG = structlog.get_logger()

LIVES_FOR = timedelta(seconds=30)  # after its last heartbeat; they come every 10 s
_LOOK_FOR_REGIONS = 1.0  # seconds


class Running:
    """A view. Of a task whose agent fell silent nothing is shown: another agent begins it anew."""

    def __init__(
        self, *, log: Log, state: MeshState, clock: Clock, metrics: Metrics, random: Callable[[], float]
    ) -> None:
        self._log, self._state, self._clock = log, state, clock
        self._metrics, self._random = metrics, random
        self._seen: dict[Region, dict[str, Heartbeat | Progress]] = {}

    def agents(self) -> list[Heartbeat]:
        """Those that live."""
        oldest = self._clock.now() - LIVES_FOR
        return [one for one in self._all() if isinstance(one, Heartbeat) and one.time > oldest]

    def tasks(self) -> list[Progress]:
        """Those that a living agent works on."""
        living = {heartbeat.agent for heartbeat in self.agents()}
        return [one for one in self._all() if isinstance(one, Progress) and one.agent in living]

    def place_state(self, place: str, region: Region) -> str | None:
        """`Ready`, or `Failed: reason`, as the agents see a place; those of its region know best. None = unknown."""
        told = {
            (agent.region != region, agent.places[place]) for agent in self.agents() if place in agent.places
        }
        return min(told)[1] if told else None  # among equals `Failed` sorts before `Ready`

    async def run(self) -> None:
        """Follow for ever, also the regions that are declared later."""
        followers: dict[Region, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                declared = {region.name for region in self._state.regions()}
                for region in followers.keys() - declared:
                    followers.pop(region).cancel()
                    self._seen.pop(region, None)
                for region in declared - followers.keys():
                    followers[region] = tasks.create_task(self._follow(region), name=f"status {region}")
                await self._clock.sleep(_LOOK_FOR_REGIONS)

    async def _follow(self, region: Region) -> None:
        patience = Patience("running", self._clock, self._random)
        topic = topics.status(region)
        while True:
            try:
                if await self._log.missing([topic]):
                    raise LogUnavailable(f"the topic {topic} does not exist yet")
                await self._table(topic, region).run()
            except* LogError as group:
                await patience.wait(_first(group))

    def _table(self, topic: str, region: Region) -> Table:
        seen = self._seen[region] = {}

        def apply(record: Record) -> None:
            if record.value is None:
                seen.pop(record.key, None)
            else:
                seen[record.key] = _decoded(record.value)

        return Table(self._log, topic, apply, unreadable=self._ignore, clock=self._clock, random=self._random)

    async def _ignore(self, record: Record, reason: str) -> None:
        """Status passes: a record that cannot be read is told of, and its successor will be read."""
        self._metrics.dead_letters.labels(record.partition.topic).inc()
        LOG.warning("status unreadable", action="status_unreadable", position=record.position, reason=reason)

    def _all(self) -> Iterable[Heartbeat | Progress]:
        return [one for seen in self._seen.values() for one in seen.values()]


def _first(group: BaseExceptionGroup[LogError]) -> LogError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _decoded(raw: bytes) -> Heartbeat | Progress:
    if codec.kind_of(raw) == Heartbeat.kind:
        return codec.decode(raw, Heartbeat)
    return codec.decode(raw, Progress)
