"""Decides which webhooks a completion is sent to, and builds the message. Pure.

The body is a CloudEvent. It is built once and stored, so every attempt sends the same bytes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from mesh.control.webhooks.delivery import PENDING
from schemas.completions import Completion, Status
from schemas.envelope import make_id
from schemas.webhooks import CloudEvent, EventType, Webhook

EVENT_TYPES: Mapping[Status, EventType] = {
    Status.SUCCEED: "replication.succeeded",
    Status.FAILED: "replication.failed",
    Status.SKIPPED: "replication.skipped",
}


def wants(webhook: Webhook, completion: Completion) -> bool:
    """Checks whether the webhook subscribes to this completion.

    A webhook with an account gets only completions whose source or destination belongs to that account.
    """
    accounts = (completion.account, completion.destination_account)
    return EVENT_TYPES.get(completion.status) in webhook.event_types and webhook.account in (None, *accounts)


def delivery_row(
    webhook: Webhook, completion: Completion, entry: dict[str, object], now: datetime
) -> dict[str, Any]:
    """Returns the outbox row of one delivery.

    Its id depends only on webhook, task and status, so several controls create the same delivery and not two.

    Args:
        webhook: The receiver.
        completion: The end of a task.
        entry: The task's sync log entry, which becomes the event's data.
        now: The time from which the delivery is due.
    """
    delivery_id = make_id("delivery", webhook.name, completion.task_id, completion.status)
    body = cloud_event(delivery_id, completion, entry)
    return {
        "id": delivery_id,
        "webhook": str(webhook.name),
        "task_id": completion.task_id,
        "event_type": body.type,
        "body": body.model_dump_json(),
        "state": PENDING,
        "tries": 0,
        "created_at": now,
        "next_try_at": now,
    }


def cloud_event(delivery_id: str, completion: Completion, entry: dict[str, object]) -> CloudEvent:
    """Returns the CloudEvent (1.0) that reports a completion."""
    return CloudEvent(
        id=delivery_id,
        source=f"/regmesh/regions/{completion.destination_region}",
        type=EVENT_TYPES[completion.status],
        subject=completion.destination,
        time=completion.end_time,
        data=entry,
    )
