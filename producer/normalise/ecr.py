"""Amazon ECR's events, as EventBridge sends them to an API destination.

The path says which registry speaks. What names another account or region than the instance's own host was sent here
by a rule that is too wide, and is ignored; nothing is believed because of what it names.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag

# Detail type and action. A replicated image is one that arrived in this region.
_PUSHED = frozenset(
    {
        ("ECR Image Action", "PUSH"),
        ("ECR Referrer Action", "PUSH"),
        ("ECR Replication Action", "REPLICATE"),
    }
)
_DELETED = frozenset({("ECR Image Action", "DELETE"), ("ECR Referrer Action", "DELETE")})
_HOST = re.compile(r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.", re.ASCII)


def normalise(body: bytes, context: Context) -> Normalised:
    """An image that was pushed, replicated to here or deleted; other events of ECR are ignored."""
    try:
        events = _events(reading.mapping(reading.read_json(body), "an event"), context)
    except ValueError as error:
        return reading.unreadable(body, error)
    return Normalised(tuple(events), ignored=0 if events else 1)


def _events(raw: Mapping[str, Any], context: Context) -> Sequence[Event]:
    if raw.get("source") != "aws.ecr":
        raise ValueError("not an event of ECR: its `source` is not aws.ecr")
    detail = reading.mapping(raw.get("detail"), "`detail`")
    what = (reading.text(raw, "detail-type"), reading.first_text(detail, "action-type"))
    is_push, is_deletion = what in _PUSHED, what in _DELETED
    if not (is_push or is_deletion) or detail.get("result") != "SUCCESS" or _is_elsewhere(raw, context):
        return ()
    tag, digest = reading.name(detail, "image-tag", Tag), reading.name(detail, "image-digest", Digest)
    if tag is None and digest is None:
        raise ValueError("neither `image-tag` nor `image-digest`")
    if is_deletion and tag is not None:
        digest = None  # the tag went; the image only if it was its last
    return (
        reading.make_event(
            context,
            Action.MANIFEST_PUSH if is_push else reading.deletion(tag, digest),
            Repository(reading.text(detail, "repository-name")),
            known_by=reading.first_text(raw, "id", "time"),
            occurred_at=reading.time_of(raw.get("time"), context.received_at),
            tag=tag,
            digest=digest,
            media_type=reading.media_type(detail.get("manifest-media-type")),
        ),
    )


def _is_elsewhere(raw: Mapping[str, Any], context: Context) -> bool:
    own = _HOST.match(reading.host_of(context.instance.url))
    return own is not None and (raw.get("account"), raw.get("region")) != own.group("account", "region")
