"""Watches what agents have not read of other regions' events, against the time for which Kafka keeps these."""

from collections.abc import Collection, Iterator

from mesh.control.ports import ControlPorts
from mesh.control.settings import ControlSettings
from mesh.control.status.finding import UnreadEvents
from mesh.errors import LogError
from mesh.log.port import Expiring
from schemas import topics
from schemas.names import Region


class UnreadEventsWatch:
    """Looks from time to time at each pair of regions between which a rule or replica copies."""

    def __init__(self, ports: ControlPorts, settings: ControlSettings) -> None:
        self._ports, self._interval = ports, settings.unread_events_interval
        self._in_gauges = set[tuple[Region, Region]]()
        self.found: Collection[UnreadEvents] = ()
        self.failure: str | None = None  # why the last look did not succeed

    async def run(self) -> None:
        """Looks until cancelled."""
        await self._ports.retry_loop("unread_events").repeat(self.look, self._interval)

    async def look(self) -> None:
        """Looks once.

        Raises:
            LogError: The log does not answer.
        """
        try:
            found = await self._look()
        except LogError as error:
            self.failure = str(error)
            raise
        self.found, self.failure = found, None
        self._set_gauges(found)

    async def _look(self) -> list[UnreadEvents]:
        pairs = sorted(set(self._pairs()))
        log = self._ports.log
        used = {name(source) for _, source in pairs for name in (topics.events, topics.bulk)}
        missing = await log.missing(sorted(used))  # topics of a region that was declared just now
        found = list[UnreadEvents]()
        for region, source in pairs:
            groups = {
                topics.events(source): topics.events_group(region, source),
                topics.bulk(source): topics.bulk_group(region, source),
            }
            expiring = [
                await log.expiring(group, topic) for topic, group in groups.items() if topic not in missing
            ]
            found += self._between(region, source, [one for one in expiring if one is not None])
        return found

    @staticmethod
    def _between(region: Region, source: Region, some: Collection[Expiring]) -> list[UnreadEvents]:
        if not some:
            return []
        kept_for = min(one.kept_for for one in some)
        return [UnreadEvents(region, source, sum(one.records for one in some), kept_for)]

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
