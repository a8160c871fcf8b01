"""The agents of other regions, by their heartbeats: which regions are awake, and where their relays are.

Followed are only the regions that a blob may come from, or go on to: those of the same instances' replicas.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

from consumer.blobs.relay.tree import spread
from mesh.clock import Clock
from mesh.errors import LogError
from mesh.log.port import Log, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.completions import AGENT_LIVES_FOR, Heartbeat
from schemas.names import Digest, Region

_LOOK_EVERY = 1.0  # seconds; for regions that are declared later


class Peers:
    """Follows while `run` runs; told are only those that live."""

    def __init__(
        self,
        *,
        region: Region,
        log: Log,
        state: MeshState,
        unreadable: Callable[[Record, str], Awaitable[None]],
        clock: Clock,
        metrics: Metrics,
        random: Callable[[], float],
    ) -> None:
        self._awake = metrics.awake_regions.labels(region)
        self._region, self._log, self._state = region, log, state
        self._unreadable, self._clock, self._random = unreadable, clock, random
        self._followed: set[Region] = set()
        self._seen: dict[Region, dict[str, tuple[datetime, str | None]]] = {}

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                for region in self._wanted() - self._followed:
                    if await self._is_there(topics.status(region)):
                        self._followed.add(region)
                        group.create_task(self._table(region).run(), name=f"peers {region}")
                self._awake.set(len(self.awake()))
                await self._clock.sleep(_LOOK_EVERY)

    def awake(self) -> Collection[Region]:
        """Regions, but for our own, where an agent lives."""
        return [region for region in self._seen if self._live_agents(region)]

    def relays(self, region: Region, digest: Digest) -> list[str]:
        """Where to ask for a blob: the addresses of a region's agents, in an order that depends on the blob."""
        found = {url for url in self._live_agents(region).values() if url is not None}
        return sorted(found, key=lambda url: spread(digest, url))

    def _live_agents(self, region: Region) -> dict[str, str | None]:
        oldest = self._clock.now() - AGENT_LIVES_FOR
        return {agent: relay for agent, (time, relay) in self._seen.get(region, {}).items() if time > oldest}

    def _wanted(self) -> set[Region]:
        """Where replicas stand whose instances have one here too."""
        replicas = self._state.replicas()
        ours = {it.instance for it in replicas if it.region == self._region}
        return {it.region for it in replicas if it.instance in ours} - {self._region}

    async def _is_there(self, topic: str) -> bool:
        try:
            return not await self._log.missing([topic])
        except LogError:
            return False

    def _table(self, region: Region) -> Table:
        seen = self._seen[region] = {}

        def apply(record: Record) -> None:
            if record.value is None:
                seen.pop(record.key, None)
            elif codec.kind_of(record.value) == Heartbeat.kind:
                beat = codec.decode(record.value, Heartbeat)
                seen[record.key] = beat.time, beat.relay

        return Table(
            self._log, topics.status(region), apply, unreadable=self._unreadable, clock=self._clock,
            random=self._random,
        )  # fmt: skip
