"""The agents of other regions, from their heartbeats: the live regions and their relays' addresses.

Only regions with replicas of the same instances are followed, as a blob can come from or go to no other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime

from consumer.blobs.relay.tree import spread
from consumer.ports import AgentPorts
from mesh.errors import LogError
from mesh.log.port import Record
from mesh.log.table import Table
from schemas import codec, topics
from schemas.completions import AGENT_LIVES_FOR, Heartbeat
from schemas.names import Digest, Region

_REGIONS_EVERY = 1.0  # seconds between checks for newly declared regions


class Peers:
    """Follows the heartbeats of other regions while `run` runs. Only live agents are returned."""

    def __init__(
        self,
        ports: AgentPorts,
        unreadable: Callable[[Record, str], Awaitable[None]],
    ) -> None:
        self._ports, self._unreadable = ports, unreadable
        self._region, self._state, self._clock = ports.region, ports.state, ports.clock
        self._live_regions_gauge = ports.metrics.awake_regions.labels(ports.region)
        self._agents: dict[Region, dict[str, tuple[datetime, str | None]]] = {}  # last heartbeat, relay URL
        self._tables: dict[Region, Table] = {}

    async def run(self) -> None:
        """Follows the status topic of each related region, also of those declared later."""
        async with asyncio.TaskGroup() as group:
            while True:
                for region in self._related_regions() - self._tables.keys():
                    if await self._exists(topics.status(region)):
                        group.create_task(self._table(region).run(), name=f"peers {region}")
                self._live_regions_gauge.set(len(self.live_regions()))
                await self._clock.sleep(_REGIONS_EVERY)

    def live_regions(self) -> Collection[Region]:
        """Returns the other regions that have a live agent."""
        return [region for region in self._agents if self._live_agents(region)]

    def relays(self, region: Region, digest: Digest) -> list[str]:
        """Returns the relay URLs of a region's live agents, in an order that depends on the blob."""
        found = {url for url in self._live_agents(region).values() if url is not None}
        return sorted(found, key=lambda url: spread(digest, url))

    def _live_agents(self, region: Region) -> dict[str, str | None]:
        if region not in self._tables:
            return {}
        oldest = self._tables[region].log_time() - AGENT_LIVES_FOR
        return {
            agent: relay for agent, (time, relay) in self._agents.get(region, {}).items() if time > oldest
        }

    def _related_regions(self) -> set[Region]:
        """Returns the other regions with a replica of an instance that has a replica here."""
        replicas = self._state.replicas()
        own_instances = {it.instance for it in replicas if it.region == self._region}
        return {it.region for it in replicas if it.instance in own_instances} - {self._region}

    async def _exists(self, topic: str) -> bool:
        try:
            return not await self._ports.log.missing([topic])
        except LogError:
            return False

    def _table(self, region: Region) -> Table:
        agents = self._agents[region] = {}

        def apply(record: Record) -> None:
            if record.value is None:
                agents.pop(record.key, None)
            elif codec.kind_of(record.value) == Heartbeat.kind:
                beat = codec.decode(record.value, Heartbeat)
                agents[record.key] = record.written_at, beat.relay

        table = self._tables[region] = self._ports.table(topics.status(region), apply, self._unreadable)
        return table
