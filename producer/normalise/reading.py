"""How a registry's JSON is read, whoever's it is: every field is checked, and a wrong one says its name.

Functions raise `ValueError` with a reason for people. `read_each` is where that becomes an outcome.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

import orjson

from mesh.errors import clean
from mesh.registry.chain import parse_user_agent
from producer.normalise.outcome import Context, Normalised, Unreadable
from schemas.envelope import make_id
from schemas.events import Action, Event
from schemas.names import Digest, MediaType, Repository, Tag

N = TypeVar("N")

_SKEW = timedelta(seconds=60)  # a registry's clock may be ahead by this much and still be believed
_EARLIEST = datetime(2013, 1, 1, tzinfo=UTC)  # Go's zero time, a clock never set: no registry is older
_LARGEST_SIZE = 2**63 - 1


def read_json(body: bytes) -> Any:
    """Raises `ValueError`, also for what is nested too deep or holds a number beyond any float."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error


def unreadable(body: bytes, error: ValueError) -> Normalised:
    """The whole body, as one that says nothing that we understand."""
    return Normalised(unreadable=(Unreadable(body, clean(str(error), 500)),))


def read_each(
    items: Iterable[Any], body: bytes, read: Callable[[Any], Sequence[Event]], *, keep_body: bool = False
) -> Normalised:
    """What each item says; one that cannot be read does not hold up the rest, one that says nothing is ignored.

    `keep_body`: an item alone would say too little in a dead letter.
    """
    events: list[Event] = []
    bad: list[Unreadable] = []
    ignored = 0
    for item in items:
        try:
            found = read(item)
        except ValueError as error:
            raw = body if keep_body else _bytes_of(item, body)
            bad.append(Unreadable(raw, clean(str(error), 500)))
            continue
        events += found
        ignored += not found
    return Normalised(tuple(events), tuple(bad), ignored)


def _bytes_of(item: Any, body: bytes) -> bytes:
    try:
        return orjson.dumps(item)
    except orjson.JSONEncodeError:
        return body  # orjson reads deeper than it writes


def make_event(
    context: Context,
    action: Action,
    repository: Repository,
    *,
    known_by: str | None,
    occurred_at: datetime,
    tag: Tag | None = None,
    digest: Digest | None = None,
    media_type: MediaType | None = None,
    size: int | None = None,
    from_repository: Repository | None = None,
    actor: str | None = None,
    user_agent: object = None,
) -> Event:
    """An event of the instance that the path names; by its `user_agent` a push of our own says where it came from.

    What it is `known_by` makes its id the same at each delivery.

    Known by nothing, every delivery counts as new.
    """
    place, chain = context.instance.place, parse_user_agent(user_agent)
    known_by = known_by or context.received_at.isoformat()
    return Event(
        id=make_id(place, known_by, action, repository, tag, digest),
        time=context.received_at,
        origin=chain.origin if chain is not None else place,
        hops=chain.hops if chain is not None else 0,
        action=action,
        place=place,
        region=context.instance.region,
        repository=repository,
        tag=tag,
        digest=digest,
        media_type=media_type,
        size=size,
        from_repository=from_repository,
        actor=actor,
        occurred_at=occurred_at,
        rules_rev=context.rules_rev,
    )


def mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")  # noqa: TRY004  # data from outside, not a wrong call
    return value


def text(found: Mapping[str, Any], field: str) -> str:
    value = found.get(field)
    if not isinstance(value, str):
        raise ValueError(f"`{field}` is missing or not a string")  # noqa: TRY004
    return value


def elements(found: Mapping[str, Any], field: str) -> list[Any]:
    value = found.get(field)
    if not isinstance(value, list):
        raise ValueError(f"`{field}` is missing or not a list")  # noqa: TRY004
    return value


def name(found: Mapping[str, Any], field: str, parse: Callable[[str], N]) -> N | None:
    """An optional name: absent, null and empty are the same (Go's `omitempty` is not used everywhere)."""
    return parse(text(found, field)) if found.get(field) not in (None, "") else None


def deletion(tag: Tag | None, digest: Digest | None) -> Action:
    """What was deleted, told by what is named."""
    if digest is not None:
        # A deleted blob looks just the same. Events are hints: whoever acts on one asks the registry.
        return Action.MANIFEST_DELETE
    return Action.TAG_DELETE if tag is not None else Action.REPOSITORY_DELETE


def first_text(found: Mapping[str, Any], *fields: str) -> str | None:
    """The first of these fields that is a string and not empty."""
    return next((value for field in fields if isinstance(value := found.get(field), str) and value), None)


def time_of(timestamp: Any, received_at: datetime) -> datetime:
    """The registry's own time, of RFC 3339, where it can be believed; else when we heard of it."""
    try:
        said = datetime.fromisoformat(timestamp).astimezone(UTC) if _has_zone(timestamp) else received_at
    except (ValueError, OverflowError):
        return received_at
    return _believed(said, received_at)


def unix_time_of(seconds: Any, received_at: datetime) -> datetime:
    """The same of seconds since 1970."""
    try:
        said = datetime.fromtimestamp(seconds, UTC) if type(seconds) is int else received_at
    except (ValueError, OverflowError, OSError):
        return received_at
    return _believed(said, received_at)


def _believed(said: datetime, received_at: datetime) -> datetime:
    return said if _EARLIEST <= said <= received_at + _SKEW else received_at


def _has_zone(timestamp: Any) -> bool:
    """A time without a zone would be read in this machine's."""
    return isinstance(timestamp, str) and (timestamp.endswith("Z") or timestamp[-6:-5] in ("+", "-"))


def media_type(value: Any) -> MediaType | None:
    try:
        return MediaType(str(value or "").partition(";")[0].strip())
    except ValueError:
        return None  # what the content is, its manifest will say


def is_manifest_type(value: Any) -> bool:
    media_type = str(value or "")
    return ".manifest." in media_type or ".index." in media_type


def size_of(found: Mapping[str, Any], *fields: str) -> int | None:
    for field in fields:
        value = found.get(field)
        if type(value) is int and 0 <= value <= _LARGEST_SIZE:
            return value
    return None


def actor_of(value: Any) -> str | None:
    return clean(value) or None if isinstance(value, str) else None


def actor_named(found: Mapping[str, Any]) -> str | None:
    """Of `actor: {name}`, as distribution and zot say it."""
    actor = found.get("actor")
    return actor_of(actor.get("name")) if isinstance(actor, dict) else None


def user_agent(found: Mapping[str, Any]) -> object:
    """Of `request: {useragent}`, as distribution, zot and ACR repeat it."""
    request = found.get("request")
    return request.get("useragent") if isinstance(request, dict) else None


def host_of(url: str) -> str:
    """Of an instance, to leave out what is plainly said of another registry; never to believe a body."""
    return urlsplit(url).hostname or ""
