"""Which failures drop a holder, for how long, and whether for one place or for all places at its address."""

from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from consumer.blobs.holder_health import DISTRUST_SECONDS, LATE_SECONDS, Holder, HolderHealth
from mesh.errors import Denied, NotFound, RegistryError, ServerFault, Unreachable
from mesh.metrics import Metrics
from schemas.completions import Side
from schemas.names import PlaceName, Region
from tests.support.manual_clock import ManualClock

URL = "http://agent.shanghai:8082"
UNREAD: Any = None


def relay(place: str) -> Holder:
    return Holder(f"{place} at {URL}", URL, PlaceName(place), Region("shanghai"), UNREAD, is_relay=True)


CN, TOOLS = relay("cn@shanghai"), relay("tools@shanghai")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def health(clock: ManualClock) -> HolderHealth:
    return HolderHealth(clock, Metrics(CollectorRegistry()))


@pytest.mark.parametrize(
    ("error", "trusted"),
    [
        (Unreachable("no answer", side=Side.SOURCE), (False, False)),
        (ServerFault("500", side=Side.SOURCE), (False, True)),
        (Denied("401", side=Side.SOURCE), (False, True)),
        (NotFound("404", side=Side.SOURCE), (True, True)),
    ],
)
def test_a_failure_drops_a_place_or_all_of_an_address(
    health: HolderHealth, error: RegistryError, trusted: tuple[bool, bool]
) -> None:
    health.report_failure(CN, error)
    assert (health.is_trusted(CN), health.is_trusted(TOOLS)) == trusted


async def test_a_dropped_holder_is_trusted_again_later(health: HolderHealth, clock: ManualClock) -> None:
    error = Unreachable("no answer", side=Side.SOURCE)
    health.drop(CN.key, error)
    health.drop(CN.key, error, LATE_SECONDS)  # a shorter time does not replace the longer one
    await clock.sleep(DISTRUST_SECONDS - 1)
    assert not health.is_trusted(CN)
    await clock.sleep(1)
    assert health.is_trusted(CN)
