"""Google Artifact Registry, through a push subscription to the project's Pub/Sub topic `gcr`, wrapped or not.

Digest and tag are full references; their path is the repository, and the path of the request, not their host, says
which registry sent it. One topic serves all registry hosts of a project, so an event for another of Google's hosts than
that of the instance is ignored. A push by tag causes two messages, with and without the tag, which does no harm.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag

_GOOGLE_HOSTS = (".pkg.dev", "gcr.io")  # suffixes


class _Named(NamedTuple):
    host: str
    repository: Repository
    tag: Tag | None = None
    digest: Digest | None = None


class _Message(NamedTuple):
    data: Mapping[str, Any]
    dedup_key: str | None
    published: Any


def normalise(body: bytes, context: Context) -> Normalised:
    """Returns what was inserted or deleted; another action is ignored, another shape is unreadable."""
    try:
        events = _events(_message(body, context), context)
    except ValueError as error:
        return reading.unreadable(body, error)
    return Normalised(tuple(events), ignored=0 if events else 1)


def _message(body: bytes, context: Context) -> _Message:
    raw = reading.mapping(reading.read_json(body), "a message")
    if "message" not in raw:  # without Pub/Sub's wrapping
        published = context.headers.get("x-goog-pubsub-publish-time")
        return _Message(raw, context.headers.get("x-goog-pubsub-message-id"), published)
    message = reading.mapping(raw["message"], "`message`")
    data = reading.read_json(b64decode(reading.required_text(message, "data"), validate=True))
    dedup_key = reading.first_text(message, "messageId", "message_id", "publishTime")
    return _Message(reading.mapping(data, "`message.data`"), dedup_key, message.get("publishTime"))


def _events(message: _Message, context: Context) -> Sequence[Event]:
    action = reading.required_text(message.data, "action")
    if action not in ("INSERT", "DELETE"):
        return ()
    named = _named(message.data)
    if _is_elsewhere(named.host, reading.host_of(context.instance.url)):
        return ()
    digest = named.digest
    if action == "DELETE" and named.tag is not None:
        digest = None  # the tag was deleted, not what it named
    return (
        reading.make_event(
            context,
            Action.MANIFEST_PUSH if action == "INSERT" else reading.deletion_action(named.tag, digest),
            named.repository,
            dedup_key=message.dedup_key,
            occurred_at=reading.parse_time(message.published, context.received_at),
            tag=named.tag,
            digest=digest,
        ),
    )


def _named(data: Mapping[str, Any]) -> _Named:
    """Combines `digest` and `tag`; some senders put a bare tag beside a full digest."""
    by_digest, by_tag = reading.optional_name(data, "digest", _split), reading.optional_name(data, "tag", str)
    if by_tag is not None and "/" not in by_tag and by_digest is not None:
        return by_digest._replace(tag=Tag(by_tag))
    tagged = _split(by_tag) if by_tag is not None else None
    found = by_digest or tagged
    if found is None:
        raise ValueError("neither `digest` nor `tag`")
    if tagged is not None and tagged[:2] != found[:2]:
        raise ValueError("`digest` and `tag` are of different repositories")
    return found._replace(tag=tagged.tag if tagged is not None else found.tag)


def _split(reference: str) -> _Named:
    """Splits `host/path@digest` or `host/path:tag`."""
    host, _, path = reference.partition("/")
    if "@" in path:
        repository, _, digest = path.partition("@")
        return _Named(host, Repository(repository), digest=Digest(digest))
    repository, _, tag = path.rpartition(":")
    return _Named(host, Repository(repository), tag=Tag(tag))


def _is_elsewhere(host: str, own: str) -> bool:
    return host != own and host.endswith(_GOOGLE_HOSTS) and own.endswith(_GOOGLE_HOSTS)
