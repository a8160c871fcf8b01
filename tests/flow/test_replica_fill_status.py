"""What the state of a replica is taken from: the fill of the replica as it is declared now, and runs over all of it."""

from pathlib import Path
from typing import Any

from mesh.log.port import Append
from schemas import topics
from schemas.codec import encode
from schemas.completions import Heartbeat, Side, TaskError
from schemas.executions import ExecutionListed, ExecutionStart, ImageName
from schemas.names import ObjectName, PlaceName, Region, Repository, Tag
from tests.support.control_site import MESH, NOW, Site, control_site, until

NAME = "game-cn@shanghai"
REPLICA = {"instance": "game-cn", "region": "shanghai", "url": "http://127.0.0.1:9"}
REGION = {"name": "shanghai", "jurisdiction": "cn-mainland"}
IMAGE = ImageName(repository=Repository("game/app"), tag=Tag("v1"))


async def _declare(site: Site) -> None:
    document = {**MESH, "rules": [], "regions": [*MESH["regions"], REGION], "replicas": [REPLICA]}
    status, answer = await site.call("POST", "/api/v1/apply", document)
    assert status == 200, answer


async def _replica(site: Site) -> dict[str, Any]:
    _, answer = await site.call("GET", f"/api/v1/replicas/{NAME}")
    return dict(answer)


async def _execution(site: Site, **query: str) -> dict[str, Any]:
    """The only one."""
    found: list[dict[str, Any]] = []

    async def has_started() -> bool:
        nonlocal found
        _, answer = await site.call("GET", "/api/v1/executions", params=query)
        found = answer["items"]
        return bool(found)

    await until(has_started)
    (one,) = found
    return one


async def _listed(site: Site, execution_id: str, error: TaskError | None = None) -> None:
    """As a producer says that it found nothing."""
    listed = ExecutionListed(
        id="listed", time=NOW, execution_id=execution_id, region=Region("beijing"), total=0, error=error
    )
    await site.log.append([Append(topics.COMMANDS, "beijing", encode(listed))])


async def _agent_lives(site: Site) -> None:
    now = site.control._ports.clock.now()
    beat = Heartbeat(id="a", time=now, agent="a", region=Region("shanghai"), rules_rev=1, running=0)
    await site.log.append([Append(topics.status(beat.region), beat.key, encode(beat))])


async def _run_of_one_image(site: Site, name: str) -> None:
    """As a gateway asks for what it misses."""
    now = site.control._ports.clock.now()
    start = ExecutionStart(
        id=name, time=now, execution_id=name, region=Region("beijing"), rule=PlaceName(NAME),
        source=ObjectName("game-cn"), trigger="reconcile", images=(IMAGE,), rules_rev=-1,
    )  # fmt: skip
    await site.log.append([Append(topics.COMMANDS, "beijing", encode(start))])
    await _listed(site, name)

    async def went_well() -> bool:
        status, found = await site.call("GET", f"/api/v1/executions/{name}")
        return status == 200 and found["status"] == "Succeed"

    await until(went_well)


async def test_a_run_of_one_image_makes_no_fill_good(tmp_path: Path) -> None:
    """A gateway that brings one image that was missed has not brought what the fill could not list."""
    async with control_site(tmp_path) as site:
        await _declare(site)
        await _agent_lives(site)
        fill = await _execution(site)
        refused = TaskError(code="listing_refused", side=Side.SOURCE, message="no catalogue")
        await _listed(site, fill["id"], refused)

        async def failed() -> bool:
            return (await _replica(site))["state"] == "Failed"

        await until(failed)
        await _run_of_one_image(site, "missed")
        found = await _replica(site)
        assert (found["state"], found["reason"]) == ("Failed", "the fill failed: no catalogue")


async def test_a_run_over_all_of_it_makes_it_good_whatever_runs_of_single_images_come_after(
    tmp_path: Path,
) -> None:
    async with control_site(tmp_path) as site:
        await _declare(site)
        await _agent_lives(site)
        fill = await _execution(site)
        await _listed(site, fill["id"], TaskError(code="unreachable", side=Side.SOURCE, message="away"))
        status, whole = await site.call("POST", "/api/v1/executions", {"rule": NAME})
        assert status == 201
        await _listed(site, whole["id"])
        for number in range(21):
            await _run_of_one_image(site, f"missed-{number}")
        await _agent_lives(site)

        async def is_reported() -> bool:
            return (await _replica(site))["state"] != "Syncing"  # what agents say may still be being read

        await until(is_reported)
        found = await _replica(site)
        assert (found["state"], found["fill"]["status"]) == ("Synced", "Failed")


async def test_the_fill_of_an_earlier_declaration_says_nothing_of_the_replica(tmp_path: Path) -> None:
    async with control_site(tmp_path, running=False) as site:
        await _declare(site)
        await site.control._schedule.start_due()
        first = (await _replica(site))["fill"]
        assert first is not None
        assert (await site.call("DELETE", f"/api/v1/replicas/{NAME}"))[0] == 204
        await _declare(site)
        assert (await _replica(site))["fill"] is None  # it has not started
        await site.control._schedule.start_due()
        assert (await _replica(site))["fill"]["id"] != first["id"]
