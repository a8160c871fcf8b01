"""Azure Container Registry: its own webhooks, which are single events in distribution's words, and Event Grid.

Event Grid wraps the same event, in its own schema or in CloudEvents, one or an array of them. The handshake by which it
checks a new subscription is not answered. Charts of the old `az acr helm` are no artifacts of the registry and ignored.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.distribution import read_event
from producer.normalise.outcome import Context, Normalised
from schemas.events import Event

_OF_THE_REGISTRY = "Microsoft.ContainerRegistry."
_HANDSHAKE = "Microsoft.EventGrid.SubscriptionValidationEvent"
_AS_OCI = {"chart_push": "push", "chart_delete": "delete"}


def normalise(body: bytes, context: Context) -> Normalised:
    """Pushes and deletions; pings, quarantine and what other services put on the grid are ignored."""
    try:
        said = reading.read_json(body)
    except ValueError as error:
        return reading.unreadable(body, error)
    listed = said if isinstance(said, list) else [said]
    return reading.read_each(listed, body, lambda item: _events(item, context))


def _events(item: Any, context: Context) -> Sequence[Event]:
    raw = reading.mapping(item, "an event")
    kind = reading.first_text(raw, "eventType", "type")
    if kind == _HANDSHAKE:
        raise ValueError(
            "Event Grid asks whether we want its events, and that is not answered yet: use the registry's own "
            "webhooks (docs/registries.md)"
        )
    if kind is None:
        return _native(raw, context)
    if not kind.startswith(_OF_THE_REGISTRY):
        return ()
    return _native(reading.mapping(raw.get("data"), "`data`"), context)


def _native(raw: Mapping[str, Any], context: Context) -> Sequence[Event]:
    verb = reading.text(raw, "action")
    if verb not in _AS_OCI:
        return read_event(raw, context)
    target = reading.mapping(raw.get("target"), "`target`")
    if not reading.is_manifest_type(target.get("mediaType")):
        return ()
    return read_event({**raw, "action": _AS_OCI[verb]}, context)
