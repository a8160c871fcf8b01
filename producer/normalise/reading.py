"""Reading fields of a registry's JSON: every field is checked, and the error for a wrong one names it.

The functions raise `ValueError` with a reason for people, unless their docstring says otherwise; `read_each` turns it
into a result.
"""

from collections.abc import Callable, Mapping, Sequence
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

_MAX_SKEW = timedelta(seconds=60)  # a registry's clock may be ahead by this much
_EARLIEST = datetime(
    2013, 1, 1, tzinfo=UTC
)  # no registry is older; excludes Go's zero time and clocks never set
_LARGEST_SIZE = 2**63 - 1
_MAX_ITEMS = 5_000  # events of one notification; registries send one, or a few
# Parts of a JSON text, counted before it is parsed: a small text of empty objects becomes a hundred times its size.
_MAX_JSON_PARTS = 200_000


def read_json(body: bytes) -> Any:
    """Parses JSON; text that is nested too deep, has too many parts, or a number beyond any float, is an error too."""
    parts = sum(map(body.count, (b"{", b"[", b",")))
    if parts > _MAX_JSON_PARTS:
        raise ValueError(f"JSON of {parts} parts; a notification may have {_MAX_JSON_PARTS}")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error


def unreadable(body: bytes, error: ValueError) -> Normalised:
    """Returns the result for a body that is unreadable as a whole."""
    return Normalised(unreadable=(Unreadable(body, clean(str(error), 500)),))


def read_each(
    items: Sequence[Any], body: bytes, read: Callable[[Any], Sequence[Event]], *, keep_body: bool = False
) -> Normalised:
    """Reads the events of each item: an unreadable item does not affect the others, one without events is ignored.

    Args:
        items: The parts of the notification.
        body: The whole notification.
        read: Returns the events of one item, or raises `ValueError`.
        keep_body: A dead letter has the whole body, since an item alone would say too little.
    """
    events: list[Event] = []
    bad: list[Unreadable] = []
    ignored = 0
    if len(items) > _MAX_ITEMS:
        return unreadable(
            body, ValueError(f"{len(items)} events in one notification; at most {_MAX_ITEMS} are read")
        )
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
        return body  # orjson parses deeper nesting than it writes


def make_event(
    context: Context,
    action: Action,
    repository: Repository,
    *,
    dedup_key: str | None,
    occurred_at: datetime,
    tag: Tag | None = None,
    digest: Digest | None = None,
    media_type: MediaType | None = None,
    size: int | None = None,
    from_repository: Repository | None = None,
    actor: str | None = None,
    user_agent: object = None,
) -> Event:
    """Returns an event of the instance that the path names.

    Args:
        dedup_key: Makes the event's id the same at each delivery. Without one every delivery counts as new.
        user_agent: The client; that of an agent's push carries the origin of the content.
    """
    place, chain = context.instance.place, parse_user_agent(user_agent)
    dedup_key = dedup_key or context.received_at.isoformat()
    return Event(
        id=make_id(place, dedup_key, action, repository, tag, digest),
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
    """Returns `value` if it is a JSON object; `what` names it in the error."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")  # noqa: TRY004  # data from outside, not a wrong call
    return value


def required_text(found: Mapping[str, Any], field: str) -> str:
    """Returns a field that must be a string."""
    value = found.get(field)
    if not isinstance(value, str):
        raise ValueError(f"`{field}` is missing or not a string")  # noqa: TRY004
    return value


def required_list(found: Mapping[str, Any], field: str) -> list[Any]:
    """Returns a field that must be a list."""
    value = found.get(field)
    if not isinstance(value, list):
        raise ValueError(f"`{field}` is missing or not a list")  # noqa: TRY004
    return value


def optional_name(found: Mapping[str, Any], field: str, parse: Callable[[str], N]) -> N | None:
    """Returns a parsed field, or None when it is absent, null or empty (not everybody uses Go's `omitempty`)."""
    return parse(required_text(found, field)) if found.get(field) not in (None, "") else None


def deletion_action(tag: Tag | None, digest: Digest | None) -> Action:
    """Returns which deletion it was, by what the event names. Never raises."""
    if digest is not None:
        # A deleted blob looks the same. Events are hints: agents ask the registry before they act on one.
        return Action.MANIFEST_DELETE
    return Action.TAG_DELETE if tag is not None else Action.REPOSITORY_DELETE


def first_text(found: Mapping[str, Any], *fields: str) -> str | None:
    """Returns the first of these fields that is a string and not empty. Never raises."""
    return next((value for field in fields if isinstance(value := found.get(field), str) and value), None)


def parse_time(timestamp: Any, received_at: datetime) -> datetime:
    """Returns the registry's own time (RFC 3339) if it is plausible, else `received_at`. Never raises."""
    try:
        parsed = datetime.fromisoformat(timestamp).astimezone(UTC) if _has_zone(timestamp) else received_at
    except (ValueError, OverflowError):
        return received_at
    return _plausible(parsed, received_at)


def parse_unix_time(seconds: Any, received_at: datetime) -> datetime:
    """Returns a time in seconds since 1970 if it is plausible, else `received_at`. Never raises."""
    try:
        parsed = datetime.fromtimestamp(seconds, UTC) if type(seconds) is int else received_at
    except (ValueError, OverflowError, OSError):
        return received_at
    return _plausible(parsed, received_at)


def _plausible(parsed: datetime, received_at: datetime) -> datetime:
    return parsed if _EARLIEST <= parsed <= received_at + _MAX_SKEW else received_at


def _has_zone(timestamp: Any) -> bool:
    """Returns whether a time names its zone; without one it would be taken for local time."""
    return isinstance(timestamp, str) and (timestamp.endswith("Z") or timestamp[-6:-5] in ("+", "-"))


def parse_media_type(value: Any) -> MediaType | None:
    """Returns the media type, or None when it is no valid one: the manifest says what the content is."""
    try:
        return MediaType(str(value or "").partition(";")[0].strip())
    except ValueError:
        return None


def is_manifest_type(value: Any) -> bool:
    """Returns whether a media type is one of a manifest or an index. Never raises."""
    media_type = str(value or "")
    return ".manifest." in media_type or ".index." in media_type


def first_size(found: Mapping[str, Any], *fields: str) -> int | None:
    """Returns the first of these fields that is a size in bytes. Never raises."""
    for field in fields:
        value = found.get(field)
        if type(value) is int and 0 <= value <= _LARGEST_SIZE:
            return value
    return None


def parse_actor(value: Any) -> str | None:
    """Returns an account name without unprintable characters, or None. Never raises."""
    return clean(value) or None if isinstance(value, str) else None


def actor_name(found: Mapping[str, Any]) -> str | None:
    """Returns `actor.name`, as distribution and zot send it, or None. Never raises."""
    actor = found.get("actor")
    return parse_actor(actor.get("name")) if isinstance(actor, dict) else None


def user_agent(found: Mapping[str, Any]) -> object:
    """Returns `request.useragent`, as distribution, zot and ACR send it, or None. Never raises."""
    request = found.get("request")
    return request.get("useragent") if isinstance(request, dict) else None


def host_of(url: str) -> str:
    """Returns the host of an instance's URL.

    It serves to ignore events of other registries; a host in a body is never trusted.
    """
    return urlsplit(url).hostname or ""
