"""Signs webhook deliveries as Standard Webhooks specifies: over the id, the time of the attempt and the body."""

import base64
import binascii
from datetime import datetime

from standardwebhooks import Webhook as Signer

from mesh.errors import InvalidInput

CONTENT_TYPE = "application/cloudevents+json"


def headers(delivery_id: str, body: str, secret: str | None, now: datetime) -> dict[str, str]:
    """Returns the HTTP headers of one attempt; without a secret they carry no signature.

    `webhook-id` is the same for all attempts of a delivery, `webhook-timestamp` is the time of this attempt.

    Raises:
        InvalidInput: The secret is not a base64 key.
    """
    found = {
        "Content-Type": CONTENT_TYPE,
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
    }
    if secret is not None:
        found["webhook-signature"] = _signer(secret).sign(delivery_id, now, body)
    return found


def _signer(secret: str) -> Signer:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if not key:
        raise InvalidInput(
            "the webhook's secret is not a valid key: "
            "use whsec_ followed by base64, for example from `openssl rand -base64 32`"
        ) from None
    return Signer(key)
