"""Between accounts and stages: base images under grants, promotion by tag, what only the public may see."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.credentials.credentials import Credentials
from mesh.log.port import Append
from mesh.log.sqlite import open_log
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.registry import Credentials as Allowed
from mesh.registry.client import RegistryClient, RegistryEndpoint, open_endpoint
from schemas import codec, topics
from schemas.completions import Completion, Side, Status
from schemas.events import Action, Event
from schemas.names import Digest, PlaceName, Region, Repository, Tag
from schemas.topology import Place
from tests.flow.test_agent import BEIJING, CLOCK, FRANKFURT, Site
from tests.support import images

BASE, APP = Repository("base/os"), Repository("team/app")


class Company(Site):
    """Many registries; the agent works for those in Frankfurt."""

    registries: dict[str, BuiltinRegistry]
    regions: dict[str, Region]

    async def push_at(
        self, place: str, tag: str, image: images.Image, repository: Repository = BASE, *, notify: bool = True
    ) -> Digest:
        async with _client(self.registries[place]) as registry:
            await images.push(registry, repository, Tag(tag), image)
        if notify:
            await self.notify(place, tag, image.digest, repository)
        return image.digest

    async def notify(self, place: str, tag: str, digest: Digest, repository: Repository = BASE) -> None:
        self._pushes += 1
        event = Event(
            id=f"event-{self._pushes}", time=CLOCK.now(), origin=PlaceName(place), place=PlaceName(place),
            action=Action.MANIFEST_PUSH, region=self.regions[place], repository=repository, tag=Tag(tag),
            digest=digest, occurred_at=CLOCK.now(), rules_rev=-1,
        )  # fmt: skip
        await self.log.append([Append(topics.events(event.region), event.key, codec.encode(event))])

    async def at(self, place: str, tag: str, repository: Repository = BASE) -> Digest | None:
        async with _client(self.registries[place]) as registry:
            found = await registry.resolve(repository, Tag(tag))
        return found.digest if found else None

    async def grant(self, account: str, giver: str, *namespaces: str) -> int:
        fields = {"account": account, "from": giver, "namespaces": list(namespaces)}
        return await self.declare("grant", f"{account}:{giver}", **fields)

    async def revoke(self, account: str, giver: str) -> int:
        return (await self.log.append([Append(topics.STATE, f"grant/{account}:{giver}", None)]))[0]

    async def said(self, count: int) -> dict[str, str]:
        """By rule, the code of the last of `count` ends."""
        return {str(end.rule): ended(end) for end in await self.ends(count)}

    @staticmethod
    def open_place(instance: Place) -> RegistryEndpoint:
        secret = Credentials("agent", "secret") if instance.credentials else None
        return open_endpoint(instance.name, instance.url, secret)


@asynccontextmanager
async def _client(registry: BuiltinRegistry) -> AsyncIterator[RegistryClient]:
    endpoint = open_endpoint("test", registry.url, Credentials("agent", "secret"))
    try:
        yield endpoint.registry(Side.DESTINATION)
    finally:
        await endpoint.close()


def ended(end: Completion) -> str:
    return end.error.code if end.error is not None else end.status


@asynccontextmanager
async def company(
    folder: Path, places: Mapping[str, tuple[str, Region]], *, private: str | None = None
) -> AsyncIterator[Company]:
    """`places`: account and region of each instance; `private` asks for credentials."""
    log = await open_log(folder / "mesh.db", clock=CLOCK)
    registries = {
        name: BuiltinRegistry(
            folder / name, clock=CLOCK, credentials=Allowed("agent", "secret") if name == private else None
        )
        for name in places
    }
    for registry in registries.values():
        await registry.start()
    await log.ensure([topics.STATE, topics.completions(FRANKFURT)])
    first = next(iter(registries.values()))
    site = Company(folder / "mesh.db", log, first, first)
    site.registries, site.regions = registries, {name: region for name, (_, region) in places.items()}
    for region in (BEIJING, FRANKFURT):
        await site.declare("region", region, jurisdiction="global")
    for name, (account, region) in places.items():
        credentials = "AGENT" if name == private else None
        await site.declare(
            "instance",
            name,
            account=account,
            region=region,
            url=registries[name].url,
            credentials=credentials,
        )
    try:
        yield site
    finally:
        while site._agents:
            await site.kill()
        for registry in registries.values():
            await registry.stop()
        await site.log.close()


SUBSIDIARIES = ("sub-a", "sub-b", "sub-c")


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Company]:
    """A platform account in Beijing, three subsidiaries in Frankfurt that take its base images."""
    places = {"platform": ("platform", BEIJING)} | {name: (name, FRANKFURT) for name in SUBSIDIARIES}
    async with company(tmp_path, places) as site:
        for name in SUBSIDIARIES:
            filters = [{"type": "name", "value": "base/**"}]
            await site.declare("rule", f"to-{name}", source="platform", destination=name, filters=filters)
            await site.grant(name, "platform", "base/**")
        await site.start()
        yield site


async def test_base_images_reach_the_subsidiaries_that_grant_it(group: Company) -> None:
    first = await group.push_at("platform", "1", images.image(layers=[b"one"]))
    assert set((await group.said(3)).values()) == {"Succeed"}
    assert {await group.at(name, "1") for name in SUBSIDIARIES} == {first}

    await group.revoke("sub-b", "platform")
    second = await group.push_at("platform", "2", images.image(layers=[b"two"]))
    assert {str(end.rule): ended(end) for end in (await group.ends(6))[3:]} == {
        "to-sub-a": "Succeed", "to-sub-b": "no_grant", "to-sub-c": "Succeed",
    }  # fmt: skip
    assert [await group.at(name, "2") for name in SUBSIDIARIES] == [second, None, second]
    assert await group.at("sub-b", "1") == first  # nothing that is there is taken away

    await group.grant("sub-b", "platform", "base/**")
    third = await group.push_at("platform", "3", images.image(layers=[b"three"]))
    assert {ended(end) for end in (await group.ends(9))[6:]} == {"Succeed"}
    assert await group.at("sub-b", "3") == third


async def test_a_grant_is_judged_by_the_name_at_the_destination(group: Company) -> None:
    fields = {"source": "platform", "destination": "sub-a", "destination_namespace": "other"}
    await group.declare("rule", "to-sub-a", **fields)
    await group.push_at("platform", "1", images.image(layers=[b"one"]))
    ends = {str(end.rule): end for end in await group.ends(3)}
    assert {rule: ended(end) for rule, end in ends.items()} == {
        "to-sub-a": "no_grant", "to-sub-b": "Succeed", "to-sub-c": "Succeed",
    }  # fmt: skip
    refused = ends["to-sub-a"]
    assert refused.status is Status.SKIPPED
    assert refused.error is not None
    assert refused.error.message == "the grant sub-a:platform does not cover 'other/os'"
    assert group.registries["sub-a"].traffic.uploads == {}


async def test_revoking_stops_what_waits_in_a_lane_and_what_is_being_copied(group: Company) -> None:
    for name in ("sub-b", "sub-c"):
        await group.revoke(name, "platform")
    builds = [images.image(layers=[b"%d" % number * 100_000]) for number in range(3)]
    for number, build in enumerate(builds):
        await group.push_at("platform", f"{number}", build, notify=False)
    group.registries["platform"].faults.slow = 50_000  # bytes a second: two seconds a build
    for number, build in enumerate(builds):
        await group.notify("platform", f"{number}", build.digest)
    await asyncio.sleep(0.5)
    await group.revoke("sub-a", "platform")
    ends = await group.ends(9)
    assert {ended(end) for end in ends} == {"no_grant"}
    assert [await group.at("sub-a", str(number)) for number in range(3)] == [None] * 3


async def test_what_no_account_granted_says_so_and_needs_no_instance_restarted(tmp_path: Path) -> None:
    places = {"platform": ("platform", BEIJING), "sub-a": ("sub-a", FRANKFURT)}
    async with company(tmp_path, places) as site:
        await site.declare("rule", "base", source="platform", destination="sub-a")
        await site.start()
        index = images.index([images.image(layers=[b"amd"]), images.image(layers=[b"arm"])])
        for child in index.children:
            await site.push_at("platform", "x", child, notify=False)
        await site.push_at("platform", "1", index)
        (end,) = await site.ends(1)
        assert end.error is not None
        assert (end.status, end.error.code, end.error.message) == (
            Status.SKIPPED, "no_grant", "account 'sub-a' has no grant for account 'platform'",
        )  # fmt: skip


async def test_promotion_by_tag_inside_one_region_goes_on_from_stage_to_stage(tmp_path: Path) -> None:
    places = dict.fromkeys(("dev", "test", "prod"), ("game", FRANKFURT))
    async with company(tmp_path, places) as site:
        stages = (("promote", "dev", "test", "*-{test,prod}"), ("release", "test", "prod", "*-prod"))
        for name, source, destination, tags in stages:
            filters = [{"type": "tag", "value": tags}]
            await site.declare("rule", name, source=source, destination=destination, filters=filters)
        await site.start()
        await site.push_at("dev", "1", images.image(layers=[b"unfinished"]), APP)
        tested = await site.push_at("dev", "1-test", images.image(layers=[b"one"]), APP)
        released = await site.push_at("dev", "1-prod", images.image(layers=[b"two"]), APP)
        ends = await site.ends(3)
        assert sorted((str(end.rule), str(end.tag), ended(end)) for end in ends) == [
            ("promote", "1-prod", "Succeed"), ("promote", "1-test", "Succeed"), ("release", "1-prod", "Succeed"),
        ]  # fmt: skip
        assert [await site.at(place, "1-test", APP) for place in places] == [tested, tested, None]
        assert [await site.at(place, "1-prod", APP) for place in places] == [released] * 3
        assert await site.at("test", "1", APP) is None


@pytest.mark.parametrize(("private", "said"), [(None, "Succeed"), ("cn", "not_public")])
async def test_public_only_asks_the_source_as_everybody_does(
    tmp_path: Path, private: str | None, said: str
) -> None:
    places = {"cn": ("game", BEIJING), "eu": ("game", FRANKFURT)}
    async with company(tmp_path, places, private=private) as site:
        await site.declare("rule", "open", source="cn", destination="eu", public_only=True)
        await site.start()
        digest = await site.push_at("cn", "1", images.image(layers=[b"x"]), APP)
        assert await site.said(1) == {"open": said}
        assert await site.at("eu", "1", APP) == (digest if said == "Succeed" else None)
        await site.declare("rule", "open", source="cn", destination="eu")
        await site.push_at("cn", "2", images.image(layers=[b"y"]), APP)
        assert await site.said(2) == {"open": "Succeed"}


async def test_public_only_says_nothing_of_a_tag_that_nobody_sees(tmp_path: Path) -> None:
    places = {"cn": ("game", BEIJING), "eu": ("game", FRANKFURT)}
    async with company(tmp_path, places) as site:
        await site.declare("rule", "open", source="cn", destination="eu", public_only=True)
        await site.start()
        await site.notify("cn", "gone", images.image(layers=[b"x"]).digest, APP)
        assert await site.said(1) == {"open": "source_gone"}
