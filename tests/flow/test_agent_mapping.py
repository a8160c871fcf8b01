"""Where artifacts land: namespaces, tags that are left alone, and tags that two rules come to."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from schemas.completions import Status
from schemas.names import Repository
from tests.flow.test_agent import BEIJING, FRANKFURT
from tests.flow.test_agent_accounts import Company, company, ended
from tests.support import images

TEAM = Repository("a/b/app")
PLACES = {"cn": ("game", BEIJING), "us": ("game", BEIJING), "eu": ("game", FRANKFURT)}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Company]:
    async with company(tmp_path, PLACES) as found:
        await found.start()
        yield found


@pytest.mark.parametrize(("count", "name"), [(-1, "n/app"), (0, "n/a/b/app"), (1, "n/b/app"), (2, "n/app")])
async def test_an_image_lands_under_its_mapped_name_with_all_it_needs(
    site: Company, count: int, name: str
) -> None:
    await site.declare(
        "rule", "map", source="cn", destination="eu", destination_namespace="n",
        destination_namespace_replace_count=count,
    )  # fmt: skip
    digest = await site.push_at("cn", "1", images.image(layers=[b"x"]), TEAM)
    (end,) = await site.ends(1)
    assert (end.status, end.source, end.destination) == (Status.SUCCEED, "cn/a/b/app:1", f"eu/{name}:1")
    assert await site.at("eu", "1", Repository(name)) == digest


async def test_what_has_no_name_there_is_skipped_and_nothing_is_written(site: Company) -> None:
    fields = {"destination_namespace": "n", "destination_namespace_replace_count": 2}
    await site.declare("rule", "map", source="cn", destination="eu", **fields)
    await site.push_at("cn", "1", images.image(layers=[b"x"]), Repository("app"))
    (end,) = await site.ends(1)
    assert ended(end) == "unmappable"
    assert end.error is not None
    assert "'app' has 0 components before its last" in end.error.message
    assert sum(site.registries["eu"].traffic.uploads.values()) == 0


async def test_a_tag_that_names_something_else_is_left_alone(site: Company) -> None:
    await site.declare("rule", "careful", source="cn", destination="eu", override=False)
    theirs = await site.push_at("eu", "1", images.image(layers=[b"theirs"]), TEAM, notify=False)
    ours = await site.push_at("cn", "1", images.image(layers=[b"ours"]), TEAM)
    (end,) = await site.ends(1)
    assert (end.status, ended(end)) == (Status.SKIPPED, "not_overridden")
    assert end.error is not None
    assert theirs in end.error.message
    assert ours in end.error.message
    assert await site.at("eu", "1", TEAM) == theirs
    assert sum(site.registries["eu"].traffic.uploads.values()) == len(images.image(layers=[b"theirs"]).blobs)
    new = await site.push_at("cn", "2", images.image(layers=[b"new"]), TEAM)
    assert ended((await site.ends(2))[1]) == "Succeed"
    assert await site.at("eu", "2", TEAM) == new


async def test_a_tag_that_appears_during_the_copy_is_left_alone_too(site: Company) -> None:
    await site.declare("rule", "careful", source="cn", destination="eu", override=False)
    image = images.image(layers=[b"o" * 100_000])
    await site.push_at("cn", "1", image, TEAM, notify=False)
    site.registries["cn"].faults.slow = 50_000
    await site.notify("cn", "1", image.digest, TEAM)
    theirs = await site.push_at("eu", "1", images.image(layers=[b"theirs"]), TEAM, notify=False)
    (end,) = await site.ends(1)
    assert ended(end) == "not_overridden"
    assert await site.at("eu", "1", TEAM) == theirs


async def test_the_second_rule_that_comes_to_a_tag_learns_whose_it_is(site: Company) -> None:
    for source in ("cn", "us"):
        await site.declare("rule", f"from-{source}", source=source, destination="eu")
    first = await site.push_at("cn", "1", images.image(layers=[b"first"]), TEAM)
    await site.ends(1)
    await site.push_at("us", "1", images.image(layers=[b"second"]), TEAM)
    end = (await site.ends(2))[1]
    assert (end.rule, end.status, ended(end)) == ("from-us", Status.SKIPPED, "owned_by")
    assert end.error is not None
    assert end.error.message == "from-cn: that rule wrote this tag first, from cn/a/b/app"
    assert await site.at("eu", "1", TEAM) == first

    again = await site.push_at("cn", "1", images.image(layers=[b"again"]), TEAM)
    other = await site.push_at("us", "2", images.image(layers=[b"free"]), TEAM)
    assert {ended(end) for end in (await site.ends(4))[2:]} == {"Succeed"}
    assert (await site.at("eu", "1", TEAM), await site.at("eu", "2", TEAM)) == (again, other)

    await site.stop()  # who owns what is on the log, not in a process
    await site.start()
    await site.push_at("us", "1", images.image(layers=[b"third"]), TEAM)
    assert ended((await site.ends(5))[4]) == "owned_by"

    await site.declare("rule", "from-cn", source="cn", destination="eu", enabled=False)
    taken = await site.push_at("us", "1", images.image(layers=[b"mine now"]), TEAM)
    assert ended((await site.ends(6))[5]) == "Succeed"
    assert await site.at("eu", "1", TEAM) == taken


async def test_two_repositories_that_one_rule_brings_under_one_name_do_not_take_turns(site: Company) -> None:
    await site.declare("rule", "flat", source="cn", destination="eu", destination_namespace="n")
    first = await site.push_at("cn", "1", images.image(layers=[b"x"]), Repository("x/app"))
    await site.ends(1)
    await site.push_at("cn", "1", images.image(layers=[b"y"]), Repository("y/app"))
    end = (await site.ends(2))[1]
    assert ended(end) == "owned_by"
    assert await site.at("eu", "1", Repository("n/app")) == first


async def test_of_two_that_come_at_once_one_has_the_tag_and_the_other_learns_whose(site: Company) -> None:
    for source in ("cn", "us"):
        await site.declare("rule", f"from-{source}", source=source, destination="eu")
        site.registries[source].faults.slow = 200_000
    builds = {source: images.image(layers=[source.encode() * 50_000]) for source in ("cn", "us")}
    for source, build in builds.items():
        await site.push_at(source, "1", build, TEAM, notify=False)
    for source, build in builds.items():
        await site.notify(source, "1", build.digest, TEAM)
    ends = {ended(end): end for end in await site.ends(2)}
    assert set(ends) == {"Succeed", "owned_by"}
    assert await site.at("eu", "1", TEAM) == builds[str(ends["Succeed"].rule).removeprefix("from-")].digest


async def test_a_push_is_not_superseded_by_another_repository_that_comes_to_its_name(site: Company) -> None:
    await site.declare("rule", "flat", source="cn", destination="eu", destination_namespace="n")
    site.registries["cn"].faults.slow = 200_000
    names = [Repository("x/app"), Repository("y/app")]
    builds = {name: images.image(layers=[name.encode() * 20_000]) for name in names}
    for name, build in builds.items():
        await site.push_at("cn", "1", build, name, notify=False)
    for name, build in builds.items():
        await site.notify("cn", "1", build.digest, name)
    assert {ended(end) for end in await site.ends(2)} == {"Succeed", "owned_by"}
