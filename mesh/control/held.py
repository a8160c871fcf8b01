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
from schemas.names import PlaceName, Repository, Tag

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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


def merge(before: Held | None, news: Held | Gone) -> Held | None:
    """What is known after `news`; `before` itself when that changes nothing."""
    if isinstance(news, Gone):
        return _gone(before, news)
    if before is None:
        return news
    if news.written_by is Cause.LISTING and news.since <= before.since:
        return before  # looked at before what is known happened, or as it did
    if news.version < before.version:
        return before
    return _again(before, news) if news.digest == before.digest else news


def _gone(before: Held | None, news: Gone) -> Held | None:
    """A tombstone has no version: it ends what came before it, and nothing that was older then is newer now."""
    if before is None or before.digest is None:
        return before
    return Held(None, news.at, before.written_by, before.version)


def _again(before: Held, news: Held) -> Held:
    """The same digest keeps its time, and what an agent saw stays seen."""
    written_by = Cause.ARRIVAL if news.written_by is Cause.ARRIVAL else before.written_by
    return replace(before, written_by=written_by, version=news.version)


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


def seen_at_source(end: Completion) -> tuple[Key, Held] | None:
    """What a task proves its source to have held, for registries that announce nothing, or not all."""
    digest = end.rebuilt_from or end.digest
    copied = end.status is Status.SUCCEED or (end.error is not None and end.error.code == _ALREADY_THERE)
    if not copied or end.operation != "copy" or end.tag is None or digest is None or end.subject is not None:
        return None
    asked_for = end.end_time - timedelta(milliseconds=end.lag_ms)
    version = (asked_for - _EPOCH) // timedelta(microseconds=1)
    key = Key(str(end.source_place), str(end.repository), str(end.tag))
    return key, Held(str(digest), asked_for, Cause.LISTING, max(0, version))


def referrers_of(end: Completion) -> Iterable[tuple[str, str]]:
    """Subjects and what is about them at the destination, as a task left it."""
    subject = end.subject or end.digest
    if end.operation == "copy" and subject is not None:
        for referrer in end.attached:
            yield str(subject), str(referrer)
