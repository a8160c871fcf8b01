"""What is parked and due: put into the lanes in turn, whatever else is due too."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from consumer.pipeline import park as park_module
from consumer.pipeline.complete import make_parked
from consumer.pipeline.match import match
from consumer.pipeline.park import Parking
from consumer.pipeline.region_status import RegionStatus
from consumer.ports import AgentPorts
from consumer.progress import TaskProgress, TaskRun
from consumer.settings import ParkingPolicy
from consumer.task import Task
from mesh.clock import SystemClock
from mesh.log.port import Partition, Record
from mesh.metrics import Metrics
from mesh.registry.port import digest_of
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.state import MeshState
from mesh.rules.stops import Stops
from schemas import codec, topics
from schemas.completions import Side, TaskError
from schemas.events import Action, Event, PartOf
from schemas.executions import ExecutionStop
from schemas.names import PlaceName, Region, Repository, Tag
from schemas.parked import Parked
from schemas.rules import ReplicaRule, TriggerKind
from schemas.state import StateRecord

CLOCK = SystemClock()
BEIJING, FRANKFURT = Region("beijing"), Region("frankfurt")
REPLICA = ReplicaRule.model_validate({"name": "cn@frankfurt", "source": "cn", "destination": "cn@frankfurt"})
RETRY = Partition(topics.retry(FRANKFURT), 0)


def declared() -> MeshState:
    state = MeshState()
    things: dict[str, dict[str, Any]] = {
        "region/beijing": {"jurisdiction": "cn"},
        "region/frankfurt": {"jurisdiction": "cn"},
        "instance/cn": {"account": "game", "region": "beijing", "url": "http://x:5000"},
    }
    for name in ("dead", "eu"):
        things[f"instance/{name}"] = {"account": "game", "region": "frankfurt", "url": f"http://{name}:5000"}
        value = f"{name}/**"
        filters = [{"type": "name", "value": value}]
        things[f"rule/to-{name}"] = {"source": "cn", "destination": name, "filters": filters}
    for rev, (key, fields) in enumerate(things.items()):
        noun, _, name = key.partition("/")
        record = StateRecord(id=key, time=CLOCK.now(), noun=noun, value={"name": name, **fields})
        state.apply(key, codec.encode(record), rev)
    return state


class Lanes:
    """Nothing that is put in comes to its end."""

    def __init__(self) -> None:
        self.put_in: list[Task] = []

    def is_busy(self, task: Task) -> bool:
        return False

    def put(self, task: Task, done: object) -> None:
        self.put_in.append(task)


def task_of(state: MeshState, repository: str) -> Task:
    event = Event(
        id=repository, time=CLOCK.now(), action=Action.MANIFEST_PUSH, place=PlaceName("cn"), region=BEIJING,
        repository=Repository(repository), tag=Tag("v1"), digest=digest_of(b""), occurred_at=CLOCK.now(), rules_rev=0,
    )  # fmt: skip
    (task,) = match(event, state, FRANKFURT)
    return task


def park(parking: Parking, task: Task, *, minutes_ago: int) -> None:
    due = CLOCK.now() - timedelta(minutes=minutes_ago)
    error = TaskError(code="unreachable", side=Side.DESTINATION, message="nobody there")
    record = make_parked(
        TaskRun(task, TaskProgress(started=due)),
        error,
        "agent",
        CLOCK.now(),
        rounds=1,
        first_parked=due,
        not_before=due,
    )
    parking.apply(Record(RETRY, 0, record.key, codec.encode(record), CLOCK.now()))


def parking_of(state: MeshState) -> Parking:
    unused: Any = None
    ports = AgentPorts(
        agent="agent", region=FRANKFURT, log=unused, state=state, rules=unused, places=unused, clock=CLOCK,
        metrics=Metrics(CollectorRegistry()), random=lambda: 0.5,
    )  # fmt: skip
    return Parking(
        ports, status=RegionStatus(CLOCK.now), stops=Stops(), policy=ParkingPolicy(check_every=0.01)
    )


async def test_however_much_is_due_for_a_dead_destination_the_others_have_their_turn() -> None:
    state = declared()
    parking = parking_of(state)
    lanes: Any = Lanes()
    for number in range(300):
        park(parking, task_of(state, f"dead/app-{number}"), minutes_ago=10)
    park(parking, task_of(state, "eu/app"), minutes_ago=1)
    running = asyncio.ensure_future(parking.run(lanes))
    try:
        async with asyncio.timeout(20):
            while "eu/app" not in {task.repository for task in lanes.put_in}:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
    assert len(lanes.put_in) == 101


async def test_what_waits_for_a_registry_is_due_when_it_is_back() -> None:
    state = declared()
    parking = parking_of(state)
    for number in range(3):
        park(parking, task_of(state, f"dead/app-{number}"), minutes_ago=-60)
    park(parking, task_of(state, "eu/app"), minutes_ago=-60)  # in an hour
    waits_for = {task.destination_place for task in every(parking)}
    assert len(waits_for) == 2
    (dead,) = {task.destination_place for task in every(parking) if task.repository.startswith("dead/")}
    assert due(parking, CLOCK.now()) == []
    await parking.came_back({dead})
    found = due(parking, CLOCK.now() + timedelta(seconds=4))
    assert sorted(found) == ["dead/app-0", "dead/app-1", "dead/app-2"]


def due(parking: Parking, now: datetime) -> list[str]:
    found = (parking._parked.get(key) for _, keys in parking._parked.due(now) for key in keys)
    return [one.repository for one in found if one is not None]


async def test_the_end_of_a_task_looks_at_what_is_parked_of_its_own_tag_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A destination that is away for a day has some hundred thousand parked, and every end of a task asks."""
    looked: list[str] = []
    real = park_module._is_superseded

    def counting(parked: Parked, task: Task, *, holds: bool) -> bool:
        looked.append(parked.repository)
        return real(parked, task, holds=holds)

    monkeypatch.setattr(park_module, "_is_superseded", counting)
    state = declared()
    parking, wrote = parking_of(state), list[str]()

    class Log:
        async def append(self, records: Any, *, then: Any = ()) -> None:
            wrote.extend(record.key for record in (*records, *then))

    parking._log = Log()  # type: ignore[assignment]
    for number in range(50):
        park(parking, task_of(state, f"dead/app-{number}"), minutes_ago=0)
    park(parking, task_of(state, "eu/app"), minutes_ago=0)
    old = {one.task_id: one for one in every(parking)}
    newer = task_of(state, "eu/app")
    newer = replace(newer, event=newer.event.model_copy(update={"id": "newer"}))
    await parking.supersede(newer)
    assert looked == ["eu/app"]
    (ended,) = {key for key in wrote if key in old}
    assert old[ended].repository == "eu/app"
    parking.apply(Record(RETRY, 1, ended, None, CLOCK.now()))
    await parking.supersede(newer)
    assert looked == ["eu/app"]


@pytest.mark.parametrize("fill", ["backfill", "reconcile"])
async def test_a_fill_ends_nothing_that_was_asked_for_by_hand(fill: TriggerKind) -> None:
    """It leaves what is not its instance's, which a human's word writes over."""
    parking, wrote = parking_of(declared()), list[str]()

    class Log:
        async def append(self, records: Any, *, then: Any = ()) -> None:
            wrote.extend(record.key for record in (*records, *then))

    parking._log = Log()  # type: ignore[assignment]
    by_hand = of_replica("by hand", "manual")
    park(parking, by_hand, minutes_ago=0)
    await parking.supersede(of_replica("fill", fill), holds=True)
    assert wrote == []
    await parking.supersede(of_replica("again by hand", "manual"), holds=True)
    assert by_hand.task_id in wrote


@pytest.mark.parametrize(
    ("older", "newer", "holds", "ends"),
    [
        ("manual", "manual", False, False),
        ("scheduled", "manual", False, False),
        ("manual", "scheduled", False, False),
        (
            "scheduled",
            "scheduled",
            False,
            True,
        ),  # else each run of a schedule adds all tags of a dead destination
        ("reconcile", "reconcile", False, True),
        ("manual", "manual", True, True),
        ("manual", "scheduled", True, True),
    ],
)
async def test_a_task_that_can_be_stopped_ends_others_only_when_it_has_copied_its_digest(
    older: TriggerKind, newer: TriggerKind, holds: bool, ends: bool
) -> None:
    parking, wrote = parking_of(declared()), list[str]()

    class Log:
        async def append(self, records: Any, *, then: Any = ()) -> None:
            wrote.extend(record.key for record in (*records, *then))

    parking._log = Log()  # type: ignore[assignment]
    first = of_replica("first", older)
    park(parking, first, minutes_ago=0)
    await parking.supersede(of_replica("second", newer), holds=holds)
    assert (first.task_id in wrote) is ends


def every(parking: Parking) -> list[Parked]:
    """Returns all that is parked, in the order in which it came."""
    return list(parking._parked._store.records("ORDER BY rowid"))


def of_replica(name: str, trigger: TriggerKind) -> Task:
    task = task_of(declared(), "eu/app")
    part_of = PartOf(execution_id=name, rule=REPLICA.name, trigger=trigger)
    event = task.event.model_copy(update={"id": name, "time": CLOCK.now(), "part_of": part_of})
    return replace(task, event=event, compiled=CompiledRule(REPLICA))


async def test_what_belongs_to_a_stopped_execution_is_due_at_once() -> None:
    state = declared()
    parking = parking_of(state)
    park(parking, task_of(state, "eu/app"), minutes_ago=-60)
    park(parking, task_of(state, "eu/other"), minutes_ago=-60)
    first, second = (one.execution_id for one in every(parking))
    lanes: Any = Lanes()
    await parking._requeue_due(lanes)
    assert lanes.put_in == []
    for number, execution_id in enumerate((first, first)):  # the same stop twice
        stop = ExecutionStop(
            id=f"stop-{number}", time=CLOCK.now(), execution_id=execution_id, region=FRANKFURT
        )
        parking._stops.apply(codec.encode(stop))
    await parking._requeue_due(lanes)
    assert [task.repository for task in lanes.put_in] == ["eu/app"]
    stop = ExecutionStop(id="stop-3", time=CLOCK.now(), execution_id=second, region=FRANKFURT)
    parking._stops.apply(codec.encode(stop))
    await parking._requeue_due(lanes)
    assert [task.repository for task in lanes.put_in] == ["eu/app", "eu/other"]


async def test_a_record_is_the_same_after_it_was_packed() -> None:
    state = declared()
    parking = parking_of(state)
    park(parking, task_of(state, "eu/app"), minutes_ago=3)
    (whole,) = every(parking)
    assert parking.get(whole.task_id) == codec.decode(codec.encode(whole), Parked) == whole
    assert (whole.repository, whole.rounds, whole.error.code) == ("eu/app", 1, "unreachable")
