"""Notifications of distribution 2.x and 3.x, and of registries built on it, such as GitLab's.

The envelope is the same under `application/vnd.docker.distribution.events.v1+json` (Debian's 2.8) and `...v2+json`, so
the content type is not checked. distribution puts one event into an envelope; others may put many, and one bad event
does not affect the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag

_LONGEST_PROCESS = 128  # characters


def normalise(body: bytes, context: Context) -> Normalised:
    """Returns the events of an envelope; a body that is no envelope is unreadable as a whole."""
    try:
        items = _events(reading.read_json(body))
    except ValueError as error:
        return reading.unreadable(body, error)
    found = reading.read_each(items, body, lambda item: read_event(item, context))
    return replace(found, process=_process(items))


def _events(envelope: Any) -> list[Any]:
    listed = envelope.get("events") if isinstance(envelope, dict) else None
    if not isinstance(listed, list):
        raise ValueError("not a distribution notification: it has no list `events`")  # noqa: TRY004
    return listed


def _process(items: Sequence[Any]) -> str | None:
    """Returns which process of the registry sent the events: its id, which each start makes anew."""
    for item in items:
        source = item.get("source") if isinstance(item, dict) else None
        found = source.get("instanceID") if isinstance(source, dict) else None
        if isinstance(found, str) and 0 < len(found) <= _LONGEST_PROCESS and found.isprintable():
            return found
    return None


def read_event(item: Any, context: Context) -> Sequence[Event]:
    """Reads one event; returns nothing for a pull or an unknown action.

    Raises:
        ValueError: The event is unreadable.
    """
    raw = reading.mapping(item, "an event")
    verb = reading.required_text(raw, "action")
    if verb not in ("push", "mount", "delete"):
        return ()
    target = reading.mapping(raw.get("target"), "`target`")
    repository = Repository(reading.required_text(target, "repository"))
    tag, digest = reading.optional_name(target, "tag", Tag), reading.optional_name(target, "digest", Digest)
    return (
        reading.make_event(
            context,
            _action(verb, target, tag, digest),
            repository,
            dedup_key=reading.first_text(raw, "id", "timestamp"),
            occurred_at=reading.parse_time(raw.get("timestamp"), context.received_at),
            tag=tag,
            digest=digest,
            media_type=reading.parse_media_type(target.get("mediaType")),
            size=reading.first_size(target, "size", "length"),
            from_repository=reading.optional_name(target, "fromRepository", Repository)
            if verb == "mount"
            else None,
            actor=reading.actor_name(raw),
            user_agent=reading.user_agent(raw),
        ),
    )


def _action(verb: str, target: Mapping[str, Any], tag: Tag | None, digest: Digest | None) -> Action:
    if verb == "delete":
        return reading.deletion_action(tag, digest)
    if digest is None:
        raise ValueError(f"a {verb} without a digest")
    if verb == "mount":
        return Action.BLOB_MOUNT
    return Action.MANIFEST_PUSH if tag is not None or _is_manifest(target) else Action.BLOB_PUSH


def _is_manifest(target: Mapping[str, Any]) -> bool:
    """Decides by the second to last segment of the URL (a repository may be called `team/manifests`).

    Without a URL it decides by the media type; that of blobs is octet-stream.
    """
    segments = str(target.get("url") or "").partition("?")[0].rsplit("/", 2)
    if len(segments) == 3 and segments[1] in ("manifests", "blobs"):
        return segments[1] == "manifests"
    return reading.is_manifest_type(target.get("mediaType"))
