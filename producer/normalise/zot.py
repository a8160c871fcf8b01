"""zot's CloudEvents: over HTTP, type, id and time are in headers and the body is the data alone.

Another transport may send one JSON object with everything (the structured mode); both are read. The manifest that zot
puts into the body is not used.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag, reference

# The prefix is `zotregistry`, or the `typePrefix` that operators of newer versions may set.
_TYPE = re.compile(r"[^\s/]+\.(?P<name>(?:image|repository)\.[a-z_]+)", re.ASCII)
_UPDATED, _DELETED = "image.updated", "image.deleted"


def normalise(body: bytes, context: Context) -> Normalised:
    """Returns an image that was updated or deleted; ignores other types of zot."""
    try:
        attributes, data = _parts(reading.read_json(body), context)
        events = _events(attributes, data, context)
    except ValueError as error:
        return reading.unreadable(body, error)
    return Normalised(tuple(events), ignored=0 if events else 1)


def _parts(parsed: Any, context: Context) -> tuple[Mapping[str, Any], Any]:
    """Returns the attributes of the event, and its data."""
    if isinstance(parsed, dict) and "specversion" in parsed:
        return parsed, parsed.get("data")
    return {name.removeprefix("ce-"): value for name, value in context.headers.items()}, parsed


def _events(attributes: Mapping[str, Any], data: Any, context: Context) -> Sequence[Event]:
    matched = _TYPE.fullmatch(reading.first_text(attributes, "type") or "")
    if matched is None:
        raise ValueError(
            "not an event of zot: it has no type (header `Ce-Type`) such as `zotregistry.image.updated`"
        )
    if (name := matched["name"]) not in (_UPDATED, _DELETED):
        return ()
    image = reading.mapping(data, "the event's data")
    named = reference(reading.required_text(image, "reference"))
    tag = named if isinstance(named, Tag) else None
    digest = reading.optional_name(image, "digest", Digest) or (named if isinstance(named, Digest) else None)
    if name == _UPDATED:
        action = Action.MANIFEST_PUSH
    elif tag is not None:
        action, digest = Action.TAG_DELETE, None  # other tags of the manifest stay
    else:
        action = Action.MANIFEST_DELETE
    return (
        reading.make_event(
            context,
            action,
            Repository(reading.required_text(image, "name")),
            dedup_key=reading.first_text(attributes, "id", "time"),
            occurred_at=reading.parse_time(attributes.get("time"), context.received_at),
            tag=tag,
            digest=digest,
            media_type=reading.parse_media_type(image.get("mediaType")),
            actor=reading.actor_name(image),
            user_agent=reading.user_agent(image),
        ),
    )
