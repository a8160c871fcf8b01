"""What the topics of tags say, through trouble, into what control knows of images."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

from mesh.control.images.locations import Locations
from mesh.control.images.merge import TagEntry, TagKey
from mesh.control.images.store import Images
from mesh.control.settings import ControlSettings
from mesh.control.storage.database import Database
from mesh.log.port import Append
from schemas import topics
from schemas.codec import encode
from schemas.envelope import make_id
from schemas.events import Cause, TagState
from schemas.names import Region
from tests.flow.test_control_report import dead_letters, sample
from tests.support.control_site import DIGEST, MESH, NOW, Site, control_site, until
from tests.support.manual_clock import ManualClock

FRANKFURT = Region("frankfurt")
TOPIC = topics.tags(FRANKFURT)


def state(tag: str, version: int = 1, digest: str = DIGEST, by: Cause = Cause.ARRIVAL) -> Append:
    found = TagState(
        id=make_id(tag, version), time=NOW, place="game-eu", repository="game/server", tag=tag, digest=digest,
        written_by=by, tag_version=version,
    )  # fmt: skip
    return Append(TOPIC, found.key, encode(found))


async def places(site: Site, tag: str) -> dict[str, Any]:
    status, answer = await site.call("GET", f"/api/v1/images/game-cn/game/server?tag={tag}")
    assert status == 200, answer
    return {row["place"]: row for row in answer["items"][0]["places"]}


async def is_held(site: Site, tag: str, digest: str | None = DIGEST) -> bool:
    return (await places(site, tag))["game-eu"]["digest"] == digest


async def test_what_cannot_be_read_is_buried_and_the_rest_is_known(tmp_path: Path) -> None:
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        huge = state("v0", 2**63)
        bad = [Append(TOPIC, "game-eu/game/server:bad", b"{"), Append(TOPIC, "no key", None), huge]
        await site.log.append([*bad, state("v1")])
        await until(lambda: is_held(site, "v1"))
        await until(lambda: sample(site, "dead_letters_total", topic=TOPIC) == 3)
        assert await is_held(site, "v0", None)
        assert {dead_letter.reason.partition(":")[0] for dead_letter in await dead_letters(site, FRANKFURT)} == {
            "not JSON", "the key 'no key' is not place/repository", "tag_version does not fit into 64 bits",
        }  # fmt: skip


async def test_it_goes_on_where_the_last_control_ended(tmp_path: Path) -> None:
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        await site.log.append([state("v1", 5), state("v2", 5)])
        await until(lambda: is_held(site, "v2"))
    async with control_site(tmp_path) as site:
        await site.table.caught_up()
        await site.log.append([Append(TOPIC, "game-eu/game/server:v1", None), state("v3")])
        await until(lambda: is_held(site, "v3"))
        assert await is_held(site, "v1", None)
        assert await is_held(site, "v2")


async def test_a_region_that_is_declared_later_is_read_too(tmp_path: Path) -> None:
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        await site.log.append([state("v1")])
        await until(lambda: is_held(site, "v1"))
        document = {"regions": [{"name": "hanoi", "jurisdiction": "global"}]}
        document["instances"] = [
            {"name": "vn", "account": "game", "region": "hanoi", "url": "http://127.0.0.1:5009"}
        ]
        document["rules"] = [{"name": "to-vn", "source": "game-cn", "destination": "vn"}]
        await site.control.apply(document)
        key = "vn/game/server:v1"
        reported = state("v1").value
        assert reported is not None
        await site.log.append(
            [Append(topics.tags(Region("hanoi")), key, reported.replace(b"game-eu", b"vn"))]
        )

        async def known() -> bool:
            return (await places(site, "v1"))["vn"]["seen_by"] == "agent"

        await until(known)


async def test_all_tags_that_are_named_are_answered(tmp_path: Path) -> None:
    tags = [f"v{number}" for number in range(150)]  # more than a page has
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH)
        status, found = await site.call("GET", f"/api/v1/images/game-cn/game/server?tag={','.join(tags)}")
        assert (status, [it["tag"] for it in found["items"]], found["next"]) == (200, tags, None)


async def test_what_a_replicas_former_registry_held_says_nothing_of_its_new_one(tmp_path: Path) -> None:
    """Until its fill has come there; `wait` would take the word of an agent for it that saw another registry."""
    region = {"name": "shanghai", "jurisdiction": "cn-mainland"}
    replica = {"instance": "game-cn", "region": "shanghai", "url": "http://127.0.0.1:5003"}
    name, topic = "game-cn@shanghai", topics.tags(Region("shanghai"))
    async with control_site(tmp_path) as site:
        await site.control.apply(MESH | {"regions": [*MESH["regions"], region], "replicas": [replica]})

        async def held() -> str | None:
            found: str | None = (await places(site, "v1"))[name]["digest"]
            return found

        async def is_seen(version: int) -> None:
            seen = TagState(
                id=make_id("v1", version), time=NOW, place=name, repository="game/server", tag="v1", digest=DIGEST,
                written_by=Cause.ARRIVAL, tag_version=version,
            )  # fmt: skip
            await site.log.append([Append(topic, seen.key, encode(seen))])

            async def is_known() -> bool:
                return await held() == DIGEST

            await until(is_known)

        await is_seen(1)
        await site.control.apply({"replicas": [replica | {"credentials": "PUSH"}]})
        assert await held() == DIGEST  # the same registry
        await site.control.apply({"replicas": [replica | {"url": "http://127.0.0.1:5004"}]})
        assert await held() is None
        await is_seen(2)
        assert (await site.call("DELETE", f"/api/v1/replicas/{name}"))[0] == 204
        await site.control.apply({"replicas": [replica]})
        assert await held() is None


async def test_with_a_new_log_nothing_is_forgotten_before_anything_is_declared_on_it(tmp_path: Path) -> None:
    """The database goes along to another log; what is declared is applied there again, some minutes later."""
    async with control_site(tmp_path, running=False) as site:
        database, clock, key = (
            Database(f"sqlite:///{tmp_path / 'kept.db'}"),
            ManualClock(NOW),
            TagKey("cn", "app", "v1"),
        )
        images = Images(database)
        await images.take([(key, TagEntry(DIGEST, NOW, Cause.ARRIVAL, 1))])
        locations = Locations(images, ports=replace(site.ports, clock=clock), settings=ControlSettings())
        cleaning_up = asyncio.create_task(locations.clean_up())
        await until(lambda: clock.monotonic() > 300 or cleaning_up.done())
        cleaning_up.cancel()
        await asyncio.gather(cleaning_up, return_exceptions=True)
        assert key in await images.entries([("cn", "app")], ["v1"])
        await database.close()
