"""Image locations and usage on a real database: SQLite, and PostgreSQL where there is one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mesh.control.images.merge import Gone, Held, Key
from mesh.control.images.store import Images
from mesh.control.storage.database import Database
from mesh.control.sync_log.store import SyncLog
from mesh.control.sync_log.usage import Usage
from schemas.completions import Status
from schemas.events import Cause
from tests.support import postgresql
from tests.support.control_site import DIGEST, NOW, completion

OTHER = "sha256:" + "cd" * 32
HERE = ("cn", "app")


_POSTGRESQL = [pytest.mark.real("postgresql"), pytest.mark.xdist_group("postgresql")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgresql.Server]:
    with postgresql.server(tmp_path_factory.mktemp("postgresql")) as running:
        yield running


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=_POSTGRESQL)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path / 'control.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("server").new_database()
    opened = Database(url)
    yield opened
    await opened.close()


def held(digest: str, second: int, by: Cause = Cause.NOTIFICATION) -> Held:
    return Held(digest, NOW + timedelta(seconds=second), by, second)


async def test_what_was_told_is_found_in_pages_and_twice_is_once(database: Database) -> None:
    images = Images(database)
    news = [(Key(*HERE, f"v{n}"), held(DIGEST, n)) for n in range(1, 6)]
    ends = [(Key(*HERE, "v2"), Gone(NOW)), (Key(*HERE, "v3"), held(OTHER, 9, Cause.ARRIVAL))]
    for _ in range(2):
        await images.take([*news, *ends])
    assert await images.tags([HERE, ("eu", "app")], "", 3) == ["v1", "v3", "v4"]
    assert await images.tags([HERE], "v4", 3) == ["v5"]
    found = await images.held([HERE], ["v2", "v3"])
    assert found == {Key(*HERE, "v3"): held(OTHER, 9, Cause.ARRIVAL)}
    assert await images.held([("eu", "app")], ["v3"]) == {}


async def test_several_writers_end_at_the_newest(database: Database) -> None:
    images = Images(database)
    key = Key(*HERE, "v1")
    await images.take([(key, held(DIGEST, 5))])
    await asyncio.gather(*(images.take([(key, held(OTHER, second))]) for second in (9, 3, 7, 1)))
    assert (await images.held([HERE], ["v1"]))[key].version == 9


async def test_ends_tell_of_their_source_and_of_referrers(database: Database) -> None:
    images = Images(database)
    about = ("game-eu", "game/server", DIGEST)
    ends = [
        completion(1, attached=(OTHER,)),
        completion(
            2, digest="sha256:" + "ef" * 32, tag=None, subject=DIGEST, attached=("sha256:" + "ef" * 32,)
        ),
    ]
    for _ in range(2):
        await images.ended(ends)
    assert await images.referrers({about, ("game-eu", "other", DIGEST)}) == {about: 2}
    found = await images.held([("game-cn", "game/server"), ("game-eu", "game/server")], ["1.0-global"])
    assert {key.place: (one.digest, one.written_by) for key, one in found.items()} == {
        "game-cn": (DIGEST, Cause.LISTING), "game-eu": (DIGEST, Cause.ARRIVAL),
    }  # fmt: skip
    await images.ended([completion(3, tag=None, digest=OTHER, operation="delete")])
    assert await images.referrers({about}) == {about: 1}


async def test_a_deleted_manifest_takes_the_tags_along_that_were_there_before(database: Database) -> None:
    images = Images(database)
    source, there = ("game-cn", "game/server"), ("game-eu", "game/server")
    keys = [Key(*holder, tag) for holder in (source, there) for tag in ("old", "again", "other")]
    await images.take([(key, held(OTHER if key.tag == "other" else DIGEST, 1)) for key in keys])
    again = Key(*source, "again")
    await images.take([(again, Gone(NOW)), (again, held(DIGEST, 8))])  # pushed again while the task ran
    end = completion(9, operation="delete", tag=None, start_time=NOW + timedelta(seconds=5))
    for _ in range(2):
        await images.ended([end])
    found = await images.held([source, there], ["old", "again", "other"])
    assert {key: one.digest for key, one in found.items()} == {
        again: DIGEST, Key(*source, "other"): OTHER, Key(*there, "other"): OTHER
    }  # fmt: skip


async def test_what_nobody_declares_any_more_and_what_went_long_ago_is_forgotten(database: Database) -> None:
    images = Images(database)
    gone, mine, others = Key(*HERE, "gone"), Key(*HERE, "v1"), Key("old", "app", "v1")
    await images.take([(key, held(DIGEST, 1)) for key in (gone, mine, others)])
    await images.take([(gone, Gone(NOW))])
    await images.forget({"cn"}, NOW + timedelta(days=2))
    await images.take([(gone, held(OTHER, 0))])  # as old as can be, and nothing speaks against it any more
    found = await images.held([HERE, ("old", "app")], ["v1", "gone"])
    assert {key: one.digest for key, one in found.items()} == {mine: DIGEST, gone: OTHER}


async def test_usage_is_summed_by_account_by_what_asked_for_it_and_by_who_sent_it(database: Database) -> None:
    ends = [
        completion(1, bytes_transferred=70, bytes_from={"beijing": 30, "shanghai": 40}),
        completion(2, bytes_transferred=5),  # of an agent that does not say who sent them
        completion(3, Status.FAILED, bytes_transferred=2, bytes_from={"shanghai": 2}, account="other"),
        completion(4, rule=None, replica="game-cn@frankfurt", bytes_transferred=9, bytes_from={"beijing": 9}),
        completion(5, bytes_transferred=0),
    ]
    await SyncLog(database).write(ends, [], NOW)
    found = await Usage(database).since(None)
    assert found["accounts"] == [
        {"account": "game", "bytes": 84, "tasks": 3},
        {"account": "other", "bytes": 2, "tasks": 1},
    ]
    assert found["rules"] == [
        {"rule": "release-to-eu", "replica": None, "bytes": 77, "tasks": 3},
        {"rule": None, "replica": "game-cn@frankfurt", "bytes": 9, "tasks": 1},
    ]
    assert found["links"] == [
        {"from": "beijing", "to": "frankfurt", "bytes": 44},
        {"from": "shanghai", "to": "frankfurt", "bytes": 42},
    ]
    late = await Usage(database).since(NOW + timedelta(seconds=3))
    assert [(one["account"], one["bytes"]) for one in late["accounts"]] == [("game", 9), ("other", 2)]
