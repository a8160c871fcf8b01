"""What was refused, told on the log: a registry keeps it to itself, and only an operator can mend it.

Whoever refuses a request must not be made to write for each: the first is told at once, what follows every few
seconds, one record for each instance and one for all names that nobody declared beyond the first few.
"""

import asyncio
from collections.abc import Collection
from datetime import datetime

import structlog

from mesh.clock import Clock
from mesh.errors import LogError, clean
from mesh.log.port import Append, Log
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.envelope import make_id
from schemas.names import Region
from schemas.refusals import OTHERS, Refusal

LOG = structlog.get_logger()

_TELL_EVERY = 5.0  # seconds
_MOST_UNDECLARED = 20  # names of nobody's that are told one by one
_LONGEST_NAME = 80
_LONGEST_LEAVE = 2.0  # seconds, of a stop


class Refusals:
    def __init__(self, intake: str, *, log: Log, state: MeshState, clock: Clock) -> None:
        """`intake` is this process's name: each counts what it refused itself."""
        self._intake, self._log, self._state, self._clock = intake, log, state, clock
        self._found: dict[str, Refusal] = {}  # by instance, as last counted
        self._regions: dict[str, Region] = {}  # by instance: where it was told first, and is told on
        self._news = set[str]()  # instances
        self._bell = asyncio.Event()

    def refused(self, instance: str, status: int, reason: str, sender: str | None) -> None:
        """One more."""
        name = self._name(instance)
        now = self._clock.now()
        before = self._found.get(name)
        count = 1 if before is None or before.taken is not None else before.count + 1
        self._tell(
            name,
            Refusal(
                id=self._id(name, now), time=now, intake=self._intake, instance=name, status=status,
                reason=clean(reason, 1024), count=count, last=now, sender=sender,
            ),
        )  # fmt: skip

    def taken(self, instance: str) -> None:
        """One was taken: whatever was wrong is mended."""
        before = self._found.get(instance)
        if before is not None and before.taken is None:
            now = self._clock.now()
            self._tell(
                instance, before.model_copy(update={"id": self._id(instance, now), "time": now, "taken": now})
            )

    async def run(self) -> None:
        """Tell for ever. What the log does not take now is told later, as it stands then.

        A clean stop takes back what was told: it is how what was wrong here is mended, and what still is wrong is
        refused, and told, by whoever comes next.
        """
        try:
            while True:
                await self._bell.wait()
                self._bell.clear()
                await self._tell_news()
                await self._clock.sleep(_TELL_EVERY)
        finally:
            await self._leave()

    async def _tell_news(self) -> None:
        try:
            await self._write({name: region for name in self._news if (region := self._region(name))})
        except LogError as error:
            self._bell.set()
            LOG.warning("refusals are told later", action="refusals_wait", error=str(error))

    async def _leave(self) -> None:
        told = [
            Append(topics.status(region), self._found[name].key, None)
            for name, region in self._regions.items()
        ]
        if not told:
            return
        try:
            async with asyncio.timeout(_LONGEST_LEAVE):
                await self._log.append(told)
        except (LogError, TimeoutError) as error:
            LOG.warning("refusals stay told", action="refusals_stay", error=str(error))

    async def _write(self, regions: dict[str, Region]) -> None:
        told = [self._found[name] for name in regions]
        if told:
            await self._log.append(
                [Append(topics.status(regions[one.instance]), one.key, codec.encode(one)) for one in told]
            )
        self._news -= {one.instance for one in told if self._found[one.instance] is one}

    def _tell(self, name: str, refusal: Refusal) -> None:
        self._found[name] = refusal
        self._news.add(name)
        self._bell.set()

    def _name(self, instance: str) -> str:
        name = clean(instance, _LONGEST_NAME)
        if name in self._found or self._state.instance(instance) is not None:
            return name
        return name if len(self._undeclared()) < _MOST_UNDECLARED else OTHERS

    def _undeclared(self) -> Collection[str]:
        return [name for name in self._found if self._state.instance(name) is None]

    def _region(self, name: str) -> Region | None:
        """The instance's own; of one that nobody declared the first there is. None as long as there is none."""
        declared = {region.name for region in self._state.regions()}
        if self._regions.get(name) not in declared:
            found = self._state.instance(name)
            region = found.region if found is not None else min(declared, default=None)
            if region is None:
                return None
            self._regions[name] = region
        return self._regions[name]

    def _id(self, name: str, now: datetime) -> str:
        return make_id("refusal", self._intake, name, now.isoformat())
