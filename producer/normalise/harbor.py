"""Harbor's webhooks, in both of its formats: its own JSON, and CloudEvents in one JSON object.

A resource without a tag comes with its digest as the tag. Harbor names only the first of several tags, and most of its
versions say nothing when a tag is put on what is there already; such tags are found by a listing.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag

# Of its own format, and of its CloudEvents.
_PUSHED = frozenset({"PUSH_ARTIFACT", "CREATE_TAG", "harbor.artifact.pushed", "harbor.tag.created"})
_DELETED = frozenset({"DELETE_ARTIFACT", "harbor.artifact.deleted"})


@dataclass(frozen=True, slots=True)
class Said:
    """One notification, whichever its format was."""

    type: str
    known_by: str | None
    occurred_at: datetime
    actor: str | None
    data: Any


def normalise(body: bytes, context: Context) -> Normalised:
    """What was pushed or deleted; other types are ignored, another shape is unreadable."""
    return read(body, context, pushed=_PUSHED, deleted=_DELETED)


def read(
    body: bytes,
    context: Context,
    *,
    pushed: Collection[str],
    deleted: Collection[str],
    only_with_digest: Collection[str] = (),
) -> Normalised:
    """The same for a registry that speaks Harbor's format with type names of its own.

    `only_with_digest`: types of which a resource without a digest is nothing in a registry.
    """
    try:
        said = _said(reading.mapping(reading.read_json(body), "a notification"), context)
        if said.type not in pushed and said.type not in deleted:
            return Normalised(ignored=1)
        data = reading.mapping(said.data, "the event's data")
        repository = Repository(reading.text(_repository(data), "repo_full_name"))
        resources = reading.elements(data, "resources")
    except ValueError as error:
        return reading.unreadable(body, error)
    is_push, needs_digest = said.type in pushed, said.type in only_with_digest

    def events(resource: Any) -> Sequence[Event]:
        return _events(resource, said, repository, context, is_push=is_push, needs_digest=needs_digest)

    return reading.read_each(resources, body, events, keep_body=True) if resources else Normalised(ignored=1)


def _said(raw: Mapping[str, Any], context: Context) -> Said:
    kind, actor = reading.text(raw, "type"), reading.actor_of(raw.get("operator"))
    if "specversion" in raw:
        at = reading.time_of(raw.get("time"), context.received_at)
        return Said(kind, reading.first_text(raw, "id", "time"), at, actor, raw.get("data"))
    occur_at = raw.get("occur_at")
    # Its own format has no id: the same thing, of the same second, is taken for the same event.
    known_by = f"{kind} at {occur_at}" if type(occur_at) is int else None
    at = reading.unix_time_of(occur_at, context.received_at)
    return Said(kind, known_by, at, actor, raw.get("event_data"))


def _repository(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return reading.mapping(data.get("repository"), "`repository`")


def _events(
    item: Any, said: Said, repository: Repository, context: Context, *, is_push: bool, needs_digest: bool
) -> Sequence[Event]:
    resource = reading.mapping(item, "a resource")
    digest, tag = reading.name(resource, "digest", Digest), _tag(resource)
    if needs_digest and digest is None:
        return ()
    if tag is None and digest is None:
        raise ValueError("a resource with neither `tag` nor `digest`")

    def event(action: Action, tag: Tag | None, digest: Digest | None) -> Event:
        return reading.make_event(
            context, action, repository, tag=tag, digest=digest,
            known_by=said.known_by, occurred_at=said.occurred_at, actor=said.actor,
        )  # fmt: skip

    if is_push:
        return (event(Action.MANIFEST_PUSH, tag, digest),)
    # A deleted artifact takes its tags along, of which one is named.
    manifest = [event(Action.MANIFEST_DELETE, None, digest)] if digest is not None else []
    return [*manifest, event(Action.TAG_DELETE, tag, None)] if tag is not None else manifest


def _tag(resource: Mapping[str, Any]) -> Tag | None:
    said = resource.get("tag")
    return None if isinstance(said, str) and ":" in said else reading.name(resource, "tag", Tag)
