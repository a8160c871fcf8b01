"""The data directory of a large mesh, written in a minute or two instead of by years of pushes.

What is declared goes through control, so that its topics exist. Tags and entries of the sync log go into control's
database directly, since through the log they would take an hour; parked tasks go onto the log.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry
from sqlalchemy import Table, create_engine, insert

from mesh.clock import SystemClock
from mesh.control.storage.tables import images, sync_log
from mesh.control.sync_log.entry import row_of
from mesh.log.port import Append, Log
from mesh.metrics import Metrics
from mesh.node import roles
from mesh.node.node import open_node
from mesh.registry.port import digest_of
from schemas import codec, topics
from schemas.completions import Completion, Side, Status, TaskError
from schemas.envelope import make_id
from schemas.events import Action, Cause, Event
from schemas.names import PlaceName, Region, Repository, Tag
from schemas.parked import Parked

NOW = SystemClock().now()
_CHUNK = 2000
T = TypeVar("T")


class Size(NamedTuple):
    """How large a mesh is; it has as many instances as regions."""

    regions: int
    rules: int
    tags: int
    parked: int
    entries: int

    @property
    def home(self) -> Region:
        """Returns the region of the agent with the parked tasks."""
        return Region(f"r{self.destination_of(0)}")

    def source_of(self, rule: int) -> int:
        """Returns the instance that a rule copies from: one of the first half, so that there is no cycle."""
        return rule % (self.regions // 2)

    def destination_of(self, rule: int) -> int:
        """Returns the instance that a rule copies to: one of the second half."""
        half = self.regions // 2
        return half + (rule * 7 + rule // half) % half

    def part(self, count: int) -> "Size":
        """Returns a size so many times smaller."""
        return Size(*(max(2, number // count) for number in self))

    def __str__(self) -> str:
        return (
            f"{self.regions} regions and places, {self.rules} rules, {self.tags} tags, {self.parked} parked, "
            f"{self.entries} entries"
        )


async def write(data: Path, size: Size) -> float:
    """Writes the directory, and returns how many seconds control took to declare everything."""
    clock = SystemClock()
    async with open_node(None, data, metrics=Metrics(CollectorRegistry())) as node:
        control = roles.control(node, None)
        started = clock.monotonic()
        await node.table.caught_up()
        await control.apply(document(size))
        declared = clock.monotonic() - started
        await control._executions.status("none")  # makes the tables
        await control._database.close()
        for some in _chunks((_parked(number, size) for number in range(size.parked)), _CHUNK):
            await _append_parked(node.log, size.home, some)
    _insert(data, images, (_tag(number, size) for number in range(size.tags)))
    _insert(data, sync_log, (_entry(number, size) for number in range(size.entries)))
    return declared


def document(size: Size) -> dict[str, Any]:
    """Returns what is declared: rules from each instance to several others."""
    regions = [f"r{number}" for number in range(size.regions)]
    return {
        "regions": [{"name": name, "jurisdiction": "eu"} for name in regions],
        "instances": [
            {"name": f"i{number}", "account": "game", "region": name, "url": f"http://registry-{number}:5000"}
            for number, name in enumerate(regions)
        ],
        "rules": [
            {
                "name": f"rule-{number}", "source": f"i{size.source_of(number)}",
                "destination": f"i{size.destination_of(number)}",
                "filters": [{"type": "name", "value": f"team-{number}/**"}],
            }
            for number in range(size.rules)
        ],
    }  # fmt: skip


async def _append_parked(log: Log, region: Region, some: Iterable[Parked]) -> None:
    await log.append([Append(topics.retry(region), one.key, codec.encode(one)) for one in some])


def _task(number: int, size: Size) -> dict[str, Any]:
    rule = number % size.rules
    return {
        "task_id": make_id("task", number), "execution_id": make_id("execution", number), "rule": f"rule-{rule}",
        "account": "game", "destination_account": "game", "source_place": f"i{size.source_of(rule)}",
        "destination_place": f"i{size.destination_of(0)}", "source_region": f"r{size.source_of(rule)}",
        "destination_region": size.home,
        "repository": f"team-{rule}/app-{number % 50}", "destination_repository": f"team-{rule}/app-{number % 50}",
        "tag": f"v{number}", "digest": digest_of(b"%d" % number), "resource_type": "image",
        "bytes_total": 30_000_000, "bytes_transferred": 1_000_000, "rules_rev": 5,
    }  # fmt: skip


def _entry(number: int, size: Size) -> Mapping[str, Any]:
    end = NOW - timedelta(seconds=number)
    return row_of(
        Completion(
            id=make_id("entry", number), time=end, start_time=end, end_time=end, status=Status.SUCCEED,
            bytes_skipped=29_000_000, lag_ms=900, **_task(number, size),
        )
    )  # fmt: skip


def _parked(number: int, size: Size) -> Parked:
    task = _task(number, size) | {"status": Status.PENDING}
    event = Event(
        id=make_id("event", number), time=NOW, action=Action.MANIFEST_PUSH, place=PlaceName(task["source_place"]),
        region=Region(task["source_region"]), repository=Repository(task["repository"]), tag=Tag(task["tag"]),
        digest=task["digest"], occurred_at=NOW, rules_rev=5,
    )  # fmt: skip
    error = TaskError(code="unreachable", side=Side.DESTINATION, message="connection refused")
    return Parked(
        id=make_id("parked", number), time=NOW, start_time=NOW, event=event, agent="killed", error=error, rounds=3,
        first_parked=NOW, not_before=NOW + timedelta(hours=1), **task,
    )  # fmt: skip


def _tag(number: int, size: Size) -> Mapping[str, Any]:
    return {
        "place": f"i{number % size.regions}", "repository": f"team-{number % size.rules}/app-{number % 50}",
        "tag": f"v{number}", "digest": str(digest_of(b"%d" % number)), "since": NOW, "seen_at": NOW,
        "written_by": Cause.NOTIFICATION.value, "tag_version": 1,
    }  # fmt: skip


def _insert(data: Path, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    engine = create_engine(f"sqlite:///{data / 'control.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA synchronous = OFF")
        for some in _chunks(rows, _CHUNK):
            connection.execute(insert(table), some)
    engine.dispose()


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some
