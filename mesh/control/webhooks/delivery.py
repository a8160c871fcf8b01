"""A delivery and its states, and the delivery status of a webhook. Pure."""

from dataclasses import dataclass
from datetime import datetime

PENDING, DELIVERED, GIVEN_UP, CLOSED = "pending", "delivered", "given_up", "closed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery claimed for one attempt. `attempts` counts the earlier ones."""

    id: str
    webhook: str
    body: str
    attempts: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FailingDeliveries:
    """How many deliveries of a webhook failed repeatedly and are still retried, and the reason of one of them."""

    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryFailure:
    """The last failed attempt of a webhook."""

    time: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class DeliveryStatus:
    """The delivery status of one webhook.

    `delivered` is the time of its last success; None when there was none within the retention of deliveries.
    """

    waiting: int
    delivered: datetime | None
    failure: DeliveryFailure | None
    failing: FailingDeliveries | None
