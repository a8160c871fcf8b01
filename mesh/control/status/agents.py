"""What runs now: agents that live and tasks in progress, followed from the status topics of all regions into memory.

And what intakes refused, which they tell there too.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta

import structlog

from mesh.clock import Clock
from mesh.control.readers.each_region import EachRegion
from mesh.log.port import Log, Record
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.completions import AGENT_LIVES_FOR, Heartbeat, Progress
from schemas.names import Region
from schemas.refusals import Refusal

LOG = structlog.get_logger()

_Told = Heartbeat | Progress | Refusal
_KINDS: Mapping[str, type[_Told]] = {model.kind: model for model in (Heartbeat, Progress, Refusal)}
_SILENT_FOR = timedelta(days=1)  # until nobody wants to know of an agent, or of a task that nobody ended


class Running:
    """A view. Of a task whose agent fell silent nothing is shown: another agent begins it anew."""

    def __init__(
        self, *, log: Log, state: MeshState, clock: Clock, metrics: Metrics, random: Callable[[], float]
    ) -> None:
        self._log, self._clock, self._metrics, self._random = log, clock, metrics, random
        self._regions = EachRegion(
            "running", topic_of=topics.status, open_table=self._table,
            close=self._close, log=log, state=state, clock=clock, random=random,
        )  # fmt: skip
        self._seen: dict[Region, dict[str, _Told]] = {}
        self._tables: dict[Region, Table] = {}
        self._left: dict[Region, Heartbeat] = {}  # the last word of the one that left last

    def agents(self) -> list[Heartbeat]:
        """Those that live."""
        oldest = self._clock.now() - AGENT_LIVES_FOR
        return [one for one in self._all() if isinstance(one, Heartbeat) and one.time > oldest]

    def knows(self, region: Region) -> bool:
        """What its agents said was read to its end; before that one that lives may not be known yet."""
        return region in self._tables and self._tables[region].ready

    def of_region(self, region: Region) -> tuple[bool, list[Heartbeat]]:
        """Whether an agent lives there, and what those say that do; when none does, what the last ones said."""
        live_agents = [one for one in self.agents() if one.region == region]
        if live_agents:
            return True, live_agents
        known = [one for one in self._seen.get(region, {}).values() if isinstance(one, Heartbeat)]
        if (left := self._left.get(region)) is not None:
            known.append(left)
        newest = max((one.time for one in known), default=None)
        return False, [one for one in known if newest is not None and one.time > newest - AGENT_LIVES_FOR]

    def tasks(self) -> list[Progress]:
        """Those that a living agent works on."""
        live_agents = {heartbeat.agent for heartbeat in self.agents()}
        return [one for one in self._all() if isinstance(one, Progress) and one.agent in live_agents]

    def refusals(self) -> list[Refusal]:
        """What intakes refused, one for each intake and name; of the last day at least."""
        return [one for one in self._all() if isinstance(one, Refusal)]

    def place_state(self, place: str, region: Region) -> str | None:
        """`Ready`, or `Failed: reason`, as the agents see a place; those of its region know best. None = unknown."""
        told = {
            (agent.region != region, agent.places[place]) for agent in self.agents() if place in agent.places
        }
        return min(told)[1] if told else None  # among equals `Failed` sorts before `Ready`

    async def run(self) -> None:
        """Follow for ever, also the regions that are declared later."""
        await self._regions.run()

    def _table(self, topic: str, region: Region) -> Table:
        seen = self._seen[region] = {}

        def apply(record: Record) -> None:
            if record.value is None:
                if isinstance(gone := seen.pop(record.key, None), Heartbeat):
                    self._left[region] = gone
                return
            told = _decoded(record.value)
            if isinstance(told, Heartbeat | Refusal) and record.key not in seen:
                _forget(seen, told.time - _SILENT_FOR)
            seen[record.key] = told

        table = Table(
            self._log, topic, apply, unreadable=self._ignore, clock=self._clock, random=self._random
        )
        self._tables[region] = table
        return table

    def _close(self, region: Region) -> None:
        self._seen.pop(region, None)
        self._left.pop(region, None)
        self._tables.pop(region, None)

    async def _ignore(self, record: Record, reason: str) -> None:
        """Status passes: a record that cannot be read is told of, and its successor will be read."""
        self._metrics.dead_letters.labels(record.partition.topic).inc()
        LOG.warning("status unreadable", action="status_unreadable", position=record.position, reason=reason)

    def _all(self) -> Iterable[_Told]:
        return [one for seen in self._seen.values() for one in seen.values()]


def _forget(seen: dict[str, _Told], oldest: datetime) -> None:
    """What was said before: each start of an agent has a name of its own, and one that was killed takes none back."""
    for key in [key for key, one in seen.items() if one.time < oldest]:
        del seen[key]


def _decoded(raw: bytes) -> _Told:
    return codec.decode(raw, _KINDS.get(codec.kind_of(raw), Progress))
