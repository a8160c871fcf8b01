"""Deletions that a rule follows: only what the source does not have, only what the rule may, and not all at once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh.registry.builtin.manifests import Deletes
from schemas.completions import Completion, Status
from schemas.events import Action
from schemas.names import Digest, Tag
from tests.flow.test_agent import APP, FRANKFURT, Site, client, open_site
from tests.support import images

__all__ = ["FRANKFURT"]

FILTERS = [{"type": "name", "value": "game/**"}]


class Deleting:
    """A site whose rule follows deletions, and whose source deletes and says so."""

    def __init__(self, site: Site, rev: int) -> None:
        self.site, self.rev, self.ended = site, rev, 0

    async def copied(self, **images_by_tag: images.Image) -> None:
        for tag, image in images_by_tag.items():
            await self.site.push(tag, image)
            assert (await self.end()).status is Status.SUCCEED

    async def end(self) -> Completion:
        self.ended += 1
        return (await self.site.ends(self.ended))[-1]

    async def delete_tag(self, tag: str, *, at_source: bool = True) -> None:
        if at_source:
            async with client(self.site.source) as source:
                await source.delete_manifest(APP, Tag(tag))
        await self.site.event(tag, None, action=Action.TAG_DELETE, rules_rev=self.rev)

    async def delete_digest(self, digest: Digest) -> None:
        async with client(self.site.source) as source:
            await source.delete_manifest(APP, digest)
        await self.site.event(None, digest, action=Action.MANIFEST_DELETE, rules_rev=self.rev)

    async def has(self, digest: Digest) -> bool:
        async with client(self.site.destination) as destination:
            return await destination.resolve(APP, digest) is not None


@asynccontextmanager
async def deleting(
    folder: Path, *, deletes: Deletes = "tags", deletion: bool = True, **rule: Any
) -> AsyncIterator[Deleting]:
    async with open_site(folder, destination_deletes=deletes) as site:
        fields = {"filters": FILTERS, "deletion": deletion, **rule}
        rev = await site.declare("rule", "release", source="cn", destination="eu", **fields)
        yield Deleting(site, rev)


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Deleting]:
    async with deleting(tmp_path) as found:
        yield found


async def test_a_deleted_tag_goes_at_the_destination_and_its_image_stays_for_others(mesh: Deleting) -> None:
    image = images.image(layers=[b"shared"])
    await mesh.copied(v1=image, v2=image)
    await mesh.delete_tag("v1")
    end = await mesh.end()
    assert (end.status, end.operation, end.digest, end.error) == (
        Status.SUCCEED,
        "delete",
        image.digest,
        None,
    )
    assert (await mesh.site.holds("v1"), await mesh.site.holds("v2")) == (None, image.digest)


async def test_without_the_option_nothing_is_deleted(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletion=False) as mesh:
        image = images.image(layers=[b"kept"])
        await mesh.copied(v1=image)
        await mesh.delete_tag("v1")
        await mesh.copied(v2=image)  # behind it in the same lane: the deletion was looked at
        assert await mesh.site.holds("v1") == image.digest


async def test_what_the_source_has_again_is_not_deleted(mesh: Deleting) -> None:
    image = images.image(layers=[b"pushed again"])
    await mesh.copied(v1=image)
    await mesh.delete_tag("v1", at_source=False)
    end = await mesh.end()
    assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "source_has_it")
    assert await mesh.site.holds("v1") == image.digest


async def test_a_deletion_of_what_is_not_there_says_so(mesh: Deleting) -> None:
    await mesh.delete_tag("v1", at_source=False)
    end = await mesh.end()
    assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "already_gone")


async def test_what_the_rule_does_not_want_is_not_deleted(tmp_path: Path) -> None:
    chart = {"type": "resource", "value": "chart"}
    async with deleting(tmp_path) as mesh:
        image = images.image(layers=[b"an image"])
        await mesh.copied(v1=image)
        mesh.rev = await mesh.site.declare(
            "rule", "release", source="cn", destination="eu", filters=[*FILTERS, chart], deletion=True
        )
        await mesh.delete_tag("v1")
        end = await mesh.end()
        assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "filtered")
        assert await mesh.site.holds("v1") == image.digest


async def test_a_deleted_digest_goes_with_all_its_tags(mesh: Deleting) -> None:
    image = images.image(layers=[b"twice"])
    await mesh.copied(v1=image, v2=image)
    await mesh.delete_digest(image.digest)
    end = await mesh.end()
    assert (end.status, end.operation, end.tag, end.digest) == (Status.SUCCEED, "delete", None, image.digest)
    assert (await mesh.site.holds("v1"), await mesh.has(image.digest)) == (None, False)


async def test_a_deleted_digest_that_a_tag_of_the_destination_alone_needs_stays(mesh: Deleting) -> None:
    image = images.image(layers=[b"twice"])
    await mesh.copied(v1=image)
    mesh.rev = await mesh.site.declare(
        "rule", "release", source="cn", destination="eu", deletion=True,
        filters=[*FILTERS, {"type": "tag", "value": "w*"}],
    )  # fmt: skip
    await mesh.delete_digest(image.digest)
    end = await mesh.end()
    assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "still_tagged")
    assert await mesh.site.holds("v1") == image.digest


async def test_a_deleted_digest_loses_the_tags_that_the_source_had_though_another_needs_it(
    mesh: Deleting,
) -> None:
    image = images.image(layers=[b"twice"])
    mesh.rev = await mesh.site.declare(
        "rule", "release", source="cn", destination="eu", deletion=True,
        filters=[*FILTERS, {"type": "tag", "value": "v*"}],
    )  # fmt: skip
    await mesh.copied(v1=image)
    async with client(mesh.site.destination) as destination:
        await images.push(destination, APP, Tag("local"), image)
    await mesh.delete_digest(image.digest)
    end = await mesh.end()
    assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "still_tagged")
    assert (await mesh.site.holds("v1"), await mesh.site.holds("local")) == (None, image.digest)


async def test_the_parts_of_a_tagged_index_stay(mesh: Deleting) -> None:
    child = images.image(layers=[b"a platform"])
    await mesh.copied(multi=images.index([child]))
    await mesh.delete_digest(child.digest)
    end = await mesh.end()
    assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "still_tagged")
    assert await mesh.has(child.digest)


async def test_a_deleted_blob_reports_nothing(mesh: Deleting) -> None:
    image = images.image(layers=[b"a blob"])
    await mesh.copied(v1=image)
    blob = image.blob_descriptors[0].digest
    await mesh.site.event(None, blob, action=Action.MANIFEST_DELETE, rules_rev=mesh.rev)
    await mesh.copied(v2=image)  # the next end is this one's
    assert await mesh.site.holds("v1") == image.digest


async def test_a_registry_that_deletes_digests_alone_loses_no_other_tag(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletes="digests") as mesh:
        image = images.image(layers=[b"twice"])
        await mesh.copied(v1=image, v2=image)
        await mesh.delete_tag("v1")
        end = await mesh.end()
        assert (end.status, end.error and end.error.code) == (Status.FAILED, "tag_delete_unsupported")
        assert await mesh.site.holds("v1") == await mesh.site.holds("v2") == image.digest
        await mesh.delete_tag("v2")
        assert (
            await mesh.end()
        ).status is Status.SUCCEED  # the source has lost v1 too, so that one does not keep it
        assert (await mesh.site.holds("v1"), await mesh.has(image.digest)) == (None, False)


async def test_a_registry_that_deletes_digests_alone_follows_one_that_lost_two_tags_at_once(
    tmp_path: Path,
) -> None:
    """docker-registry deletes a digest with its tags, and notifies about each tag."""
    async with deleting(tmp_path, deletes="digests") as mesh:
        image = images.image(layers=[b"twice"])
        await mesh.copied(v1=image, v2=image)
        async with client(mesh.site.source) as source:
            await source.delete_manifest(APP, image.digest)
        await mesh.delete_tag("v1", at_source=False)
        assert (await mesh.end()).status is Status.SUCCEED
        await mesh.delete_tag("v2", at_source=False)
        end = await mesh.end()
        assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "already_gone")
        assert [await mesh.site.holds(tag) for tag in ("v1", "v2")] == [None, None]


async def test_a_registry_that_deletes_digests_alone_loses_no_tag_that_the_rule_does_not_want(
    tmp_path: Path,
) -> None:
    filters = [*FILTERS, {"type": "tag", "value": "local", "decoration": "excludes"}]
    async with deleting(tmp_path, deletes="digests", filters=filters) as mesh:
        image = images.image(layers=[b"twice"])
        await mesh.copied(v1=image)
        async with client(mesh.site.destination) as destination:
            await images.push(destination, APP, Tag("local"), image)
        await mesh.delete_tag("v1")
        end = await mesh.end()
        assert (end.status, end.error and end.error.code) == (Status.FAILED, "tag_delete_unsupported")
        assert await mesh.site.holds("v1") == await mesh.site.holds("local") == image.digest


async def test_tags_that_would_go_with_a_digest_count_in_its_burst(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletes="digests") as mesh:
        image = images.image(layers=[b"many tags"])
        tags = [f"v{number}" for number in range(24)]
        for tag in tags:
            await mesh.site.push(tag, image)
        mesh.ended = len(tags)
        await mesh.site.ends(len(tags))
        async with client(mesh.site.source) as source:
            await source.delete_manifest(APP, image.digest)
        await mesh.delete_tag("v0", at_source=False)
        end = await mesh.end()
        assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "deletion_held")
        assert {await mesh.site.holds(tag) for tag in tags} == {image.digest}


async def test_a_registry_that_deletes_digests_alone_deletes_what_one_tag_names(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletes="digests") as mesh:
        await mesh.copied(v1=images.image(layers=[b"one"]), v2=images.image(layers=[b"two"]))
        await mesh.delete_tag("v1")
        assert (await mesh.end()).status is Status.SUCCEED
        assert await mesh.site.holds("v1") is None
        assert await mesh.site.holds("v2") is not None


async def test_a_part_of_a_tagged_index_is_not_deleted_in_the_place_of_its_tag(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletes="digests") as mesh:
        child = images.image(layers=[b"a platform"])
        await mesh.copied(multi=images.index([child]), amd64=child)
        await mesh.delete_tag("amd64")
        end = await mesh.end()
        assert (end.status, end.error and end.error.code) == (Status.FAILED, "tag_delete_unsupported")
        assert await mesh.has(child.digest)


async def test_a_registry_that_deletes_nothing_gives_failed(tmp_path: Path) -> None:
    async with deleting(tmp_path, deletes="nothing") as mesh:
        image = images.image(layers=[b"immutable"])
        await mesh.copied(v1=image)
        await mesh.delete_tag("v1")
        end = await mesh.end()
        assert end.error is not None
        assert (end.status, end.error.code, end.error.side) == (
            Status.FAILED,
            "delete_refused",
            "destination",
        )
        assert "405" in end.error.message
        assert await mesh.site.holds("v1") == image.digest


async def test_too_many_deletions_at_once_are_held_for_a_human(tmp_path: Path) -> None:
    async with deleting(tmp_path) as mesh:
        image = images.image(layers=[b"many tags"])
        tags = [f"v{number}" for number in range(24)]
        for tag in tags:
            await mesh.site.push(tag, image)
        mesh.ended = len(tags)
        await mesh.site.ends(len(tags))
        for tag in tags:
            await mesh.delete_tag(tag)
        ends = (await mesh.site.ends(2 * len(tags)))[len(tags) :]
        held = [end for end in ends if end.error is not None and end.error.code == "deletion_held"]
        assert [end.status for end in ends].count(Status.SUCCEED) == 20
        assert {end.status for end in held} == {Status.SKIPPED}
        assert len(held) == 4
        assert {await mesh.site.holds(str(end.tag)) for end in held} == {image.digest}


async def test_a_part_of_an_index_that_only_the_destination_has_outlives_its_own_tag(mesh: Deleting) -> None:
    """Somebody else's index there names it too: the tag goes, and what the index needs stays."""
    part = images.image(layers=[b"part"])
    await mesh.copied(v1=part)
    index = images.index([part])
    async with client(mesh.site.destination) as destination:
        await images.push(destination, APP, Tag("others"), index)
    await mesh.delete_digest(part.digest)
    end = await mesh.end()
    assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "still_tagged")
    assert (await mesh.site.holds("v1"), await mesh.site.holds("others")) == (None, index.digest)
    assert await mesh.has(part.digest)


@pytest.mark.parametrize(("deletes", "ends"), [("tags", None), ("digests", "unreadable_names")])
async def test_a_tag_that_nobody_can_read_loses_nothing_and_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletes: Deletes, ends: str | None
) -> None:
    """It may name the same digest: what would take that away with it does not go."""
    async with deleting(tmp_path, deletes=deletes) as mesh:
        image = images.image(layers=[b"one"])
        await mesh.copied(v1=image)
        monkeypatch.setattr(mesh.site.destination._store, "tags", lambda _: ["-strange", "v1"])
        await mesh.delete_tag("v1")
        end = await mesh.end()
        assert (end.error and end.error.code) == ends
        assert await mesh.site.holds("v1") == (None if ends is None else image.digest)
        assert await mesh.has(image.digest)
