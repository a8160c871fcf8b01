"""What tests with real processes share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kafka_broker
from tests.support.kafka_broker import Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of the test's own, which it may kill."""
    made = kafka_broker.start(tmp_path / "kafka")
    try:
        yield made
    finally:
        made.stop()
