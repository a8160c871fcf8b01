"""Image locations and usage on a real database: SQLite, and PostgreSQL where there is one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from mesh.control.images.merge import TagDeleted, TagEntry, TagKey
from mesh.control.images.store import Images
from mesh.control.storage import tables
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


def entry(digest: str, second: int, by: Cause = Cause.NOTIFICATION) -> TagEntry:
    since = NOW + timedelta(seconds=second)
    return TagEntry(digest, since, by, second, None if by is Cause.NOTIFICATION else since)


async def test_tags_are_paged_and_repeats_change_nothing(database: Database) -> None:
    images = Images(database)
    news = [(TagKey(*HERE, f"v{n}"), entry(DIGEST, n)) for n in range(1, 6)]
    ends = [(TagKey(*HERE, "v2"), TagDeleted(NOW)), (TagKey(*HERE, "v3"), entry(OTHER, 9, Cause.ARRIVAL))]
    for _ in range(2):
        await images.take([*news, *ends])
    assert await images.tags([HERE, ("eu", "app")], "", 3) == ["v1", "v3", "v4"]
    assert await images.tags([HERE], "v4", 3) == ["v5"]
    found = await images.entries([HERE], ["v2", "v3"])
    assert found == {TagKey(*HERE, "v3"): entry(OTHER, 9, Cause.ARRIVAL)}
    assert await images.entries([("eu", "app")], ["v3"]) == {}


async def test_rows_of_older_versions_were_seen_where_an_agent_wrote_them(database: Database) -> None:
    images = Images(database)
    written = {"a": Cause.ARRIVAL, "l": Cause.LISTING, "n": Cause.NOTIFICATION}
    await images.take([(TagKey(*HERE, tag), entry(DIGEST, 1, by)) for tag, by in written.items()])
    await database.run(lambda connection: connection.execute(update(tables.images).values(seen_at=None)))
    found = await images.entries([HERE], list(written))
    assert {key.tag: one.seen_at for key, one in found.items()} == {
        "a": NOW + timedelta(seconds=1),
        "l": None,
        "n": None,
    }


async def test_several_writers_end_at_the_newest(database: Database) -> None:
    images = Images(database)
    key = TagKey(*HERE, "v1")
    await images.take([(key, entry(DIGEST, 5))])
    await asyncio.gather(*(images.take([(key, entry(OTHER, second))]) for second in (9, 3, 7, 1)))
    assert (await images.entries([HERE], ["v1"]))[key].version == 9


async def test_completions_show_tags_of_both_ends_and_referrers(database: Database) -> None:
    images = Images(database)
    about = ("game-eu", "game/server", DIGEST)
    ends = [
        completion(1, attached=(OTHER,)),
        completion(
            2, digest="sha256:" + "ef" * 32, tag=None, subject=DIGEST, attached=("sha256:" + "ef" * 32,)
        ),
    ]
    for _ in range(2):
        await images.take_completions(ends)
    assert await images.count_referrers({about, ("game-eu", "other", DIGEST)}) == {about: 2}
    found = await images.entries([("game-cn", "game/server"), ("game-eu", "game/server")], ["1.0-global"])
    assert {key.place: (one.digest, one.written_by) for key, one in found.items()} == {
        "game-cn": (DIGEST, Cause.LISTING), "game-eu": (DIGEST, Cause.ARRIVAL),
    }  # fmt: skip
    await images.take_completions([completion(3, tag=None, digest=OTHER, operation="delete")])
    assert await images.count_referrers({about}) == {about: 1}


async def test_a_deleted_manifest_deletes_its_earlier_tags(database: Database) -> None:
    images = Images(database)
    source, there = ("game-cn", "game/server"), ("game-eu", "game/server")
    keys = [TagKey(*at, tag) for at in (source, there) for tag in ("old", "again", "other")]
    await images.take([(key, entry(OTHER if key.tag == "other" else DIGEST, 1)) for key in keys])
    again = TagKey(*source, "again")
    await images.take(
        [(again, TagDeleted(NOW)), (again, entry(DIGEST, 8))]
    )  # pushed again while the task ran
    end = completion(9, operation="delete", tag=None, start_time=NOW + timedelta(seconds=5))
    for _ in range(2):
        await images.take_completions([end])
    found = await images.entries([source, there], ["old", "again", "other"])
    assert {key: one.digest for key, one in found.items()} == {
        again: DIGEST, TagKey(*source, "other"): OTHER, TagKey(*there, "other"): OTHER
    }  # fmt: skip


async def test_undeclared_places_and_old_deleted_tags_are_deleted(database: Database) -> None:
    images = Images(database)
    deleted, mine, others = TagKey(*HERE, "gone"), TagKey(*HERE, "v1"), TagKey("old", "app", "v1")
    await images.take([(key, entry(DIGEST, 1)) for key in (deleted, mine, others)])
    await images.take([(deleted, TagDeleted(NOW))])
    await images.delete_undeclared({"cn"}, NOW + timedelta(days=1))
    await images.take(
        [(deleted, entry(OTHER, 0))]
    )  # as old as can be, and nothing speaks against it any more
    found = await images.entries([HERE, ("old", "app")], ["v1", "gone"])
    assert {key: one.digest for key, one in found.items()} == {mine: DIGEST, deleted: OTHER}


async def test_usage_is_summed_by_account_rule_and_link(database: Database) -> None:
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
