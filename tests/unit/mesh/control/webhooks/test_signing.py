"""How a delivery is signed."""

import pytest
from standardwebhooks import Webhook as Verifier

from mesh.clock import SystemClock
from mesh.control.webhooks import signing
from mesh.errors import InvalidInput
from tests.support.control_site import KEY, NOW


def test_a_delivery_is_signed_only_with_a_key():
    now = SystemClock().now()
    signed = signing.headers("id-1", '{"a":1}', KEY, now)
    assert Verifier(KEY).verify('{"a":1}', signed) == {"a": 1}
    assert "webhook-signature" not in signing.headers("id-1", "{}", None, now)
    assert signed["Content-Type"] == "application/cloudevents+json"


@pytest.mark.parametrize("secret", ["", "whsec_", "hunter2!", "whsec_not base64"])
def test_a_bad_key_is_refused_and_not_repeated_in_the_error(secret: str):
    with pytest.raises(InvalidInput) as refused:
        signing.headers("id", "{}", secret, NOW)
    assert "whsec_ followed by base64" in str(refused.value)
    assert "hunter2" not in str(refused.value)
