"""Tasks that fail for now: parked durably, run again by themselves, and holding up no other task."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from yarl import URL

from consumer.settings import ParkingPolicy, TaskRetries
from mesh.errors import LogUnavailable
from mesh.log.port import Append
from mesh.registry.builtin.faults import Fail
from schemas import codec, topics
from schemas.completions import Heartbeat, Status
from schemas.events import Action
from schemas.names import PlaceName, Repository
from schemas.parked import Parked
from tests.flow.test_agent import FRANKFURT, QUICK, Site, open_site
from tests.support import images

RETRY = topics.retry(FRANKFURT)
PARKING = ParkingPolicy(first_wait=0.3, longest_wait=0.6, give_up_after=60, check_every=0.02)
NEVER_DUE = PARKING.model_copy(update={"first_wait": 3600.0, "longest_wait": 3600.0})
SETTINGS = QUICK.model_copy(
    update={
        "retries": TaskRetries(attempts=2, first_wait=0.01, longest_wait=0.02),
        "parking": PARKING,
    }
)


@asynccontextmanager
async def parking(folder: Path, policy: ParkingPolicy = PARKING) -> AsyncIterator[Site]:
    async with open_site(folder) as site:
        await site.kill()
        site.settings = SETTINGS.model_copy(update={"parking": policy})
        await site.start()
        yield site


def broken(site: Site, times: int = 10_000, repository: str = "game/app") -> None:
    """The destination answers 500 to manifests."""
    site.destination.faults.fail = Fail(times=times, method="PUT", path=f"/v2/{repository}/manifests/")


async def parked(
    site: Site, wanted: Callable[[dict[str, Parked]], bool], *, within: float = 20
) -> dict[str, Parked]:
    """What is parked, by task, as soon as it is as `wanted`."""
    found: dict[str, Parked] = {}

    async def read() -> dict[str, Parked]:
        async with aclosing(site.log.follow(RETRY)) as batches:
            async for batch in batches:
                for record in batch.records:
                    found.pop(record.key, None)
                    one = codec.decode(record.value, Parked) if record.value is not None else None
                    if one is not None and not one.is_look:  # a look at a tag is no task that waits
                        found[record.key] = one
                if wanted(found):
                    return found
        raise AssertionError("a topic does not end")

    return await asyncio.wait_for(read(), within)


async def test_a_registry_that_a_task_could_not_reach_is_failing_at_once(tmp_path: Path) -> None:
    """And not only when the registries are checked next, which may be half a minute later."""
    async with parking(tmp_path, NEVER_DUE) as site:
        site.settings = site.settings.model_copy(update={"places_every": 3600.0})
        await site.kill()
        await site.start()
        await until_place(site, "eu", "Ready")
        await site.destination.stop()
        await site.push("v1", images.image(layers=[b"x"]))
        assert await until_place(site, "eu", "Failed: ") == {"cn": "Ready"}


async def restart_with_quick_checks(site: Site) -> None:
    """Checks of a registry that fails come at once, and other ones not before the test is over."""
    site.settings = site.settings.model_copy(
        update={"places_every": 3600.0, "failing_places_every": 0.1, "regions_every": 0.1}
    )
    await site.kill()
    await site.start()
    await until_place(site, "eu", "Ready")


async def test_what_waits_for_a_registry_runs_soon_after_it_is_back(tmp_path: Path) -> None:
    """And not when its own wait is over, which may be in an hour."""
    async with parking(tmp_path, NEVER_DUE) as site:
        await restart_with_quick_checks(site)
        await site.destination.stop()
        image = images.image(layers=[b"x"])
        await site.push("v1", image)
        await parked(site, lambda found: len(found) == 1)
        await site.destination.start(port=URL(site.destination.url).port or 0)
        (end,) = await site.ends(1)
        assert (end.status, end.digest) == (Status.SUCCEED, image.digest)


async def test_what_waits_runs_soon_after_a_start_of_the_agent_too(tmp_path: Path) -> None:
    """The registry came back while no agent looked."""
    async with parking(tmp_path, NEVER_DUE) as site:
        await restart_with_quick_checks(site)
        await site.destination.stop()
        image = images.image(layers=[b"x"])
        await site.push("v1", image)
        await parked(site, lambda found: len(found) == 1)
        await site.stop()
        await site.destination.start(port=URL(site.destination.url).port or 0)
        await site.start()
        (end,) = await site.ends(1)
        assert (end.status, end.digest) == (Status.SUCCEED, image.digest)


async def test_a_proxy_that_answers_for_a_registry_makes_it_failing(tmp_path: Path) -> None:
    async with parking(tmp_path, NEVER_DUE) as site:
        await restart_with_quick_checks(site)
        site.destination.faults.fail = Fail(times=10_000, path="/v2/", status=502)
        image = images.image(layers=[b"x"])
        await site.push("v1", image)
        await until_place(site, "eu", "Failed: ")
        site.destination.faults.fail = None
        (end,) = await site.ends(1)
        assert (end.status, end.digest) == (Status.SUCCEED, image.digest)


async def until_place(site: Site, place: str, state: str) -> dict[str, str]:
    """Waits for a heartbeat in which the place's state begins so, and returns the states of the others in it."""
    await site.log.ensure([topics.status(FRANKFURT)])

    async def read() -> dict[str, str]:
        async with aclosing(site.log.follow(topics.status(FRANKFURT))) as batches:
            async for batch in batches:
                for record in batch.records:
                    if record.value is not None and codec.kind_of(record.value) == Heartbeat.kind:
                        heartbeat = codec.decode(record.value, Heartbeat)
                        if heartbeat.places.get(PlaceName(place), "").startswith(state):
                            return {str(one): it for one, it in heartbeat.places.items() if one != place}
        raise AssertionError("a topic does not end")

    return await asyncio.wait_for(read(), 20)


async def test_a_task_that_failed_is_parked_and_ends_by_itself_when_its_destination_is_back(
    tmp_path: Path,
) -> None:
    async with parking(tmp_path) as site:
        broken(site)
        image = images.image(layers=[b"later"])
        await site.push("v1", image)
        (one,) = (await parked(site, lambda found: any(it.rounds >= 2 for it in found.values()))).values()
        assert (one.status, one.error.code, one.error.side) == (Status.PENDING, "server_fault", "destination")
        assert one.not_before > one.time
        site.destination.faults.fail = None
        (end,) = await site.ends(1)
        assert (end.status, end.task_id, end.digest) == (Status.SUCCEED, one.task_id, image.digest)
        assert end.attempts > 2
        assert await parked(site, lambda found: not found) == {}
        assert await site.holds("v1") == image.digest


async def test_what_is_parked_holds_up_nobody(tmp_path: Path) -> None:
    async with parking(tmp_path, NEVER_DUE) as site:
        broken(site, times=2)  # both attempts of the first
        await site.push("v1", images.image(layers=[b"one"]))
        await parked(site, lambda found: len(found) == 1)
        other = await site.push("v2", images.image(layers=[b"two"]))
        (end,) = await site.ends(1)
        assert (end.tag, end.status) == ("v2", Status.SUCCEED)
        assert await site.holds("v2") == other


async def test_its_event_is_finished_and_another_agent_takes_it_over(tmp_path: Path) -> None:
    """The event is not read again: what the next agent knows of the task is what was parked."""
    async with parking(tmp_path, NEVER_DUE) as site:
        broken(site)
        image = images.image(layers=[b"kept"])
        await site.push("v1", image)
        (one,) = (await parked(site, lambda found: len(found) == 1)).values()
        await site.stop()
        site.destination.faults.fail = None
        due = one.model_copy(update={"not_before": one.time})
        await site.log.append([Append(RETRY, one.key, codec.encode(due))])
        await site.start()
        (end,) = await site.ends(1)
        assert (end.status, end.task_id) == (Status.SUCCEED, one.task_id)
        assert await site.holds("v1") == image.digest


async def test_a_killed_agents_task_is_taken_over_too(tmp_path: Path) -> None:
    async with parking(tmp_path) as site:
        broken(site)
        image = images.image(layers=[b"kept"])
        await site.push("v1", image)
        (one,) = (await parked(site, lambda found: len(found) == 1)).values()
        await site.kill()
        site.destination.faults.fail = None
        await site.log.append(
            [Append(topics.status(FRANKFURT), one.agent, None)]
        )  # as half a minute of silence does
        await site.start()
        ends = await site.ends(1)
        assert (ends[-1].status, ends[-1].task_id) == (Status.SUCCEED, one.task_id)


async def test_a_newer_push_supersedes_what_is_parked(tmp_path: Path) -> None:
    async with parking(tmp_path, NEVER_DUE) as site:
        broken(site, times=2)
        await site.push("v1", images.image(layers=[b"old"]))
        (old,) = (await parked(site, lambda found: len(found) == 1)).values()
        newer = await site.push("v1", images.image(layers=[b"new"]))
        ends = {end.task_id: end for end in await site.ends(2)}
        ended = ends.pop(old.task_id)
        assert (ended.status, ended.error and ended.error.code) == (Status.SKIPPED, "superseded")
        assert [end.status for end in ends.values()] == [Status.SUCCEED]
        assert await parked(site, lambda found: not found) == {}
        assert await site.holds("v1") == newer


async def test_a_deletion_supersedes_a_copy_that_is_parked(tmp_path: Path) -> None:
    async with parking(tmp_path, NEVER_DUE) as site:
        filters = [{"type": "name", "value": "game/**"}]
        rev = await site.declare(
            "rule", "release", source="cn", destination="eu", filters=filters, deletion=True
        )
        broken(site, times=2)
        image = images.image(layers=[b"deleted meanwhile"])
        await site.push("v1", image, notify=False)
        await site.event("v1", image.digest, rules_rev=rev)
        (old,) = (await parked(site, lambda found: len(found) == 1)).values()
        await site.event("v1", None, action=Action.TAG_DELETE, rules_rev=rev)
        ends = {end.task_id: end for end in await site.ends(2)}
        assert ends[old.task_id].error is not None
        assert ends[old.task_id].error.code == "superseded"


async def test_what_no_rule_wants_any_more_ends_as_skipped(tmp_path: Path) -> None:
    async with parking(tmp_path) as site:
        broken(site)
        await site.push("v1", images.image(layers=[b"unwanted"]))
        await parked(site, lambda found: len(found) == 1)
        other = [{"type": "name", "value": "other/**"}]
        await site.declare("rule", "release", source="cn", destination="eu", filters=other)
        (end,) = await site.ends(1)
        assert (end.status, end.error and end.error.code) == (Status.SKIPPED, "filtered")


async def test_after_a_day_it_ends_as_failed(tmp_path: Path) -> None:
    async with parking(tmp_path, PARKING.model_copy(update={"give_up_after": 1.0})) as site:
        broken(site)
        await site.push("v1", images.image(layers=[b"never"]))
        (end,) = await site.ends(1)
        assert (end.status, end.error and end.error.code) == (Status.FAILED, "server_fault")
        assert await parked(site, lambda found: not found) == {}


@pytest.mark.parametrize("rounds", [3])
async def test_it_waits_longer_from_round_to_round(tmp_path: Path, rounds: int) -> None:
    async with parking(tmp_path) as site:
        broken(site, repository="game/web")
        await site.push("v1", images.image(layers=[b"never"]), repository=Repository("game/web"))
        waits: dict[int, float] = {}

        def seen(found: dict[str, Parked]) -> bool:
            for one in found.values():
                waits[one.rounds] = (one.not_before - one.time).total_seconds()
            return len(waits) >= rounds

        await parked(site, seen)
        assert waits[1] == pytest.approx(0.3 * 0.875)
        assert waits[2] == waits[3] == pytest.approx(0.6 * 0.875)


@pytest.mark.parametrize("lands", ["none", "all but the completion"])
async def test_an_end_of_which_a_part_is_written_is_written_again(tmp_path: Path, lands: str) -> None:
    """An append to Kafka is no transaction: its parts are on different brokers, and the agent may die between them."""
    async with parking(tmp_path, NEVER_DUE) as site:
        broken(site)
        await site.push("v1", images.image(layers=[b"torn"]))
        (one,) = (await parked(site, lambda found: len(found) == 1)).values()
        await site.stop()
        site.destination.faults.fail = None
        append, torn = site.log.append, asyncio.Event()

        async def tear(records: Sequence[Append], *, then: Sequence[Append] = ()) -> None:
            ends = [it for it in records if it.topic == topics.completions(FRANKFURT)]
            if not ends:
                return await append(records, then=then)
            if lands != "none":
                await append([it for it in records if it not in ends])
            torn.set()
            raise LogUnavailable("the leader of the completions does not answer")

        site.log.append = tear  # type: ignore[method-assign]
        await append([Append(RETRY, one.key, codec.encode(one.model_copy(update={"not_before": one.time})))])
        await site.start()
        await asyncio.wait_for(torn.wait(), 20)
        await site.kill()  # opens the log anew
        await site.start()
        (end,) = await site.ends(1)
        assert (end.status, end.task_id) == (Status.SUCCEED, one.task_id)
        assert await parked(site, lambda found: not found) == {}
