"""An event that names a tag and no digest, as Quay's: what the tag names is asked of the source."""

import asyncio

import pytest

from mesh.log.port import Append
from schemas import codec, topics
from schemas.completions import Completion, Status
from schemas.envelope import make_id
from schemas.events import Action, Event
from schemas.names import PlaceName, Tag
from tests.flow.test_agent import APP, BEIJING, CLOCK, FRANKFURT, Site
from tests.flow.test_agent import site as _site
from tests.support import images

site = _site  # the fixture of the other flows


async def announce(site: Site, tag: str | None, action: Action = Action.MANIFEST_PUSH) -> None:
    event = Event(
        id=make_id("quay", tag, CLOCK.now().isoformat()), time=CLOCK.now(), origin=PlaceName("cn"), action=action,
        place=PlaceName("cn"), region=BEIJING, repository=APP, tag=Tag(tag) if tag else None, digest=None,
        occurred_at=CLOCK.now(), rules_rev=-1,
    )  # fmt: skip
    await site.log.append([Append(topics.events(BEIJING), event.key, codec.encode(event))])


async def test_the_tag_is_looked_up_and_copied(site: Site) -> None:
    digest = await site.push("v1", images.image(layers=[b"quay" * 100]), notify=False)
    await announce(site, "v1")
    (end,) = await site.ends(1)
    assert (end.status, end.digest, end.error) == (Status.SUCCEED, digest, None)
    assert await site.holds("v1") == digest


async def test_an_index_arrives_whole_too(site: Site) -> None:
    image = images.index([images.image(layers=[b"amd64"]), images.image(layers=[b"arm64"])])
    digest = await site.push("multi", image, notify=False)
    await announce(site, "multi")
    (end,) = await site.ends(1)
    assert (end.status, end.digest, await site.holds("multi")) == (Status.SUCCEED, digest, digest)


async def test_said_twice_the_second_finds_it_there(site: Site) -> None:
    digest = await site.push("v1", images.image(layers=[b"x"]), notify=False)
    await announce(site, "v1")
    await site.ends(1)
    await announce(site, "v1")
    _, again = await site.ends(2)
    assert (again.status, again.digest, again.bytes_transferred) == (Status.SKIPPED, digest, 0)
    assert again.error is not None
    assert again.error.code == "already_there"


async def test_the_second_push_of_a_tag_moves_it(site: Site) -> None:
    await site.push("latest", images.image(layers=[b"old"]), notify=False)
    await announce(site, "latest")
    await site.ends(1)
    digest = await site.push("latest", images.image(layers=[b"new"]), notify=False)
    await announce(site, "latest")
    _, end = await site.ends(2)
    assert (end.status, end.digest, await site.holds("latest")) == (Status.SUCCEED, digest, digest)


async def test_a_tag_that_is_stored_after_it_was_announced_arrives(site: Site) -> None:
    await announce(site, "v1")
    await asyncio.sleep(0.3)
    digest = await site.push("v1", images.image(layers=[b"late"]), notify=False)
    (end,) = await site.ends(1)
    assert (end.status, end.digest) == (Status.SUCCEED, digest)


async def test_a_tag_that_never_comes_is_missing_after_a_while(site: Site) -> None:
    await announce(site, "sample")  # as the button that tests a webhook sends it
    (end,) = await site.ends(1)
    assert (end.status, end.digest) == (Status.SKIPPED, None)
    assert end.error is not None
    assert end.error.code == "source_gone"
    assert (end.source, end.destination) == ("cn/game/app:sample", "eu/game/app:sample")
    assert await site.holds("sample") is None


async def test_a_signature_that_is_named_by_its_tag_alone_follows_its_image(site: Site) -> None:
    image = await site.push("v1", images.image(layers=[b"signed"]), notify=False)
    await announce(site, "v1")
    await site.ends(1)
    tag = f"{image.replace(':', '-')}.sig"
    signature = await site.push(tag, images.image(layers=[b"signature"]), notify=False)
    await announce(site, tag)
    _, end = await site.ends(2)
    assert (end.status, end.digest, await site.holds(tag)) == (Status.SUCCEED, signature, signature)


@pytest.mark.parametrize("action", [Action.MANIFEST_PUSH, Action.BLOB_PUSH])
async def test_what_names_neither_tag_nor_digest_asks_for_nothing(site: Site, action: Action) -> None:
    await announce(site, None, action)
    await site.push("v1", images.image(layers=[b"x"]))
    (end,) = await site.ends(1)
    assert end.tag == "v1"
    (record,) = await _completions(site)
    assert record.task_id == end.task_id


async def _completions(site: Site) -> list[Completion]:
    assert sum((await site.log.end(topics.completions(FRANKFURT))).values()) == 1
    return await site.ends(1)
