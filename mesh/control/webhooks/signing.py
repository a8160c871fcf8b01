"""What a webhook is told, when, signed how, and when the next try is due. Pure.

Deliveries follow Standard Webhooks: `webhook-id` stays through all tries, `webhook-timestamp` is of each try. The body
is a CloudEvent, made once and sent as the same bytes every time.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from standardwebhooks import Webhook as Signer

from mesh.errors import InvalidInput
from schemas.completions import Completion, Status
from schemas.envelope import make_id
from schemas.webhooks import CloudEvent, EventType, Webhook

EVENT_TYPES: Mapping[Status, EventType] = {
    Status.SUCCEED: "replication.succeeded",
    Status.FAILED: "replication.failed",
    Status.SKIPPED: "replication.skipped",
}
CONTENT_TYPE = "application/cloudevents+json"
PENDING, DELIVERED, GIVEN_UP, CLOSED = "pending", "delivered", "given_up", "closed"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How a delivery is tried. Seconds."""

    timeout: float = 10.0
    first_wait: float = 1.0
    longest_wait: float = 3600.0
    give_up_after: float = 3 * 24 * 3600.0
    at_once: int = 4  # tries that run at the same time, for each webhook

    def wait_after(self, tries: int, random: Callable[[], float]) -> timedelta:
        """Before the next try: doubling, half of it random, so that receivers are not all asked at the same moment."""
        ceiling = min(self.longest_wait, self.first_wait * 2 ** min(tries - 1, 40))
        return timedelta(seconds=ceiling * (0.5 + 0.5 * random()))


def wants(webhook: Webhook, completion: Completion) -> bool:
    """By event type, and by account when it has one: it sees only what touches that account's instances."""
    touched = (completion.account, completion.destination_account)
    return EVENT_TYPES.get(completion.status) in webhook.event_types and webhook.account in (None, *touched)


def delivery(
    webhook: Webhook, completion: Completion, entry: dict[str, object], now: datetime
) -> dict[str, Any]:
    """The outbox's row. Its id is the same whoever makes it, and a task has each status once: no delivery doubles."""
    number = make_id("delivery", webhook.name, completion.task_id, completion.status)
    body = cloud_event(number, completion, entry)
    return {
        "id": number,
        "webhook": str(webhook.name),
        "task_id": completion.task_id,
        "event_type": body.type,
        "body": body.model_dump_json(),
        "state": PENDING,
        "tries": 0,
        "created_at": now,
        "next_try_at": now,
    }


def cloud_event(number: str, completion: Completion, entry: dict[str, object]) -> CloudEvent:
    return CloudEvent(
        id=number,
        source=f"/regmesh/regions/{completion.destination_region}",
        type=EVENT_TYPES[completion.status],
        subject=completion.destination,
        time=completion.end_time,
        data=entry,
    )


def headers(number: str, body: str, secret: str | None, now: datetime) -> dict[str, str]:
    """Of one try. Without a secret it is not signed; `InvalidInput` when the secret is no key."""
    found = {
        "Content-Type": CONTENT_TYPE,
        "webhook-id": number,
        "webhook-timestamp": str(int(now.timestamp())),
    }
    if secret is not None:
        found["webhook-signature"] = _signer(secret).sign(number, now, body)
    return found


def _signer(secret: str) -> Signer:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not key:
        raise InvalidInput(
            "the webhook's secret is no key: it must be whsec_ and base64, as of `openssl rand -base64 32`"
        ) from None
    return Signer(key)
