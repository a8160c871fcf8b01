"""A file that can never be the database is refused at once; one that may be usable later is not."""

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
