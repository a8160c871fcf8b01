"""What could not be read is kept for a human: the bytes, the reason, and where it stood."""

from mesh.clock import Clock
from mesh.errors import clean
from mesh.log.port import Append, Log, Partition, Record
from schemas import codec, topics
from schemas.dead_letters import DeadLetter
from schemas.envelope import make_id
from schemas.names import Region

_GONE = (
    "records from here on were gone before they were read: the log kept them for less time than their reader was away. "
    "`regmesh sync` of the rules and replicas concerned brings what they told of"
)


async def send_to_dlq(
    log: Log, region: Region, *, raw: bytes, reason: str, position: str, key: str, clock: Clock
) -> None:
    """Write the dead letter of `raw` to the region's topic, durably; `LogUnavailable` when it cannot.

    Its id comes from the position and the bytes: burying the same again makes a repeat that a reader can see.
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


async def send_record_to_dlq(log: Log, region: Region, record: Record, reason: str, clock: Clock) -> None:
    """The same of a record of the log."""
    await send_to_dlq(
        log,
        region,
        raw=record.value or b"",
        reason=reason,
        position=record.position,
        key=record.key,
        clock=clock,
    )


def gap(partition: Partition, offset: int, clock: Clock) -> tuple[Record, str]:
    """What is buried for records that nobody can read any more, from `offset` on, and the reason."""
    return Record(partition, offset, key="", value=None, written_at=clock.now()), _GONE
