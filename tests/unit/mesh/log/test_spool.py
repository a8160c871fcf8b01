"""The spool in front of a log that is away, slow, or refuses a topic; its file is real."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from mesh.clock import SystemClock
from mesh.errors import LogError, LogInUse, LogUnavailable
from mesh.log import spool as spools
from mesh.log.port import Append
from mesh.log.spool import Spool, open_spool
from mesh.metrics import Metrics

EVENTS, TAGS, OTHER = "mesh.beijing.events", "mesh.beijing.tags", "mesh.tokyo.events"


class UnreliableLog:
    """Takes records, unless it is `away`, `hangs` (and takes them late), or refuses a topic."""

    def __init__(self) -> None:
        self.records: list[Append] = []
        self.away = False
        self.hangs = False
        self.refuses = set[str]()

    async def append(self, records: Sequence[Append], *, then: Sequence[Append] = ()) -> Sequence[int]:
        if self.hangs:
            await asyncio.sleep(3600)
        if self.away:
            raise LogUnavailable("no Kafka answers")
        for record in records:
            if record.topic in self.refuses:
                raise LogError(f"{record.topic}: not authorized")
        self.records += records
        return range(len(records))

    def of(self, topic: str = EVENTS) -> list[tuple[str, bytes | None]]:
        return [(it.key, it.value) for it in self.records if it.topic == topic]


def event(key: str, value: int, topic: str = EVENTS) -> Append:
    return Append(topic, key, str(value).encode())


@asynccontextmanager
async def opened(
    log: UnreliableLog, folder: Path, *, limit: int = 1 << 30, run: bool = True
) -> AsyncIterator[Spool]:
    spool = await open_spool(
        log,  # type: ignore[arg-type]  # the part of the log that a spool uses
        folder / "spool.db",
        clock=SystemClock(),
        metrics=Metrics(CollectorRegistry()),
        limit=limit,
        after=0.3,
    )
    running = asyncio.create_task(spool.run() if run else asyncio.sleep(0))
    try:
        yield spool
    finally:
        running.cancel()
        await asyncio.wait([running])
        await spool.aclose()
        if not running.cancelled():
            running.result()


async def emptied(spool: Spool) -> None:
    async with asyncio.timeout(10):
        while spool.notes():
            await asyncio.sleep(0.01)


async def test_an_answering_log_gets_the_records_at_once(tmp_path: Path) -> None:
    log = UnreliableLog()
    async with opened(log, tmp_path) as spool:
        await spool.append([event("a", 1)])
        assert log.of() == [("a", b"1")]
        assert spool.notes() == []


async def test_what_came_while_the_log_was_away_follows_in_order(tmp_path: Path) -> None:
    log = UnreliableLog()
    log.away = True
    async with opened(log, tmp_path) as spool:
        for number in range(40):
            await spool.append([event(f"key{number % 4}", number), Append(TAGS, f"t{number}", None)])
        assert log.records == []
        assert spool.is_log_away()
        assert "no Kafka answers" in spool.notes()[0]
        log.away = False
        await emptied(spool)
        for key in range(4):
            values = [value for name, value in log.of() if name == f"key{key}"]
            assert values == [str(number).encode() for number in range(key, 40, 4)]
        assert len(log.of(TAGS)) == 40


async def test_later_records_of_a_topic_do_not_overtake_earlier_ones(tmp_path: Path) -> None:
    log = UnreliableLog()
    log.away = True
    async with opened(log, tmp_path, run=False) as spool:
        await spool.append([event("a", 1)])
        log.away = False
        await spool.append([event("a", 2)])
        await spool.append([event("a", 1, OTHER)])
        assert log.of() == []
        assert log.of(OTHER) == [("a", b"1")]
        running = asyncio.create_task(spool.run())
        await emptied(spool)
        running.cancel()
        await spool.append([event("a", 3)])
        assert log.of() == [("a", b"1"), ("a", b"2"), ("a", b"3")]


async def test_many_senders_at_once_keep_their_order_across_the_return(tmp_path: Path) -> None:
    log = UnreliableLog()
    log.away = True

    async def send(spool: Spool, key: str) -> None:
        for number in range(60):
            await spool.append([event(key, number)])
            if number == 30:
                log.away = False

    async with opened(log, tmp_path) as spool:
        await asyncio.gather(*(send(spool, f"key{number}") for number in range(8)))
        await emptied(spool)
    for key in range(8):
        values = [value for name, value in log.of() if name == f"key{key}"]
        assert values == [str(number).encode() for number in range(60)]


async def test_what_one_process_kept_the_next_one_sends(tmp_path: Path) -> None:
    log = UnreliableLog()
    log.away = True
    async with opened(log, tmp_path) as spool:
        await spool.append([event("a", 1), event("b", 2)])
    log.away = False
    async with opened(log, tmp_path, run=False) as spool:
        assert spool.is_log_away()
        assert spool._metrics.spool_bytes._value.get() > 0
        running = asyncio.create_task(spool.run())
        await emptied(spool)
        running.cancel()
    assert sorted(log.of()) == [("a", b"1"), ("b", b"2")]


async def test_what_the_log_has_is_not_sent_again_by_the_next_process(tmp_path: Path) -> None:
    log = UnreliableLog()
    log.away = True
    async with opened(log, tmp_path) as spool:
        await spool.append([event("a", 1), event("b", 1, OTHER)])
        log.refuses, log.away = {OTHER}, False
        async with asyncio.timeout(10):
            while not log.records:
                await asyncio.sleep(0.01)
    async with opened(log, tmp_path) as spool:
        await asyncio.sleep(0.1)
        assert "not authorized" in spool.notes()[0]
    assert log.of() == [("a", b"1")]


async def test_a_log_that_hangs_costs_one_wait_alone(tmp_path: Path) -> None:
    log = UnreliableLog()
    log.hangs = True
    async with opened(log, tmp_path, run=False) as spool:
        await spool.append([event("a", 1)])
        async with asyncio.timeout(0.25):  # less than the time that the log has
            await spool.append([event("a", 2)])
        assert "did not answer" in spool.notes()[0]


async def test_a_topic_that_the_log_refuses_does_not_hold_back_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "_REFUSED_SECONDS", 0.05)
    log = UnreliableLog()
    log.refuses = {EVENTS}
    async with opened(log, tmp_path) as spool:
        await spool.append([event("a", 1)])
        await spool.append([event("a", 2)])
        await spool.append([event("a", 1, OTHER)])
        async with asyncio.timeout(5):
            while spool.is_log_away() or not log.records:
                await asyncio.sleep(0.01)
        assert log.of(OTHER) == [("a", b"1")]
        assert f"{EVENTS}: {EVENTS}: not authorized" in spool.notes()[0]
        log.refuses = set()
        await emptied(spool)
        assert log.of() == [("a", b"1"), ("a", b"2")]


async def test_a_full_spool_refuses_and_keeps_what_it_has(tmp_path: Path) -> None:
    log = UnreliableLog()
    log.away = True
    async with opened(log, tmp_path, limit=1_000_000) as spool:
        kept = 0
        try:
            while kept < 1000:
                await spool.append([Append(EVENTS, f"key{kept}", b"x" * 10_000)])
                kept += 1
        except LogUnavailable as error:
            assert "is full" in str(error)  # noqa: PT017  # after how many is not known
        assert 20 < kept < 200
        log.away = False
        await emptied(spool)
        assert len(log.records) == kept
        await spool.append([event("a", 1)])
        assert len(log.records) == kept + 1


async def test_an_emptied_spool_gives_its_space_back(tmp_path: Path) -> None:
    log = UnreliableLog()
    log.away = True
    async with opened(log, tmp_path) as spool:
        for number in range(50):
            await spool.append([Append(EVENTS, f"key{number}", b"x" * 100_000)])
        assert (tmp_path / "spool.db").stat().st_size > 1_000_000
        log.away = False
        async with asyncio.timeout(10):
            while not (tmp_path / "spool.db").exists() or (tmp_path / "spool.db").stat().st_size > 500_000:
                await asyncio.sleep(0.01)
        log.away = True
        await spool.append([event("a", 1)])  # into the new file
        log.away = False
        await emptied(spool)
    assert log.of()[-1] == ("a", b"1")
    assert len(log.records) == 51


async def test_a_file_that_takes_no_commits_is_not_sent_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full_disk(*_: object) -> None:
        raise LogUnavailable("the embedded log cannot write: database or disk is full")

    log = UnreliableLog()
    log.away = True
    async with opened(log, tmp_path, run=False) as spool:
        for number in range(5):
            await spool.append([event("a", number)])
        monkeypatch.setattr("mesh.log.sqlite.group.SqliteGroup.commit", full_disk)
        log.away = False
        running = asyncio.create_task(spool.run())
        await emptied(spool)
        running.cancel()
    assert log.of() == [("a", str(number).encode()) for number in range(5)]


async def test_a_second_process_is_refused_with_what_to_do(tmp_path: Path) -> None:
    log = UnreliableLog()
    async with opened(log, tmp_path):
        with pytest.raises(LogInUse, match="--data"):
            async with opened(log, tmp_path):
                pass


async def test_a_file_that_is_no_spool_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "spool.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(LogError, match="the spool for notifications"):
        async with opened(UnreliableLog(), tmp_path):
            pass
    (tmp_path / "spool.db").unlink()
    async with opened(UnreliableLog(), tmp_path):  # the failed attempt left nothing locked
        pass


async def test_a_file_that_cannot_be_created_anew_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def damaged(*_: object, **__: object) -> None:
        raise LogError("the embedded log spool.db is damaged")

    log = UnreliableLog()
    log.away = True
    async with opened(log, tmp_path) as spool:
        await spool.append([event("a", 1)])
        with monkeypatch.context() as patch:
            patch.setattr(spools, "open_log", damaged)
            log.away = False
            await emptied(spool)
            log.away = True
            with pytest.raises(LogUnavailable, match="damaged"):
                await spool.append([event("a", 2)])
            await asyncio.sleep(0.1)
        await spool.append([event("a", 3)])
        log.away = False
        await emptied(spool)
    assert log.of() == [("a", b"1"), ("a", b"3")]
