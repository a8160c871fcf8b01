"""What can never be the sync log's database is told at once, and what may be one later is not."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mesh.control.storage.database import Database, check
from mesh.control.sync_log.log_query import parse
from mesh.control.sync_log.store import SyncLog
from mesh.errors import InvalidInput
from tests.support.control_site import NOW, completion


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("missing/control.db", "is in a folder that does not exist"),
        ("note/control.db", "is in a folder that does not exist"),
        ("", "is a folder"),
        ("note", "is a file of another kind"),
        ("file:empty?mode=ro&uri=true", "cannot be written"),
        ("/proc/control.db", "cannot be written"),
    ],
)
def test_a_file_that_can_be_no_database_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note").write_text("no database " * 100)
    (tmp_path / "empty").touch()
    where = path if path.startswith("file:") else tmp_path / path
    with pytest.raises(InvalidInput, match=told) as caught:
        check(f"sqlite:///{where}")
    assert "\n" not in str(caught.value)
    assert (tmp_path / "note").read_text() == "no database " * 100


async def test_a_database_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'control.db'}"
    check(url)  # a new one
    database = Database(url)
    await SyncLog(database).write([completion()], [], NOW)
    check(url)  # while it is open
    assert len((await SyncLog(database).read(parse({}, NOW))).rows) == 1
    await database.close()
    check(url)


def test_what_is_only_away_or_locked_is_waited_for(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "control.db", isolation_level=None)) as another:
        another.execute("BEGIN EXCLUSIVE")
        check(f"sqlite:///{tmp_path / 'control.db'}")
        assert another.in_transaction
    check("postgresql://mesh@127.0.0.1:1/mesh")
