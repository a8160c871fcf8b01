"""Which digest a place holds under a tag, merged from what registries announced and what agents saw. Pure.

Records of one key come in order, and all of them may come again, also by a reader that does not know yet that it is
alone no more. So what has an older version never counts, and what was read twice in order ends as it ended before.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from schemas.completions import Completion, Status
from schemas.events import Cause, TagState
from schemas.names import Digest, PlaceName, Repository, Tag

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SAME_PUSH = timedelta(minutes=1)  # the most between what an agent and what its registry say of one write
_SURE = (Cause.ARRIVAL, Cause.NOTIFICATION, Cause.LISTING)  # whose word is told of who say the same
_ALREADY_THERE = "already_there"  # the code of a task that found the source's digest at its destination


class Key(NamedTuple):
    place: str
    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class Held:
    """`digest` None: the tag is gone. `written_by` listing: an agent saw it at the source of what it copied."""

    digest: str | None
    since: datetime
    written_by: Cause
    version: int


@dataclass(frozen=True, slots=True)
class Gone:
    at: datetime


@dataclass(frozen=True, slots=True)
class Proven:
    """What the end of a task proves: its word comes by another way, in no order with what is told of the key itself.

    That way is needed: of two records of a tag the log may have compacted away the first, which was the agent's.
    """

    held: Held


def merge(before: Held | None, news: Held | Gone | Proven) -> Held | None:
    """What is known after `news`; `before` itself when that changes nothing."""
    if isinstance(news, Gone):
        return _gone(before, news)
    told = news.held if isinstance(news, Proven) else news
    if before is None:
        return told
    if isinstance(news, Proven) and _is_passed(before, told):
        return before
    if told.version < before.version and not _is_of_same_push(before, told):
        return before
    return _again(before, told) if told.digest == before.digest else told


def _gone(before: Held | None, news: Gone) -> Held | None:
    """A tombstone has no version: it ends what came before it, and nothing that was older then is newer now."""
    if before is None:
        return Held(None, news.at, Cause.NOTIFICATION, 0)
    return before if before.digest is None else Held(None, news.at, before.written_by, before.version)


def _is_passed(before: Held, told: Held) -> bool:
    """It was so, until what is known happened."""
    return (before.digest is None or told.written_by is Cause.LISTING) and told.since <= before.since


def _is_of_same_push(before: Held, told: Held) -> bool:
    """An agent's word that comes behind the registry's on what that agent wrote; their clocks are two."""
    return (
        told.digest == before.digest
        and told.written_by is Cause.ARRIVAL
        and told.since >= before.since - _SAME_PUSH
    )


def _again(before: Held, news: Held) -> Held:
    """The same digest keeps its time, and what an agent saw there stays seen."""
    written_by = min(before.written_by, news.written_by, key=_SURE.index)
    return replace(before, written_by=written_by, version=max(before.version, news.version))


def of_state(state: TagState) -> tuple[Key, Held]:
    key = Key(str(state.place), str(state.repository), str(state.tag))
    return key, Held(str(state.digest), state.time, state.written_by, state.tag_version)


def key_of(text: str) -> Key | None:
    """The key of a record, `place/repository:tag`; None when it is no such key."""
    name, _, tag = text.rpartition(":")
    place, _, repository = name.partition("/")
    try:
        return Key(str(PlaceName(place)), str(Repository(repository)), str(Tag(tag)))
    except ValueError:
        return None


def proven_by(end: Completion) -> Iterable[tuple[Key, Proven]]:
    """What a task that copied, or found it there, saw by HEAD: at its destination, and before that at its source.

    One that deleted had seen that the source does not have the tag.
    """
    if end.operation == "delete" and end.status is Status.SUCCEED and end.tag is not None:
        # It was asked for while the task ran: whatever is told of since its start counts more.
        source = Key(str(end.source_place), str(end.repository), str(end.tag))
        yield source, _proven(None, end.start_time, Cause.LISTING)
    copied = end.status is Status.SUCCEED or (end.error is not None and end.error.code == _ALREADY_THERE)
    if (
        not copied
        or end.operation != "copy"
        or end.tag is None
        or end.digest is None
        or end.subject is not None
    ):
        return
    asked_for = end.end_time - timedelta(milliseconds=end.lag_ms)
    source = Key(str(end.source_place), str(end.repository), str(end.tag))
    yield source, _proven(end.rebuilt_from or end.digest, asked_for, Cause.LISTING)
    there = Key(str(end.destination_place), str(end.destination_repository), str(end.tag))
    yield there, _proven(end.digest, end.end_time, Cause.ARRIVAL)


def _proven(digest: Digest | None, time: datetime, by: Cause) -> Proven:
    version = max(0, (time - _EPOCH) // timedelta(microseconds=1))
    return Proven(Held(str(digest) if digest is not None else None, time, by, version))


def referrers_of(end: Completion) -> Iterable[tuple[str, str]]:
    """Subjects and what is about them at the destination, as a task left it."""
    subject = end.subject or end.digest
    if end.operation == "copy" and subject is not None:
        for referrer in end.attached:
            yield str(subject), str(referrer)
