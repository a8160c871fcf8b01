"""A rule that is declared today copies what is pushed from today on, whatever older events the log still holds."""

from datetime import timedelta
from pathlib import Path

from mesh.log.port import Append
from schemas import codec, topics
from schemas.events import Action, Event
from schemas.names import PlaceName, Region, Tag
from tests.support import images
from tests.support.mesh_site import APP, CLOCK, MeshSite, mesh_site, until

REGIONS = [{"name": name, "jurisdiction": "eu"} for name in ("oslo", "rome")]
RULE = {"name": "all", "source": "first", "destination": "second", "backfill": False}


async def declare(site: MeshSite) -> None:
    """Declares the source alone, whose registry notifies nobody; the rule and its region come later."""
    first, _ = await site.registry("first@quiet"), await site.registry("second")
    await site.apply(
        {
            "regions": REGIONS[:1],
            "instances": [{"name": "first", "account": "game", "region": "oslo", "url": first.url}],
        }
    )


async def announce_an_hour_ago(site: MeshSite, tag: str) -> None:
    """Appends the event of a push that came an hour ago, as a log that keeps two weeks still has it."""
    digest = await site.digest("first@quiet", tag)
    event = Event(
        id=f"old {tag}", time=CLOCK.now() - timedelta(hours=1), action=Action.MANIFEST_PUSH,
        place=PlaceName("first"), region=Region("oslo"), repository=APP, tag=Tag(tag), digest=digest,
        occurred_at=CLOCK.now() - timedelta(hours=1), rules_rev=site.node.state.rev,
    )  # fmt: skip
    await site.node.log.append([Append(topics.events(event.region), event.key, codec.encode(event))])


async def test_older_events_are_not_for_a_new_rule_and_newer_ones_are(tmp_path: Path) -> None:
    async with mesh_site(tmp_path) as site:
        await declare(site)
        await site.push("first@quiet", "old", images.image(layers=[b"pushed before any rule"]))
        await announce_an_hour_ago(site, "old")
        second = {"name": "second", "account": "game", "region": "rome", "url": site.registries["second"].url}
        await site.apply({"regions": REGIONS, "instances": [second], "rules": [RULE]})
        await site.start_agent("rome")
        declared = site.node.state.first_declared("rule/all")
        await site.apply({"rules": [RULE | {"speed": 10_000_000}]})
        assert declared is not None
        assert site.node.state.first_declared("rule/all") == declared

        image = images.image(layers=[b"pushed after it"])
        await site.push("first@quiet", "new", image)
        event = Event(
            id="new", time=CLOCK.now(), action=Action.MANIFEST_PUSH, place=PlaceName("first"),
            region=Region("oslo"), repository=APP, tag=Tag("new"), digest=image.digest, occurred_at=CLOCK.now(),
            rules_rev=declared.after_rev,
        )  # fmt: skip
        await site.node.log.append([Append(topics.events(event.region), event.key, codec.encode(event))])
        entries = await until(site.logs)
        assert [(entry["tag"], entry["status"]) for entry in entries] == [("new", "Succeed")]
        assert await site.digest("second", "old") is None
