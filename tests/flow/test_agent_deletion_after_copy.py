"""A tag that moved and whose new digest was deleted before its copy came to it: the older one goes, or says why not.

The source announces that deletion by the digest alone, which the destination never had.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from consumer.deletion import untag
from consumer.image import survey
from consumer.image.job import Job
from mesh.log.port import Append
from mesh.registry.builtin.faults import Fail
from schemas import codec, topics
from schemas.completions import Completion, Status
from schemas.envelope import make_id
from schemas.events import Action, Event, PartOf
from schemas.names import Digest, PlaceName, Tag
from schemas.rules import TriggerKind
from tests.flow.test_agent import APP, BEIJING, CLOCK, client
from tests.flow.test_agent_deletion import Deleting, deleting
from tests.flow.test_agent_parking import SETTINGS, broken, parked
from tests.support import images
from tests.support.mesh_site import mesh_site, until

A, B = images.image(layers=[b"older"]), images.image(layers=[b"newer"])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long a tag that the source does not have is waited for."""
    monkeypatch.setattr(survey, "SETTLE_SECONDS", 0.1)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Deleting]:
    async with deleting(tmp_path) as found:
        yield found


async def notify(mesh: Deleting, tag: str, digest: Digest | None = B.digest) -> None:
    await mesh.site.event(tag, digest, rules_rev=mesh.rev)


async def moved_and_deleted(mesh: Deleting, *tags: str) -> None:
    """They named A at both sides; now they named B at the source, and B was deleted there. No event says so yet."""
    async with client(mesh.site.source) as source:
        for tag in tags:
            await images.push(source, APP, Tag(tag), B)
        await source.delete_manifest(APP, B.digest)


async def listed(mesh: Deleting, tag: str, *, trigger: TriggerKind = "manual", dry_run: bool = False) -> None:
    part_of = PartOf(execution_id="asked", rule=PlaceName("release"), trigger=trigger, dry_run=dry_run)
    event = Event(
        id=make_id("listed", tag), time=CLOCK.now(), origin=PlaceName("cn"), action=Action.MANIFEST_PUSH,
        place=PlaceName("cn"), region=BEIJING, repository=APP, tag=Tag(tag), digest=B.digest,
        occurred_at=CLOCK.now(), rules_rev=mesh.rev, part_of=part_of,
    )  # fmt: skip
    await mesh.site.log.append([Append(topics.bulk(BEIJING), event.key, codec.encode(event))])


def said(end: Completion) -> tuple[str, Status, str | None]:
    return end.operation, end.status, end.error.code if end.error is not None else None


async def test_the_older_digest_goes_with_its_tag(mesh: Deleting) -> None:
    await mesh.copied(v1=A, v2=A)
    await moved_and_deleted(mesh, "v1")
    await notify(mesh, "v1")
    end = await mesh.end()
    assert said(end) == ("delete", Status.SUCCEED, None)
    assert (end.source, end.tag, end.digest) == ("cn/game/app:v1", "v1", A.digest)
    assert (await mesh.site.holds("v1"), await mesh.site.holds("v2")) == (None, A.digest)


async def test_what_the_destination_does_not_have_needs_no_deletion(mesh: Deleting) -> None:
    await notify(mesh, "v1")
    end = await mesh.end()
    assert said(end) == ("copy", Status.SKIPPED, "source_gone")
    assert (end.digest, end.error and end.error.message) == (
        B.digest,
        "the source does not have this tag any more",
    )


async def test_without_the_option_the_older_digest_stays(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletion=False) as mesh:
        await mesh.copied(v1=A)
        await moved_and_deleted(mesh, "v1")
        await notify(mesh, "v1")
        assert said(await mesh.end()) == ("copy", Status.SKIPPED, "source_gone")
        assert await mesh.site.holds("v1") == A.digest


async def test_a_rule_that_is_not_asked_by_events_follows_no_such_deletion_either(tmp_path: Path) -> None:
    async with deleting(tmp_path) as mesh:
        await mesh.copied(v1=A)
        mesh.rev = await mesh.site.declare(
            "rule", "release", source="cn", destination="eu", deletion=True, trigger={"type": "manual"}
        )
        await moved_and_deleted(mesh, "v1")
        await listed(mesh, "v1")
        assert said(await mesh.end()) == ("copy", Status.SKIPPED, "source_gone")
        assert await mesh.site.holds("v1") == A.digest


@pytest.mark.parametrize(
    ("method", "status", "ends"),
    [
        ("GET", 500, ("copy", Status.FAILED, "server_fault")),
        ("GET", 401, ("copy", Status.FAILED, "denied")),
        (
            "GET",
            404,
            ("copy", Status.FAILED, "absence_unconfirmed"),
        ),  # with a code that no registry has for this
        ("", 500, ("copy", Status.FAILED, "server_fault")),
        ("", 401, ("copy", Status.FAILED, "denied")),
        ("", 404, ("copy", Status.FAILED, "absence_unconfirmed")),
    ],
)
async def test_a_tag_is_deleted_only_when_the_source_itself_says_that_it_has_no_such_tag(
    mesh: Deleting, method: str, status: int, ends: tuple[str, Status, str]
) -> None:
    await mesh.copied(v1=A)
    await moved_and_deleted(mesh, "v1")
    mesh.site.source.faults.fail = Fail(1000, method, f"/v2/{APP}/manifests/v1", status)
    await notify(mesh, "v1")
    assert said(await mesh.end()) == ends
    assert await mesh.site.holds("v1") == A.digest


async def test_a_tag_that_the_source_has_again_stays(mesh: Deleting, monkeypatch: pytest.MonkeyPatch) -> None:
    await mesh.copied(v1=A)

    async def nobody(*_: Any, **__: Any) -> None:
        """As when the tag came back right after the copy had looked for it."""

    monkeypatch.setattr(survey, "settled_digest", nobody)
    await notify(mesh, "v1")
    end = await mesh.end()
    assert said(end) == ("copy", Status.SKIPPED, "source_gone")
    assert end.error is not None
    assert "source_has_it" in end.error.message
    assert await mesh.site.holds("v1") == A.digest


async def test_a_tag_that_may_not_be_overridden_stays(tmp_path: Path) -> None:
    async with deleting(tmp_path, override=False) as mesh:
        await mesh.copied(v1=A)
        await moved_and_deleted(mesh, "v1")
        await notify(mesh, "v1")
        end = await mesh.end()
        assert said(end) == ("copy", Status.SKIPPED, "source_gone")
        assert end.error is not None
        assert "the destination's stays, not_overridden: " in end.error.message
        assert (end.digest, await mesh.site.holds("v1")) == (B.digest, A.digest)


async def test_what_the_rule_does_not_want_under_the_tag_stays(tmp_path: Path) -> None:
    async with deleting(tmp_path) as mesh:
        await mesh.copied(v1=A)
        mesh.rev = await mesh.site.declare(
            "rule", "release", source="cn", destination="eu", deletion=True,
            filters=[{"type": "resource", "value": "chart"}],
        )  # fmt: skip
        await moved_and_deleted(mesh, "v1")
        await notify(mesh, "v1")
        end = await mesh.end()
        assert said(end) == ("copy", Status.SKIPPED, "source_gone")
        assert end.error is not None
        assert "filtered" in end.error.message
        assert await mesh.site.holds("v1") == A.digest


async def test_no_other_tag_is_lost_where_digests_alone_are_deleted(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletes="digests") as mesh:
        await mesh.copied(v1=A, v2=A)
        await moved_and_deleted(mesh, "v1")
        await notify(mesh, "v1")
        assert said(await mesh.end()) == ("delete", Status.FAILED, "tag_delete_unsupported")
        assert await mesh.site.holds("v1") == await mesh.site.holds("v2") == A.digest


async def test_where_digests_alone_are_deleted_one_goes_that_no_other_tag_names(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletes="digests") as mesh:
        await mesh.copied(v1=A)
        await moved_and_deleted(mesh, "v1")
        await notify(mesh, "v1")
        assert said(await mesh.end()) == ("delete", Status.SUCCEED, None)
        assert (await mesh.site.holds("v1"), await mesh.has(A.digest)) == (None, False)


@pytest.mark.parametrize("by_hand", [False, True])
async def test_too_many_of_them_at_once_are_held_for_a_human(mesh: Deleting, *, by_hand: bool) -> None:
    """Those of a listing too: whoever asked for copies has not asked for deletions."""
    tags = [f"v{number}" for number in range(24)]
    await mesh.copied(**dict.fromkeys(tags, A))
    await moved_and_deleted(mesh, *tags)
    for tag in tags:
        await (listed if by_hand else notify)(mesh, tag)
    ends = (await mesh.site.ends(2 * len(tags)))[len(tags) :]
    held = [end for end in ends if end.status is Status.SKIPPED]
    assert [end.status for end in ends].count(Status.SUCCEED) == 20
    assert {said(end) for end in held} == {("delete", Status.SKIPPED, "deletion_held")}
    assert {await mesh.site.holds(str(end.tag)) for end in held} == {A.digest}
    assert len(held) == 4


async def test_a_dry_run_deletes_nothing(mesh: Deleting) -> None:
    await mesh.copied(v1=A)
    await moved_and_deleted(mesh, "v1")
    await listed(mesh, "v1", dry_run=True)
    assert said(await mesh.end()) == ("copy", Status.SKIPPED, "source_gone")
    assert await mesh.site.holds("v1") == A.digest


async def test_a_copy_that_was_parked_is_followed_too(mesh: Deleting) -> None:
    """It was in progress at the destination; what was never there has not been deleted."""
    await mesh.copied(v1=A)
    await mesh.site.stop()
    mesh.site.settings = SETTINGS
    await mesh.site.start()
    broken(mesh.site)
    async with client(mesh.site.source) as source:
        for tag in ("v1", "v2"):
            await images.push(source, APP, Tag(tag), B)
            await notify(mesh, tag)
    waiting = await parked(mesh.site, lambda found: len(found) == 2)
    assert [(one.begun, one.operation) for one in waiting.values()] == [(True, "copy")] * 2
    await mesh.delete_digest(B.digest)
    mesh.site.destination.faults.fail = None
    ends = {end.tag: end for end in (await mesh.site.ends(3))[1:]}
    assert {tag: said(end) for tag, end in ends.items()} == {
        "v1": ("delete", Status.SUCCEED, None),
        "v2": ("copy", Status.SKIPPED, "source_gone"),
    }
    assert ends[Tag("v1")].task_id in waiting
    assert await mesh.site.holds("v1") is None
    assert await parked(mesh.site, lambda found: not found) == {}


async def test_a_deletion_that_was_cut_before_it_knew_has_succeeded(
    mesh: Deleting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has it in progress, the tag is deleted, and its end is not on the log yet."""
    await mesh.copied(v1=A)
    await moved_and_deleted(mesh, "v1")
    cut = asyncio.Event()

    async def deleted_and_cut(job: Job, tag: Tag, *_: object) -> None:
        await job.destination.delete_manifest(APP, tag)
        cut.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(untag, "untag", deleted_and_cut)
    await notify(mesh, "v1")
    await asyncio.wait_for(cut.wait(), 20)
    await mesh.site.kill()
    monkeypatch.undo()
    monkeypatch.setattr(survey, "SETTLE_SECONDS", 0.1)
    await mesh.site.start()
    ends = await mesh.site.ends(2)
    if (
        said(ends[-1])[0] == "copy"
    ):  # the first push is delivered again, unless its offset was committed in time
        ends = await mesh.site.ends(3)
    assert said(ends[-1]) == ("delete", Status.SUCCEED, None)


async def test_a_replica_that_was_away_follows_without_being_compared(tmp_path: Path) -> None:
    async with mesh_site(tmp_path) as site:
        cn, replica = await site.registry("cn"), await site.registry("cn@shanghai")
        await site.apply(
            {
                "regions": [{"name": name, "jurisdiction": "cn"} for name in ("beijing", "shanghai")],
                "instances": [{"name": "cn", "account": "game", "region": "beijing", "url": cn.url}],
                "replicas": [{"instance": "cn", "region": "shanghai", "url": replica.url}],
            }
        )
        await site.until_fills_are_listed()
        await site.start_agent("shanghai")
        await site.push("cn", "v1", A)
        await until(lambda: site.digest("cn@shanghai", "v1"))
        port = int(replica.url.rpartition(":")[2])
        await replica.stop()
        await site.push("cn", "v1", B)
        await until(lambda: site.logs(status="Pending"))
        async with client(cn) as source:
            await source.delete_manifest(APP, B.digest)
        await replica.start(port=port)

        async def deleted() -> list[dict[str, Any]]:
            return [entry for entry in await site.logs(status="Succeed") if entry["operation"] == "delete"]

        (entry,) = await until(deleted)
        assert (entry["replica"], entry["trigger"], entry["tag"], entry["digest"]) == (
            "cn@shanghai", "event_based", "v1", A.digest,
        )  # fmt: skip
        assert await site.digest("cn@shanghai", "v1") is None
