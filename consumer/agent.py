"""An agent: the tasks of one region, from the log to the registries and back to the log.

Composed here and nowhere else: one group for each source region (so that a region whose log is away holds up no
other), one set of lanes, one copier. Stopping goes from the inside out: read no more, let copies finish within the
drain time, write their ends, commit, leave.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from consumer.blobs.relay.serve import Relay
from consumer.blobs.transfers import NO_RELAY, RelayAccess, TransferLimits, Transfers
from consumer.image.admission import Admission
from consumer.image.public_only import PublicView
from consumer.image.tag_owners import TagOwners
from consumer.pipeline import backlog
from consumer.pipeline.consume import Consume, Window
from consumer.pipeline.heartbeat import Reporter
from consumer.pipeline.in_progress import InProgressTasks
from consumer.pipeline.lanes import Lanes
from consumer.pipeline.live_agents import LiveAgents
from consumer.pipeline.park import Parking
from consumer.pipeline.retry_policy import Patience
from consumer.pipeline.task_runner import Worker
from consumer.places import Places
from consumer.progress import TaskRun
from mesh.clock import Clock
from mesh.concurrency import close_all
from mesh.errors import LogError, RegmeshError
from mesh.log.dead_letters import send_record_to_dlq
from mesh.log.port import Log, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules import boundary
from mesh.rules.state import MeshState
from mesh.rules.stops import Stops
from schemas import topics
from schemas.completions import Side
from schemas.names import PlaceName, Region
from schemas.topology import Place

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Limits of one agent. Times in seconds."""

    tasks_per_destination: int = 8
    bulk_tasks_per_destination: int = 6  # beside them, of what listings found
    transfers: TransferLimits = field(default_factory=TransferLimits)
    drain: float = 25.0  # how long running copies may take to finish when the agent is told to stop
    heartbeat_every: float = 10.0
    look_every: float = 30.0  # at the registries
    progress_every: float = 1.0
    regions_every: float = 1.0  # how soon a newly declared region is consumed, and an instance looked at
    patience: Patience = field(default_factory=Patience)
    window: Window = field(default_factory=Window)


class Agent:
    """`run` until cancelled or told to `stop`."""

    def __init__(
        self,
        *,
        name: str,
        region: Region,
        mesh_log: Log,
        state: MeshState,
        table: Table,
        places: Places,
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
        settings: AgentSettings,
        access: RelayAccess = NO_RELAY,
    ) -> None:
        self._region, self._log, self._state, self._table = region, mesh_log, state, table
        self._places, self._clock, self._metrics, self._settings = places, clock, metrics, settings
        self._reporter = Reporter(agent=name, region=region, log=mesh_log, relay=access.url, now=clock.now)
        begun, live_agents, stops = InProgressTasks(), LiveAgents(), Stops()
        self._stops = stops
        self._parking = Parking(
            agent=name, region=region, log=mesh_log, state=state, live_agents=live_agents, stops=stops,
            patience=settings.patience, clock=clock, metrics=metrics, random=random,
        )  # fmt: skip

        def apply_status(record: Record) -> None:
            begun.apply(record)
            live_agents.apply(record)

        follow = partial(Table, mesh_log, clock=clock, random=random)
        self._statuses = follow(topics.status(region), apply_status, unreadable=self._send_to_dlq)
        self._parked = follow(topics.retry(region), self._parking.apply, unreadable=self._send_to_dlq)
        self._commands = follow(topics.COMMANDS, lambda it: stops.apply(it.value), unreadable=_ignore)
        self._transfers = Transfers(
            region=region, log=mesh_log, state=state, places=places, access=access, limits=settings.transfers,
            agents_here=lambda: len(live_agents.names(clock.now())), unreadable=_ignore, clock=clock,
            metrics=metrics, random=random,
        )  # fmt: skip
        self._owners = TagOwners(
            log=mesh_log, region=region, state=state, unreadable=_ignore, clock=clock, random=random
        )
        public = PublicView(
            lambda task: places.anonymous(task.source),
            lambda task: places.registry(task.source, Side.SOURCE),
            clock,
        )
        admission = Admission(state=state, public=public, owners=self._owners)
        self._worker = Worker(
            log=mesh_log, places=places, copier=self._transfers.copier, reporter=self._reporter, begun=begun,
            admission=admission, parking=self._parking, patience=settings.patience, clock=clock,
            metrics=metrics, random=random,
        )  # fmt: skip
        self._looked_at: list[Place] = []
        self._last_look = -settings.look_every
        self._stopping = asyncio.Event()
        self._consumers: dict[str, Consume] = {}  # by topic

    @property
    def relay(self) -> Relay:
        """To be served by whoever listens for this process."""
        return self._transfers.relay

    def stop(self) -> None:
        """Begin the drain; `run` returns when it is over."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until stopped. No event is judged before the rules known at the start were read to their end."""
        await self._log.ensure([topics.status(self._region), topics.retry(self._region), topics.COMMANDS])
        lanes = Lanes(
            self._run_in_turn,
            supersede=self._worker.supersede,
            stops=self._stops,
            permits_per_destination=self._settings.tasks_per_destination,
            bulk_permits_per_destination=self._settings.bulk_tasks_per_destination,
            clock=self._clock,
        )
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(work) for work in self._beside(lanes)]
                await self._table.caught_up()
                await self._statuses.caught_up()
                await self._commands.caught_up()
                await self._parked.caught_up()
                beside.append(group.create_task(self._parking.run(lanes), name="parked tasks"))
                await self._consume_all(lanes)
                finished = await lanes.drain(self._settings.drain)
                log.info("drained", action="drained", region=self._region, finished=finished)
                for task in beside:
                    task.cancel()
            await self._leave()
        finally:
            ours = self._owners, self._transfers, self._places
            await close_all(partial(lanes.drain, 0), self._leave_groups, *(it.close for it in ours))

    async def _run_in_turn(self, run: TaskRun) -> None:
        async with self._owners.turn(run.task):
            await self._worker.run(run)

    def _beside(self, lanes: Lanes) -> list[Coroutine[None, None, None]]:
        return [
            self._statuses.run(),
            self._commands.run(),
            self._parked.run(),
            self._owners.run(),
            *self._transfers.background(),
            self._every(self._settings.heartbeat_every, partial(self._beat, lanes)),
            self._every(self._settings.heartbeat_every, self._report_lags),
            self._every(self._settings.progress_every, self._progress),
            self._every(self._settings.regions_every, partial(self._look, lanes)),
            _raise_when_failed(lanes),
        ]

    async def _consume_all(self, lanes: Lanes) -> None:
        """Two for each region there is, its pushes and its listings; a region that is declared later gets them too."""
        async with asyncio.TaskGroup() as group:
            while not self._stopping.is_set():
                for region, topic, name in self._sources():
                    if topic not in self._consumers and (
                        consume := await self._join(region, topic, name, lanes)
                    ):
                        self._consumers[topic] = consume
                        group.create_task(consume.run(self._stopping), name=f"consume {topic}")
                await self._wait(self._settings.regions_every)

    def _sources(self) -> Iterator[tuple[Region, str, str]]:
        """Region, topic and the name of our group on it."""
        for region in (declared.name for declared in self._state.regions()):
            yield region, topics.events(region), f"mesh.{self._region}.agent.from.{region}"
            yield region, topics.bulk(region), f"mesh.{self._region}.agent.bulk.from.{region}"

    async def _join(self, source_region: Region, topic: str, name: str, lanes: Lanes) -> Consume | None:
        try:
            if await self._log.missing([topic]):
                await self._log.ensure([topic])
            group = await self._log.group(name, [topic])
        except RegmeshError as error:
            log.warning(
                "cannot read a region's events", action="join", source_region=source_region, error=str(error)
            )
            return None
        return Consume(
            region=self._region, source_region=source_region, group=group, send_to_dlq=self._send_to_dlq,
            state=self._state, table=self._table, lanes=lanes, ahead=self._transfers.prefetcher.put,
            park_running=self._parking.park_running, clock=self._clock, metrics=self._metrics,
            window=self._settings.window,
        )  # fmt: skip

    async def _send_to_dlq(self, record: Record, reason: str) -> None:
        self._metrics.dead_letters.labels(record.partition.topic).inc()
        await send_record_to_dlq(self._log, self._region, record, reason, self._clock)

    async def _beat(self, lanes: Lanes) -> None:
        await self._reporter.beat(
            rules_rev=self._table.rev,
            running=len(self._worker.running),
            places=self._places.states(),
            waiting=backlog.count(lanes.entries(), self._parking.ours()),
        )

    async def _report_lags(self) -> None:
        """Apart from the heartbeat, which nothing may keep back: an agent without one counts as gone."""
        await asyncio.gather(*(_unless_away(it.report_lag) for it in self._consumers.values()))

    async def _look(self, lanes: Lanes) -> None:
        """At the registries, from time to time, and at once when other ones are declared."""
        used = self._used_places()
        near = [place for place in self._state.places() if self._may_be_near(place, used)]
        now = self._clock.monotonic()
        if used == self._looked_at and now - self._last_look < self._settings.look_every:
            return
        self._looked_at, self._last_look = used, now
        if await self._places.look(used, beside=near):
            await self._beat(lanes)  # a place that went or came back is shown at once

    async def _progress(self) -> None:
        await self._reporter.progress(self._worker.running)

    def _used_places(self) -> list[Place]:
        """Those of this region, and the sources of what ends here."""
        here = {place.name: place for place in self._state.places() if place.region == self._region}
        sources = dict[PlaceName, Place]()
        for rule in (*self._state.rules(), *self._state.replica_rules()):
            if rule.destination in here and (source := self._state.place(rule.source)) is not None:
                sources[source.name] = source
        return list((sources | here).values())

    def _may_be_near(self, place: Place, used: Sequence[Place]) -> bool:
        """Another place of an instance that is copied from here, on this side of the border."""
        mirrored = {it.instance for it in used}
        here = boundary.crossing(self._state, self._region, place.region) is None
        return place not in used and place.instance in mirrored and here

    async def _every(self, seconds: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await act()
            except LogError as error:
                log.warning("a report waits for the log", action="log_away", error=str(error))
            await self._clock.sleep(seconds)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _leave(self) -> None:
        """All at once: where the log is away each takes as long as it waits for it."""
        settling = (_unless_away(it.settle) for it in self._consumers.values())
        await asyncio.gather(*settling, _unless_away(self._reporter.leave))

    async def _leave_groups(self) -> None:
        """However we end, so that others take over at once."""
        await asyncio.gather(*(_unless_away(it.close) for it in self._consumers.values()))


async def _ignore(record: Record, reason: str) -> None:
    """Control buries what it cannot read of these; here it stops nothing."""
    log.warning("command unreadable", action="command_unreadable", position=record.position, reason=reason)


async def _raise_when_failed(lanes: Lanes) -> None:
    await lanes.failed


async def _unless_away(ask: Callable[[], Awaitable[None]]) -> None:
    try:
        await ask()
    except LogError as error:
        log.warning("the log is away", action="log_away", error=str(error))
