"""Sending what is unreadable to the dead-letter queue: the bytes, the reason, and the position."""

from mesh.clock import Clock
from mesh.errors import clean
from mesh.log.port import Append, Partition, Record, RecordWriter
from schemas import codec, topics
from schemas.dead_letters import DeadLetter
from schemas.envelope import make_id
from schemas.names import Region

_TRUNCATED = (
    "records from here on were deleted before they were read: retention is shorter than the time that their reader was "
    "away. `regmesh sync` of the rules and replicas concerned copies what the records announced"
)


async def send_to_dlq(
    log: RecordWriter, region: Region, *, raw: bytes, reason: str, position: str, key: str, clock: Clock
) -> None:
    """Writes a dead letter to the region's topic, durably.

    Its id depends on the position and the bytes, so that readers recognise a repeat.

    Raises:
        LogUnavailable: The log did not acknowledge the dead letter.
    """
    dead_letter = DeadLetter(
        id=make_id("dead_letter", position, raw.hex()),
        time=clock.now(),
        reason=clean(reason, 1024),
        position=position,
        payload=DeadLetter.encode_payload(raw),
        payload_size=len(raw),
    )
    await log.append([Append(topics.dead_letters(region), key, codec.encode(dead_letter))])


async def send_record_to_dlq(
    log: RecordWriter, region: Region, record: Record, reason: str, clock: Clock
) -> None:
    """Writes the dead letter of a record of the log, as `send_to_dlq` does."""
    await send_to_dlq(
        log,
        region,
        raw=record.value or b"",
        reason=reason,
        position=record.position,
        key=record.key,
        clock=clock,
    )


def truncation_record(partition: Partition, offset: int, clock: Clock) -> tuple[Record, str]:
    """Returns an empty record that stands for truncated ones from `offset` on, and the reason for its dead letter."""
    return Record(partition, offset, key="", value=None, written_at=clock.now()), _TRUNCATED
