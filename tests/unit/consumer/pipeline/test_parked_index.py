"""Parked tasks against a model that looks at all of them each time, and what a large number costs."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.pipeline.complete import make_parked
from consumer.pipeline.parked_index import Owner, ParkedCount, ParkedIndex
from consumer.progress import TaskControl, TaskProgress, TaskRun
from mesh.errors import LogUnavailable
from schemas.completions import Side, TaskError
from schemas.parked import LOOK_AGAIN, STILL_RUNNING, Parked
from tests.unit.consumer.pipeline.test_lanes import _task

START = datetime(2026, 11, 27, tzinfo=UTC)
KEYS = st.sampled_from("abcde")
SECONDS = st.integers(0, 10)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, SECONDS, st.sampled_from(["eu", "us"]), st.sampled_from(["one", "two"])),
    st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("forward"), KEYS, SECONDS),
    st.tuples(st.just("wait"), SECONDS),
)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def parked(key: str, due: float = 0, agent: str = "one", code: str = "unreachable", **changes: Any) -> Parked:
    control = TaskControl(is_stopped=lambda: False, yield_permit=None)  # type: ignore[arg-type]  # it does not run
    run = TaskRun(_task(key, key, bulk=False), TaskProgress(started=START), control)
    error = TaskError(code=code, side=Side.DESTINATION, message="no answer")
    record = make_parked(run, error, agent, START, rounds=1, first_parked=START, not_before=at(due))
    return record.model_copy(update={"task_id": key, **changes})


@given(st.lists(STEPS, max_size=40))
def test_what_is_due_is_what_a_look_at_everything_finds(steps: list[Any]) -> None:
    index, model, now = ParkedIndex(), dict[str, tuple[datetime, str, str]](), 0
    for kind, *rest in steps:
        if kind == "put":
            key, second, place, agent = rest
            index.replace(key, parked(key, second, agent, destination_place=place))
            model[key] = (at(second), place, agent)
        elif kind == "remove":
            index.replace(rest[0], None)
            model.pop(rest[0], None)
        elif kind == "forward" and rest[0] in model:
            key, second = rest
            index.make_due(key, at(second))
            model[key] = (min(model[key][0], at(second)), *model[key][1:])
        elif kind == "wait":
            now += rest[0]
        found = [(key, *owner) for owner, keys in index.due(at(now)) for key in keys]
        assert sorted(found) == sorted((key, *it[1:]) for key, it in model.items() if it[0] <= at(now))
        assert index.agents() == {agent for _, _, agent in model.values()}
        counts = {
            (it.destination, agent): it.tasks for agent in ("one", "two") for it in index.counts([agent])
        }
        owners = [(place, agent) for _, place, agent in model.values()]
        assert counts == {owner: owners.count(owner) for owner in owners}


def test_those_that_are_due_for_longest_come_first_however_many_there_are() -> None:
    index = ParkedIndex()
    for number in range(250):
        key = f"t{number * 7 % 250:03}"
        index.replace(key, parked(key, int(key[1:]) / 100))
    ((owner, keys),) = index.due(at(2.4))
    assert owner == Owner(parked("x").destination_place, "one")
    assert list(keys) == [f"t{number:03}" for number in range(241)]


async def test_what_waits_for_a_registry_that_came_back_is_due_within_seconds_and_nothing_else_is() -> None:
    index, place = ParkedIndex(), parked("x").destination_place
    for number in range(2500):
        index.replace(f"t{number}", parked(f"t{number}", 3600))
    index.replace("throttled", parked("throttled", 3600, code="throttled"))
    index.replace("runs", parked("runs", 3600, code=STILL_RUNNING))
    index.replace("look", parked("look", 3600, code=LOOK_AGAIN))
    index.replace("soon", parked("soon", 1))
    assert await index.came_back(["other"], START) == 0
    assert await index.came_back([place], START) == 2500
    assert await index.came_back([place], START) == 0
    due = [key for _, keys in index.due(at(3)) for key in keys]
    assert len(due) == 2501
    assert not {"throttled", "runs", "look"} & set(due)
    assert 500 < len([key for _, keys in index.due(at(1)) for key in keys]) < 1200


def test_stopped_executions_are_due_and_looks_are_not_counted() -> None:
    index = ParkedIndex()
    for key, execution in (("a", "first"), ("b", "second")):
        index.replace(key, parked(key, 60, execution_id=execution))
    index.replace("look", parked("look", 60, code=LOOK_AGAIN))
    index.stop(["second", "unknown"], START)
    assert [key for _, keys in index.due(START) for key in keys] == ["b"]
    one = index.get("a")
    assert one is not None
    assert one.execution_id == "first"
    assert index.counts(["one"]) == [
        ParkedCount(one.destination_place, one.by, False, 2, one.event.occurred_at)
    ]
    assert (index.agent_of("a"), index.agent_of("look"), index.agent_of("c")) == ("one", None, None)


def test_tasks_of_one_tag_are_found_by_it() -> None:
    index = ParkedIndex()
    index.replace("a", parked("a"))
    index.replace("b", parked("b"))
    assert [it.task_id for it in index.of_target(_task("a", "a", bulk=False).target)] == ["a"]


def test_a_hundred_thousand_are_not_kept_in_memory() -> None:
    """30,000 of them, so that it takes seconds; as objects they were 70 MiB."""
    script = """
import resource
from tests.unit.consumer.pipeline.test_parked_index import ParkedIndex, parked
one, index = parked("first"), ParkedIndex()
index.replace("first", one)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(30_000):
    index.replace(f"{number:064}", one.model_copy(update={"task_id": f"{number:064}"}))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) // 1024, sum(it.tasks for it in index.counts(["one"])))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    mebibytes, count = map(int, run.stdout.split())
    assert count == 30_001
    assert mebibytes < 25


def test_a_folder_of_temporary_files_that_is_full_is_said() -> None:
    index = ParkedIndex()
    first = parked("a")
    index.replace("a", first)
    index._store.rows("PRAGMA max_page_count = 40")
    with pytest.raises(LogUnavailable, match=r"temporary file of parked tasks .* full.*TMPDIR"):
        _fill(index)
    assert index.get("a") == first


def _fill(index: ParkedIndex) -> None:
    for number in range(1000):
        index.replace(f"{number:064}", parked("b"))
