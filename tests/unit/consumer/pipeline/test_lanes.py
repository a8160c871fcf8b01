"""Pushes and listings in the lanes: neither in the other's way, and never both at one tag."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from consumer.pipeline.lanes import Lanes
from consumer.progress import TaskControl, TaskRun
from consumer.task import Task
from mesh.clock import SystemClock
from mesh.registry.port import digest_of
from mesh.rules.matching.compiled_rule import CompiledRule
from mesh.rules.stops import Stops
from schemas.events import Action, Event, PartOf
from schemas.names import ObjectName, PlaceName, Region, Repository, Tag
from schemas.rules import ReplicaRule, Rule, TriggerKind
from schemas.topology import Instance, Place

CLOCK = SystemClock()
RULE = CompiledRule(Rule.model_validate({"name": "release", "source": "cn", "destination": "eu"}))
REPLICA = ReplicaRule.model_validate({"name": "cn@shanghai", "source": "cn", "destination": "cn@shanghai"})


def _instance(name: str) -> Place:
    return Instance.model_validate(
        {"name": name, "account": "game", "region": "beijing", "url": "http://x:5000"}
    ).as_place()


def _task(name: str, tag: str, *, bulk: bool, dry_run: bool = False) -> Task:
    """A task whose event is `name`."""
    part_of = PartOf(execution_id="run", rule=ObjectName("release"), trigger="manual", dry_run=dry_run)
    digest = digest_of(name.encode())
    event = Event(
        id=name, time=CLOCK.now(), action=Action.MANIFEST_PUSH, place=PlaceName("cn"), region=Region("beijing"),
        repository=Repository("game/app"), tag=Tag(tag), digest=digest, occurred_at=CLOCK.now(), rules_rev=0,
        part_of=part_of if bulk else None,
    )  # fmt: skip
    return Task(
        event=event, compiled=RULE, source=_instance("cn"), destination=_instance("eu"), tag=Tag(tag), digest=digest,
        repository=event.repository, destination_repository=event.repository, rules_rev=0,
    )  # fmt: skip


class Work:
    """Tasks that run until they are let go."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Event] = {}
        self.yielding: dict[str, asyncio.Event] = {}  # these yield their permit first, until it is set
        self.controls: dict[str, TaskControl] = {}
        self.done: list[str] = []
        self.finished: list[str] = []
        self.superseded: list[str] = []
        self.lanes = Lanes(
            self.run, supersede=self.supersede, stops=Stops(), permits_per_destination=4,
            bulk_permits_per_destination=1, clock=CLOCK,
        )  # fmt: skip

    async def run(self, run: TaskRun) -> None:
        task = run.task
        if (pause := self.yielding.get(task.event.id)) is not None:
            async with run.control.yield_permit():
                await pause.wait()
        go = self.running[task.event.id] = asyncio.Event()
        self.controls[task.event.id] = run.control
        await go.wait()
        del self.running[task.event.id]
        self.done.append(task.event.id)

    async def supersede(self, run: TaskRun) -> None:
        await asyncio.sleep(0)
        self.superseded.append(run.task.event.id)

    def put(self, name: str, tag: str, *, bulk: bool, dry_run: bool = False) -> None:
        self.lanes.put(_task(name, tag, bulk=bulk, dry_run=dry_run), lambda: self.finished.append(name))

    def put_of_replica(self, name: str, tag: str, trigger: TriggerKind) -> None:
        task = _task(name, tag, bulk=True)
        part_of = PartOf(execution_id=name, rule=REPLICA.name, trigger=trigger)
        event = task.event.model_copy(update={"part_of": part_of})
        self.lanes.put(
            replace(task, event=event, compiled=CompiledRule(REPLICA)), lambda: self.finished.append(name)
        )

    async def settle(self) -> set[str]:
        for _ in range(20):
            await asyncio.sleep(0)
        return set(self.running)

    async def finish(self, name: str) -> set[str]:
        self.running[name].set()
        return await self.settle()


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    found = Work()
    yield found
    await found.lanes.drain(0)


async def test_a_push_does_not_wait_behind_a_listing_of_its_repository(work: Work) -> None:
    for number in range(3):
        work.put(f"listed {number}", f"v{number}", bulk=True)
    assert await work.settle() == {"listed 0"}
    work.put("push", "new", bulk=False)
    assert await work.settle() == {"listed 0", "push"}


async def test_a_push_and_a_listed_event_never_write_one_tag_at_once(work: Work) -> None:
    work.put("listed", "v1", bulk=True)
    await work.settle()
    work.put("push", "v1", bulk=False)
    assert await work.settle() == {"listed"}
    assert work.controls["listed"].superseded.is_set()  # it ends as soon as it looks
    assert await work.finish("listed") == {"push"}
    assert await work.finish("push") == set()


async def test_a_listed_event_supersedes_no_push(work: Work) -> None:
    work.put("push", "v1", bulk=False)
    await work.settle()
    work.put("listed", "v1", bulk=True)
    assert await work.settle() == {"push"}
    assert not work.controls["push"].superseded.is_set()
    assert await work.finish("push") == {"listed"}


@pytest.mark.parametrize("trigger", ["manual", "scheduled", "reconcile"])
async def test_a_listed_event_supersedes_no_listed_event(work: Work, trigger: TriggerKind) -> None:
    """Its execution may be stopped before it brings the digest."""
    work.put_of_replica("running", "v1", "manual")
    work.put_of_replica("queued", "v1", "manual")
    await work.settle()
    work.put_of_replica("newer", "v1", trigger)
    assert await work.settle() == {"running"}
    assert not work.controls["running"].superseded.is_set()
    assert await work.finish("running") == {"queued"}
    assert await work.finish("queued") == {"newer"}
    assert work.superseded == []


async def test_a_dry_run_is_in_nobodys_way(work: Work) -> None:
    work.put("push", "v1", bulk=False)
    work.put("dry", "v1", bulk=True, dry_run=True)
    assert await work.settle() == {"push", "dry"}
    work.put("push again", "v1", bulk=False)
    assert not work.controls["dry"].superseded.is_set()


async def test_what_only_waits_ends_at_once_when_a_newer_one_of_its_tag_comes(work: Work) -> None:
    for number in range(5):
        work.put(f"push {number}", "v1", bulk=False)
        await work.settle()
    assert set(work.running) == {"push 0"}
    assert work.superseded == work.finished == ["push 1", "push 2", "push 3"]
    assert len(list(work.lanes.entries())) == 2
    assert await work.finish("push 0") == {"push 4"}
    assert await work.finish("push 4") == set()
    assert work.finished[3:] == ["push 0", "push 4"]
    assert not work.lanes._entries


async def test_what_comes_in_again_is_the_same_task_and_supersedes_nothing(work: Work) -> None:
    """As all that was not finished is when a partition is revoked and assigned again."""
    for _ in range(2):
        for name, tag in (("one", "v1"), ("two", "v2")):
            work.put(name, tag, bulk=False)
        await work.settle()
    assert not work.controls["one"].superseded.is_set()
    assert await work.finish("one") == {"two"}
    assert work.finished == ["one", "one"]
    await work.finish("two")
    assert (work.done, work.finished) == (["one", "two"], ["one", "one", "two", "two"])


async def test_a_task_that_yields_leaves_its_permit_to_others_and_gets_it_again(work: Work) -> None:
    work.yielding["first"] = asyncio.Event()
    work.put("first", "v1", bulk=True)
    work.put("second", "v2", bulk=True)  # behind it in its lane
    assert await work.settle() == set()
    work.lanes.put(replace(_task("other", "v3", bulk=True), repository=Repository("a/b")), bool)
    assert await work.settle() == {"other"}  # by the one permit that there is
    work.yielding["first"].set()
    assert await work.settle() == {"other"}
    assert await work.finish("other") == {"first"}
    assert await work.finish("first") == {"second"}


async def test_a_task_that_yields_leaves_its_target_too(work: Work) -> None:
    work.yielding["listed"] = asyncio.Event()
    work.put("listed", "v1", bulk=True)
    work.put("push", "v1", bulk=False)
    assert await work.settle() == {"push"}
    work.yielding["listed"].set()
    assert await work.settle() == {"push"}  # never both at one tag
    assert await work.finish("push") == {"listed"}


async def test_a_task_cancelled_while_it_yields_leaves_nothing_behind(work: Work) -> None:
    work.yielding["listed"] = asyncio.Event()
    work.put("listed", "v1", bulk=True)
    await work.settle()
    assert not await work.lanes.drain(0)
    work.put("again", "v1", bulk=True)
    assert await work.settle() == {"again"}
