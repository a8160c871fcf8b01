"""Reporting refused notifications on the log: the registry keeps the refusal to itself, and only an operator can act.

A sender of many bad requests must not cause as many writes: the first refusal is reported at once, later ones every few
seconds, in one record for each instance and one for all undeclared names after the first few.
"""

import asyncio
from collections.abc import Collection
from datetime import datetime

import structlog

from mesh.clock import Clock
from mesh.errors import LogError, clean
from mesh.log.port import Append, RecordWriter
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.envelope import make_id
from schemas.names import Region
from schemas.refusals import OTHERS, Refusal

LOG = structlog.get_logger()

_MAX_UNDECLARED = 20  # undeclared names with a record of their own
_MAX_NAME = 80  # characters
_WITHDRAW_TIMEOUT = 2.0  # seconds, when the process stops


class RefusalReporter:
    """Counts the refusals of one intake by instance, and reports the counts."""

    def __init__(
        self, intake: str, *, log: RecordWriter, state: MeshState, clock: Clock, interval: float
    ) -> None:
        """`intake` is the name of this process; `interval` is in seconds."""
        self._intake, self._log, self._state, self._clock = intake, log, state, clock
        self._interval = interval
        self._counted: dict[str, Refusal] = {}  # the latest by instance
        self._regions: dict[
            str, Region
        ] = {}  # by instance: the region of the first report; later ones go there too
        self._unreported = set[str]()  # instances
        self._changed = asyncio.Event()

    def count_refused(self, instance: str, status: int, reason: str, sender: str | None) -> None:
        """Counts one refusal."""
        name = self._name(instance)
        now = self._clock.now()
        before = self._counted.get(name)
        count = 1 if before is None or before.taken is not None else before.count + 1
        self._update(
            name,
            Refusal(
                id=self._id(name, now), time=now, intake=self._intake, instance=name, status=status,
                reason=clean(reason, 1024), count=count, last=now, sender=sender,
            ),
        )  # fmt: skip

    def note_accepted(self, instance: str) -> None:
        """Notes that a notification was accepted, so that earlier refusals of `instance` are over."""
        before = self._counted.get(instance)
        if before is not None and before.taken is None:
            now = self._clock.now()
            self._update(
                instance, before.model_copy(update={"id": self._id(instance, now), "time": now, "taken": now})
            )

    async def run(self) -> None:
        """Reports until cancelled; what the log does not accept now is reported later.

        A clean stop withdraws all reports: a restart is how a fault of this process is repaired, and what is still
        refused afterwards is reported by the next process.
        """
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._report()
                await self._clock.sleep(self._interval)
        finally:
            await self._withdraw()

    async def _report(self) -> None:
        try:
            await self._write({name: region for name in self._unreported if (region := self._region(name))})
        except LogError as error:
            self._changed.set()
            LOG.warning("refusals are reported later", action="refusals_wait", error=str(error))

    async def _withdraw(self) -> None:
        reports = [
            Append(topics.status(region), self._counted[name].key, None)
            for name, region in self._regions.items()
        ]
        if not reports:
            return
        try:
            async with asyncio.timeout(_WITHDRAW_TIMEOUT):
                await self._log.append(reports)
        except (LogError, TimeoutError) as error:
            LOG.warning("refusals were not withdrawn", action="refusals_not_withdrawn", error=str(error))

    async def _write(self, regions: dict[str, Region]) -> None:
        reports = [self._counted[name] for name in regions]
        if reports:
            await self._log.append(
                [Append(topics.status(regions[it.instance]), it.key, codec.encode(it)) for it in reports]
            )
        self._unreported -= {it.instance for it in reports if self._counted[it.instance] is it}

    def _update(self, name: str, refusal: Refusal) -> None:
        self._counted[name] = refusal
        self._unreported.add(name)
        self._changed.set()

    def _name(self, instance: str) -> str:
        name = clean(instance, _MAX_NAME)
        if name in self._counted or self._state.instance(instance) is not None:
            return name
        return name if len(self._undeclared()) < _MAX_UNDECLARED else OTHERS

    def _undeclared(self) -> Collection[str]:
        return [name for name in self._counted if self._state.instance(name) is None]

    def _region(self, name: str) -> Region | None:
        """Returns the instance's region, or the first region for an undeclared one; None while no region exists."""
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
