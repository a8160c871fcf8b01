"""zot's CloudEvents: over HTTP the type, id and time stand in headers, and the body is only what happened.

What comes over another transport may be one JSON object with all of it; both are read. The manifest that zot puts into
the body goes no further.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag, reference

# What follows `zotregistry`, or the `typePrefix` that newer versions let an operator set in its place.
_TYPE = re.compile(r"[^\s/]+\.(?P<what>(?:image|repository)\.[a-z_]+)", re.ASCII)
_UPDATED, _DELETED = "image.updated", "image.deleted"


def normalise(body: bytes, context: Context) -> Normalised:
    """An image that was updated or deleted; other types of zot are ignored."""
    try:
        described, data = _parts(reading.read_json(body), context)
        events = _events(described, data, context)
    except ValueError as error:
        return reading.unreadable(body, error)
    return Normalised(tuple(events), ignored=0 if events else 1)


def _parts(said: Any, context: Context) -> tuple[Mapping[str, Any], Any]:
    """What describes the event, and its data."""
    if isinstance(said, dict) and "specversion" in said:
        return said, said.get("data")
    return {name.removeprefix("ce-"): value for name, value in context.headers.items()}, said


def _events(described: Mapping[str, Any], data: Any, context: Context) -> Sequence[Event]:
    said = _TYPE.fullmatch(reading.first_text(described, "type") or "")
    if said is None:
        raise ValueError(
            "not an event of zot: no type of its (header `Ce-Type`), as `zotregistry.image.updated`"
        )
    if (what := said["what"]) not in (_UPDATED, _DELETED):
        return ()
    image = reading.mapping(data, "the event's data")
    named = reference(reading.text(image, "reference"))
    tag = named if isinstance(named, Tag) else None
    digest = reading.name(image, "digest", Digest) or (named if isinstance(named, Digest) else None)
    if what == _UPDATED:
        action = Action.MANIFEST_PUSH
    elif tag is not None:
        action, digest = Action.TAG_DELETE, None  # what else names the manifest, its deletion leaves
    else:
        action = Action.MANIFEST_DELETE
    return (
        reading.make_event(
            context,
            action,
            Repository(reading.text(image, "name")),
            known_by=reading.first_text(described, "id", "time"),
            occurred_at=reading.time_of(described.get("time"), context.received_at),
            tag=tag,
            digest=digest,
            media_type=reading.media_type(image.get("mediaType")),
            actor=reading.actor_named(image),
            user_agent=reading.user_agent(image),
        ),
    )
