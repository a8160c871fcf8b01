"""What an agent reports as left to do, by rule."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from consumer.pipeline.complete import make_parked
from consumer.pipeline.heartbeat import count_backlog, count_rule_backlog
from consumer.pipeline.lanes import Lanes
from consumer.pipeline.parked_index import ParkedIndex
from consumer.progress import TaskControl, TaskProgress, TaskRun
from consumer.task import Task
from mesh.clock import SystemClock
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.stops import Stops
from schemas.completions import MAX_RULE_BACKLOGS, DestinationBacklog, Side, TaskError
from schemas.names import ObjectName
from tests.unit.consumer.pipeline.test_lanes import RULE, _task

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
ERROR = TaskError(code="unreachable", side=Side.DESTINATION, message="no answer")


def task(name: str, ago: int, *, bulk: bool = False, dry_run: bool = False, rule: str = "release") -> Task:
    made = _task(name, name, bulk=bulk, dry_run=dry_run)
    event = made.event.model_copy(update={"occurred_at": NOW - timedelta(seconds=ago)})
    named = RULE.rule.model_copy(update={"name": ObjectName(rule)})
    return replace(made, event=event, compiled=CompiledRule(named))


def parked(*tasks: Task) -> ParkedIndex:
    index = ParkedIndex()
    control = TaskControl(is_stopped=lambda: False, yield_permit=None)  # type: ignore[arg-type]  # it does not run
    for one in tasks:
        run = TaskRun(one, TaskProgress(started=NOW), control)
        index.replace(
            one.task_id, make_parked(run, ERROR, "a", NOW, rounds=1, first_parked=NOW, not_before=NOW)
        )
    return index


async def test_pushes_have_an_age_listed_tasks_have_none_and_a_parked_one_that_runs_counts_once() -> None:
    async def never(_: TaskRun) -> None:
        raise AssertionError("nothing runs before the test yields")

    lanes = Lanes(
        never, supersede=never, stops=Stops(), permits_per_destination=1, clock=SystemClock()
    )  # fmt: skip
    again = task("v1", 40)
    for one in (again, task("v2", 90, bulk=True), task("v3", 30), task("v4", 99, bulk=True, dry_run=True)):
        lanes.put(one, lambda: None)
    index = parked(again, task("v5", 7, bulk=True, rule="other"))
    found = count_rule_backlog(lanes.entries(), index.counts(["a"]), index.__contains__)
    assert {str(name): (one.tasks, one.oldest_push) for name, one in found.items()} == {
        "release": (3, NOW - timedelta(seconds=40)), "other": (1, None),
    }  # fmt: skip
    destination = again.destination.name
    assert count_backlog(lanes.entries(), index.counts(["a"]), index.__contains__) == {
        destination: DestinationBacklog(tasks=4, oldest=NOW - timedelta(seconds=90), bytes_left=0)
    }
    await lanes.drain(0)


def test_of_many_rules_those_with_the_oldest_pushes_are_reported() -> None:
    ages = range(MAX_RULE_BACKLOGS + 20)
    listed = [task("b", 10**6, bulk=True, rule=f"listed-{it}") for it in range(5)]
    index = parked(*listed, *(task("v", age, rule=f"r{age}") for age in ages))
    found = count_rule_backlog([], index.counts(["a"]), index.__contains__)
    assert set(found) == {f"r{age}" for age in ages if age >= 20}
