"""What an agent says of itself on `mesh.<region>.status`: that it lives, what its places are like, what runs."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from consumer.pipeline.complete import make_progress
from consumer.progress import TaskRun
from mesh.log.port import Append, Log
from schemas import codec, topics
from schemas.completions import Heartbeat, Waiting
from schemas.envelope import make_id
from schemas.names import PlaceName, Region


class Reporter:
    """Writes the agent's records; the agent decides when."""

    def __init__(
        self,
        *,
        agent: str,
        region: Region,
        log: Log,
        relay: Callable[[], str | None],
        now: Callable[[], datetime],
    ) -> None:
        self._agent, self._region, self._log, self._relay, self._now = agent, region, log, relay, now
        self._topic = topics.status(region)
        self._writing = asyncio.Lock()

    async def beat(
        self,
        *,
        rules_rev: int,
        running: int,
        places: Mapping[PlaceName, str],
        waiting: Mapping[PlaceName, Waiting],
    ) -> None:
        now = self._now()
        heartbeat = Heartbeat(
            id=make_id("heartbeat", self._agent, now.isoformat()), time=now, agent=self._agent, region=self._region,
            rules_rev=rules_rev, running=running, places={str(place): state for place, state in places.items()},
            relay=self._relay(), waiting={str(place): one for place, one in waiting.items()},
        )  # fmt: skip
        await self._log.append([Append(self._topic, self._agent, codec.encode(heartbeat))])

    async def progress(self, running: Iterable[TaskRun]) -> None:
        """One record for each running task; its end writes a tombstone over it."""
        async with self._writing:
            now = self._now()
            records = [
                Append(self._topic, run.task.task_id, codec.encode(make_progress(run, self._agent, now)))
                for run in running
            ]
            if records:
                await self._log.append(records)

    async def written(self) -> None:
        """Return when no progress is being written: a tombstone that is written then comes after it."""
        async with self._writing:
            return

    async def leave(self) -> None:
        """A clean end: the agent is gone, and not merely silent."""
        await self._log.append([Append(self._topic, self._agent, None)])
