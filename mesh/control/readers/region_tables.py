"""Follows one compacted topic of each declared region into memory, while regions and their logs come and go."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

import structlog

from mesh.control.ports import ControlPorts
from mesh.errors import LogError, LogUnavailable
from mesh.log.port import Record
from mesh.log.table import Table
from schemas.names import Region

S = TypeVar("S")

LOG = structlog.get_logger()

_REGIONS_INTERVAL = 1.0  # seconds between two looks at the declared regions


class RegionTables(Generic[S]):
    """A table of each region. `states` holds, by region, what `apply` has built from the region's records."""

    def __init__(
        self,
        name: str,
        *,
        topic_of: Callable[[Region], str],
        new_state: Callable[[], S],
        apply: Callable[[S, Record], None],
        ports: ControlPorts,
        on_unreadable: Callable[[Record], None] = lambda _: None,
    ) -> None:
        """Follows the topic of each region, and builds its state by `apply`.

        Args:
            name: What a record is, for logs: `<name>_unreadable` and `<name>_waits`.
            topic_of: The topic of a region.
            new_state: Makes the empty state of a region, at each new attempt to follow it.
            apply: Takes one record into the state; raises `DecodeError` for one that cannot be read.
            ports: The log, the declared state and time.
            on_unreadable: Called with each record that cannot be read, after it was logged.
        """
        self.states: dict[Region, S] = {}
        self._name, self._topic_of, self._new_state, self._apply = name, topic_of, new_state, apply
        self._ports, self._on_unreadable = ports, on_unreadable
        self._tables: dict[Region, Table] = {}

    async def run(self) -> None:
        """Follows the topics until cancelled, including those of regions that are declared later."""
        followers: dict[Region, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                declared = {region.name for region in self._ports.state.regions()}
                for region in followers.keys() - declared:
                    followers.pop(region).cancel()
                    self.states.pop(region, None)
                    self._tables.pop(region, None)
                for region in declared - followers.keys():
                    name = f"{self._name} {region}"
                    followers[region] = tasks.create_task(self._follow(region), name=name)
                await self._ports.clock.sleep(_REGIONS_INTERVAL)

    def is_read(self, region: Region) -> bool:
        """Checks whether the region's topic was read to its end once."""
        return region in self._tables and self._tables[region].ready

    def log_time(self, region: Region) -> datetime:
        """Returns the present time by the clock of the log, see `Table.log_time`."""
        return self._tables[region].log_time()

    async def wait_for(self, region: Region, offset: int) -> None:
        """Returns when the record at `offset` is in the region's state. It may wait for ever: use a time-out."""
        await self._tables[region].wait_for(offset)

    async def _follow(self, region: Region) -> None:
        retry = self._ports.retry_loop(self._name)
        topic = self._topic_of(region)
        while True:
            try:
                if await self._ports.log.missing([topic]):
                    raise LogUnavailable(f"the topic {topic} does not exist yet")
                await self._open(topic, region).run()
            except* LogError as group:
                await retry.wait(_first(group))

    def _open(self, topic: str, region: Region) -> Table:
        state = self.states[region] = self._new_state()
        table = self._tables[region] = Table(
            self._ports.log, topic, lambda record: self._apply(state, record), unreadable=self._skip,
            clock=self._ports.clock, random=self._ports.random,
        )  # fmt: skip
        return table

    async def _skip(self, record: Record, reason: str) -> None:
        LOG.warning(
            "a record is unreadable", action=f"{self._name}_unreadable", position=record.position,
            reason=reason,
        )  # fmt: skip
        self._on_unreadable(record)


def _first(group: BaseExceptionGroup[LogError]) -> LogError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
