"""A database of an older version gets the columns and indexes that it lacks, and keeps its entries."""

from pathlib import Path

from sqlalchemy import create_engine, inspect, text

from mesh.control.storage.database import Database
from mesh.control.sync_log.log_query import parse
from mesh.control.sync_log.store import SyncLog
from tests.support.control_site import NOW, completion


async def test_a_missing_column_is_added_and_entries_stay(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/control.db"
    await _write(url, completion(1))
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE sync_log DROP COLUMN rebuilt_from"))
    engine.dispose()
    await _write(url, completion(2, rebuilt_from="sha256:" + "ab" * 32))
    database = Database(url)
    rows = (await SyncLog(database).read(parse({}, NOW))).items
    await database.close()
    assert sorted(str(row["rebuilt_from"])[:11] for row in rows) == ["None", "sha256:abab"]


async def test_a_missing_index_is_created_and_a_replaced_one_is_dropped(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/control.db"
    await _write(url, completion(1))
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX sync_log_by_rule"))
        connection.execute(text("CREATE INDEX sync_log_by_execution ON sync_log (execution_id)"))
    await _write(url, completion(2))
    with engine.begin() as connection:
        names = {index["name"] for index in inspect(connection).get_indexes("sync_log")}
    engine.dispose()
    assert "sync_log_by_rule" in names
    assert "sync_log_by_execution" not in names


async def _write(url: str, one) -> None:
    database = Database(url)
    await SyncLog(database).write([one], [], NOW)
    await database.close()
