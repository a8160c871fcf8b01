"""An agent on the embedded log, between registries of our own: from an event to a tag that can be pulled."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from prometheus_client import CollectorRegistry

from consumer.agent import Agent
from consumer.image import plan
from consumer.image.admission import Admission, Stage
from consumer.image.plan import Image, Plan
from consumer.places import Places
from consumer.ports import AgentPorts
from consumer.progress import TaskRun
from consumer.settings import AgentSettings, ParkingPolicy, ReadWindow, TaskRetries, TransferLimits
from mesh.clock import SystemClock
from mesh.errors import LogError
from mesh.log.port import Append, Log, Record
from mesh.log.sqlite import open_log
from mesh.log.table import Table
from mesh.metrics import Metrics
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.faults import Cut, Fail, Faults, HalfWritten, Lie, Stall, Throttle
from mesh.registry.builtin.manifests import Deletes
from mesh.registry.client import RegistryClient, RegistryEndpoint, open_endpoint
from mesh.rules.state import MeshState
from schemas import codec, topics
from schemas.completions import Completion, Side, Status
from schemas.envelope import make_id
from schemas.events import Action, Event
from schemas.names import Digest, PlaceName, Region, Repository, Tag
from schemas.state import StateRecord
from schemas.topology import Place
from tests.support import images

CLOCK = SystemClock()
BEIJING, FRANKFURT = Region("beijing"), Region("frankfurt")
APP = Repository("game/app")
EVENTS = topics.events(BEIJING)
QUICK = AgentSettings(
    retries=TaskRetries(attempts=3, first_wait=0.02, longest_wait=0.05),
    parking=ParkingPolicy(give_up_after=0),
    regions_every=0.05,
    drain=5,
    progress_every=0.05,
)


class Site:
    """Two regions with a registry each, a log, and an agent in the second that can be killed and started again."""

    def __init__(self, file: Path, log: Log, source: BuiltinRegistry, destination: BuiltinRegistry) -> None:
        self.file, self.log, self.source, self.destination = file, log, source, destination
        self.settings = QUICK
        self._agents: list[tuple[Agent, asyncio.Task[None], asyncio.Task[None]]] = []
        self._pushes = 0

    @staticmethod
    def open_place(place: Place) -> RegistryEndpoint:
        return open_endpoint(place.name, place.url, None)

    async def declare(self, noun: str, name: str, **fields: object) -> int:
        record = StateRecord(
            id=make_id(noun, name), time=CLOCK.now(), noun=noun, value={"name": name, **fields}
        )
        return (await self.log.append([Append(topics.STATE, f"{noun}/{name}", codec.encode(record))]))[0]

    async def start(self) -> Agent:
        state, metrics = MeshState(), Metrics(CollectorRegistry())
        self.metrics = metrics

        async def unreadable(record: object, reason: str) -> None:
            raise AssertionError(reason)

        table = Table(
            self.log, topics.STATE, lambda it: state.apply(it.key, it.value, it.offset), unreadable=unreadable
        )
        places = Places(self.open_place, open_anonymous=Site.open_place, metrics=metrics, clock=CLOCK)
        ports = AgentPorts(
            agent=f"agent-{self._pushes}", region=FRANKFURT, log=self.log, state=state, rules=table,
            places=places, clock=CLOCK, metrics=metrics, random=lambda: 0.5,
        )  # fmt: skip
        agent = Agent(ports, self.settings)
        self._agents.append((agent, asyncio.create_task(agent.run()), asyncio.create_task(table.run())))
        return agent

    async def stop(self) -> None:
        """A clean stop: the drain, and then the end."""
        agent, running, following = self._agents.pop()
        agent.stop()
        await running
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    async def kill(self) -> None:
        """As near to kill -9 as one process gets: cancelled wherever it is, nothing settled, the log opened anew."""
        _, running, following = self._agents.pop()
        for task in (running, following):
            task.cancel()
        await asyncio.gather(running, following, return_exceptions=True)
        await self.log.close()
        self.log = await open_log(self.file, clock=CLOCK)

    async def event(
        self, tag: str | None, digest: Digest | None, *, repository: Repository = APP, rules_rev: int = -1,
        action: Action = Action.MANIFEST_PUSH,
    ) -> None:  # fmt: skip
        self._pushes += 1
        event = Event(
            id=f"event-{self._pushes}", time=CLOCK.now(), origin=PlaceName("cn"), action=action,
            place=PlaceName("cn"), region=BEIJING, repository=repository, tag=Tag(tag) if tag else None, digest=digest,
            occurred_at=CLOCK.now(), rules_rev=rules_rev,
        )  # fmt: skip
        await self.log.append([Append(topics.events(BEIJING), event.key, codec.encode(event))])

    async def push(
        self, tag: str, image: images.Image, *, repository: Repository = APP, notify: bool = True
    ) -> Digest:
        async with client(self.source) as source:
            await images.push(source, repository, Tag(tag), image)
        if notify:
            await self.event(tag, image.digest, repository=repository)
        return image.digest

    async def ends(self, count: int, *, within: float = 30) -> list[Completion]:
        """The first `count` completions there are."""
        reading = asyncio.create_task(self._read_ends(count))
        alive = [running for _, running, _ in self._agents]
        await asyncio.wait([reading, *alive], timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for agent in alive:
            assert not agent.done() or agent.result() is None, "the agent ended"
        assert reading.done() or reading.cancel() is None, f"no {count} ends within {within} s"
        return reading.result()

    async def _read_ends(self, count: int) -> list[Completion]:
        found: list[Completion] = []
        async with aclosing(self.log.follow(topics.completions(FRANKFURT))) as batches:
            async for batch in batches:
                found += [codec.decode(record.value or b"", Completion) for record in batch.records]
                if len(found) >= count:
                    break
        return found

    async def holds(self, tag: str, repository: Repository = APP) -> Digest | None:
        async with client(self.destination) as destination:
            found = await destination.resolve(repository, Tag(tag))
        return found.digest if found else None


@asynccontextmanager
async def client(registry: BuiltinRegistry) -> AsyncIterator[RegistryClient]:
    endpoint = open_endpoint("test", registry.url, None)
    try:
        yield endpoint.registry(Side.DESTINATION)
    finally:
        await endpoint.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as found:
        yield found


@asynccontextmanager
async def open_site(
    tmp_path: Path,
    *,
    source_lists: bool = True,
    destination_lists: bool = True,
    sparse_indexes: bool = False,
    destination_deletes: Deletes = "tags",
) -> AsyncIterator[Site]:
    """A site whose registries have the referrers API, or not, and whose destination takes sparse indexes, or not."""
    log = await open_log(tmp_path / "mesh.db", clock=CLOCK)
    source = BuiltinRegistry(tmp_path / "cn", clock=CLOCK, referrers=source_lists)
    destination = BuiltinRegistry(
        tmp_path / "eu", clock=CLOCK, referrers=destination_lists, sparse_indexes=sparse_indexes,
        deletes=destination_deletes,
    )  # fmt: skip
    await source.start()
    await destination.start()
    await log.ensure([topics.STATE, topics.completions(FRANKFURT)])
    found = Site(tmp_path / "mesh.db", log, source, destination)
    await found.declare("region", "beijing", jurisdiction="cn")
    await found.declare("region", "frankfurt", jurisdiction="global")
    for name, region, registry in (("cn", "beijing", source), ("eu", "frankfurt", destination)):
        await found.declare("instance", name, account="game", region=region, url=registry.url)
    await found.declare(
        "rule", "release", source="cn", destination="eu", filters=[{"type": "name", "value": "game/**"}]
    )
    await found.start()
    try:
        yield found
    finally:
        while found._agents:
            await found.kill()
        await source.stop()
        await destination.stop()
        await found.log.close()


async def test_a_push_arrives_whole_and_its_completion_says_what_it_cost(site: Site) -> None:
    image = images.image(layers=[b"one" * 1000, b"two" * 500])
    digest = await site.push("v1", image)
    (end,) = await site.ends(1)
    assert (end.status, end.digest, end.error) == (Status.SUCCEED, digest, None)
    assert end.bytes_total == end.bytes_transferred == sum(blob.size for blob in image.blob_descriptors)
    assert (end.source, end.destination) == ("cn/game/app:v1", "eu/game/app:v1")
    assert (end.rule, end.resource_type, end.blobs_transferred) == ("release", "image", 3)
    assert await site.holds("v1") == digest


async def test_an_index_brings_its_children_and_shared_layers_once(site: Site) -> None:
    shared = b"base" * 4000
    index = images.index([images.image(layers=[shared, b"amd64"]), images.image(layers=[shared, b"arm64"])])
    digest = await site.push("multi", index)
    (end,) = await site.ends(1)
    assert (end.status, end.digest) == (Status.SUCCEED, digest)
    async with client(site.destination) as destination:
        for child in index.children:
            assert (await destination.read_manifest(APP, child.digest)).body == child.manifest.body
    assert set(site.source.traffic.pulls.values()) == {1}


async def test_a_topic_that_is_joined_while_the_agent_reports_its_lag_is_no_error(site: Site) -> None:
    agent = site._agents[-1][0]
    await site.stop()
    calls: list[str] = []

    class Joined:
        async def report_lag(self) -> None:
            calls.append("lag")
            agent._consumers["mesh.of-a-new-region.events"] = consumers[0]

    consumers: list[Any] = [Joined()]
    agent._consumers = {"mesh.beijing.events": consumers[0]}
    await agent._report_lags()
    assert calls == ["lag"]


async def test_a_region_whose_log_does_not_report_its_lag_keeps_no_heartbeat_back(site: Site) -> None:
    await site.kill()
    site.settings = QUICK.model_copy(update={"heartbeat_every": 0.05})
    agent = await site.start()
    await until(lambda: EVENTS in agent._consumers)

    class Silent:
        asked = asyncio.Event()

        async def report_lag(self) -> None:
            self.asked.set()
            await asyncio.Event().wait()

        async def settle(self) -> None: ...

        async def close(self) -> None: ...

    silent: Any = Silent()
    agent._consumers["mesh.silent.events"] = silent
    await silent.asked.wait()
    before = await site.log.end(topics.status(FRANKFURT))

    async def beats() -> int:
        end = await site.log.end(topics.status(FRANKFURT))
        return sum(end.values()) - sum(before.values())

    async with asyncio.timeout(20):
        while await beats() < 3:
            await asyncio.sleep(0.02)
    assert agent._consumers["mesh.silent.events"] is silent


async def test_a_region_whose_log_refuses_us_stops_no_other(site: Site) -> None:
    """As Kafka does when a right is taken away: no wait mends that, and the agent has other regions."""
    (agent, running, _) = site._agents[-1]
    await until(lambda: len(agent._consumers) == 4)
    group, refused = agent._consumers[topics.bulk(FRANKFURT)]._group, asyncio.Event()

    async def refuse(**_: object) -> list[Record]:
        refused.set()
        raise LogError("refused")

    group.read = refuse  # type: ignore[method-assign]
    await refused.wait()
    digest = await site.push("v1", images.image(layers=[b"of another region"]))
    (end,) = await site.ends(1)
    assert (end.status, end.digest) == (Status.SUCCEED, digest)
    assert not running.done()


async def test_regions_are_left_concurrently_when_the_agent_stops(site: Site) -> None:
    """Each may have to wait for its log: one after the other they would outlast the time that a stop may take."""
    agent = site._agents[-1][0]
    await until(lambda: len(agent._consumers) == 4)
    barrier = asyncio.Barrier(4)
    for consume in agent._consumers.values():
        consume.settle = barrier.wait  # type: ignore[assignment]
    async with asyncio.timeout(20):
        await site.stop()
    assert not barrier.broken


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not look():
            await asyncio.sleep(0.02)


async def test_a_task_that_meets_a_bug_fails_alone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = plan.make_plan
    unlucky, lucky = images.image(layers=[b"unlucky"]), images.image(layers=[b"lucky"])

    def failing(image: Image) -> Plan:
        if image.digest == unlucky.digest:
            raise LookupError("nobody thought of this")
        return real(image)

    monkeypatch.setattr(plan, "make_plan", failing)
    await site.push("v1", unlucky)
    await site.push("v2", lucky)
    ends = {str(end.tag): end for end in await site.ends(2)}
    assert (ends["v1"].status, ends["v1"].error and ends["v1"].error.code) == (Status.FAILED, "internal")
    assert ends["v2"].status is Status.SUCCEED
    assert await site.holds("v1") is None


async def test_what_no_rule_wants_is_not_copied(site: Site) -> None:
    await site.push("v1", images.image(layers=[b"x"]), repository=Repository("other/app"))
    await site.push("v1", images.image(layers=[b"y"]))
    (end,) = await site.ends(1)
    assert end.repository == "game/app"
    assert await site.holds("v1", Repository("other/app")) is None


async def test_a_resource_filter_is_decided_by_the_manifest_and_never_by_the_name(site: Site) -> None:
    await site.declare(
        "rule", "release", source="cn", destination="eu", filters=[{"type": "resource", "value": "chart"}]
    )
    chart = images.image(layers=[b"chart"], config_type="application/vnd.cncf.helm.config.v1+json")
    await site.push("image", images.image(layers=[b"x"]), repository=Repository("charts/not-one"))
    await site.push("chart", chart)
    ends = {end.tag: end for end in await site.ends(2)}
    assert ends[Tag("image")].status is Status.SKIPPED
    assert ends[Tag("image")].error is not None
    assert ends[Tag("image")].error.code == "filtered"
    assert (ends[Tag("chart")].status, ends[Tag("chart")].resource_type) == (Status.SUCCEED, "chart")


async def test_the_same_event_again_is_skipped_and_costs_no_bytes(site: Site) -> None:
    digest = await site.push("v1", images.image(layers=[b"x" * 100]))
    await site.ends(1)
    await site.event("v1", digest)
    _, again = await site.ends(2)
    assert (again.status, again.bytes_transferred) == (Status.SKIPPED, 0)
    assert again.error is not None
    assert again.error.code == "already_there"


async def test_a_late_event_never_moves_a_tag_back(site: Site) -> None:
    old = await site.push("latest", images.image(layers=[b"old"]), notify=False)
    new = await site.push("latest", images.image(layers=[b"new"]))
    await site.ends(1)
    await site.event("latest", old)
    await site.ends(2)
    assert await site.holds("latest") == new


async def test_a_tag_that_moves_while_the_agent_asks_whether_it_may_write_is_not_moved_back(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may ask for long, as the log may be away; and another agent may have the newer push by then."""
    old, new = images.image(layers=[b"old"]), images.image(layers=[b"new"])
    real, asked = Admission.check, 0

    async def slow(self: Admission, run: TaskRun, stage: Stage) -> None:
        nonlocal asked
        asked += 1
        await real(self, run, stage)
        if asked == 3:  # when it started, before its content, and now before its tag
            for registry in (site.source, site.destination):
                async with client(registry) as there:
                    await images.push(there, APP, Tag("v1"), new)

    monkeypatch.setattr(Admission, "check", slow)
    await site.push("v1", old)
    await site.ends(1)
    assert asked >= 3
    assert await site.holds("v1") == new.digest


async def test_fifty_pushes_of_one_tag_end_at_the_last_and_never_go_back(site: Site) -> None:
    pushed: list[Digest] = []
    seen: list[Digest | None] = []
    stop = asyncio.Event()

    async def watch() -> None:
        while not stop.is_set():
            seen.append(await site.holds("latest"))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    for number in range(50):
        build = images.image(layers=[f"build {number}".encode()])
        pushed += [await site.push("latest", build)]
    ends = await site.ends(50, within=30)
    stop.set()
    await watching
    assert await site.holds("latest") == pushed[-1]
    order = [pushed.index(digest) for digest in seen if digest is not None]
    assert order == sorted(order)
    assert {end.status for end in ends} <= {Status.SUCCEED, Status.SKIPPED}


async def test_a_push_that_is_announced_before_it_is_stored_arrives(site: Site) -> None:
    image = images.image(layers=[b"early"])
    await site.event("v1", image.digest)
    await asyncio.sleep(0.3)
    await site.push("v1", image, notify=False)
    (end,) = await site.ends(1)
    assert (end.status, await site.holds("v1")) == (Status.SUCCEED, image.digest)


async def test_a_tag_that_is_missing_is_skipped_with_the_reason(site: Site) -> None:
    await site.event("v1", images.image(layers=[b"never"]).digest)
    (end,) = await site.ends(1)
    assert end.status is Status.SKIPPED
    assert end.error is not None
    assert end.error.code == "source_gone"


async def test_a_blob_that_another_repository_holds_is_mounted(site: Site) -> None:
    base = b"base" * 5000
    await site.push("v1", images.image(layers=[base]))
    await site.ends(1)
    await site.push("v1", images.image(layers=[base, b"more"]), repository=Repository("game/other"))
    _, second = await site.ends(2)
    assert second.blobs_mounted == 1
    assert second.bytes_skipped == len(base)


async def test_tasks_that_share_a_blob_send_it_once(site: Site) -> None:
    site.source.faults.slow = 400_000
    base = images.image(layers=[b"b" * 200_000])
    names = [Repository(f"game/app{number}") for number in range(4)]
    await asyncio.gather(*(site.push("v1", base, repository=name) for name in names))
    ends = await site.ends(4)
    assert {end.status for end in ends} == {Status.SUCCEED}
    assert set(site.source.traffic.pulls.values()) == {1}


async def test_the_fence_holds_an_event_until_the_rules_are_as_new(site: Site) -> None:
    image = images.image(layers=[b"fenced"])
    await site.push("v1", image, repository=Repository("new/app"), notify=False)
    rev = await site.declare("region", "beijing", jurisdiction="cn")
    await site.event("v1", image.digest, repository=Repository("new/app"), rules_rev=rev + 1)
    await asyncio.sleep(0.3)
    made = await site.declare("rule", "release", source="cn", destination="eu")
    assert made == rev + 1
    (end,) = await site.ends(1)
    assert (end.status, end.repository, end.rules_rev) == (Status.SUCCEED, "new/app", made)


async def test_events_that_need_rules_which_the_log_does_not_have_are_matched_by_those_it_has(
    site: Site,
) -> None:
    """The declared state was lost, or restored from an older copy: its revisions start lower again."""
    site.settings = QUICK.model_copy(update={"window": ReadWindow(poll=0.02, alarm_after=0.5)})
    await site.kill()
    await site.start()
    await site.declare("rule", "release", source="cn", destination="eu")
    image, repositories = images.image(layers=[b"restored"]), [Repository(f"new/app-{n}") for n in range(8)]
    for repository in repositories:
        await site.push("v1", image, repository=repository, notify=False)
        await site.event("v1", image.digest, repository=repository, rules_rev=1_000_000)
    ends = await site.ends(len(repositories))
    assert {(end.status, end.repository) for end in ends} == {(Status.SUCCEED, name) for name in repositories}


@pytest.mark.parametrize(
    ("side", "faults"),
    [
        ("source", Faults(cut=Cut(times=3, after=30_000))),
        ("source", Faults(fail=Fail(times=2, method="GET", path="/v2/game"))),
        ("source", Faults(throttle=Throttle(times=2, retry_after=0))),
        ("source", Faults(lie=Lie(times=1))),
        ("destination", Faults(fail=Fail(times=2, method="POST", path="/v2/game"))),
        ("destination", Faults(throttle=Throttle(times=3, retry_after=0))),
        ("destination", Faults(half_written=HalfWritten(times=1))),
        ("destination", Faults(half_written=HalfWritten(times=1, head_says_there=True))),
    ],
    ids=[
        "cut",
        "500-source",
        "429-source",
        "lie",
        "500-destination",
        "429-destination",
        "lost",
        "lost-head-lies",
    ],
)
async def test_a_registry_that_misbehaves_for_a_while_is_outlived(
    site: Site, side: str, faults: Faults
) -> None:
    image = images.image(layers=[b"a" * 100_000, b"b" * 100_000])
    await site.push("v1", image, notify=False)
    registry = site.source if side == "source" else site.destination
    for name in ("cut", "fail", "throttle", "lie", "half_written"):
        setattr(registry.faults, name, getattr(faults, name))
    await site.event("v1", image.digest)
    (end,) = await site.ends(1)
    assert (end.status, await site.holds("v1")) == (Status.SUCCEED, image.digest)
    assert sum(registry.faults.struck.values()) > 0


@pytest.mark.parametrize(
    ("side", "faults", "code"),
    [
        ("source", Faults(lie=Lie(times=1000)), "content_mismatch"),
        ("source", Faults(fail=Fail(times=1000, method="GET", path="/v2/")), "server_fault"),
        ("destination", Faults(fail=Fail(times=1000, method="POST", path="/v2/", status=403)), "denied"),
        ("destination", Faults(fail=Fail(times=1000, method="PUT", path="/v2/", status=400)), "rejected"),
    ],
)
async def test_what_does_not_mend_ends_failed_with_code_and_side_and_no_tag(
    site: Site, side: str, faults: Faults, code: str
) -> None:
    image = images.image(layers=[b"a" * 1000])
    await site.push("v1", image, notify=False)
    registry = site.source if side == "source" else site.destination
    registry.faults.lie, registry.faults.fail = faults.lie, faults.fail
    await site.event("v1", image.digest)
    (end,) = await site.ends(1)
    assert end.status is Status.FAILED
    assert end.error is not None
    assert (end.error.code, end.error.side) == (code, side)
    registry.faults.lie = registry.faults.fail = None
    assert await site.holds("v1") is None


async def test_an_unreachable_destination_fails_by_itself(site: Site) -> None:
    await site.declare("instance", "gone", account="game", region="frankfurt", url="http://127.0.0.1:9")
    await site.declare("rule", "to-gone", source="cn", destination="gone")
    digest = await site.push("v1", images.image(layers=[b"x"]))
    ends = {end.rule: end for end in await site.ends(2)}
    assert ends["release"].status is Status.SUCCEED  # type: ignore[index]
    failed = ends["to-gone"]  # type: ignore[index]
    assert failed.error is not None
    assert (failed.status, failed.error.code, failed.error.side) == (
        Status.FAILED,
        "unreachable",
        "destination",
    )
    assert await site.holds("v1") == digest


async def test_what_cannot_be_read_becomes_a_dead_letter_and_the_line_moves_on(site: Site) -> None:
    await site.log.append([Append(topics.events(BEIJING), "cn/game/app", b"\x00 not an event")])
    await site.push("v1", images.image(layers=[b"x"]))
    (end,) = await site.ends(1)
    assert end.status is Status.SUCCEED
    assert sum((await site.log.end(topics.dead_letters(FRANKFURT))).values()) == 1


async def test_a_kill_in_the_middle_of_a_copy_leaves_nothing_behind_after_a_restart(site: Site) -> None:
    site.source.faults.slow = 300_000
    image = images.image(layers=[b"k" * 200_000, b"l" * 100_000])
    await site.push("v1", image)
    while not site.source.traffic.pulls:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    await site.kill()
    assert await site.holds("v1") is None
    site.source.faults.slow = None
    await site.start()
    (end,) = await site.ends(1)
    assert (end.status, await site.holds("v1")) == (Status.SUCCEED, image.digest)
    await site.stop()
    assert await _left(site.log, topics.status(FRANKFURT)) == {
        "agent-0"
    }  # the killed one, which said no good-bye


async def test_cut_between_the_tag_and_the_completion_it_has_still_succeeded(site: Site) -> None:
    """What a webhook promises: an image that was copied is reported as copied, whenever the agent died."""
    image = images.image(layers=[b"c" * 1000])
    await site.push("v1", image, notify=False)
    await site.kill()
    held = asyncio.Event()
    append = site.log.append

    async def cut_at_the_completion(
        records: Sequence[Append], *, then: Sequence[Append] = ()
    ) -> Sequence[int]:
        if any(record.topic == topics.completions(FRANKFURT) for record in records):
            held.set()
            await asyncio.sleep(3600)
        return await append(records, then=then)

    site.log.append = cut_at_the_completion  # type: ignore[method-assign]
    await site.start()
    await site.event("v1", image.digest)
    await held.wait()
    assert await site.holds("v1") == image.digest
    await site.kill()
    await site.start()
    (end,) = await site.ends(1)
    assert (end.status, end.digest, end.error) == (Status.SUCCEED, image.digest, None)


async def test_no_progress_outlives_its_task(site: Site) -> None:
    await site.stop()
    site.settings = QUICK.model_copy(update={"progress_every": 0.0005})
    await site.start()
    names = [Repository(f"game/app{number}") for number in range(60)]
    image = images.image(layers=[b"quick"])
    for name in names:
        await site.push("v1", image, repository=name)
    await site.ends(60)
    await site.stop()
    assert await _left(site.log, topics.status(FRANKFURT)) == set()


async def test_a_stop_lets_the_copy_finish_and_commits_it(site: Site) -> None:
    site.source.faults.slow = 400_000
    await site.push("v1", images.image(layers=[b"s" * 200_000]))
    while not site.source.traffic.pulls:
        await asyncio.sleep(0.01)
    await site.stop()
    (end,) = await site.ends(1)
    assert end.status is Status.SUCCEED
    await site.start()
    second = await site.push("v2", images.image(layers=[b"after"]))
    assert [end.digest for end in await site.ends(2)][1] == second  # the first was not run again


async def test_a_drain_that_takes_too_long_is_cut_and_the_event_comes_again(site: Site) -> None:
    await site.stop()
    site.settings = QUICK.model_copy(update={"drain": 0.1})
    await site.start()
    site.source.faults.slow = 20_000
    image = images.image(layers=[b"t" * 200_000])
    await site.push("v1", image)
    while not site.source.traffic.pulls:
        await asyncio.sleep(0.01)
    await site.stop()
    assert sum((await site.log.end(topics.completions(FRANKFURT))).values()) == 0
    site.source.faults.slow = None
    await site.start()
    (end,) = await site.ends(1)
    assert (end.status, end.digest) == (Status.SUCCEED, image.digest)


async def test_cut_at_any_time_the_end_is_right(site: Site) -> None:
    """Kill the agent again and again at another moment; the last one brings the image, and the tag was never half."""
    image = images.index([images.image(layers=[bytes([n]) * 30_000]) for n in range(3)])
    site.source.faults.slow = 600_000
    digest = await site.push("v1", image)
    for moment in range(12):
        await asyncio.sleep(0.03 * moment)
        await site.kill()
        if await site.holds("v1") is not None:
            assert await site.holds("v1") == digest
            async with client(site.destination) as destination:
                for child in image.children:
                    for blob in child.blob_descriptors:
                        assert await destination.blob_size(APP, blob.digest) == blob.size
        await site.start()
    await site.ends(1)
    assert await site.holds("v1") == digest


async def _left(log: Log, topic: str) -> set[str]:
    """The keys of a compacted topic that have a value."""
    found: dict[str, bytes | None] = {}
    ends = await log.end(topic)
    async with aclosing(log.follow(topic)) as batches:
        async for batch in batches:
            found |= {record.key: record.value for record in batch.records}
            if all(batch.positions.get(number, 0) >= end for number, end in ends.items()):
                break
    return {key for key, value in found.items() if value is not None}


async def test_no_more_sources_are_open_than_blobs_may_be_on_their_way(site: Site) -> None:
    """What waits for its turn holds no connection, and no bytes in memory."""
    await site.kill()
    site.settings = QUICK.model_copy(update={"transfers": TransferLimits(blobs_per_task=4, transfers=2)})
    site.source.faults.stall = Stall(ANY)
    await site.start()
    digest = await site.push("v1", images.image(layers=[b"%d" % number for number in range(6)]))
    await until(lambda: site.source.faults.struck["stall"] >= 2)
    await asyncio.sleep(0.3)
    assert site.source.faults.struck["stall"] == 2
    site.source.faults.stall.over.set()
    (end,) = await site.ends(1)
    assert (end.status, end.digest) == (Status.SUCCEED, digest)
