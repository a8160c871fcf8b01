"""Signatures, SBOMs and attestations come along: between registries with and without the referrers API."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mesh.registry import fallback_index
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.faults import HalfWritten
from mesh.registry.port import Manifest
from mesh.registry.referrers import fallback_tag
from schemas.completions import Completion, Status
from schemas.names import Digest, Repository, Tag
from tests.flow.test_agent import APP, CLOCK, Site, client, open_site
from tests.support import attached, images
from tests.support.attached import SBOM, SIGNATURE, attachment, cosign_tag

PAIRS = [(True, True), (True, False), (False, True), (False, False)]


@pytest.fixture(params=PAIRS, ids=["api-api", "api-tag", "tag-api", "tag-tag"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    source_lists, destination_lists = request.param
    async with open_site(tmp_path, source_lists=source_lists, destination_lists=destination_lists) as found:
        yield found


@pytest.fixture
async def old_pair(tmp_path: Path) -> AsyncIterator[Site]:
    """Neither has the referrers API."""
    async with open_site(tmp_path, source_lists=False, destination_lists=False) as found:
        yield found


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as found:
        yield found


async def attach(site: Site, subject: Manifest, pushed: images.Image, *, notify: bool = True) -> None:
    """As oras does it, with the events that a registry sends of it."""
    async with client(site.source) as source:
        index = await attached.push(source, APP, subject, pushed)
    if notify:
        await site.event(None, pushed.digest)
        if index is not None:
            await site.event(fallback_tag(subject.digest), index)


async def listed(site: Site, subject: Digest) -> dict[Digest, str | None]:
    async with client(site.destination) as destination:
        found = await destination.referrers(APP, subject)
        return {referrer.descriptor.digest: referrer.artifact_type for referrer in found}


async def is_there(site: Site, pushed: images.Image) -> bool:
    """Whole, byte for byte."""
    async with client(site.destination) as destination:
        if await destination.resolve(APP, pushed.digest) is None:
            return False
        same = (await destination.read_manifest(APP, pushed.digest)).body == pushed.manifest.body
        sizes = [await destination.blob_size(APP, blob.digest) for blob in pushed.blob_descriptors]
        return same and sizes == [blob.size for blob in pushed.blob_descriptors]


def reason(end: Completion) -> str | None:
    return end.error.code if end.error else None


async def test_what_is_attached_comes_with_the_image_before_its_tag(pair: Site) -> None:
    image = images.image(layers=[b"app"])
    sbom = attachment(image.manifest, SBOM, b"parts of it" * 100)
    signature_of_sbom = attachment(sbom.manifest, SIGNATURE, b"of the sbom")
    await pair.push("v1", image, notify=False)
    await attach(pair, image.manifest, sbom, notify=False)
    await attach(pair, sbom.manifest, signature_of_sbom, notify=False)
    await pair.event("v1", image.digest)
    (end,) = await pair.ends(1)
    assert (end.status, end.resource_type) == (Status.SUCCEED, "image")
    assert await is_there(pair, sbom)
    assert await is_there(pair, signature_of_sbom)
    assert await listed(pair, image.digest) == {sbom.digest: SBOM}
    assert await listed(pair, sbom.digest) == {signature_of_sbom.digest: SIGNATURE}
    assert (end.subject, end.attached) == (None, (sbom.digest,))  # about the image itself
    parts = [*image.blob_descriptors, *sbom.blob_descriptors, *signature_of_sbom.blob_descriptors]
    assert end.bytes_total == sum(blob.size for blob in parts)
    assert end.bytes_transferred == sum({blob.digest: blob.size for blob in parts}.values())


async def test_what_is_attached_later_follows(pair: Site) -> None:
    image = images.image(layers=[b"app"])
    await pair.push("v1", image)
    await pair.ends(1)
    sbom = attachment(image.manifest, SBOM, b"later")
    await attach(pair, image.manifest, sbom)
    _, end, *_ = await pair.ends(2)
    assert (end.status, end.tag, end.digest, end.resource_type) == (
        Status.SUCCEED,
        None,
        sbom.digest,
        "artifact",
    )
    assert end.source == f"cn/game/app@{sbom.digest}"
    assert (end.subject, end.attached) == (image.digest, (sbom.digest,))
    assert await is_there(pair, sbom)
    assert await listed(pair, image.digest) == {sbom.digest: SBOM}
    signature = attachment(sbom.manifest, SIGNATURE, b"later still")
    await attach(pair, sbom.manifest, signature)
    await eventually(lambda: is_there(pair, signature))


async def eventually(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await look():
            await asyncio.sleep(0.02)


async def test_what_is_attached_to_a_child_of_an_index_comes_along(pair: Site) -> None:
    index = images.index([images.image(layers=[b"amd64"]), images.image(layers=[b"arm64"])])
    of_child = attachment(index.children[1].manifest, SIGNATURE, b"arm64")
    await pair.push("multi", index, notify=False)
    await attach(pair, index.children[1].manifest, of_child, notify=False)
    await pair.event("multi", index.digest)
    (end,) = await pair.ends(1)
    assert end.status is Status.SUCCEED
    assert await listed(pair, index.children[1].digest) == {of_child.digest: SIGNATURE}


@pytest.mark.parametrize("suffix", ["sig", "att", "sbom"])
async def test_a_tag_of_cosign_comes_with_its_image_whatever_the_rule_says_of_tags(
    site: Site, suffix: str
) -> None:
    await site.declare(
        "rule", "release", source="cn", destination="eu",
        filters=[{"type": "tag", "value": "v*"}, {"type": "resource", "value": "image"}],
    )  # fmt: skip
    index = images.index([images.image(layers=[b"amd64"])])
    signed = {
        cosign_tag(subject, suffix): images.image(layers=[f"of {subject}".encode()], config_type="text/plain")
        for subject in (index.digest, index.children[0].digest)
    }
    for tag, image in signed.items():
        await site.push(tag, image, notify=False)
    await site.push("v1", index)
    (end,) = await site.ends(1)
    assert end.status is Status.SUCCEED
    for tag, image in signed.items():
        assert await site.holds(tag) == image.digest
        assert await is_there(site, image)


async def test_a_tag_of_cosign_follows_an_image_that_is_there_and_waits_for_one_that_is_not(
    site: Site,
) -> None:
    image, other = images.image(layers=[b"app"]), images.image(layers=[b"never"])
    first, second = (images.image(layers=[text], config_type="text/plain") for text in (b"one", b"two"))
    await site.push("v1", image)
    await site.ends(1)
    await site.push(cosign_tag(image.digest, "sig"), first)
    await site.push(cosign_tag(other.digest, "sig"), first)
    *_, end, early = await site.ends(3)
    assert (end.status, end.resource_type) == (Status.SUCCEED, "artifact")
    assert (end.subject, end.attached) == (image.digest, (first.digest,))
    assert (early.status, reason(early)) == (Status.SKIPPED, "subject_not_there")
    assert await site.holds(cosign_tag(other.digest, "sig")) is None
    await site.push(cosign_tag(image.digest, "sig"), second)
    await site.ends(4)
    assert await site.holds(cosign_tag(image.digest, "sig")) == second.digest


async def test_a_tag_of_cosign_that_the_destination_has_otherwise_stays_where_the_rule_overrides_none(
    site: Site,
) -> None:
    await site.declare("rule", "release", source="cn", destination="eu", override=False)
    image = images.image(layers=[b"app"])
    tag = cosign_tag(image.digest, "sig")
    ours, theirs = (images.image(layers=[text], config_type="text/plain") for text in (b"ours", b"theirs"))
    async with client(site.destination) as destination:
        await images.push(destination, APP, Tag(tag), theirs)
    await site.push(tag, ours, notify=False)
    await site.push("v1", image)
    await site.event(tag, ours.digest)
    first, second = await site.ends(2)
    assert (first.status, second.status, reason(second)) == (Status.SUCCEED, Status.SKIPPED, "not_overridden")
    assert await site.holds(tag) == theirs.digest


async def test_one_that_is_pushed_before_its_image_waits_and_comes_with_it(pair: Site) -> None:
    image = images.image(layers=[b"app"])
    sbom = attachment(image.manifest, SBOM, b"early")
    await attach(pair, image.manifest, sbom, notify=False)
    await pair.event(None, sbom.digest)
    (early,) = await pair.ends(1)
    assert (early.status, reason(early), early.tag) == (Status.SKIPPED, "subject_not_there", None)
    await pair.push("v1", image)
    await pair.ends(2)
    assert await listed(pair, image.digest) == {sbom.digest: SBOM}


async def test_what_is_attached_later_goes_on_along_a_chain_of_rules(pair: Site, tmp_path: Path) -> None:
    """From cn to eu to a third, none of which sends notifications."""
    third = BuiltinRegistry(tmp_path / "third", clock=CLOCK)
    await third.start()
    await pair.declare("instance", "eu-2", account="game", region="frankfurt", url=third.url)
    await pair.declare("rule", "onward", source="eu", destination="eu-2")
    image = images.image(layers=[b"app"])
    sbom, signature = (
        attachment(image.manifest, SBOM, b"later"),
        images.image(layers=[b"x"], config_type="text/plain"),
    )
    await pair.push("v1", image)
    await pair.ends(2)
    await attach(pair, image.manifest, sbom)
    await pair.push(cosign_tag(image.digest, "sig"), signature)

    async def arrived() -> bool:
        async with client(third) as last:
            found = [referrer.descriptor.digest for referrer in await last.referrers(APP, image.digest)]
            tagged = await last.resolve(APP, Tag(cosign_tag(image.digest, "sig")))
        return found == [sbom.digest] and tagged is not None

    await eventually(arrived)
    await third.stop()


async def test_a_child_that_is_pushed_by_digest_is_no_task(site: Site) -> None:
    index = images.index([images.image(layers=[b"amd64"]), images.image(layers=[b"arm64"])])
    await site.push("multi", index, notify=False)
    before = site.source.traffic.requests["GET", "manifest"]
    for child in index.children:
        await site.event(None, child.digest)
    await site.event(None, index.children[0].digest)
    await site.event("multi", index.digest)
    (end,) = await site.ends(1)
    assert (end.tag, end.status) == ("multi", Status.SUCCEED)
    # Each child once to see that it is about nothing, and once to be copied; the second event of a child costs nothing.
    assert site.source.traffic.requests["GET", "manifest"] - before == 5


async def test_a_rule_that_does_not_want_the_repository_brings_nothing_of_it(site: Site) -> None:
    other = Repository("other/app")
    image = images.image(layers=[b"app"])
    sbom = attachment(image.manifest, SBOM, b"x")
    async with client(site.source) as source:
        await images.push(source, other, Tag("v1"), image)
        await attached.push(source, other, image.manifest, sbom)
    before = dict(site.source.traffic.requests)
    await site.event(None, sbom.digest, repository=other)
    await site.event(cosign_tag(image.digest, "sig"), sbom.digest, repository=other)
    await site.push("v1", images.image(layers=[b"wanted"]))
    (end,) = await site.ends(1)
    assert end.repository == APP
    assert site.source.traffic.requests["GET", "manifest"] == before.get(("GET", "manifest"), 0) + 1


async def test_an_image_that_is_there_already_gets_what_was_attached_since(pair: Site) -> None:
    image = images.image(layers=[b"app"])
    await pair.push("v1", image)
    await pair.ends(1)
    sbom = attachment(image.manifest, SBOM, b"missed")
    await attach(pair, image.manifest, sbom, notify=False)
    await pair.event("v1", image.digest)
    _, again = await pair.ends(2)
    assert again.status is Status.SUCCEED
    assert again.bytes_transferred == sum(blob.size for blob in sbom.blob_descriptors)
    assert await listed(pair, image.digest) == {sbom.digest: SBOM}
    await pair.event("v1", image.digest)
    *_, third = await pair.ends(3)
    assert (third.status, reason(third), third.bytes_transferred) == (Status.SKIPPED, "already_there", 0)


async def test_what_others_listed_at_the_destination_stays_listed(old_pair: Site) -> None:
    image = images.image(layers=[b"app"])
    theirs, ours = (attachment(image.manifest, kind, kind.encode()) for kind in (SIGNATURE, SBOM))
    async with client(old_pair.destination) as destination:
        await attached.push(destination, APP, image.manifest, theirs)
    await old_pair.push("v1", image, notify=False)
    await attach(old_pair, image.manifest, ours, notify=False)
    await old_pair.event("v1", image.digest)
    await old_pair.ends(1)
    assert await listed(old_pair, image.digest) == {theirs.digest: SIGNATURE, ours.digest: SBOM}
    await old_pair.event(fallback_tag(image.digest), (await tagged(old_pair, image)).digest)
    *_, end = await old_pair.ends(2)
    assert (end.status, reason(end)) == (Status.SKIPPED, "already_there")
    assert len(await listed(old_pair, image.digest)) == 2


async def tagged(site: Site, image: images.Image) -> Manifest:
    async with client(site.source) as source:
        return await source.read_manifest(APP, fallback_tag(image.digest))


async def test_two_agents_that_list_at_once_lose_nothing(old_pair: Site) -> None:
    """Two clients without a lock between them, as agents of two regions or two processes are."""
    subjects = [images.image(layers=[bytes([number])]) for number in range(6)]
    async with client(old_pair.destination) as one, client(old_pair.destination) as other:
        for subject in subjects:
            await images.push(one, APP, subject.digest, subject)
            found = [attachment(subject.manifest, SBOM, bytes([number])) for number in range(6)]
            for each in found:
                await images.push(one, APP, each.digest, each)
            await asyncio.gather(
                *(
                    fallback_index.add(at, APP, subject.digest, [each.manifest], clock=CLOCK)
                    for at, each in zip([one, other] * 3, found, strict=True)
                )
            )
            assert set(await listed(old_pair, subject.digest)) == {each.digest for each in found}


async def test_a_tagged_artifact_with_a_subject_is_listed_too(pair: Site) -> None:
    image = images.image(layers=[b"app"])
    sbom = attachment(image.manifest, SBOM, b"tagged")
    await pair.push("v1", image)
    await pair.push("v1-sbom", sbom)
    ends = await pair.ends(2)
    assert {end.status for end in ends} == {Status.SUCCEED}
    assert await pair.holds("v1-sbom") == sbom.digest
    assert await listed(pair, image.digest) == {sbom.digest: SBOM}


@pytest.mark.parametrize("head_says_there", [False, True])
async def test_a_destination_that_loses_a_part_of_a_referrer_gets_it_again(
    pair: Site, head_says_there: bool
) -> None:
    image = images.image(layers=[b"app"])
    await pair.push("v1", image)
    await pair.ends(1)
    sbom = attachment(image.manifest, SBOM, b"lost on its way")
    await attach(pair, image.manifest, sbom, notify=False)
    pair.destination.faults.half_written = HalfWritten(times=1, head_says_there=head_says_there)
    await pair.event(None, sbom.digest)
    _, end = await pair.ends(2)
    assert (end.status, pair.destination.faults.struck["half_written"]) == (Status.SUCCEED, 1)
    assert await is_there(pair, sbom)
    assert await listed(pair, image.digest) == {sbom.digest: SBOM}


async def test_a_list_that_names_what_is_not_about_the_image_brings_nothing_of_it(old_pair: Site) -> None:
    image, stranger = images.image(layers=[b"app"]), images.image(layers=[b"stranger"])
    about = attachment(stranger.manifest, SBOM, b"of the stranger")
    deleted = attachment(image.manifest, SBOM, b"deleted since")
    async with client(old_pair.source) as source:
        await images.push(source, APP, Tag("v1"), image)
        await images.push(source, APP, about.digest, about)
        await images.push(source, APP, deleted.digest, deleted)
        index = attached.index_of([attached.entry(about.manifest), attached.entry(deleted.manifest)])
        await source.write_manifest(APP, fallback_tag(image.digest), index)
    assert old_pair.source._store.delete_manifest(APP, deleted.digest)
    await old_pair.event("v1", image.digest)
    (end,) = await old_pair.ends(1)
    assert end.status is Status.SUCCEED
    assert not await is_there(old_pair, about)
    assert await listed(old_pair, image.digest) == {}
