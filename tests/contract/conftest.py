"""The engines that the contract suite runs on: each opens log handles on storage that outlives them."""

import asyncio
import gc
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest

from mesh.log.port import Group, Log
from mesh.log.sqlite import SqliteLog, open_log
from schemas.names import Region


class Engine(Protocol):
    """What the suite needs of an engine besides the log port. Each test has its own."""

    time_limit: float  # seconds within which partitions have moved and appended records have arrived

    async def open(self) -> Log:
        """Returns a handle on the storage, which may be one that is open already."""
        ...

    async def crash(self, log: Log) -> None:
        """Ends the handle as a power cut would: without a farewell, and only acknowledged records are sure to stay."""
        ...

    async def die(self, log: Log, member: Group) -> None:
        """Makes `member` of the handle `log` stop without leaving its group, so that its session times out."""
        ...

    async def close(self) -> None:
        """Closes every handle that is open."""
        ...


class OffsetClock:
    """The machine's clock, set forward by the test."""

    def __init__(self) -> None:
        self.offset = 0.0  # seconds

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.offset)

    def monotonic(self) -> float:
        return time.monotonic() + self.offset

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SqliteEngine:
    """Opens one handle at a time, as one process may have. A crash leaves the files as they are at that moment."""

    time_limit = 5.0

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copy = 0
        self._log: SqliteLog | None = None
        self.clock = OffsetClock()

    @property
    def path(self) -> Path:
        return self._folder / f"log-{self._copy}.db"

    async def open(self) -> SqliteLog:
        if self._log is None:
            self._log = await open_log(self.path, clock=self.clock)
        return self._log

    async def crash(self, log: Log) -> None:
        assert log is self._log
        files = [(suffix, Path(f"{self.path}{suffix}")) for suffix in ("", "-wal")]
        self._copy += 1
        for suffix, file in files:  # before the clean close, which would tidy up
            shutil.copyfile(file, f"{self.path}{suffix}")
        await self.close()

    async def die(self, log: Log, member: Group) -> None:
        self.clock.offset += 61

    async def close(self) -> None:
        if self._log is not None:
            await self._log.close()
            self._log = None


_ENGINES = [
    "sqlite",
    pytest.param("kafka", marks=[pytest.mark.real("kafka"), pytest.mark.xdist_group("kafka")]),
]


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The `host:port` of a cluster for the whole run. All tests that use it run in one worker of pytest-xdist."""
    from tests.support import kafka_broker

    running = kafka_broker.running()
    if running is not None:
        yield running
        return
    broker = kafka_broker.start(tmp_path_factory.mktemp("kafka"))
    try:
        yield broker.bootstrap
    finally:
        broker.stop()


@pytest.fixture(params=_ENGINES)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    made: Engine
    if request.param == "sqlite":
        made = SqliteEngine(tmp_path)
    else:
        from tests.support.kafka_engine import KafkaEngine

        made = KafkaEngine(request.getfixturevalue("kafka_bootstrap"))
    try:
        yield made
    finally:
        await made.close()
        del made
        gc.collect()  # so that what this test left open fails this test and not a later one


@pytest.fixture
async def log(engine: Engine) -> Log:
    return await engine.open()


@pytest.fixture
def region() -> Region:
    """A region that no test used before, because one cluster serves all tests."""
    return Region(f"t{uuid4().hex[:12]}")


@pytest.fixture
def group_name() -> str:
    return f"g-{uuid4().hex[:12]}"
