"""Watches what agents have not read of other regions' events, against the time for which Kafka keeps these."""

from collections.abc import Collection, Iterator

from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.status.finding import UnreadEvents
from mesh.errors import LogError, LogUnavailable
from mesh.log.port import Expiring
from schemas import topics
from schemas.names import Region


class UnreadEventsWatch:
    """Looks from time to time at each pair of regions between which a rule or replica copies."""

    def __init__(self, ports: ControlPorts, settings: ControlSettings) -> None:
        self._ports, self._interval = ports, settings.unread_events_interval
        self._in_gauges = set[tuple[Region, Region]]()
        self.found: Collection[UnreadEvents] = ()

    async def run(self) -> None:
        """Looks until cancelled."""
        await self._ports.retry_loop("unread_events").repeat(self.look, self._interval)

    async def look(self) -> None:
        """Looks once.

        Raises:
            LogError: The log does not answer.
        """
        found = [
            one
            for region, source in sorted(set(self._pairs()))
            for one in await self._between(region, source)
        ]
        self.found = found
        self._set_gauges(found)

    async def _between(self, region: Region, source: Region) -> list[UnreadEvents]:
        expiring = [
            await self._expiring(topics.events_group(region, source), topics.events(source)),
            await self._expiring(topics.bulk_group(region, source), topics.bulk(source)),
        ]
        some = [one for one in expiring if one is not None]
        if not some:
            return []
        kept_for = min(one.kept_for for one in some)
        return [UnreadEvents(region, source, sum(one.records for one in some), kept_for)]

    async def _expiring(self, group: str, topic: str) -> Expiring | None:
        try:
            return await self._ports.log.expiring(group, topic)
        except LogUnavailable:
            raise
        except LogError:  # a region that was declared just now has no topics yet
            return None

    def _pairs(self) -> Iterator[tuple[Region, Region]]:
        state = self._ports.state
        for rule in (*state.rules(), *state.replica_rules()):
            source, destination = state.place(rule.source), state.place(rule.destination)
            if rule.enabled and source is not None and destination is not None:
                yield destination.region, source.region

    def _set_gauges(self, found: Collection[UnreadEvents]) -> None:
        gauge = self._ports.metrics.unread_expiring
        for pair in self._in_gauges - {(one.region, one.source) for one in found}:
            gauge.remove(*pair)
        for one in found:
            gauge.labels(one.region, one.source).set(one.records)
        self._in_gauges = {(one.region, one.source) for one in found}
