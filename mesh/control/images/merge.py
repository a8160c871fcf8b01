"""Decides which digest a place holds under a tag, from what registries announce and what agents see. Pure.

The records of one key come in order, but any of them may come again, also from a reader that has lost its partition
without knowing it yet. So a record with an older version is ignored, and repeating records in order ends in the same
entry.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from schemas.completions import Completion, Status
from schemas.events import Cause, TagState, tag_version_at
from schemas.names import Digest, PlaceName, Repository, Tag

_SAME_PUSH = timedelta(
    minutes=1
)  # the most that the clocks of an agent and of its registry differ on one write
_MOST_CERTAIN_FIRST = (Cause.ARRIVAL, Cause.NOTIFICATION, Cause.LISTING)
_ALREADY_THERE = "already_there"  # code of a task that found the source's digest at its destination


class TagKey(NamedTuple):
    """A tag of a repository of a place."""

    place: str
    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class TagEntry:
    """What a place holds under a tag.

    Attributes:
        digest: None when the tag was deleted.
        since: When it got this digest, or was deleted.
        written_by: How it became known; `listing`: by a task that has it as its source.
        version: Of the record; an older one never replaces it.
        seen_at: When an agent or a listing last saw this digest at the registry; None when it was only announced.
    """

    digest: str | None
    since: datetime
    written_by: Cause
    version: int
    seen_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TagDeleted:
    """A tombstone: the tag was deleted. It has no version."""

    at: datetime


@dataclass(frozen=True, slots=True)
class SeenByTask:
    """What an ended task saw. Completions come by another topic, so in no order with the records of the tag.

    They are needed because the log may have compacted away the agent's record of a tag.
    """

    entry: TagEntry


TagNews = TagEntry | TagDeleted | SeenByTask


def merge(before: TagEntry | None, news: TagNews) -> TagEntry | None:
    """Returns what is known after the news; `before` itself when they change nothing."""
    if isinstance(news, TagDeleted):
        return _deleted(before, news)
    entry = news.entry if isinstance(news, SeenByTask) else news
    if before is None:
        return entry
    if isinstance(news, SeenByTask) and _is_outdated(before, entry):
        return _also_seen(before, entry)
    if entry.version < before.version and not _is_of_same_push(before, entry):
        return before
    return _repeated(before, entry) if entry.digest == before.digest else entry


def _deleted(before: TagEntry | None, news: TagDeleted) -> TagEntry | None:
    """Keeps the version: a tombstone ends what came before it, and older records stay older."""
    if before is None:
        return TagEntry(None, news.at, Cause.NOTIFICATION, 0)
    return before if before.digest is None else TagEntry(None, news.at, before.written_by, before.version)


def _is_outdated(before: TagEntry, entry: TagEntry) -> bool:
    """Checks whether what a task saw was replaced by what is known."""
    return (before.digest is None or entry.written_by is Cause.LISTING) and entry.since <= before.since


def _is_of_same_push(before: TagEntry, entry: TagEntry) -> bool:
    """Checks whether an agent's record comes after the registry's record of the same write; their clocks differ."""
    return (
        entry.digest == before.digest
        and entry.written_by is Cause.ARRIVAL
        and entry.since >= before.since - _SAME_PUSH
    )


def _repeated(before: TagEntry, entry: TagEntry) -> TagEntry:
    """The same digest keeps its time and the most certain way in which it is known."""
    written_by = min(before.written_by, entry.written_by, key=_MOST_CERTAIN_FIRST.index)
    seen_at = _later(before.seen_at, entry.seen_at)
    return replace(before, written_by=written_by, version=max(before.version, entry.version), seen_at=seen_at)


def _also_seen(before: TagEntry, entry: TagEntry) -> TagEntry:
    """A task changes nothing that is newer, but it may have seen what was only announced."""
    is_this_push = entry.seen_at is not None and entry.seen_at >= before.since - _SAME_PUSH
    if before.digest is None or entry.digest != before.digest or not is_this_push:
        return before
    return replace(before, seen_at=_later(before.seen_at, entry.seen_at))


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((time for time in (one, other) if time is not None), default=None)


def entry_of(state: TagState) -> tuple[TagKey, TagEntry]:
    """Returns key and entry of a record of a tag."""
    key = TagKey(str(state.place), str(state.repository), str(state.tag))
    seen_at = None if state.written_by is Cause.NOTIFICATION else state.time
    return key, TagEntry(str(state.digest), state.time, state.written_by, state.tag_version, seen_at)


def parse_key(text: str) -> TagKey | None:
    """Returns the key of a record, `place/repository:tag`; None when the text is not such a key."""
    name, _, tag = text.rpartition(":")
    place, _, repository = name.partition("/")
    try:
        return TagKey(str(PlaceName(place)), str(Repository(repository)), str(Tag(tag)))
    except ValueError:
        return None


def seen_by(end: Completion) -> Iterable[tuple[TagKey, SeenByTask]]:
    """Yields what an ended task saw by HEAD, at its source and then at its destination.

    The task of a push that is at the destination already does not ask the source.
    """
    if end.tag is None:
        return
    source = TagKey(str(end.source_place), str(end.repository), str(end.tag))
    if end.operation == "delete":
        if end.status is Status.SUCCEED:
            # The source was asked while the task was in progress: newer records than its start count more.
            yield source, _seen(None, end.start_time, Cause.LISTING, seen_at=end.start_time)
        return
    is_there = end.status is Status.SUCCEED or (end.error is not None and end.error.code == _ALREADY_THERE)
    if is_there and end.digest is not None and end.subject is None:
        pushed_at = end.end_time - timedelta(milliseconds=end.lag_ms)
        listed_at = pushed_at if end.trigger != "event_based" else None
        seen_at = end.end_time if end.status is Status.SUCCEED else listed_at
        yield source, _seen(end.rebuilt_from or end.digest, pushed_at, Cause.LISTING, seen_at=seen_at)
        destination = TagKey(str(end.destination_place), str(end.destination_repository), str(end.tag))
        yield destination, _seen(end.digest, end.end_time, Cause.ARRIVAL, seen_at=end.end_time)


def _seen(digest: Digest | None, since: datetime, by: Cause, *, seen_at: datetime | None) -> SeenByTask:
    version = tag_version_at(since)
    return SeenByTask(TagEntry(str(digest) if digest is not None else None, since, by, version, seen_at))


def referrers_of(end: Completion) -> Iterable[tuple[str, str]]:
    """Yields subject and referrer digests at the destination, as a copy left them."""
    subject = end.subject or end.digest
    if end.operation == "copy" and subject is not None:
        for referrer in end.attached:
            yield str(subject), str(referrer)
