"""Upstream clients of a gateway: opened when first used, and closed for good."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mesh.clock import SystemClock
from mesh.errors import Unreachable
from mesh.gateway.upstreams import Upstreams
from mesh.metrics import Metrics
from schemas.names import Account, ObjectName, PlaceName, Region
from schemas.topology import Place

PLACE = Place(PlaceName("cn"), ObjectName("cn"), Account("game"), Region("beijing"), "http://127.0.0.1:1")


class FakeUpstream:
    closed = False

    async def close(self) -> None:
        self.closed = True


async def test_no_client_is_opened_after_close() -> None:
    opened: list[Any] = []

    def open_upstream(_: object) -> Any:
        opened.append(FakeUpstream())
        return opened[-1]

    upstreams = Upstreams(open_upstream, SystemClock(), Metrics(CollectorRegistry()))
    assert upstreams.client(PLACE) is upstreams.client(PLACE) is opened[0]
    await upstreams.close()
    with pytest.raises(Unreachable, match="this gateway is stopping"):
        upstreams.client(PLACE)
    assert [client.closed for client in opened] == [True]
