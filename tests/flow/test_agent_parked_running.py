"""Copies that take long: when the records behind one fill its partition's window, it is parked and goes on."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from consumer.settings import ReadWindow
from mesh.log.port import Append
from mesh.registry.builtin.faults import Fail, Stall
from schemas import topics
from schemas.completions import Completion, Status
from schemas.names import Repository
from schemas.parked import STILL_QUEUED, STILL_RUNNING
from tests.flow.test_agent import APP, BEIJING, FRANKFURT, Site, open_site
from tests.flow.test_agent_parking import PARKING, RETRY, SETTINGS, parked
from tests.support import images

LAYER = b"a huge one" * 1000
HUGE = images.image(layers=[LAYER])
BLOB = HUGE.blob_descriptors[1].digest
EVENTS = topics.events(BEIJING)
WINDOW = 8


def _beside(count: int) -> list[Repository]:
    """Repositories whose events are in the same partition as `APP`'s."""
    partitions = topics.settings(EVENTS).partitions

    def partition(repository: str) -> int:
        return zlib.crc32(f"cn/{repository}".encode()) % partitions

    found = (Repository(f"game/beside-{number}") for number in range(10_000))
    return [one for one in found if partition(one) == partition(APP)][:count]


@asynccontextmanager
async def stalled(folder: Path, window: int = WINDOW) -> AsyncIterator[Site]:
    """A site whose agent copies `APP:v1`, which does not come to its end."""
    async with open_site(folder) as site:
        await site.kill()
        read_window = ReadWindow(records_per_partition=window, commit_every=0.05)
        site.settings = SETTINGS.model_copy(update={"heartbeat_every": 0.1, "window": read_window})
        site.source.faults.stall = Stall(BLOB)
        await site.start()
        await site.push("v1", HUGE)
        await until(lambda: site.source.faults.struck["stall"] == 1)
        yield site


def let_go(site: Site) -> None:
    assert site.source.faults.stall is not None
    site.source.faults.stall.over.set()


async def until(look: object, *, within: float = 20) -> None:
    async with asyncio.timeout(within):
        while not look():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def ended(site: Site, count: int) -> Completion:
    """How the copy ended that took long, among `count` ends."""
    (end,) = [end for end in await site.ends(count) if end.repository == APP]
    return end


def lag(site: Site) -> float:
    """Records that are not committed, by the agent's metric."""
    return float(site.metrics.group_lag.labels(FRANKFURT, EVENTS)._value.get())


async def push_beside(site: Site, count: int) -> None:
    for number, repository in enumerate(_beside(count)):
        await site.push("v1", images.image(layers=[b"beside %d" % number]), repository=repository)


async def test_a_copy_that_takes_long_holds_up_nobody_and_ends_by_itself(tmp_path: Path) -> None:
    async with stalled(tmp_path) as site:
        await push_beside(site, 20)
        ends = await site.ends(20)
        assert {end.status for end in ends} == {Status.SUCCEED}
        assert APP not in {end.repository for end in ends}
        (one,) = (await parked(site, lambda found: len(found) == 1)).values()
        assert (one.repository, one.status, one.error.code) == (APP, Status.PENDING, STILL_RUNNING)
        await until(lambda: lag(site) == 0)
        await asyncio.sleep(10 * PARKING.check_every)
        let_go(site)
        end = await ended(site, 21)
        assert (end.task_id, end.status, end.attempts) == (one.task_id, Status.SUCCEED, 1)
        assert await parked(site, lambda found: not found) == {}
        assert await site.holds("v1") == HUGE.digest
        assert site.source.traffic.pulls[BLOB] == 1


async def test_as_long_as_the_window_has_room_nothing_is_parked(tmp_path: Path) -> None:
    async with stalled(tmp_path) as site:
        await push_beside(site, WINDOW - 2)
        await site.ends(WINDOW - 2)
        await asyncio.sleep(0.2)
        assert await site.log.end(RETRY) == {0: 0}
        let_go(site)
        await site.ends(WINDOW - 1)


async def test_when_its_agent_is_killed_another_finishes_it(tmp_path: Path) -> None:
    async with stalled(tmp_path) as site:
        await push_beside(site, 20)
        (one,) = (await parked(site, lambda found: len(found) == 1)).values()
        await until(lambda: lag(site) == 0)
        await site.kill()
        silence = Append(topics.status(FRANKFURT), one.agent, None)  # as half a minute of it does
        await site.log.append([silence])
        await site.start()
        await until(lambda: site.source.traffic.pulls[BLOB] == 2)
        let_go(site)
        end = await ended(site, 21)
        assert (end.task_id, end.status) == (one.task_id, Status.SUCCEED)
        assert await parked(site, lambda found: not found) == {}
        assert await site.holds("v1") == HUGE.digest


async def test_another_agent_that_lives_leaves_it_alone(tmp_path: Path) -> None:
    async with stalled(tmp_path) as site:
        await push_beside(site, 20)
        await parked(site, lambda found: len(found) == 1)
        await until(lambda: lag(site) == 0)
        await site.start()
        await asyncio.sleep(0.5)
        assert site.source.traffic.pulls[BLOB] == 1
        let_go(site)
        end = await ended(site, 21)
        assert (end.repository, end.status) == (APP, Status.SUCCEED)
        assert site.source.traffic.pulls[BLOB] == 1


async def test_what_waits_behind_it_in_its_lane_is_parked_too_and_runs_once(tmp_path: Path) -> None:
    async with stalled(tmp_path) as site:
        later = images.image(layers=[b"behind it"])
        await site.push("v2", later)
        await site.event(None, later.digest)  # no task, as it proves
        await push_beside(site, 20)
        found = await parked(site, lambda found: len(found) == 3)
        assert sorted(one.error.code for one in found.values()) == [STILL_QUEUED, STILL_QUEUED, STILL_RUNNING]
        await until(lambda: lag(site) == 0)
        let_go(site)
        await site.ends(22)
        assert await parked(site, lambda found: not found) == {}
        ends = [end for end in await site.ends(22) if end.repository == APP]
        assert sorted((str(end.tag), end.status, end.attempts) for end in ends) == [
            ("v1", Status.SUCCEED, 1),
            ("v2", Status.SUCCEED, 1),
        ]
        assert await site.holds("v2") == later.digest


async def test_no_more_are_parked_while_they_run_than_fit_into_a_window(tmp_path: Path) -> None:
    async with stalled(tmp_path) as site:
        groups = 12
        for number in range(groups):
            await site.push(f"behind-{number}", images.image(layers=[b"behind %d" % number]))
            await push_beside(site, WINDOW)
        await parked(site, lambda found: len(found) == WINDOW)
        await asyncio.sleep(0.5)
        assert lag(site) > 0
        assert len(await parked(site, lambda found: len(found) >= WINDOW)) == WINDOW
        let_go(site)
        await site.ends(1 + groups * (1 + WINDOW))
        await until(lambda: lag(site) == 0)
        assert await parked(site, lambda found: not found) == {}


async def test_one_that_fails_in_the_end_is_parked_like_any_other(tmp_path: Path) -> None:
    async with stalled(tmp_path) as site:
        await push_beside(site, 20)
        await site.ends(20)
        await parked(site, lambda found: len(found) == 1)
        site.destination.faults.fail = Fail(times=10_000, method="PUT", path=f"/v2/{APP}/manifests/")
        let_go(site)
        (one,) = (await parked(site, lambda found: any(not it.is_active for it in found.values()))).values()
        assert (one.error.code, one.rounds) == ("server_fault", 1)
        site.destination.faults.fail = None
        end = await ended(site, 21)
        assert (end.task_id, end.status) == (one.task_id, Status.SUCCEED)
        assert await parked(site, lambda found: not found) == {}


async def test_a_newer_push_supersedes_it_and_each_ends_once(tmp_path: Path) -> None:
    async with stalled(tmp_path) as site:
        await push_beside(site, 20)
        (old,) = (await parked(site, lambda found: len(found) == 1)).values()
        newer = await site.push("v1", images.image(layers=[b"newer"]))
        await site.ends(20)
        let_go(site)
        ended, last = [end for end in await site.ends(22) if end.repository == APP]
        assert (ended.task_id, ended.status, ended.error and ended.error.code) == (
            old.task_id, Status.SKIPPED, "superseded",
        )  # fmt: skip
        assert (last.digest, last.status) == (newer, Status.SUCCEED)
        assert await parked(site, lambda found: not found) == {}
        assert await site.holds("v1") == newer


async def test_further_pushes_of_its_tag_fill_no_window(tmp_path: Path) -> None:
    """They end as they are superseded, so what is behind them goes on; nothing of it is lost by a kill."""
    async with stalled(tmp_path) as site:
        pushed = [
            await site.push("v1", images.image(layers=[b"%d" % number])) for number in range(2 * WINDOW)
        ]
        await push_beside(site, WINDOW)
        ends = await site.ends(3 * WINDOW - 1)
        ended = [end for end in ends if end.repository == APP]
        assert {end.error and end.error.code for end in ended} == {"superseded"}
        assert {end.digest for end in ended} == set(pushed[:-1])
        await until(lambda: lag(site) == 0)
        found = await parked(site, lambda found: len(found) == 2)
        assert sorted(one.error.code for one in found.values()) == [STILL_QUEUED, STILL_RUNNING]
        await site.kill()
        for one in found.values():
            await site.log.append([Append(topics.status(FRANKFURT), one.agent, None)])
        let_go(site)
        await site.start()
        await site.ends(3 * WINDOW + 1)
        assert await parked(site, lambda found: not found) == {}
        assert await site.holds("v1") == pushed[-1]
