"""The ways to the places that a gateway asks: opened when needed, and closed for good."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from mesh.clock import SystemClock
from mesh.errors import Unreachable
from mesh.gateway.places import Places
from mesh.metrics import Metrics
from schemas.names import Account, ObjectName, PlaceName, Region
from schemas.topology import Place

PLACE = Place(PlaceName("cn"), ObjectName("cn"), Account("game"), Region("beijing"), "http://127.0.0.1:1")


class FakeUpstream:
    closed = False

    async def close(self) -> None:
        self.closed = True


async def test_after_it_was_closed_it_opens_nothing_for_the_last_requests() -> None:
    opened: list[Any] = []

    def open_upstream(_: object) -> Any:
        opened.append(FakeUpstream())
        return opened[-1]

    places = Places(open_upstream, SystemClock(), Metrics(CollectorRegistry()))
    assert places.way(PLACE) is places.way(PLACE) is opened[0]
    await places.close()
    with pytest.raises(Unreachable, match="this gateway is stopping"):
        places.way(PLACE)
    assert [way.closed for way in opened] == [True]
