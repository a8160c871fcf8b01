"""Referrers that cannot be copied: the image comes without them, its end says so, and they come when they can."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.registry.builtin.faults import Fail
from schemas.completions import Completion, Side, Status
from schemas.names import Digest
from tests.flow.test_agent import APP, Site, client, open_site
from tests.flow.test_agent_parking import parking
from tests.flow.test_agent_referrers import attach, listed
from tests.support import images
from tests.support.attached import SBOM, SIGNATURE, attachment

IMAGE = images.image(layers=[b"app"])


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with open_site(tmp_path) as found:
        yield found


async def test_more_referrers_than_are_copied_bring_the_image_and_the_newest(site: Site) -> None:
    about = [attachment(IMAGE.manifest, SBOM, b"the same body", number=number) for number in range(1001)]
    await site.push("v1", IMAGE, notify=False)
    async with client(site.source) as source:
        for each in about[:2]:
            await images.push(source, APP, each.digest, each)
        for each in about[2:]:
            await source.write_manifest(APP, each.digest, each.manifest)
    await site.event("v1", IMAGE.digest)
    (end,) = await site.ends(1, within=120)
    assert await site.holds("v1") == IMAGE.digest
    assert problem(end) == (Status.SUCCEED, "referrers_left_out", Side.SOURCE)
    assert end.error is not None
    assert end.error.message == (
        "the image is there without 1 of its referrers: more than 1000 referrers of one image are not copied"
    )
    newest = {each.digest for each in about[1:]}
    assert await listed(site, IMAGE.digest) == dict.fromkeys(newest, SBOM)


async def test_deeper_levels_than_are_copied_bring_the_image_and_the_upper_ones(site: Site) -> None:
    await site.push("v1", IMAGE, notify=False)
    subject, levels = IMAGE.manifest, list[Digest]()
    for level in range(5):
        about = attachment(subject, SIGNATURE, f"level {level}".encode())
        await attach(site, subject, about, notify=False)
        subject = about.manifest
        levels.append(about.digest)
    await site.event("v1", IMAGE.digest)
    (end,) = await site.ends(1)
    assert problem(end) == (Status.SUCCEED, "referrers_left_out", Side.SOURCE)
    assert await site.holds("v1") == IMAGE.digest
    async with client(site.destination) as destination:
        there = [await destination.resolve(APP, digest) is not None for digest in levels]
    assert there == [True, True, True, True, False]


async def test_what_the_destination_refuses_keeps_neither_the_image_nor_others_away(site: Site) -> None:
    refused, signature = await _push_with_two(site)
    path = f"/v2/game/app/manifests/{refused.digest}"
    site.destination.faults.fail = Fail(times=1000, method="PUT", path=path, status=403)
    await site.event("v1", IMAGE.digest)
    (end,) = await site.ends(1)
    assert problem(end) == (Status.SUCCEED, "referrers_left_out", Side.DESTINATION)
    assert await site.holds("v1") == IMAGE.digest
    assert await listed(site, IMAGE.digest) == {signature.digest: SIGNATURE}

    await site.event("v1", IMAGE.digest)  # what is there already is reported as well
    _, again = await site.ends(2)
    assert problem(again) == (Status.SUCCEED, "referrers_left_out", Side.DESTINATION)

    site.destination.faults.fail = None
    await site.event("v1", IMAGE.digest)
    *_, whole = await site.ends(3)
    assert (whole.status, whole.error) == (Status.SUCCEED, None)
    assert await listed(site, IMAGE.digest) == {signature.digest: SIGNATURE, refused.digest: SBOM}


async def test_a_source_that_refuses_the_list_of_referrers_keeps_no_image_away(site: Site) -> None:
    await _push_with_two(site)
    path = f"/v2/game/app/referrers/{IMAGE.digest}"
    site.source.faults.fail = Fail(times=1000, method="GET", path=path, status=403)
    await site.event("v1", IMAGE.digest)
    (end,) = await site.ends(1)
    assert problem(end) == (Status.SUCCEED, "referrers_left_out", Side.SOURCE)
    assert await site.holds("v1") == IMAGE.digest


async def test_what_cannot_be_read_for_now_delays_the_image_and_comes_later(tmp_path: Path) -> None:
    async with parking(tmp_path) as site:
        unread, signature = await _push_with_two(site)
        path = f"/v2/game/app/manifests/{unread.digest}"
        site.source.faults.fail = Fail(times=12, method="GET", path=path, status=500)
        await site.event("v1", IMAGE.digest)
        (end,) = await site.ends(1)
        assert (end.status, end.error) == (Status.SUCCEED, None)
        assert end.attempts > 3
        assert site.source.faults.struck["fail"] == 12
        assert await listed(site, IMAGE.digest) == {signature.digest: SIGNATURE, unread.digest: SBOM}


async def test_the_image_is_there_while_a_referrer_cannot_be_read(tmp_path: Path) -> None:
    async with parking(tmp_path) as site:
        unread, signature = await _push_with_two(site)
        path = f"/v2/game/app/manifests/{unread.digest}"
        site.source.faults.fail = Fail(times=10_000, method="GET", path=path, status=500)
        await site.event("v1", IMAGE.digest)
        await _until_held(site)
        assert await listed(site, IMAGE.digest) == {signature.digest: SIGNATURE}
        site.source.faults.fail = None
        (end,) = await site.ends(1)
        assert (end.status, end.error) == (Status.SUCCEED, None)
        assert set(await listed(site, IMAGE.digest)) == {signature.digest, unread.digest}


async def _push_with_two(site: Site) -> tuple[images.Image, images.Image]:
    """Pushes the image with an SBOM and a signature, and announces nothing."""
    about = [attachment(IMAGE.manifest, kind, kind.encode()) for kind in (SBOM, SIGNATURE)]
    await site.push("v1", IMAGE, notify=False)
    for each in about:
        await attach(site, IMAGE.manifest, each, notify=False)
    return about[0], about[1]


async def _until_held(site: Site) -> None:
    async with asyncio.timeout(20):
        while await site.holds("v1") != IMAGE.digest:
            await asyncio.sleep(0.05)


def problem(end: Completion) -> tuple[Status, str, Side] | None:
    return (end.status, end.error.code, end.error.side) if end.error else None
