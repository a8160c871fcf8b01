"""What the source of a rule held when the rule was declared, which a rule without `backfill` does not copy.

A registry has no record of when a tag was pushed. So the source is listed once when such a rule is new or changed, and
the tags go to `mesh.<region>.tags`, where the pushes that are notified go too: the baseline. When notifications may
have been lost, the source is listed again: a tag that the baseline has, with the same digest, is older than the rule.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from datetime import datetime
from typing import NamedTuple

from mesh.log.port import Append, Log
from producer.listing import Found
from schemas import codec, topics
from schemas.envelope import make_id
from schemas.events import Cause, TagState, tag_version_at
from schemas.executions import ExecutionStart
from schemas.names import Digest
from schemas.topology import Place


class Known(NamedTuple):
    """The digest that a tag was known to have, and since when at the latest."""

    digest: Digest
    since: datetime


KnownTags = Mapping[str, Known]  # by `repository:tag`


async def read_known_tags(log: Log, source: Place, wants: Callable[[str], bool]) -> KnownTags:
    """Returns the tags that a place was known to hold, in the repositories that `wants` accepts.

    Reads the tags topic of the place's region from its start: the tags of other places cost little.

    Raises:
        LogError: The log does not return them.
    """
    topic, prefix = topics.tags(source.region), f"{source.name}/"
    known = dict[str, Known]()
    ends = {number: end for number, end in (await log.end(topic)).items() if end}
    if not ends:
        return known
    async with aclosing(log.follow(topic)) as batches:
        async for batch in batches:
            for record in batch.records:
                name = record.key.removeprefix(prefix)
                if name == record.key or not wants(name.rpartition(":")[0]):
                    continue
                known.pop(name, None)
                # control reports a record that cannot be read; here its tag is not known any more
                with suppress(codec.DecodeError):
                    if record.value is not None:
                        state = codec.decode(record.value, TagState)
                        known[name] = Known(state.digest, state.time)
            if all(batch.positions.get(number, 0) >= end for number, end in ends.items()):
                break
    return known


def is_new(found: Found, known: KnownTags, baseline: datetime | None) -> bool:
    """Checks whether a tag got its digest after the baseline, which was listed at the time `baseline`."""
    before = known.get(f"{found.repository}:{found.tag}")
    if before is None or baseline is None or found.descriptor is None:
        return True
    return before.digest != found.descriptor.digest or before.since > baseline


def note_of(found: Found, known: KnownTags, start: ExecutionStart, source: Place) -> Append | None:
    """Returns the record of a tag for the baseline that `start` asks for; None when that is known already.

    Its time is that of the command: a push that is notified while the source is listed is newer.
    """
    if found.descriptor is None or not is_new(found, known, start.time):
        return None
    state = TagState(
        id=make_id("tag", start.execution_id, found.repository, found.tag), time=start.time, origin=source.name,
        place=source.name, repository=found.repository, tag=found.tag, digest=found.descriptor.digest,
        written_by=Cause.LISTING, tag_version=tag_version_at(start.time),
    )  # fmt: skip
    return Append(topics.tags(source.region), state.key, codec.encode(state))
