"""Parked tasks of several regions in one view."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from mesh.control.executions.parked import ParkedTasks, _apply
from mesh.control.executions.parked_failures import ParkedFailures
from mesh.control.storage.paging import Position
from mesh.log.port import Partition, Record
from schemas import codec, topics
from schemas.completions import Completion, Side, Status, TaskError
from schemas.events import Action, Event
from schemas.names import Region
from schemas.parked import LOOK_AGAIN, STILL_RUNNING, Parked
from tests.support.control_site import completion

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)


def parked(number: int, code: str = "unreachable", **changes: Any) -> Parked:
    """Returns a task that started and is due `number` seconds after `NOW`."""
    when = NOW + timedelta(seconds=number)
    event = Event(
        id=f"e{number}", time=NOW, action=Action.MANIFEST_PUSH, place="a", region="cn", repository="app", tag="v1",
        occurred_at=NOW, rules_rev=0,
    )  # fmt: skip
    task = completion(number).model_dump(exclude=set(Completion.model_fields) - set(Parked.model_fields))
    error = TaskError(code=code, side=Side.DESTINATION, message=f"error {number}")
    fields = {
        "task_id": f"t{number:04}", "rule": "r", "time": when, "start_time": when, "status": Status.PENDING,
        "execution_id": f"x{number % 3}", "error": error, "not_before": when,
    }  # fmt: skip
    return Parked(**task | fields | changes, event=event, agent="eu-1", rounds=1, first_parked=NOW)


def view(*regions: list[Parked]) -> ParkedTasks:
    ports: Any = SimpleNamespace(log=None, clock=None, state=None)  # nothing is read, the records are given
    found = ParkedTasks(ports)
    for number, tasks in enumerate(regions):
        region = Region(f"r{number}")
        store = found._regions._new_state()
        found._regions.states[region] = store
        for at, one in enumerate(tasks):
            value = codec.encode(one)
            _apply(store, Record(Partition(topics.retry(region), 0), at, one.key, value, NOW))
    return found


def ids(tasks: list[Parked]) -> list[int]:
    return [int(one.task_id[1:]) for one in tasks]


async def test_lists_are_merged_from_all_regions() -> None:
    tasks = view(
        [parked(number) for number in range(0, 500, 2)], [], [parked(number) for number in range(1, 500, 2)]
    )
    assert ids(tasks.first(7)) == list(range(7))
    assert ids([one async for one in tasks.newest_first(None)]) == list(range(499, -1, -1))
    after = Position(parked(3).start_time, "t0003")
    assert ids([one async for one in tasks.newest_first(after)]) == [2, 1, 0]
    assert tasks.get("t0123") == parked(123)
    assert tasks.get("nothing") is None


def test_what_failed_is_counted_by_rule_and_execution_with_the_newest_error() -> None:
    tasks = view(
        [parked(0), parked(1, STILL_RUNNING), parked(9, rule="other"), parked(4, LOOK_AGAIN)],
        [parked(3), parked(2), parked(8, STILL_RUNNING)],
    )
    assert tasks.failures() == {"r": ParkedFailures(3, "error 3"), "other": ParkedFailures(1, "error 9")}
    assert tasks.of_executions(["x0", "x1", "x2", "x3"]) == {"x0": 3, "x1": 0, "x2": 1, "x3": 0}
    assert view([], []).failures() == {}


def test_an_ended_task_is_gone() -> None:
    tasks = view([parked(1), parked(2)])
    (store,) = tasks._regions.states.values()
    _apply(store, Record(Partition("mesh.r0.retry", 0), 2, "t0001", None, NOW))
    assert ids(tasks.first(10)) == [2]
    _apply(store, Record(Partition("mesh.r0.retry", 0), 3, "t0002", codec.encode(parked(2, LOOK_AGAIN)), NOW))
    assert tasks.first(10) == []
