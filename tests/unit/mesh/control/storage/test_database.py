"""A file that can never be the database is refused at once; one that may be usable later is not."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from mesh.control.storage.database import Database, check
from mesh.control.sync_log.log_query import parse
from mesh.control.sync_log.store import SyncLog
from mesh.errors import DatabaseRefused, DatabaseUnavailable, InvalidInput
from tests.support.control_site import NOW, completion
from tests.support.manual_clock import ManualClock


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing/control.db", "is in a folder that does not exist"),
        ("note/control.db", "is in a folder that does not exist"),
        ("", "is a folder"),
        ("note", "is not an SQLite file"),
        ("file:empty?mode=ro&uri=true", "cannot be written"),
        ("/proc/control.db", "cannot be written"),
    ],
)
def test_an_unusable_file_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note").write_text("no database " * 100)
    (tmp_path / "empty").touch()
    where = path if path.startswith("file:") else tmp_path / path
    with pytest.raises(InvalidInput, match=message) as caught:
        check(f"sqlite:///{where}")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "note").read_text() == "no database " * 100


async def test_checking_an_existing_database_changes_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'control.db'}"
    check(url)  # a new one
    database = Database(url)
    await SyncLog(database).write([completion()], [], NOW)
    check(url)  # while it is open
    assert len((await SyncLog(database).read(parse({}, NOW))).items) == 1
    await database.close()
    check(url)


def test_an_unavailable_or_locked_database_passes(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "control.db", isolation_level=None)) as another:
        another.execute("BEGIN EXCLUSIVE")
        check(f"sqlite:///{tmp_path / 'control.db'}")
        assert another.in_transaction
    check("postgresql://mesh@127.0.0.1:1/mesh")


async def _made(folder: Path, entries: int = 200) -> Path:
    """Returns the file of a database with some entries, closed."""
    file = folder / "control.db"
    database = Database(f"sqlite:///{file}")
    await SyncLog(database).write([completion(number) for number in range(entries)], [], NOW)
    await database.close()
    return file


async def _refusal(file: Path) -> str:
    before = file.read_bytes()
    with pytest.raises(InvalidInput) as caught:
        check(f"sqlite:///{file}")
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == before
    return str(caught.value)


async def test_half_a_file_is_found_before_anything_is_written(tmp_path: Path) -> None:
    file = await _made(tmp_path)
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    assert "is damaged" in await _refusal(file)


async def test_a_damaged_page_is_found(tmp_path: Path) -> None:
    file = await _made(tmp_path)
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2 // 4096 * 4096)
        opened.write(b"\xff" * 4096)
    assert "is damaged" in await _refusal(file)


async def test_a_file_of_a_newer_version_is_left_to_it(tmp_path: Path) -> None:
    file = await _made(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA user_version = 1000")
    assert "was made by a newer regmesh" in await _refusal(file)


async def test_the_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "control.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
        connection.execute("PRAGMA journal_mode = WAL")
    assert "another program" in await _refusal(file)


async def test_a_file_of_a_version_that_did_not_mark_it_is_taken_over(tmp_path: Path) -> None:
    file = await _made(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA application_id = 0")
        connection.execute("PRAGMA user_version = 0")
    check(f"sqlite:///{file}")
    database = Database(f"sqlite:///{file}")
    assert len((await SyncLog(database).read(parse({"limit": "1000"}, NOW))).items) == 200
    await database.close()
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("PRAGMA application_id").fetchone() != (0,)


async def test_what_fails_again_and_again_is_known_until_it_succeeds(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    database = Database(f"sqlite:///{tmp_path / 'control.db'}", clock=clock)
    is_full = True

    def write(connection: Connection) -> None:
        connection.execute(text("SELECT no_such_column") if is_full else text("SELECT 1"))

    assert database.failure is None
    with pytest.raises(DatabaseUnavailable):
        await database.run(write)
    await database.run(lambda connection: connection.execute(text("SELECT 2")).scalar())
    assert (
        database.failure is not None
    )  # another step succeeded, such as one that only reads from a full disk
    assert "no such column" in database.failure
    is_full = False
    await database.run(write)
    assert database.failure is None
    is_full = True
    with pytest.raises(DatabaseUnavailable):
        await database.run(write)
    await clock.sleep(121)
    assert database.failure is None  # nobody tries it any more
    await database.close()


@pytest.mark.parametrize("value", [2**70, "\ud800"])
async def test_a_value_that_cannot_be_stored_is_refused(tmp_path: Path, value: object) -> None:
    database = Database(f"sqlite:///{tmp_path / 'control.db'}")
    with pytest.raises(DatabaseRefused):
        await database.run(
            lambda connection: connection.execute(text("SELECT :value"), {"value": value}).scalar()
        )
    assert await database.run(lambda connection: connection.execute(text("SELECT 1")).scalar()) == 1
    await database.close()
