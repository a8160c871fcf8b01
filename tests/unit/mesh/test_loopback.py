"""Which hosts count as this machine."""

import pytest

from mesh.loopback import is_loopback


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "::1%lo"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "10.0.0.1",
        "0.0.0.0",
        "::",
        "::ffff:10.0.0.1",
        "fe80::1%eth0",
        "169.254.169.254",
        "localhost.evil.example",
    ],
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)
