"""Notifications of distribution 2.x and 3.x, and of what is built on it, GitLab's registry among them.

The envelope is the same under `application/vnd.docker.distribution.events.v1+json` (Debian's 2.8) and `...v2+json`, so
the content type is not asked. distribution puts one event into an envelope; others may put many, and one bad event
among them does not hold up the rest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag


def normalise(body: bytes, context: Context) -> Normalised:
    """The events of an envelope; an envelope that is none is unreadable as a whole."""
    try:
        listed = _events(reading.read_json(body))
    except ValueError as error:
        return reading.unreadable(body, error)
    return reading.read_each(listed, body, lambda item: read_event(item, context))


def _events(envelope: Any) -> list[Any]:
    listed = envelope.get("events") if isinstance(envelope, dict) else None
    if not isinstance(listed, list):
        raise ValueError("not a distribution notification: it has no list `events`")  # noqa: TRY004
    return listed


def read_event(item: Any, context: Context) -> Sequence[Event]:
    """One event; none when it means nothing to us; `ValueError` when it cannot be read."""
    raw = reading.mapping(item, "an event")
    verb = reading.text(raw, "action")
    if verb not in ("push", "mount", "delete"):
        return ()
    target = reading.mapping(raw.get("target"), "`target`")
    repository = Repository(reading.text(target, "repository"))
    tag, digest = reading.name(target, "tag", Tag), reading.name(target, "digest", Digest)
    return (
        reading.make_event(
            context,
            _action(verb, target, tag, digest),
            repository,
            known_by=reading.first_text(raw, "id", "timestamp"),
            occurred_at=reading.time_of(raw.get("timestamp"), context.received_at),
            tag=tag,
            digest=digest,
            media_type=reading.media_type(target.get("mediaType")),
            size=reading.size_of(target, "size", "length"),
            from_repository=reading.name(target, "fromRepository", Repository) if verb == "mount" else None,
            actor=reading.actor_named(raw),
            user_agent=reading.user_agent(raw),
        ),
    )


def _action(verb: str, target: Mapping[str, Any], tag: Tag | None, digest: Digest | None) -> Action:
    if verb == "delete":
        return reading.deletion(tag, digest)
    if digest is None:
        raise ValueError(f"a {verb} without a digest")
    if verb == "mount":
        return Action.BLOB_MOUNT
    return Action.MANIFEST_PUSH if tag is not None or _is_manifest(target) else Action.BLOB_PUSH


def _is_manifest(target: Mapping[str, Any]) -> bool:
    """By the last but one segment of the URL's path, else by the media type (blobs come as octet-stream).

    By segment, since a repository may be called `team/manifests`.
    """
    segments = str(target.get("url") or "").partition("?")[0].rsplit("/", 2)
    if len(segments) == 3 and segments[1] in ("manifests", "blobs"):
        return segments[1] == "manifests"
    return reading.is_manifest_type(target.get("mediaType"))
