"""Executions whole: asked for at the API, listed by a producer, copied by an agent, counted by control."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from consumer.agent import Agent
from consumer.places import Places
from consumer.ports import AgentPorts
from consumer.settings import AgentSettings, ParkingPolicy, TaskRetries
from mesh.clock import SystemClock
from mesh.log.port import Append
from mesh.metrics import Metrics
from mesh.node.cli import app
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.faults import Fail, Faults, Throttle
from mesh.registry.client import open_endpoint
from mesh.registry.port import Endpoint
from producer.reconcile import Reconcile
from producer.settings import ProducerSettings
from schemas import codec, topics
from schemas.events import Action, Event
from schemas.names import Digest, PlaceName, Region, Repository, Tag
from schemas.topology import Place
from tests.flow.test_agent import client
from tests.support import attached, images
from tests.support.attached import SBOM, attachment, cosign_tag
from tests.support.control_site import Site as ControlSite
from tests.support.control_site import control_site, until

LISTING = ProducerSettings(listing_attempts=2, listing_first_wait=0.01, listing_longest_wait=0.02)
CLOCK = SystemClock()
APP = Repository("game/app")
QUICK = AgentSettings(
    retries=TaskRetries(attempts=2, first_wait=0.02, longest_wait=0.05),
    parking=ParkingPolicy(give_up_after=0),
    regions_every=0.05,
    drain=5,
    progress_every=0.05,
)


def _open(instance: Place) -> Endpoint:
    return open_endpoint(instance.name, instance.url, None)


@dataclass
class Mesh:
    """Control, one producer and one agent on one log, between two registries."""

    control: ControlSite
    source: BuiltinRegistry
    destination: BuiltinRegistry
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def rule(self, **fields: Any) -> None:
        rule = {
            "name": "release",
            "source": "cn",
            "destination": "eu",
            "trigger": {"type": "manual"},
            **fields,
        }
        status, answer = await self.control.call("POST", "/api/v1/apply", {"rules": [rule]})
        assert status == 200, answer

    async def push(self, tag: str, *layers: bytes, repository: Repository = APP) -> Digest:
        image = images.image(layers=list(layers) or [f"{repository}:{tag}".encode()])
        async with client(self.source) as registry:
            await images.push(registry, repository, Tag(tag), image)
        return image.digest

    async def announce_deletion(self, tag: str) -> None:
        now = CLOCK.now()
        event = Event(
            id=f"deleted-{tag}", time=now, origin=PlaceName("cn"), action=Action.TAG_DELETE, place=PlaceName("cn"),
            region=Region("beijing"), repository=APP, tag=Tag(tag), occurred_at=now, rules_rev=self.control.state.rev,
        )  # fmt: skip
        await self.control.log.append([Append(topics.events(event.region), event.key, codec.encode(event))])

    async def delete_digest(self, digest: Digest) -> None:
        """At the source, which notifies the digest and no tag."""
        async with client(self.source) as registry:
            await registry.delete_manifest(APP, digest)
        now = CLOCK.now()
        event = Event(
            id=f"deleted-{digest}", time=now, origin=PlaceName("cn"), action=Action.MANIFEST_DELETE,
            place=PlaceName("cn"), region=Region("beijing"), repository=APP, digest=digest, occurred_at=now,
            rules_rev=self.control.state.rev,
        )  # fmt: skip
        await self.control.log.append([Append(topics.events(event.region), event.key, codec.encode(event))])

    async def doctor(self) -> list[str]:
        """What it says of rules."""
        _, answer = await self.control.call("GET", "/api/v1/doctor")
        return [it["message"] for it in answer["items"] if it["about"].startswith("rule/")]

    async def destination_was_asked(self) -> bool:
        return self.destination.faults.struck["throttle"] > 0

    async def holds(self, tag: str, repository: Repository = APP) -> Digest | None:
        async with client(self.destination) as registry:
            found = await registry.resolve(repository, Tag(tag))
        return found.digest if found else None

    def agent(self, settings: AgentSettings = QUICK) -> None:
        metrics = Metrics(CollectorRegistry())
        ports = AgentPorts(
            agent="agent", region=Region("frankfurt"), log=self.control.log, state=self.control.state,
            rules=self.control.table, clock=CLOCK,
            places=Places(_open, open_anonymous=_open, metrics=metrics, clock=CLOCK),
            metrics=metrics, random=lambda: 0.5,
        )  # fmt: skip
        agent = Agent(ports, settings)
        self.tasks.append(asyncio.create_task(agent.run()))

    def producer(self) -> asyncio.Task[None]:
        reconcile = Reconcile(
            log=self.control.log, state=self.control.state, table=self.control.table, open_endpoint=_open,
            clock=CLOCK, random=lambda: 0.5, settings=LISTING,
        )  # fmt: skip
        self.tasks.append(asyncio.create_task(reconcile.run()))
        return self.tasks[-1]

    async def sync(self, **asked: Any) -> str:
        status, answer = await self.control.call("POST", "/api/v1/executions", {"rule": "release", **asked})
        assert status == 201, answer
        return str(answer["id"])

    async def execution(self, execution_id: str) -> dict[str, Any]:
        status, answer = await self.control.call("GET", f"/api/v1/executions/{execution_id}")
        assert status == 200, answer
        return dict(answer)

    async def ended(self, execution_id: str) -> dict[str, Any]:
        async def has_ended() -> bool:
            return (await self.execution(execution_id))["status"] != "InProgress"

        await until(has_ended, timeout=20)
        return await self.execution(execution_id)

    async def executions(self, **query: str) -> list[dict[str, Any]]:
        _, answer = await self.control.call("GET", "/api/v1/executions", params=query)
        return list(answer["items"])


@asynccontextmanager
async def _mesh(folder: Path, faults: Faults | None = None, *, referrers: bool = True) -> AsyncIterator[Mesh]:
    source = BuiltinRegistry(folder / "cn", clock=CLOCK, faults=faults, referrers=referrers)
    destination = BuiltinRegistry(folder / "eu", clock=CLOCK, referrers=referrers)
    await source.start()
    await destination.start()
    async with control_site(folder) as control:
        mesh = Mesh(control, source, destination)
        document = {
            "regions": [
                {"name": "beijing", "jurisdiction": "cn"},
                {"name": "frankfurt", "jurisdiction": "global"},
            ],
            "instances": [
                {"name": "cn", "account": "game", "region": "beijing", "url": source.url},
                {"name": "eu", "account": "game", "region": "frankfurt", "url": destination.url},
            ],
        }
        status, answer = await control.call("POST", "/api/v1/apply", document)
        assert status == 200, answer
        try:
            yield mesh
        finally:
            for task in mesh.tasks:
                task.cancel()
            await asyncio.gather(*mesh.tasks, return_exceptions=True)
    await source.stop()
    await destination.stop()


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with _mesh(tmp_path) as found:
        yield found


@pytest.fixture
async def running(mesh: Mesh) -> Mesh:
    mesh.producer()
    mesh.agent()
    return mesh


async def test_a_manual_run_copies_what_the_filters_match_and_counts_it(running: Mesh) -> None:
    await running.rule(filters=[{"type": "name", "value": "game/**"}, {"type": "tag", "value": "v*"}])
    pushed = {tag: await running.push(tag) for tag in ("v1", "v2", "v3")}
    await running.push("dev")
    await running.push("v1", repository=Repository("other/app"))
    ended = await running.ended(await running.sync())
    assert (ended["status"], ended["trigger"], ended["error"]) == ("Succeed", "manual", None)
    assert (ended["total"], ended["succeed"], ended["in_progress"]) == (3, 3, 0)
    assert ended["bytes_transferred"] == ended["bytes_total"] > 0
    assert {tag: await running.holds(tag) for tag in pushed} == pushed
    assert await running.holds("dev") is None
    assert await running.holds("v1", Repository("other/app")) is None
    entries = await running.control.logs(execution=ended["id"])
    assert {entry["trigger"] for entry in entries} == {"manual"}


async def test_the_same_again_finds_everything_there_and_succeeds(running: Mesh) -> None:
    await running.rule()
    await running.push("v1")
    first = await running.ended(await running.sync())
    again = await running.ended(await running.sync())
    assert first["id"] != again["id"]
    assert (again["status"], again["skipped"], again["bytes_transferred"]) == ("Succeed", 1, 0)
    assert [one["id"] for one in await running.executions(rule="release")] == [again["id"], first["id"]]
    assert await running.executions(status="Failed") == []


async def test_repository_and_tag_narrow_it_down(running: Mesh) -> None:
    await running.rule()
    for repository in (APP, Repository("game/web")):
        await running.push("v1", repository=repository)
        await running.push("v2", repository=repository)
    ended = await running.ended(await running.sync(repository="game/web", tag="*2"))
    assert ended["total"] == ended["succeed"] == 1
    assert await running.holds("v2", Repository("game/web")) is not None
    assert await running.holds("v2") is None


async def test_the_same_tag_of_several_repositories_and_several_tags_of_one_digest_all_arrive(
    running: Mesh,
) -> None:
    await running.rule()
    names = [Repository(f"game/app-{number}") for number in range(4)]
    for name in names:
        await running.push("v1", b"one", repository=name)
        await running.push("latest", b"one", repository=name)
    ended = await running.ended(await running.sync())
    assert (ended["status"], ended["total"], ended["succeed"]) == ("Succeed", 8, 8)
    held = {await running.holds(tag, name) for name in names for tag in ("v1", "latest")}
    assert len(held) == 1
    assert None not in held


async def test_a_manual_rule_copies_nothing_by_itself(running: Mesh) -> None:
    await running.rule()
    digest = await running.push("v1")
    now = CLOCK.now()
    event = Event(
        id="pushed", time=now, action=Action.MANIFEST_PUSH, place=PlaceName("cn"), region=Region("beijing"),
        repository=APP, tag=Tag("v1"), digest=digest, occurred_at=now, rules_rev=-1,
    )  # fmt: skip
    await running.control.log.append(
        [Append(topics.events(Region("beijing")), event.key, codec.encode(event))]
    )
    await running.ended(await running.sync(tag="none"))
    assert await running.control.logs() == []


async def test_a_dry_run_reports_what_would_be_sent_and_writes_nothing(running: Mesh) -> None:
    await running.rule()
    await running.push("v1", b"shared" * 100)
    await running.ended(await running.sync())
    await running.push("v2", b"shared" * 100, b"new" * 50)
    held = running.destination.traffic.uploads.copy()
    ended = await running.ended(await running.sync(dry_run=True))
    assert (ended["status"], ended["total"], ended["skipped"], ended["dry_run"]) == ("Succeed", 2, 2, True)
    assert (ended["bytes_transferred"], await running.holds("v2")) == (0, None)
    entries = {entry["tag"]: entry for entry in await running.control.logs(execution=ended["id"])}
    assert entries["v1"]["error"]["code"] == "already_there"
    assert entries["v2"]["error"]["code"] == "dry_run"
    would_send = entries["v2"]["bytes_total"] - entries["v2"]["bytes_skipped"]
    assert 150 <= would_send < entries["v2"]["bytes_total"]
    assert f"{would_send} of" in entries["v2"]["error"]["message"]
    assert running.destination.traffic.uploads == held


async def test_a_source_that_forbids_listing_fails_with_what_to_configure(tmp_path: Path) -> None:
    faults = Faults(fail=Fail(1000, "GET", "/v2/_catalog", 403))
    async with _mesh(tmp_path, faults) as mesh:
        mesh.producer()
        mesh.agent()
        await mesh.rule(filters=[{"type": "name", "value": "game/**"}])
        await mesh.push("v1")
        ended = await mesh.ended(await mesh.sync())
        assert (ended["status"], ended["total"], ended["error"]["code"]) == ("Failed", 0, "listing_refused")
        assert "name filter" in ended["error"]["message"]
        assert (await mesh.ended(await mesh.sync(repository="game/app")))["status"] == "Succeed"
        await mesh.rule(filters=[{"type": "name", "value": "game/{app,web}"}])
        assert (await mesh.ended(await mesh.sync()))["total"] == 1


async def test_names_that_nobody_can_read_are_reported_and_hide_no_other(
    running: Mesh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await running.rule()
    digest = await running.push("v1")
    store = running.source._store
    monkeypatch.setattr(store, "repositories", lambda: ["Game/App", "game/app"])
    monkeypatch.setattr(store, "tags", lambda _: ["-no-tag", "v1"])
    code = await asyncio.to_thread(app.run, ["sync", "release", "--wait", "--server", running.control.url])
    assert (code, await running.holds("v1")) == (1, digest)
    assert "2 errors, the first: 1 name is not valid" in capsys.readouterr().err
    (shown,) = await running.executions()
    assert (shown["status"], shown["succeed"], shown["error"]["code"]) == ("Failed", 1, "unreadable_names")
    assert "'Game/App' (in /v2/_catalog)" in shown["error"]["message"]
    await asyncio.to_thread(app.run, ["get", "executions", "--server", running.control.url])
    assert "'Game/App'" in capsys.readouterr().out
    ended = await running.ended(await running.sync(tag="v*", repository="game/**"))
    assert (ended["status"], ended["total"]) == ("Succeed", 1)  # these are not asked for


async def test_agents_are_given_the_first_of_a_listing_before_the_rest_is_found(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mesh.rule()
    for number in range(60):
        await mesh.push(f"v{number}", b"one")
    appended, append = list[int](), mesh.control.log.append

    async def counted(records: Sequence[Append]) -> Sequence[int]:
        if records[0].topic == topics.bulk(Region("beijing")):
            appended.append(len(records))
        return await append(records)

    monkeypatch.setattr(mesh.control.log, "append", counted)
    mesh.producer()
    execution_id = await mesh.sync()

    async def is_listed() -> bool:
        return (await mesh.execution(execution_id))["total"] == 60

    await until(is_listed)
    assert sum(appended) == 60
    assert appended[0] <= 16


async def test_a_listing_cut_in_the_middle_is_done_again_with_the_same_tasks(mesh: Mesh) -> None:
    await mesh.rule()
    for number in range(40):
        await mesh.push(f"v{number}", b"one")
    first = mesh.producer()
    execution_id = await mesh.sync()

    def has_begun() -> bool:
        return mesh.source.traffic.requests["HEAD", "manifest"] > 5

    await until(has_begun)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    mesh.producer()
    mesh.agent()
    ended = await mesh.ended(execution_id)
    assert (ended["status"], ended["total"]) == ("Succeed", 40)
    assert ended["succeed"] + ended["skipped"] == 40
    assert len(await mesh.control.logs(execution=execution_id)) == 40
    assert mesh.source.traffic.requests["GET", "tags"] == 2  # both producers listed it


async def test_a_stopped_execution_ends_its_waiting_tasks(mesh: Mesh) -> None:
    await mesh.rule()
    for number in range(5):
        await mesh.push(f"v{number}")
    mesh.producer()
    execution_id = await mesh.sync()

    async def is_listed() -> bool:
        return (await mesh.execution(execution_id))["total"] == 5

    await until(is_listed)
    assert (await mesh.execution(execution_id))["in_progress"] == 5
    status, _ = await mesh.control.call("POST", f"/api/v1/executions/{execution_id}/stop", {})
    assert status == 202
    mesh.agent()
    ended = await mesh.ended(execution_id)
    assert (ended["status"], ended["stopped"]) == ("Stopped", 5)
    assert await mesh.holds("v0") is None


async def test_a_task_that_waits_for_a_throttled_registry_is_stopped_in_its_wait(running: Mesh) -> None:
    await running.rule()
    await running.push("v1")
    running.destination.faults.throttle = Throttle(times=1000, retry_after=600)
    execution_id = await running.sync()
    await until(running.destination_was_asked, timeout=20)
    await running.control.call("POST", f"/api/v1/executions/{execution_id}/stop", {})
    ended = await running.ended(execution_id)  # long before the ten minutes are over
    assert (ended["status"], ended["stopped"]) == ("Stopped", 1)


async def test_a_running_task_of_a_stopped_execution_ends_after_its_current_blobs(running: Mesh) -> None:
    await running.rule()
    await running.push("v1", *(bytes([number]) * 40_000 for number in range(12)))
    running.source.faults.slow = 100_000  # bytes/s
    execution_id = await running.sync()
    await until(lambda: running.destination.traffic.uploads.total() >= 1)
    await running.control.call("POST", f"/api/v1/executions/{execution_id}/stop", {})
    ended = await running.ended(execution_id)
    assert (ended["status"], ended["stopped"]) == ("Stopped", 1)
    assert 1 <= running.destination.traffic.uploads.total() < 12
    assert await running.holds("v1") is None


async def test_an_execution_whose_rule_is_removed_does_not_wait_for_ever(mesh: Mesh) -> None:
    await mesh.rule()
    execution_id = await mesh.sync()
    status, _ = await mesh.control.call("DELETE", "/api/v1/rules/release")
    assert status == 204
    ended = await mesh.ended(execution_id)
    assert (ended["status"], ended["error"]["code"]) == ("Stopped", "rule_gone")


async def test_what_the_rule_wants_no_more_is_reported_and_counted(mesh: Mesh) -> None:
    await mesh.rule()
    await mesh.push("v1")
    await mesh.push("dev")
    mesh.producer()
    execution_id = await mesh.sync()

    async def is_listed() -> bool:
        return (await mesh.execution(execution_id))["total"] == 2

    await until(is_listed)
    await mesh.rule(filters=[{"type": "tag", "value": "v*"}])
    mesh.agent()
    ended = await mesh.ended(execution_id)
    assert (ended["status"], ended["succeed"], ended["skipped"]) == ("Succeed", 1, 1)
    assert await mesh.holds("dev") is None


async def test_a_dry_run_says_what_the_run_then_does(tmp_path: Path) -> None:
    async with _mesh(tmp_path, referrers=False) as mesh:
        mesh.agent()
        mesh.producer()
        await mesh.rule()
        shared, web = b"shared" * 100, Repository("game/web")
        for number in range(3):
            await mesh.push(f"v{number}", shared, b"%d" % number * 50)
        await mesh.push("v1", shared, b"1" * 50, repository=web)
        planned = await mesh.ended(await mesh.sync(dry_run=True))
        done = await mesh.ended(await mesh.sync())
        assert (planned["total"], done["succeed"]) == (4, 4)
        assert planned["bytes_total"] - planned["bytes_skipped"] == done["bytes_transferred"]
        reported = [(it["error"] or {})["message"] for it in await mesh.control.logs(execution=planned["id"])]
        assert sorted("come with other tags" in it or "comes with other tags" in it for it in reported) == [
            False, True, True, True,
        ]  # fmt: skip


async def test_a_dry_run_does_not_promise_referrers_that_are_there(tmp_path: Path) -> None:
    async with _mesh(tmp_path, referrers=False) as mesh:
        mesh.agent()
        mesh.producer()
        await mesh.rule()
        image = images.image(layers=[b"layer"])
        async with client(mesh.source) as source:
            await images.push(source, APP, Tag("v1"), image)
            await attached.push(source, APP, image.manifest, attachment(image.manifest, SBOM, b"an sbom"))
            signature = images.image(layers=[b"signed"])
            await images.push(source, APP, Tag(cosign_tag(image.digest, "sig")), signature)

        async def planned() -> set[str]:
            ended = await mesh.ended(await mesh.sync(dry_run=True))
            return {it["error"]["code"] for it in await mesh.control.logs(execution=ended["id"])}

        assert await planned() == {"dry_run", "subject_not_there"}
        await mesh.ended(await mesh.sync())
        assert await planned() == {"already_there"}
        async with client(mesh.source) as source:
            await attached.push(
                source, APP, image.manifest, attachment(image.manifest, SBOM, b"another sbom")
            )
        assert await planned() == {"already_there", "dry_run"}


async def test_the_commands_show_progress_and_say_how_it_ended(
    running: Mesh, capsys: pytest.CaptureFixture[str]
) -> None:
    async def regmesh(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(app.run, [*arguments, "--server", running.control.url])
        said = capsys.readouterr()
        return code, said.out, said.err

    await running.rule()
    await running.push("v1")
    code, out, _ = await regmesh("sync", "release", "--dry-run")
    assert code == 0
    assert "cn/game/app:v1 -> eu/game/app:v1: would copy 2 of 2 blobs" in out
    assert await running.holds("v1") is None
    code, out, err = await regmesh("sync", "release", "--wait")
    assert (code, await running.holds("v1")) == (0, await running.push("v1"))
    execution_id = str((await running.executions())[0]["id"])
    assert execution_id in out.splitlines()
    assert "Succeed: 1 tag: 1 succeed" in err
    assert f"{execution_id}  release  manual" in (await regmesh("get", "executions"))[1]
    assert "cn/game/app:v1" in (await regmesh("logs", "--execution", execution_id))[1]
    assert "had ended: Succeed" in (await regmesh("stop", execution_id))[1]
    assert (await regmesh("retry", "--failed"))[:2] == (0, "nothing to retry\n")
    assert (await regmesh("retry"))[0] == 2
    running.source.faults.fail = Fail(1000, "GET", "/v2/_catalog", 403)
    code, _, err = await regmesh("sync", "release", "--wait")
    assert code == 1
    assert "name them literally in a name filter" in err


async def test_what_failed_is_tried_again_one_by_one_and_together(tmp_path: Path) -> None:
    faults = Faults()
    async with _mesh(tmp_path, faults) as mesh:
        mesh.producer()
        mesh.agent()
        await mesh.rule()
        for tag in ("v1", "v2", "v3"):
            await mesh.push(tag)
        faults.fail = Fail(1000, "GET", "/v2/game/app/blobs/", 403)
        failed = await mesh.ended(await mesh.sync())
        assert (failed["status"], failed["failed"]) == ("Failed", 3)
        faults.fail = None
        entries = await mesh.control.logs(execution=failed["id"])
        status, answer = await mesh.control.call("POST", f"/api/v1/tasks/{entries[0]['task_id']}/retry", {})
        assert status == 201
        assert (await mesh.ended(answer["id"]))["succeed"] == 1
        assert (await mesh.ended(await mesh.sync(dry_run=True)))["skipped"] == 3  # which makes nothing good
        status, answer = await mesh.control.call("POST", "/api/v1/retries", {})
        assert (status, [one["total"] for one in answer["items"]]) == (201, [2])
        assert (await mesh.ended(answer["items"][0]["id"]))["succeed"] == 2
        _, answer = await mesh.control.call("POST", "/api/v1/retries", {"rule": "release"})
        assert answer["items"] == []


async def test_a_backfill_brings_what_was_there_once_for_each_change(running: Mesh) -> None:
    digest = await running.push("v1")
    await running.rule(trigger={"type": "event_based"}, backfill=True)

    async def backfilled(times: int = 1) -> bool:
        ended = [one for one in await running.executions() if one["status"] == "Succeed"]
        return len(ended) == times

    await until(backfilled, timeout=20)
    (one,) = await running.executions()
    assert (one["trigger"], one["succeed"], await running.holds("v1")) == ("backfill", 1, digest)
    await running.rule(trigger={"type": "event_based"}, backfill=True)  # nothing changed
    await running.rule(
        trigger={"type": "event_based"}, backfill=True, filters=[{"type": "tag", "value": "v*"}]
    )
    await until(lambda: backfilled(2), timeout=20)


@pytest.mark.parametrize(
    ("body", "refused", "reported"),
    [
        ({}, 400, "rule: Field required"),
        ({"rule": "nothing"}, 404, "no rule or replica is named 'nothing'"),
        ({"rule": "release", "tag": "re:("}, 400, "tag: "),
        (
            {"rule": "release", "repository": "a\0b"},
            400,
            "repository: ",
        ),  # which no database of PostgreSQL takes
        ({"rule": "release", "colour": "blue"}, 400, "colour: "),
        ({"rule": "off"}, 400, "'off' is not enabled"),
    ],
)
async def test_what_cannot_run_is_refused_with_the_reason(
    mesh: Mesh, body: object, refused: int, reported: str
) -> None:
    await mesh.rule()
    await mesh.rule(name="off", enabled=False)
    status, answer = await mesh.control.call("POST", "/api/v1/executions", body)
    assert status == refused
    assert reported in answer["error"]["message"]
    assert await mesh.executions() == []


async def test_what_no_rule_is_called_is_no_filter(mesh: Mesh) -> None:
    for name in ("No Rule", "a\0b"):
        status, answer = await mesh.control.call("GET", "/api/v1/executions", params={"rule": name})
        assert (status, answer["error"]["message"][:6]) == (400, "rule: ")


async def test_an_unknown_execution_or_task_is_reported(mesh: Mesh) -> None:
    for method, path in [
        ("GET", "executions/none"),
        ("POST", "executions/none/stop"),
        ("POST", "tasks/none/retry"),
    ]:
        status, _ = await mesh.control.call(method, f"/api/v1/{path}", {} if method == "POST" else None)
        assert status == 404


async def test_a_deletion_that_is_held_goes_when_a_human_tries_it_again(running: Mesh) -> None:
    await running.rule(trigger={"type": "event_based"}, deletion=True)
    tags = [f"v{number}" for number in range(22)]
    for tag in tags:
        await running.push(tag, b"one image of many tags")
    assert (await running.ended(await running.sync()))["succeed"] == len(tags)
    async with client(running.source) as registry:
        for tag in tags:
            await registry.delete_manifest(APP, Tag(tag))
            await running.announce_deletion(tag)

    async def are_held() -> bool:
        return len(await running.control.logs(status="Skipped")) == 2

    await until(are_held, timeout=20)
    assert {one["error"]["code"] for one in await running.control.logs(status="Skipped")} == {"deletion_held"}
    first, second = await running.control.logs(status="Skipped")
    assert await running.doctor() == ["2 deletions wait for a human"]
    status, again = await running.control.call("POST", f"/api/v1/tasks/{first['task_id']}/retry", {})
    assert status == 201
    ended = await running.ended(again["id"])
    assert (ended["status"], ended["succeed"], ended["total"]) == ("Succeed", 1, 1)
    assert await running.holds(first["tag"]) is None
    assert await running.holds(second["tag"]) is not None
    assert await running.doctor() == ["1 deletion waits for a human"]
    _, all_failed = await running.control.call("POST", "/api/v1/retries", {})
    assert all_failed["items"] == []  # nothing failed, and what is held is not let through by the way


async def test_a_held_deletion_of_a_digest_goes_with_all_its_tags(running: Mesh) -> None:
    await running.rule(trigger={"type": "event_based"}, deletion=True)
    digests = {f"v{number}": await running.push(f"v{number}", b"%d" % number) for number in range(20)}
    for tag in ("last", "latest"):
        digests[tag] = await running.push(tag, b"one image of two tags")
    assert (await running.ended(await running.sync()))["succeed"] == 22
    for digest in dict.fromkeys(digests.values()):
        await running.delete_digest(digest)

    async def is_held() -> bool:
        return len(await running.control.logs(status="Skipped")) == 1

    await until(is_held, timeout=20)
    (held,) = await running.control.logs(status="Skipped")
    assert (held["tag"], held["error"]["code"]) == (None, "deletion_held")
    assert f"`regmesh retry {held['task_id']}`" in held["error"]["message"]
    status, again = await running.control.call("POST", f"/api/v1/tasks/{held['task_id']}/retry", {})
    assert status == 201, again
    ended = await running.ended(again["id"])
    assert (ended["status"], ended["succeed"], ended["total"]) == ("Succeed", 2, 2)
    assert [await running.holds(tag) for tag in digests] == [None] * 22


async def test_what_is_parked_is_listed_tried_at_once_and_closed(mesh: Mesh) -> None:
    mesh.producer()
    mesh.agent(QUICK.model_copy(update={"parking": ParkingPolicy(give_up_after=600, first_wait=600)}))
    await mesh.rule()
    await mesh.push("v1", b"one")
    await mesh.push("v2", b"two")
    mesh.destination.faults.fail = Fail(times=10_000, method="PUT", path=f"/v2/{APP}/manifests/")
    execution_id = await mesh.sync()

    async def both_are() -> bool:
        return (await mesh.execution(execution_id))["parked"] == 2

    await until(both_are, timeout=20)
    running = await mesh.execution(execution_id)
    assert (running["status"], running["in_progress"], running["failed"]) == ("InProgress", 2, 0)
    _, listed = await mesh.control.call("GET", "/api/v1/parked")
    first, second = listed["items"]
    assert {(one["status"], one["error"]["code"], one["rounds"]) for one in (first, second)} == {
        ("Pending", "server_fault", 1)
    }
    status, _ = await mesh.control.call("POST", f"/api/v1/tasks/{first['task_id']}/close", {})
    assert status == 202
    mesh.destination.faults.fail = None
    status, answer = await mesh.control.call("POST", f"/api/v1/tasks/{second['task_id']}/retry", {})
    assert (status, answer["id"]) == (202, second["task_id"])
    ended = await mesh.ended(execution_id)
    assert (ended["status"], ended["stopped"], ended["succeed"], ended["parked"]) == ("Stopped", 1, 1, 0)
    assert (await mesh.holds(first["tag"]), await mesh.holds(second["tag"]) is None) == (None, False)
    (reported,) = await mesh.control.logs(status="Stopped")
    assert (reported["task_id"], reported["error"]["code"]) == (first["task_id"], "closed")
    status, _ = await mesh.control.call("POST", f"/api/v1/tasks/{first['task_id']}/close", {})
    assert status == 404
