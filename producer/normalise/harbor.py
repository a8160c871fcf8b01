"""Harbor's webhooks, in both of its formats: its own JSON, and CloudEvents in one JSON object.

A resource without a tag has its digest in the tag field. Harbor names only the first of several tags, and most of its
versions send nothing when a tag is added to an existing artifact; a listing finds such tags.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag

# Types of its own format, and of its CloudEvents.
_PUSHED = frozenset({"PUSH_ARTIFACT", "CREATE_TAG", "harbor.artifact.pushed", "harbor.tag.created"})
_DELETED = frozenset({"DELETE_ARTIFACT", "harbor.artifact.deleted"})


@dataclass(frozen=True, slots=True)
class Notification:
    """One notification, independent of its format."""

    type: str
    dedup_key: str | None
    occurred_at: datetime
    actor: str | None
    data: Any


def normalise(body: bytes, context: Context) -> Normalised:
    """Returns what was pushed or deleted; other types are ignored, another shape is unreadable."""
    return read(body, context, pushed=_PUSHED, deleted=_DELETED)


def read(
    body: bytes,
    context: Context,
    *,
    pushed: Collection[str],
    deleted: Collection[str],
    only_with_digest: Collection[str] = (),
) -> Normalised:
    """Reads a notification of a registry that uses Harbor's format with type names of its own.

    Args:
        body: The notification.
        context: Where it came from.
        pushed: The types of pushes.
        deleted: The types of deletions.
        only_with_digest: Types of which a resource without a digest is no artifact of the registry.
    """
    try:
        notification = _notification(reading.mapping(reading.read_json(body), "a notification"), context)
        if notification.type not in pushed and notification.type not in deleted:
            return Normalised(ignored=1)
        data = reading.mapping(notification.data, "the event's data")
        repository = Repository(reading.required_text(_repository(data), "repo_full_name"))
        resources = reading.required_list(data, "resources")
    except ValueError as error:
        return reading.unreadable(body, error)
    is_push, needs_digest = notification.type in pushed, notification.type in only_with_digest

    def events(resource: Any) -> Sequence[Event]:
        return _events(
            resource, notification, repository, context, is_push=is_push, needs_digest=needs_digest
        )

    return reading.read_each(resources, body, events, keep_body=True) if resources else Normalised(ignored=1)


def _notification(raw: Mapping[str, Any], context: Context) -> Notification:
    kind, actor = reading.required_text(raw, "type"), reading.parse_actor(raw.get("operator"))
    if "specversion" in raw:
        at = reading.parse_time(raw.get("time"), context.received_at)
        return Notification(kind, reading.first_text(raw, "id", "time"), at, actor, raw.get("data"))
    occur_at = raw.get("occur_at")
    # Harbor's own format has no id: the same content in the same second counts as the same event.
    dedup_key = f"{kind} at {occur_at}" if type(occur_at) is int else None
    at = reading.parse_unix_time(occur_at, context.received_at)
    return Notification(kind, dedup_key, at, actor, raw.get("event_data"))


def _repository(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return reading.mapping(data.get("repository"), "`repository`")


def _events(
    item: Any,
    notification: Notification,
    repository: Repository,
    context: Context,
    *,
    is_push: bool,
    needs_digest: bool,
) -> Sequence[Event]:
    resource = reading.mapping(item, "a resource")
    digest, tag = reading.optional_name(resource, "digest", Digest), _tag(resource)
    if needs_digest and digest is None:
        return ()
    if tag is None and digest is None:
        raise ValueError("a resource with neither `tag` nor `digest`")

    def event(action: Action, tag: Tag | None, digest: Digest | None) -> Event:
        return reading.make_event(
            context, action, repository, tag=tag, digest=digest,
            dedup_key=notification.dedup_key, occurred_at=notification.occurred_at, actor=notification.actor,
        )  # fmt: skip

    if is_push:
        return (event(Action.MANIFEST_PUSH, tag, digest),)
    # The deletion of an artifact deletes its tags too; the notification names one of them.
    manifest = [event(Action.MANIFEST_DELETE, None, digest)] if digest is not None else []
    return [*manifest, event(Action.TAG_DELETE, tag, None)] if tag is not None else manifest


def _tag(resource: Mapping[str, Any]) -> Tag | None:
    tag = resource.get("tag")
    return None if isinstance(tag, str) and ":" in tag else reading.optional_name(resource, "tag", Tag)
