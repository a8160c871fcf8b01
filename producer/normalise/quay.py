"""Quay's webhook for pushes. It names the tags and no digest; the agents ask the registry what the tags name.

Quay does not name the kind of an event, sends no id or time, and does not report deletions. A body template of the
user's own has to keep `repository` and `updated_tags`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Repository, Tag

_OTHER_FIELDS = (
    "build_id",
    "message",
    "vulnerability",
    "vulnerabilities",
    "updated_tags",
)  # fields of notifications that are no push of tags


def normalise(body: bytes, context: Context) -> Normalised:
    """Returns one event for each updated tag; ignores builds, mirrors and scans."""
    try:
        raw = reading.mapping(reading.read_json(body), "a notification")
        repository = Repository(reading.required_text(raw, "repository"))
        tags = _tags(raw)
    except ValueError as error:
        return reading.unreadable(body, error)
    if not tags:
        return Normalised(ignored=1)
    return reading.read_each(tags, body, lambda tag: _pushed(tag, repository, context), keep_body=True)


def _tags(raw: Mapping[str, Any]) -> Sequence[Any]:
    """Returns the tags of a list, or of an object of tags and image ids as in old versions."""
    tags = raw.get("updated_tags")
    if isinstance(tags, list | dict):
        return list(tags)
    if tags is None and any(field in raw for field in _OTHER_FIELDS):
        return ()
    raise ValueError("not a push of Quay: `updated_tags` is missing or no list")


def _pushed(tag: Any, repository: Repository, context: Context) -> Sequence[Event]:
    if not isinstance(tag, str):
        raise ValueError("an updated tag is not a string")  # noqa: TRY004  # data from outside, not a wrong call
    at = context.received_at
    return (
        reading.make_event(
            context, Action.MANIFEST_PUSH, repository, tag=Tag(tag), dedup_key=None, occurred_at=at
        ),
    )
