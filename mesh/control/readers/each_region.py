"""One table for each declared region, for as long as the region is declared and while its log comes and goes."""

import asyncio
from collections.abc import Callable

from mesh.clock import Clock
from mesh.control.patience import Patience
from mesh.errors import LogError, LogUnavailable
from mesh.log.port import Log
from mesh.log.table import Table
from mesh.rules.state import MeshState
from schemas.names import Region

_LOOK_FOR_REGIONS = 1.0  # seconds


class EachRegion:
    """Follows `topic_of(region)` by the table that `open_table` makes for each try; `close` is told when one goes."""

    def __init__(
        self,
        step: str,
        *,
        topic_of: Callable[[Region], str],
        open_table: Callable[[str, Region], Table],
        close: Callable[[Region], object],
        log: Log,
        state: MeshState,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._step, self._topic_of, self._open, self._close = step, topic_of, open_table, close
        self._log, self._state, self._clock, self._random = log, state, clock, random

    async def run(self) -> None:
        """Follow for ever, also the regions that are declared later."""
        followers: dict[Region, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                declared = {region.name for region in self._state.regions()}
                for region in followers.keys() - declared:
                    followers.pop(region).cancel()
                    self._close(region)
                for region in declared - followers.keys():
                    name = f"{self._step} {region}"
                    followers[region] = tasks.create_task(self._follow(region), name=name)
                await self._clock.sleep(_LOOK_FOR_REGIONS)

    async def _follow(self, region: Region) -> None:
        patience = Patience(self._step, self._clock, self._random)
        topic = self._topic_of(region)
        while True:
            try:
                if await self._log.missing([topic]):
                    raise LogUnavailable(f"the topic {topic} does not exist yet")
                await self._open(topic, region).run()
            except* LogError as group:
                await patience.wait(_first(group))


def _first(group: BaseExceptionGroup[LogError]) -> LogError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
