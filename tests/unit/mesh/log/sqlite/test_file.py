"""Files that the embedded log refuses to open, each with one line that says what to do."""

import contextlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mesh.errors import LogError, LogInUse
from mesh.log.port import Append
from mesh.log.sqlite import open_log
from tests.support.manual_clock import ManualClock

DEAD_LETTERS = "mesh.a.dead-letters"


async def opened(path):
    return await open_log(path, clock=ManualClock(datetime(2026, 1, 1, tzinfo=UTC)))


async def refusal(path: Path) -> str:
    with pytest.raises(LogError) as refused:
        await opened(path)
    text = str(refused.value)
    assert "\n" not in text
    return text


async def make(path: Path) -> None:
    log = await opened(path)
    await log.append([Append(DEAD_LETTERS, f"k{n}", b"x" * 3000) for n in range(200)])
    await log.close()


async def test_a_folder(tmp_path):
    assert "not a regular file" in await refusal(tmp_path)


async def test_a_device():
    assert "not a regular file" in await refusal(Path("/dev/null"))


async def test_a_missing_folder(tmp_path):
    assert "create " in await refusal(tmp_path / "nowhere" / "log.db")


async def test_a_folder_that_is_not_writable():
    assert "cannot write" in await refusal(Path("/proc/log.db"))


async def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "log.db"
    path.write_bytes(b"not a database at all, but long enough to look at" * 100)
    assert "damaged" in await refusal(path)


async def test_another_programs_database(tmp_path):
    path = tmp_path / "log.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    assert "another program" in await refusal(path)
    assert path.read_bytes() == before


async def test_a_newer_version(tmp_path):
    path = tmp_path / "log.db"
    await make(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    assert "newer" in await refusal(path)


async def test_a_damaged_page(tmp_path):
    path = tmp_path / "log.db"
    await make(path)
    with path.open("r+b") as file:
        file.seek(4096 * 8)
        file.write(b"\xff" * 4096 * 40)
    assert "damaged" in await refusal(path)


async def test_a_refused_file_is_not_left_locked(tmp_path):
    path = tmp_path / "log.db"
    path.write_bytes(b"garbage" * 1000)
    await refusal(path)
    path.unlink()
    await (await opened(path)).close()


async def test_an_open_file_is_in_use_and_a_closed_one_is_not(tmp_path):
    path = tmp_path / "log.db"
    log = await opened(path)
    with pytest.raises(LogInUse):
        await opened(path)
    await log.close()
    await (await opened(path)).close()


async def test_a_topic_whose_cleanup_changed_is_refused(tmp_path):
    path = tmp_path / "log.db"
    await make(path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE topics SET cleanup = 'compact'")
    log = await opened(path)
    with pytest.raises(LogError, match="move the log away"):
        await log.ensure([DEAD_LETTERS])
    await log.close()
