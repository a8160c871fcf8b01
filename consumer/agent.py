"""An agent: the tasks of one region, from the log to the registries and back to the log.

This is its composition root, with one consumer group for each source region (so that a region whose log is away holds
up no other), one set of lanes and one blob copier. It stops from the inside out: it reads no more, lets tasks finish
within the drain time, writes their ends, commits, and leaves its groups.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from functools import partial

import structlog
from cachetools import LRUCache

from consumer.blobs.relay.access import NO_RELAY, RelayAccess
from consumer.blobs.relay.serve import Relay
from consumer.blobs.transfers import Transfers
from consumer.image.admission import Admission, PublicView
from consumer.image.job import Services
from consumer.image.tag_owners import TagOwners
from consumer.pipeline.consume import Consume
from consumer.pipeline.heartbeat import Reporter, count_backlog, count_rule_backlog
from consumer.pipeline.lanes import Lanes
from consumer.pipeline.park import Parking
from consumer.pipeline.region_status import RegionStatus
from consumer.pipeline.task_runner import TaskRunner
from consumer.ports import AgentPorts
from consumer.settings import AgentSettings
from mesh.concurrency import close_all, finishes, in_turns
from mesh.errors import LogError, RegmeshError
from mesh.log.dead_letters import send_record_to_dlq
from mesh.log.port import Record
from mesh.retry import RetryLoop, until_log_available
from mesh.rules import boundary
from mesh.rules.stops import Stops
from schemas import topics
from schemas.completions import Side
from schemas.names import PlaceName, Region
from schemas.topology import Place

LOG = structlog.get_logger()

_MOST_SUBJECTS = 10_000  # a few MiB; a forgotten one is read again
_MOST_COUNTED = 50_000  # blobs of dry runs


class Agent:
    """Runs the tasks of one region."""

    def __init__(self, ports: AgentPorts, settings: AgentSettings, access: RelayAccess = NO_RELAY) -> None:
        self._ports, self._settings = ports, settings
        self._state, self._places, self._clock = ports.state, ports.places, ports.clock
        region, dlq = ports.region, self._send_to_dlq
        status, self._stops = RegionStatus(lambda: self._statuses.log_time()), Stops()  # noqa: PLW0108 - it is made below
        self._parking = Parking(ports, status=status, stops=self._stops, policy=settings.parking)
        self._statuses = ports.table(topics.status(region), status.apply, dlq)
        self._parked = ports.table(topics.retry(region), self._parking.apply, dlq)
        self._commands = ports.table(topics.COMMANDS, lambda it: self._stops.apply(it.value), _ignore)
        self._transfers = Transfers(
            ports, settings.transfers, access, agents_here=lambda: len(status.live_agents()),
            unreadable=_ignore,
        )  # fmt: skip
        self._owners = TagOwners(ports, unreadable=_ignore)
        self._reporter = Reporter(ports, access.url)
        self._runner = TaskRunner(
            ports, self._services(), owners=self._owners, status=status, reporter=self._reporter,
            parking=self._parking, retry_policy=settings.retries.policy,
        )  # fmt: skip
        self._used_places: list[Place] = []
        self._near_places: list[Place] = []
        self._seen_changes = -1  # of the state, when these were found
        self._checked_places: list[Place] = []
        self._last_check = -settings.places_every
        self._stopping = asyncio.Event()
        self._consumers: dict[str, Consume] = {}  # by topic

    def _services(self) -> Services:
        public = PublicView(
            lambda task: self._places.anonymous(task.source),
            lambda task: self._places.registry(task.source, Side.SOURCE),
            self._clock,
        )
        return Services(
            copier=self._transfers.copier,
            admission=Admission(state=self._state, public=public, owners=self._owners, clock=self._clock),
            mark_in_progress=lambda run: self._reporter.progress([run]),
            clock=self._clock,
            limits=self._settings.images,
            subjects=LRUCache(_MOST_SUBJECTS),
            counted=LRUCache(_MOST_COUNTED),
        )

    @property
    def relay(self) -> Relay:
        """Returns the agent's relay, to be served by the process's HTTP server."""
        return self._transfers.relay

    def stop(self) -> None:
        """Starts the drain; `run` returns when it is over."""
        self._stopping.set()

    async def run(self) -> None:
        """Consumes until stopped. No event is matched before the rules known at the start are read to their end."""
        region = self._ports.region
        lanes = Lanes(
            self._runner.run,
            supersede=self._runner.supersede,
            stops=self._stops,
            permits_per_destination=self._settings.tasks_per_destination,
            bulk_permits_per_destination=self._settings.bulk_tasks_per_destination,
            clock=self._clock,
        )
        try:
            if not await finishes(self._ensure_topics(), self._stopping):
                return
            async with asyncio.TaskGroup() as group:
                background = [group.create_task(work) for work in self._background(lanes)]
                if await finishes(self._catch_up(), self._stopping):
                    background.append(group.create_task(self._parking.run(lanes), name="parked tasks"))
                    await self._consume_all(lanes)
                    finished = await lanes.drain(self._settings.drain)
                    LOG.info("drained", action="drained", region=region, finished=finished)
                for task in background:
                    task.cancel()
            await self._leave()
        finally:
            closing = self._owners, self._transfers, self._places
            await close_all(partial(lanes.drain, 0), self._leave_groups, *(it.close for it in closing))

    async def _ensure_topics(self) -> None:
        region = self._ports.region
        wanted = [topics.status(region), topics.retry(region), topics.COMMANDS]
        await until_log_available(lambda: self._ports.log.ensure(wanted), self._clock)

    async def _catch_up(self) -> None:
        """Reads to its end what was known at the start."""
        for table in (self._ports.rules, self._statuses, self._commands, self._parked):
            await until_log_available(table.caught_up, self._clock)

    def _background(self, lanes: Lanes) -> list[Coroutine[None, None, None]]:
        settings = self._settings
        return [
            self._statuses.run(),
            self._commands.run(),
            self._parked.run(),
            self._owners.run(),
            *self._transfers.background(),
            self._repeat("heartbeat", partial(self._heartbeat, lanes), settings.heartbeat_every),
            self._repeat("lag", self._report_lags, settings.heartbeat_every),
            self._repeat("progress", self._report_progress, settings.progress_every),
            self._repeat("places", partial(self._check_places, lanes), settings.regions_every),
            _raise_when_failed(lanes),
        ]

    async def _repeat(self, step: str, act: Callable[[], Awaitable[None]], every: float) -> None:
        await RetryLoop(step, self._clock, self._ports.random).repeat(act, every)

    async def _consume_all(self, lanes: Lanes) -> None:
        """Consumes the events and the listings of every region, also of those that are declared later."""
        async with asyncio.TaskGroup() as group:
            while not self._stopping.is_set():
                for region, topic, name in self._sources():
                    if topic not in self._consumers and (
                        consume := await self._join(region, topic, name, lanes)
                    ):
                        self._consumers[topic] = consume
                        group.create_task(consume.run(self._stopping), name=f"consume {topic}")
                await self._until_stopping(self._settings.regions_every)

    def _sources(self) -> Iterator[tuple[Region, str, str]]:
        """Region, topic and the name of the agents' group on it."""
        here = self._ports.region
        for region in (declared.name for declared in self._state.regions()):
            yield region, topics.events(region), topics.events_group(here, region)
            yield region, topics.bulk(region), topics.bulk_group(here, region)

    async def _join(self, source_region: Region, topic: str, name: str, lanes: Lanes) -> Consume | None:
        log = self._ports.log
        try:
            if await log.missing([topic]):
                await log.ensure([topic])
            group = await log.group(name, [topic])
        except RegmeshError as error:
            LOG.warning(
                "cannot read a region's events", action="join", source_region=source_region, error=str(error)
            )
            return None
        return Consume(
            self._ports, source_region=source_region, group=group, lanes=lanes, prefetch=self._transfers.prefetcher.put,
            park_running=self._parking.park_running, send_to_dlq=self._send_to_dlq, window=self._settings.window,
        )  # fmt: skip

    async def _send_to_dlq(self, record: Record, reason: str) -> None:
        ports = self._ports
        ports.metrics.dead_letters.labels(record.partition.topic).inc()
        await send_record_to_dlq(ports.log, ports.region, record, reason, ports.clock)

    async def _heartbeat(self, lanes: Lanes) -> None:
        parked, counted = self._parking.counts(), self._parking.counted
        backlog = count_backlog(lanes.entries(), parked, counted)
        rules = count_rule_backlog(lanes.entries(), parked, counted)
        await self._reporter.heartbeat(len(self._runner.running), backlog, rules)

    async def _report_lags(self) -> None:
        """Apart from the heartbeat, which nothing may delay: an agent without one counts as dead."""
        await asyncio.gather(*(_unless_away(it.report_lag) for it in self._consumers.values()))

    async def _report_progress(self) -> None:
        await self._reporter.progress(self._runner.running)

    async def _check_places(self, lanes: Lanes) -> None:
        """Checks the registries from time to time, and at once when the declared ones change."""
        if self._seen_changes != (changes := self._state.changes):
            self._used_places = await self._find_used_places()
            self._near_places = [it async for it in self._find_near_places(self._used_places)]
            self._seen_changes = changes
        used, near, now = self._used_places, self._near_places, self._clock.monotonic()
        if used == self._checked_places and now - self._last_check < self._settings.places_every:
            has_changed = await self._places.check_again(self._settings.failing_places_every)
        else:
            self._checked_places, self._last_check = used, now
            has_changed = await self._places.check(used, nearby=near)
        if self._parked.ready and (returned := self._places.returned()):  # else at the next check
            await self._parking.came_back(returned)
        if has_changed:
            await self._heartbeat(lanes)  # a changed state is shown at once

    async def _find_used_places(self) -> list[Place]:
        """The places of this region, and the sources of what is copied to them."""
        places = in_turns(self._state.places())
        here = {place.name: place async for place in places if place.region == self._ports.region}
        sources = dict[PlaceName, Place]()
        async for rule in in_turns((*self._state.rules(), *self._state.replica_rules())):
            if rule.destination in here and (source := self._state.place(rule.source)) is not None:
                sources[source.name] = source
        return list((sources | here).values())

    async def _find_near_places(self, used: Sequence[Place]) -> AsyncIterator[Place]:
        """From which blobs may be read: other places of used instances, within the boundary."""
        names, mirrored = {it.name for it in used}, {it.instance for it in used}
        async for place in in_turns(self._state.places()):
            is_other = place.instance in mirrored and place.name not in names
            if is_other and boundary.crossing(self._state, self._ports.region, place.region) is None:
                yield place

    async def _until_stopping(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _leave(self) -> None:
        """Concurrently, as each waits for the log while it is away."""
        settling = (_unless_away(it.settle) for it in self._consumers.values())
        await asyncio.gather(*settling, _unless_away(self._reporter.leave))

    async def _leave_groups(self) -> None:
        """However the agent ends, so that other members take over at once."""
        await asyncio.gather(*(_unless_away(it.close) for it in self._consumers.values()))


async def _ignore(record: Record, reason: str) -> None:
    """Control sends what it cannot read of these topics to the dead-letter queue."""
    LOG.warning("record unreadable", action="record_unreadable", position=record.position, reason=reason)


async def _raise_when_failed(lanes: Lanes) -> None:
    await lanes.failed


async def _unless_away(call: Callable[[], Awaitable[None]]) -> None:
    try:
        await call()
    except LogError as error:
        LOG.warning("the log is away", action="log_away", error=str(error))
