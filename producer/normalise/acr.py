"""Azure Container Registry: its own webhooks, which are single events in distribution's format, and Event Grid.

Event Grid wraps the same event, in its own schema or in CloudEvents, as one object or an array. The handshake that
validates a new subscription is not answered. Charts of the old `az acr helm` are not artifacts of the registry and are
ignored.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from producer.normalise import reading
from producer.normalise.distribution import read_event
from producer.normalise.outcome import Context, Normalised
from schemas.events import Event

_REGISTRY_EVENTS = "Microsoft.ContainerRegistry."
_HANDSHAKE = "Microsoft.EventGrid.SubscriptionValidationEvent"
_OCI_ACTIONS = {"chart_push": "push", "chart_delete": "delete"}


def normalise(body: bytes, context: Context) -> Normalised:
    """Returns pushes and deletions; ignores pings, quarantine and events of other services on the grid."""
    try:
        parsed = reading.read_json(body)
    except ValueError as error:
        return reading.unreadable(body, error)
    items = parsed if isinstance(parsed, list) else [parsed]
    return reading.read_each(items, body, lambda item: _events(item, context))


def _events(item: Any, context: Context) -> Sequence[Event]:
    raw = reading.mapping(item, "an event")
    kind = reading.first_text(raw, "eventType", "type")
    if kind == _HANDSHAKE:
        raise ValueError(
            "the validation handshake of Event Grid is not supported: use the registry's own webhooks "
            "(docs/registries.md)"
        )
    if kind is None:
        return _native(raw, context)
    if not kind.startswith(_REGISTRY_EVENTS):
        return ()
    return _native(reading.mapping(raw.get("data"), "`data`"), context)


def _native(raw: Mapping[str, Any], context: Context) -> Sequence[Event]:
    verb = reading.required_text(raw, "action")
    if verb not in _OCI_ACTIONS:
        return read_event(raw, context)
    target = reading.mapping(raw.get("target"), "`target`")
    if not reading.is_manifest_type(target.get("mediaType")):
        return ()
    return read_event({**raw, "action": _OCI_ACTIONS[verb]}, context)
