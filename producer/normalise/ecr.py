"""Amazon ECR's events, as EventBridge sends them to an API destination.

The path of the request says which registry sent it. An event that names another account or region than the host of the
instance was sent by a rule that is too wide, and is ignored; no event is trusted for what it names.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.outcome import Context, Normalised
from schemas.events import Action, Event
from schemas.names import Digest, Repository, Tag

# Detail types and actions. A replicated image is one that arrived in this region.
_PUSHED = frozenset(
    {("ECR Image Action", "PUSH"), ("ECR Referrer Action", "PUSH"), ("ECR Replication Action", "REPLICATE")}
)
_DELETED = frozenset({("ECR Image Action", "DELETE"), ("ECR Referrer Action", "DELETE")})
_HOST = re.compile(r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.", re.ASCII)


def normalise(body: bytes, context: Context) -> Normalised:
    """Returns pushes, replications to this region and deletions of images; ignores other events of ECR."""
    try:
        events = _events(reading.mapping(reading.read_json(body), "an event"), context)
    except ValueError as error:
        return reading.unreadable(body, error)
    return Normalised(tuple(events), ignored=0 if events else 1)


def _events(raw: Mapping[str, Any], context: Context) -> Sequence[Event]:
    if raw.get("source") != "aws.ecr":
        raise ValueError("not an event of ECR: its `source` is not aws.ecr")
    detail = reading.mapping(raw.get("detail"), "`detail`")
    what = (reading.required_text(raw, "detail-type"), reading.first_text(detail, "action-type"))
    is_push, is_deletion = what in _PUSHED, what in _DELETED
    if not (is_push or is_deletion) or detail.get("result") != "SUCCESS" or _is_elsewhere(raw, context):
        return ()
    tag, digest = (
        reading.optional_name(detail, "image-tag", Tag),
        reading.optional_name(detail, "image-digest", Digest),
    )
    if tag is None and digest is None:
        raise ValueError("neither `image-tag` nor `image-digest`")
    if is_deletion and tag is not None:
        digest = None  # the tag was deleted; the image only if this was its last tag
    return (
        reading.make_event(
            context,
            Action.MANIFEST_PUSH if is_push else reading.deletion_action(tag, digest),
            Repository(reading.required_text(detail, "repository-name")),
            dedup_key=reading.first_text(raw, "id", "time"),
            occurred_at=reading.parse_time(raw.get("time"), context.received_at),
            tag=tag,
            digest=digest,
            media_type=reading.parse_media_type(detail.get("manifest-media-type")),
        ),
    )


def _is_elsewhere(raw: Mapping[str, Any], context: Context) -> bool:
    own = _HOST.match(reading.host_of(context.instance.url))
    return own is not None and (raw.get("account"), raw.get("region")) != own.group("account", "region")
