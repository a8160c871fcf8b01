"""Reads topics as a consumer group, so that several controls share the work.

Each turn reads, takes and commits. After any failure the group is left and joined again, and reading goes on from the
last commit. So the same records may come twice, and taking them twice must change nothing.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import structlog

from mesh.control.ports import ControlPorts
from mesh.errors import DatabaseRefused, DatabaseUnavailable, LogError
from mesh.log.dead_letters import send_record_to_dlq, truncation_record
from mesh.log.port import Group, Partition, Record
from mesh.retry import RetryLoop
from mesh.rules.state import MeshState
from schemas import codec
from schemas.names import Region

LOG = structlog.get_logger()

_MAX_RECORDS = 500
_POLL_INTERVAL = 0.5  # seconds
_GATHER = 0.05  # seconds to gather more records after a turn, since each turn costs a few transactions
_TOPICS_INTERVAL = 5.0  # seconds between two looks for topics that do not exist yet

Topics = Mapping[str, Region]  # the region whose dead-letter queue gets a topic's unreadable records

T = TypeVar("T")


class GroupReader(Generic[T]):
    """Reads the records of some topics in the group `control.<step>`."""

    def __init__(
        self,
        step: str,
        *,
        record_name: str,
        topics: Callable[[], Topics],
        decode: Callable[[Record, Region], T],
        take: Callable[[Sequence[T]], Awaitable[None]],
        ports: ControlPorts,
    ) -> None:
        """Reads `topics` through `decode` into `take`.

        Args:
            step: Names the consumer group and the log action `<step>_waits`.
            record_name: What a record is, for the log action `<record_name>_unreadable`.
            topics: Returns the topics to read now; asked again in each turn.
            decode: Decodes a record; one for which it raises `DecodeError` is sent to the dead-letter queue.
            take: Takes the decoded records; after `LogError` or `DatabaseUnavailable` it gets them again.
            ports: The log, the declared state, time and metrics.
        """
        self._step, self._record_name, self._topics = step, record_name, topics
        self._decode, self._take, self._ports = decode, take, ports
        self._log, self._clock = ports.log, ports.clock

    async def run(self) -> None:
        """Reads until cancelled, while topics, log and database come and go."""
        retry = self._ports.retry_loop(self._step)
        while True:
            try:
                await self._read_current_topics(retry)
            except (LogError, DatabaseUnavailable) as error:
                await retry.wait(error)

    async def _read_current_topics(self, retry: RetryLoop) -> None:
        """Joins the group for the topics that exist, and reads until the topics change."""
        topics = self._topics()
        missing = await self._missing(topics)
        if not topics.keys() - missing:
            await self._clock.sleep(_POLL_INTERVAL)
            return
        group = await self._log.group(f"control.{self._step}", sorted(topics.keys() - missing))
        try:
            looked = self._clock.monotonic()
            while self._topics() == topics:
                await self._turn(group, topics)
                retry.reset()
                if missing and self._clock.monotonic() - looked > _TOPICS_INTERVAL:
                    looked = self._clock.monotonic()
                    if await self._missing(missing) != missing:
                        return
        finally:
            await group.close()

    async def _missing(self, wanted: Iterable[str]) -> frozenset[str]:
        return frozenset(await self._log.missing(sorted(wanted)))

    async def _turn(self, group: Group, topics: Topics) -> None:
        for partition, offset in group.truncated().items():
            region = topics[partition.topic]
            await send_record_to_dlq(
                self._log, region, *truncation_record(partition, offset, self._clock), self._clock
            )
        records = await group.read(max_records=_MAX_RECORDS, timeout=_POLL_INTERVAL)
        group.revoked()  # to be cleared; nothing is kept from one turn to the next
        if records:
            await self._take_all(await self._decoded(records, topics), topics)
            await group.commit(_next_offsets(records))
        if 0 < len(records) < _MAX_RECORDS:
            await self._clock.sleep(_GATHER)

    async def _take_all(self, decoded: Sequence[tuple[Record, T]], topics: Topics) -> None:
        """Takes what was read; what the database can never store is sent to the dead-letter queue."""
        try:
            await self._take([one for _, one in decoded])
        except DatabaseRefused:
            for record, one in decoded:
                try:
                    await self._take([one])
                except DatabaseRefused as error:
                    await self._send_to_dlq(record, topics, str(error))

    async def _decoded(self, records: Sequence[Record], topics: Topics) -> Sequence[tuple[Record, T]]:
        found = []
        for record in records:
            try:
                found.append((record, self._decode(record, topics[record.partition.topic])))
            except codec.DecodeError as error:
                await self._send_to_dlq(record, topics, error.reason)
        return found

    async def _send_to_dlq(self, record: Record, topics: Topics, reason: str) -> None:
        await send_record_to_dlq(self._log, topics[record.partition.topic], record, reason, self._clock)
        self._ports.metrics.dead_letters.labels(record.partition.topic).inc()
        LOG.warning(
            "a record is unreadable", action=f"{self._record_name}_unreadable", position=record.position,
            reason=reason,
        )  # fmt: skip


def topic_of_each_region(topic_of: Callable[[Region], str], state: MeshState) -> Callable[[], Topics]:
    """Returns a function that returns the topics of all declared regions."""
    return lambda: {topic_of(region.name): region.name for region in state.regions()}


def _next_offsets(records: Sequence[Record]) -> Mapping[Partition, int]:
    """The records of a partition come in order, so its last one decides."""
    return {record.partition: record.offset + 1 for record in records}
