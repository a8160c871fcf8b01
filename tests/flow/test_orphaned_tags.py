"""What an instance lost without a word goes at its replica after the next look, and nothing else ever does."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mesh.control.executions.prune import OrphanedTags
from mesh.control.storage.database import Database
from mesh.log.port import Append
from mesh.registry.builtin.faults import Fail
from schemas import codec, topics
from schemas.events import Action, Cause, Event, OrphanedTagCount, PartOf
from schemas.executions import ExecutionStart, ImageName
from schemas.names import Digest, ObjectName, PlaceName, Region, Repository, Tag
from tests.support import images
from tests.support.mesh_site import APP, CLOCK, MeshSite, client, mesh_site, until

REPLICA = "cn@shanghai"
WEB = Repository("game/web")
REGIONS = [{"name": name, "jurisdiction": "cn"} for name in ("beijing", "shanghai")]


async def _declared(site: MeshSite, **replica: Any) -> MeshSite:
    await site.registry("cn")
    await site.registry(REPLICA, **replica)
    instance = {"name": "cn", "account": "game", "region": "beijing", "url": site.registries["cn"].url}
    mirror = {"instance": "cn", "region": "shanghai", "url": site.registries[REPLICA].url}
    await site.apply({"regions": REGIONS, "instances": [instance], "replicas": [mirror]})
    await site.until_fills_are_listed()
    await site.start_agent("shanghai")
    return site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[MeshSite]:
    """An instance and its replica, equal and empty."""
    async with mesh_site(tmp_path) as found:
        yield await _declared(found)


async def pushed(site: MeshSite, *tags: str, repository: Repository = APP, image: Any = None) -> None:
    """To the instance, and at the replica by now."""
    for tag in tags:
        await site.push("cn", tag, image or images.image(layers=[f"{repository}:{tag}".encode()]), repository)
    for tag in tags:
        await until(lambda tag=tag: site.digest(REPLICA, tag, repository))
    await until(lambda: _known(site, repository, tags))


async def _known(site: MeshSite, repository: Repository, tags: tuple[str, ...]) -> bool:
    """Control knows what the replica holds."""
    found = await where(site, repository, *tags)
    return len([it for it in found if it["place"] == REPLICA and it["seen_by"] == "agent"]) == len(tags)


async def where(site: MeshSite, repository: Repository, *tags: str) -> list[dict[str, Any]]:
    """What is known of the instance and the replica, for each tag."""
    items = (await site.get(f"images/cn/{repository}", tag=",".join(tags)))["items"]
    return [place for item in items for place in item["places"]]


def lost(site: MeshSite, *tags: str, repository: Repository = APP) -> None:
    """Deletes these tags at the instance, which sends no notification."""
    for tag in tags:
        assert site.registries["cn"]._store.delete_tag(repository, Tag(tag))


def emptied(site: MeshSite, repository: Repository) -> None:
    """As when a repository is deleted whole: nothing of it is listed, nothing is answered."""
    (site.folder / "cn" / "repositories" / repository).rename(site.folder / repository.replace("/", "-"))


async def looked_through(site: MeshSite, **asked: Any) -> dict[str, Any]:
    """The execution of a look through the replica, compared."""
    execution = await site.api.request("POST", "/api/v1/executions", body={"rule": REPLICA, **asked})
    return await ended(site, execution["id"], compared=not asked)


async def ended(site: MeshSite, execution_id: str, *, compared: bool = False) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found: dict[str, Any] = await site.get(f"executions/{execution_id}")
        over = found["status"] != "InProgress" and (found["surplus"] is not None or not compared)
        return found if over else None

    found: dict[str, Any] = await until(look)
    return found


async def deletions(site: MeshSite, count: int) -> list[dict[str, Any]]:
    """Of what was found, all of them."""

    async def look() -> list[dict[str, Any]]:
        found = [it for it in await site.logs(replica=REPLICA) if it["operation"] == "delete"]
        return found if len(found) >= count else []

    found: list[dict[str, Any]] = await until(look)
    assert len(found) == count
    assert {it["trigger"] for it in found} == {"reconcile"}
    return found


async def executions(site: MeshSite, operation: str) -> list[dict[str, Any]]:
    return [it for it in (await site.get("executions"))["items"] if it["operation"] == operation]


async def test_a_tag_and_a_repository_that_went_without_a_word_go_at_the_replica(site: MeshSite) -> None:
    await pushed(site, "v1", "v2")
    await pushed(site, "w1", "w2", repository=WEB)
    foreign = await site.push(REPLICA, "theirs", images.image(layers=[b"somebody else's"]))
    lost(site, "v1")
    emptied(site, WEB)
    assert (await looked_through(site))["surplus"] == 3
    entries = await deletions(site, 3)
    assert {it["status"] for it in entries} == {"Succeed"}
    assert {(it["repository"], it["tag"]) for it in entries} == {(APP, "v1"), (WEB, "w1"), (WEB, "w2")}
    assert [await site.digest(REPLICA, tag) for tag in ("v1", "v2", "theirs")] == [
        None,
        await site.digest("cn", "v2"),
        foreign,
    ]
    async with client(site.registries[REPLICA]) as registry:
        assert [tag async for tag in registry.tags(WEB)] == []
    (execution,) = await executions(site, "delete")
    assert execution["trigger"] == "reconcile"
    found = await ended(site, execution["id"])
    assert (found["status"], found["succeed"], found["total"]) == ("Succeed", 3, 3)

    async def is_known_to_be_nowhere() -> bool:
        return {it["digest"] for it in await where(site, APP, "v1")} == {None}

    await until(is_known_to_be_nowhere)
    assert (await looked_through(site))["surplus"] == 0


async def test_the_daily_look_does_it_and_a_run_of_some_tags_does_not(site: MeshSite) -> None:
    await pushed(site, "v1", "v2", "v3")
    lost(site, "v1")
    await looked_through(site, repository=str(APP))
    await looked_through(site, dry_run=True)
    missed = ExecutionStart(
        id="missed", time=CLOCK.now(), execution_id="missed", region=Region("beijing"), rule=PlaceName(REPLICA),
        source=ObjectName("cn"), trigger="reconcile", images=(ImageName(repository=APP, tag=Tag("v2")),),
        rules_rev=site.node.table.rev,
    )  # fmt: skip
    await site.node.log.append([Append(topics.COMMANDS, missed.key, codec.encode(missed))])
    await until(lambda: site.logs(execution="missed"))
    daily = await site.control._commands.start(REPLICA, "reconcile")
    assert (await ended(site, daily, compared=True))["surplus"] == 1
    (entry,) = await deletions(site, 1)
    assert (entry["status"], entry["tag"]) == ("Succeed", "v1")
    compared = {it["id"] for it in await executions(site, "copy") if it["surplus"] is not None}
    assert compared == {daily}


async def test_an_emptied_instance_empties_nothing_and_a_human_lets_one_through(site: MeshSite) -> None:
    await pushed(site, "v1", "v2")
    emptied(site, APP)
    assert (await looked_through(site))["surplus"] == 2
    entries = await deletions(site, 2)
    assert {(it["status"], it["error"]["code"]) for it in entries} == {("Skipped", "deletion_held")}
    assert "2 of 2 tags" in entries[0]["error"]["message"]
    assert None not in [await site.digest(REPLICA, tag) for tag in ("v1", "v2")]
    notes = (await site.get("doctor"))["items"]
    assert [it["message"] for it in notes if it["about"] == f"replica/{REPLICA}"] == [
        "2 deletions wait for a human"
    ]
    again = await site.api.request("POST", f"/api/v1/tasks/{entries[0]['task_id']}/retry", body={})
    assert (await ended(site, again["id"]))["succeed"] == 1
    assert await site.digest(REPLICA, entries[0]["tag"]) is None
    assert await site.digest(REPLICA, entries[1]["tag"]) is not None


async def test_more_than_a_fifth_is_held_whole(site: MeshSite) -> None:
    image = images.image(layers=[b"one image of many tags"])
    tags = [f"v{number}" for number in range(30)]
    await pushed(site, *tags, image=image)
    lost(site, *tags[:21])
    assert (await looked_through(site))["surplus"] == 21
    assert {it["error"]["code"] for it in await deletions(site, 21)} == {"deletion_held"}
    assert {await site.digest(REPLICA, tag) for tag in tags} == {image.digest}


async def test_a_listing_that_lies_deletes_nothing(site: MeshSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instance leaves most of its tags out and says nothing of it: each of them is asked for by name."""
    await pushed(site, "v1", "v2", "v3")
    monkeypatch.setattr(site.registries["cn"]._store, "tags", lambda _: [Tag("v1")])
    assert (await looked_through(site))["surplus"] == 2
    entries = await deletions(site, 2)
    assert {(it["status"], it["error"]["code"]) for it in entries} == {("Skipped", "source_has_it")}
    assert None not in [await site.digest(REPLICA, tag) for tag in ("v1", "v2", "v3")]


async def test_a_listing_that_is_not_whole_is_compared_with_nothing(site: MeshSite) -> None:
    await pushed(site, "v1")
    await pushed(site, "w1", repository=WEB)
    lost(site, "v1")
    site.registries["cn"].faults.fail = Fail(times=1, method="GET", path=f"/v2/{WEB}/tags", status=403)
    execution = await site.api.request("POST", "/api/v1/executions", body={"rule": REPLICA})
    found = await ended(site, execution["id"])
    assert (found["status"], found["error"]["code"]) == ("Failed", "denied")
    later = await looked_through(site)  # started after it, and compared
    assert later["surplus"] == 1
    assert (await site.get(f"executions/{execution['id']}"))["surplus"] is None
    (entry,) = await deletions(site, 1)
    assert entry["tag"] == "v1"


@pytest.mark.parametrize("listed", ["repositories", "tags"])
async def test_a_look_that_met_a_name_that_nobody_can_read_is_compared_with_nothing(
    site: MeshSite, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    await pushed(site, "v1", "v2")
    lost(site, "v1")
    store = site.registries["cn"]._store
    real = getattr(store, listed)
    monkeypatch.setattr(store, listed, lambda *of: [*real(*of), "-Strange"])
    execution = await site.api.request("POST", "/api/v1/executions", body={"rule": REPLICA})
    found = await ended(site, execution["id"])
    assert (found["status"], found["error"]["code"], found["total"]) == ("Failed", "unreadable_names", 1)
    monkeypatch.setattr(store, listed, real)
    later = await looked_through(site)  # started after it, and compared
    assert later["surplus"] == 1
    assert (await site.get(f"executions/{execution['id']}"))["surplus"] is None
    (entry,) = await deletions(site, 1)
    assert entry["tag"] == "v1"


async def test_a_look_that_was_stopped_is_compared_with_nothing(site: MeshSite) -> None:
    await pushed(site, "v1", "v2")
    lost(site, "v1")
    await site.stop_agent("shanghai")
    stopped = await site.api.request("POST", "/api/v1/executions", body={"rule": REPLICA})
    await site.api.request("POST", f"/api/v1/executions/{stopped['id']}/stop", body={})
    await site.start_agent("shanghai")
    assert (await ended(site, stopped["id"]))["status"] == "Stopped"
    assert (await looked_through(site))["surplus"] == 1
    assert (await site.get(f"executions/{stopped['id']}"))["surplus"] is None


async def _found(
    site: MeshSite, tag: str, digest: Digest | None, orphaned: OrphanedTagCount | None
) -> dict[str, Any]:
    """How the deletion of an orphaned tag ended, whatever is there by now."""
    now, name = CLOCK.now(), f"{tag}-{CLOCK.monotonic()}"
    event = Event(
        id=name, time=now, origin=PlaceName("cn"), action=Action.TAG_DELETE, cause=Cause.LISTING,
        place=PlaceName("cn"), region=Region("beijing"), repository=APP, tag=Tag(tag), digest=digest, occurred_at=now,
        rules_rev=-1,
        part_of=PartOf(execution_id=name, rule=PlaceName(REPLICA), trigger="reconcile", surplus=orphaned),
    )  # fmt: skip
    await site.node.log.append([Append(topics.bulk(event.region), event.key, codec.encode(event))])
    (entry,) = await until(lambda: site.logs(execution=name))
    assert (entry["operation"], entry["trigger"]) == ("delete", "reconcile")
    return dict(entry)


FEW = OrphanedTagCount(tags=1, of=100)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_source_that_refuses_to_answer_deletes_nothing(site: MeshSite, status: int) -> None:
    await pushed(site, "v1")
    lost(site, "v1")
    digest = await site.digest(REPLICA, "v1")
    site.registries["cn"].faults.fail = Fail(
        times=1000, method="HEAD", path=f"/v2/{APP}/manifests/v1", status=status
    )
    entry = await _found(site, "v1", digest, FEW)
    assert (entry["status"], entry["error"]["code"]) == ("Skipped", "source_unsure")
    assert await site.digest(REPLICA, "v1") == digest


@pytest.mark.parametrize("status", [404, 429, 500, 502])
async def test_a_source_that_answers_later_is_asked_again(site: MeshSite, status: int) -> None:
    await pushed(site, "v1")
    lost(site, "v1")
    digest = await site.digest(REPLICA, "v1")
    site.registries["cn"].faults.fail = Fail(times=2, path=f"/v2/{APP}/manifests/v1", status=status)
    entry = await _found(site, "v1", digest, FEW)
    assert (entry["status"], await site.digest(REPLICA, "v1")) == ("Succeed", None)


async def test_a_source_behind_a_proxy_that_answers_404_to_everything_deletes_nothing(site: MeshSite) -> None:
    await pushed(site, "v1")
    digest = await site.digest(REPLICA, "v1")
    site.registries["cn"].faults.fail = Fail(times=1000, path="/", status=404)
    looking = asyncio.create_task(_found(site, "v1", digest, FEW))
    await until(lambda: site.logs(status="Pending"))
    assert await site.digest(REPLICA, "v1") == digest
    site.registries["cn"].faults.fail = None
    entry = await looking
    assert (entry["status"], entry["error"]["code"]) == ("Skipped", "source_has_it")
    assert await site.digest(REPLICA, "v1") == digest


async def test_what_was_not_copied_from_the_instance_or_was_not_counted_stays(site: MeshSite) -> None:
    await pushed(site, "v1")
    copied = await site.digest(REPLICA, "v1")
    lost(site, "v1")
    for orphaned in (None, OrphanedTagCount(tags=21, of=30), OrphanedTagCount(tags=1, of=1)):
        entry = await _found(site, "v1", copied, orphaned)
        assert (entry["status"], entry["error"]["code"]) == ("Skipped", "deletion_held")
    theirs = await site.push(REPLICA, "v1", images.image(layers=[b"somebody else's"]))
    for digest in (copied, None):
        entry = await _found(site, "v1", digest, FEW)
        assert (entry["status"], entry["error"]["code"]) == ("Skipped", "other_content")
    assert await site.digest(REPLICA, "v1") == theirs


async def test_what_is_deleted_at_the_replica_already_is_found_once(site: MeshSite) -> None:
    await pushed(site, "v1", "v2")
    lost(site, "v1")
    async with client(site.registries[REPLICA]) as registry:
        await registry.delete_manifest(APP, Tag("v1"))
    assert (await looked_through(site))["surplus"] == 1
    (entry,) = await deletions(site, 1)
    assert (entry["status"], entry["error"]["code"]) == ("Skipped", "already_gone")

    async def is_known_to_be_deleted() -> bool:
        return [it["digest"] for it in await where(site, APP, "v1") if it["place"] == REPLICA] == [None]

    await until(is_known_to_be_deleted)
    assert (await looked_through(site))["surplus"] == 0


async def test_a_registry_that_deletes_digests_alone_loses_tags_of_one_digest_together(
    tmp_path: Path,
) -> None:
    async with mesh_site(tmp_path) as found:
        site = await _declared(found, deletes="digests")
        image = images.image(layers=[b"two names"])
        await pushed(site, "v1", "latest", "kept", image=image)
        await pushed(site, "v0")
        lost(site, "v1")
        assert (await looked_through(site))["surplus"] == 1
        (entry,) = await deletions(site, 1)
        assert (entry["status"], entry["error"]["code"]) == ("Failed", "tag_delete_unsupported")
        lost(site, "latest", "kept")
        assert (await looked_through(site))["surplus"] == 3
        entries = await deletions(site, 4)
        assert {it["status"] for it in entries if it["task_id"] != entry["task_id"]} <= {"Succeed", "Skipped"}
        assert [await site.digest(REPLICA, tag) for tag in ("v1", "latest", "kept")] == [None] * 3
        assert await site.digest(REPLICA, "v0") is not None


async def test_a_control_that_was_cut_while_it_compared_begins_again_and_changes_nothing(
    site: MeshSite,
) -> None:
    tags = [f"v{number}" for number in range(12)]
    await pushed(site, *tags, "stays")
    lost(site, *tags)
    await looked_through(site)
    await site.stop_agent("shanghai")  # wherever it is with the deletions
    twice = Database(f"sqlite:///{site.folder / 'data' / 'control.db'}")
    try:
        await twice.run(lambda connection: connection.exec_driver_sql("UPDATE executions SET surplus = NULL"))
        await OrphanedTags(
            twice, site.control._commands, replace(site.control._ports, clock=CLOCK)
        ).compare_replicas()
    finally:
        await twice.close()
    await site.start_agent("shanghai")

    async def are_deleted() -> bool:
        return [await site.digest(REPLICA, tag) for tag in tags] == [None] * len(tags)

    await until(are_deleted)
    assert await site.digest(REPLICA, "stays") is not None
    for one in await executions(site, "delete"):
        assert (await ended(site, one["id"]))["failed"] == 0


async def test_a_tag_that_is_pushed_again_after_the_listing_stays(site: MeshSite) -> None:
    await pushed(site, "v1", "v2")
    digest = await site.digest(REPLICA, "v1")
    lost(site, "v1")
    image = images.image(layers=[b"pushed again"])
    await site.push("cn", "v1", image)
    entry = await _found(site, "v1", digest, FEW)
    assert entry["status"] == "Skipped"

    async def is_there() -> bool:
        return await site.digest(REPLICA, "v1") == image.digest

    await until(is_there)
