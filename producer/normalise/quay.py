"""Quay's webhook for pushes. It names the tags and no digest; the agents ask the registry what the tags name.

Quay says nothing of what kind of event it sends, has no id or time for it, and tells of no deletion. Whoever has set a
body template of their own sends something else: it has to keep `repository` and `updated_tags`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Repository, Tag

_OTHER = (
    "build_id",
    "message",
    "vulnerability",
    "vulnerabilities",
    "updated_tags",
)  # of what is no push of tags


def normalise(body: bytes, context: Context) -> Normalised:
    """One event for each updated tag; builds, mirrors and scans are ignored."""
    try:
        raw = reading.mapping(reading.read_json(body), "a notification")
        repository = Repository(reading.text(raw, "repository"))
        tags = _tags(raw)
    except ValueError as error:
        return reading.unreadable(body, error)
    if not tags:
        return Normalised(ignored=1)
    return reading.read_each(tags, body, lambda tag: _pushed(tag, repository, context), keep_body=True)


def _tags(raw: Mapping[str, Any]) -> Sequence[Any]:
    """A list, or in old versions an object of tag and image id."""
    said = raw.get("updated_tags")
    if isinstance(said, list | dict):
        return list(said)
    if said is None and any(field in raw for field in _OTHER):
        return ()
    raise ValueError("not a push of Quay: `updated_tags` is missing or no list")


def _pushed(tag: Any, repository: Repository, context: Context) -> Sequence[Event]:
    if not isinstance(tag, str):
        raise ValueError("an updated tag is not a string")  # noqa: TRY004  # data from outside, not a wrong call
    at = context.received_at
    return (
        reading.make_event(
            context, Action.MANIFEST_PUSH, repository, tag=Tag(tag), known_by=None, occurred_at=at
        ),
    )
