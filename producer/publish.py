"""Turning events into records of the log. Pure, apart from the clock behind a tag's version."""

from collections.abc import Callable, Iterable

from mesh.clock import Clock
from mesh.log.port import Append
from schemas import topics
from schemas.codec import encode
from schemas.envelope import make_id
from schemas.events import Action, Event, TagState
from schemas.names import Digest, Tag


class TagVersions:
    """Versions in microseconds since 1970. Each is larger than the last, even when the clock is set back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def __call__(self) -> int:
        self._last = max(self._last + 1, int(self._clock.now().timestamp() * 1_000_000))
        return self._last


def records_of(events: Iterable[Event], next_version: Callable[[], int]) -> list[Append]:
    """Returns a record for each event, followed by one for the tag that it changes.

    The deletion of a manifest names no tag, so it changes none. Neither does a push without a digest.
    """
    records: list[Append] = []
    for event in events:
        records.append(Append(topics.events(event.region), event.key, encode(event)))
        if event.tag is None:
            continue
        if event.action is Action.MANIFEST_PUSH and event.digest is not None:
            records.append(_tag_record(event, event.tag, event.digest, next_version()))
        elif event.action is Action.TAG_DELETE:
            records.append(Append(topics.tags(event.region), f"{event.key}:{event.tag}", None))
    return records


def _tag_record(event: Event, tag: Tag, digest: Digest, version: int) -> Append:
    state = TagState(
        id=make_id("tag", event.id),
        time=event.time,
        origin=event.origin,
        hops=event.hops,
        place=event.place,
        repository=event.repository,
        tag=tag,
        digest=digest,
        written_by=event.cause,
        tag_version=version,
    )
    return Append(topics.tags(event.region), state.key, encode(state))
