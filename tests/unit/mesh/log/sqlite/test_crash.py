"""The embedded log against kill -9, torn files, full disks and disks that fail."""

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.clock import SystemClock
from mesh.errors import LogInUse, LogUnavailable
from mesh.log.port import Append, Record
from mesh.log.sqlite import SqliteLog, open_log
from mesh.log.sqlite.file import open_file
from mesh.log.sqlite.writer import Writer

EVENTS, TAGS, DEAD_LETTERS = "mesh.a.events", "mesh.a.tags", "mesh.a.dead-letters"

APPENDER = """
import asyncio, json, os, random, signal, sys, time
from pathlib import Path
from mesh.clock import SystemClock
from mesh.log.port import Append
from mesh.log.sqlite import open_log

def say(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")

async def push(log, topic, life, worker):
    for number in range(10**9):
        name = f"{life}-{worker}-{number}"
        await log.append([Append(topic, name, name.encode())])
        say(topic=topic, acked=name)

async def read(log):
    member = await log.group("readers", ["mesh.a.events"])
    while True:
        found = await member.read(max_records=20, timeout=1)
        if found:
            done = {record.partition: record.offset + 1 for record in found}
            await member.commit(done)
            say(committed=[[partition.number, at] for partition, at in done.items()])

async def main(path, life):
    log = await open_log(Path(path), clock=SystemClock())
    await log.ensure(["mesh.a.events", "mesh.a.tags"])
    pushes = (push(log, topic, life, n) for n in range(4) for topic in ("mesh.a.events", "mesh.a.tags"))
    await asyncio.gather(read(log), *pushes)

for life in range(int(sys.argv[2])):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        asyncio.run(main(sys.argv[1], life))
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        first = lines.readline()
        time.sleep(random.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        sys.stdout.buffer.write(first + lines.read())
    os.waitpid(child, 0)
"""


async def opened(path: Path) -> SqliteLog:
    return await open_log(path, clock=SystemClock())


async def everything(log: SqliteLog, topic: str) -> list[Record]:
    ends = await log.end(topic)
    seen: list[Record] = []
    async with aclosing(log.follow(topic)) as batches:
        async for batch in batches:
            seen += batch.records
            if all(batch.positions[number] >= end for number, end in ends.items()):
                break
    return seen


def killed_in_the_middle(path: Path, times: int) -> list[dict]:
    """Returns the report of a process that is killed at a random moment of its work and started again."""
    appender = [sys.executable, "-c", APPENDER, str(path), str(times)]
    done = subprocess.run(appender, stdout=subprocess.PIPE, check=True, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_nothing_acknowledged_is_lost_to_kill_9(tmp_path):
    path = tmp_path / "log.db"
    acked: dict[str, set[str]] = {EVENTS: set(), TAGS: set()}
    committed: dict[int, int] = {}
    for report in await asyncio.to_thread(killed_in_the_middle, path, 20):
        if "acked" in report:
            acked[report["topic"]].add(report["acked"])
        committed |= dict(report.get("committed", []))
    log = await opened(path)
    for topic, names in acked.items():
        assert len(names) > 50
        assert names <= {record.key for record in await everything(log, topic)}
    ends = await log.end(EVENTS)
    member = await log.group("readers", [EVENTS])
    for partition, lag in (await member.lag()).items():
        assert ends[partition.number] - lag >= committed.get(partition.number, 0)
    await log.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_torn_write_ahead_log_leaves_a_prefix(tmp_path):
    path, torn = tmp_path / "log.db", tmp_path / "torn.db"
    log = await opened(path)
    for number in range(100):
        await log.append([Append(DEAD_LETTERS, f"k{number}", b"%d" % number)])
    wal = Path(f"{path}-wal").read_bytes()
    base = path.read_bytes()
    await log.close()
    kept = set()
    for cut in random.Random(7).sample(range(len(wal)), 40):
        shutil.rmtree(tmp_path / "torn.db", ignore_errors=True)
        torn.write_bytes(base)
        Path(f"{torn}-wal").write_bytes(wal[:cut])
        Path(f"{torn}-shm").unlink(missing_ok=True)
        log = await opened(torn)
        await log.ensure([DEAD_LETTERS])
        found = [record.value for record in await everything(log, DEAD_LETTERS)]
        assert found == [b"%d" % number for number in range(len(found))]
        kept.add(len(found))
        (offset,) = await log.append([Append(DEAD_LETTERS, "next", b"next")])
        assert offset == len(found)
        await log.close()
    assert len(kept) > 10


async def test_one_process_owns_the_file(tmp_path):
    path = tmp_path / "log.db"
    log = await opened(path)
    second = "import sys, pathlib, mesh.log.sqlite.file as file; file.open_file(pathlib.Path(sys.argv[1]))"
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", second, str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "LogInUse" in ended.stderr
    assert "use kafka:// to run roles as separate processes" in ended.stderr.splitlines()[-1]
    link = tmp_path / "link.db"
    link.symlink_to(path)
    with pytest.raises(LogInUse):
        await opened(link)
    await log.close()
    await (await opened(path)).close()


FILLER = """
import asyncio, resource, subprocess, sys
from pathlib import Path
from mesh.clock import SystemClock
from mesh.errors import LogUnavailable
from mesh.log.port import Append
from mesh.log.sqlite import open_log

LETTERS = "mesh.a.dead-letters"
VALUE = b"x" * 20_000

def make_room(folder, how):
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    else:
        subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)

async def main(folder, how):
    log = await open_log(Path(folder) / "log.db", clock=SystemClock())
    acked = []
    async def push(number):
        await log.append([Append(LETTERS, str(number), VALUE)])
        acked.append(number)
    if how == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
    refused = 0
    for number in range(0, 4000, 4):
        results = await asyncio.gather(*(push(number + n) for n in range(4)), return_exceptions=True)
        failures = [result for result in results if result is not None]
        assert all(isinstance(failure, LogUnavailable) for failure in failures), failures
        refused += len(failures)
        if refused > 40:
            break
    assert refused > 40, "the disk was never full"
    make_room(folder, how)
    await push(9999)
    await log.close()
    log = await open_log(Path(folder) / "log.db", clock=SystemClock())
    member = await log.group("g", [LETTERS])
    found, more = [], True
    while more:
        more = await member.read(max_records=100, timeout=0.1)
        found += [int(record.key) for record in more]
    assert sorted(found) == sorted(acked), (len(found), len(acked))
    await log.close()
    print(len(acked), "kept", refused, "refused")

asyncio.run(main(*sys.argv[1:]))
"""


def small_disk(folder: Path) -> str:
    """A file system of 8 MiB where mounting is permitted, else a file size limit, which fails at the same points."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    return "mount" if mounted.returncode == 0 else "limit"


@pytest.mark.parametrize("how", ["limit", "mount"])
async def test_a_full_disk_refuses_appends_and_heals(tmp_path, how):
    folder = tmp_path / "small"
    how = small_disk(folder) if how == "mount" else how
    folder.mkdir(exist_ok=True)
    try:
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", FILLER, str(folder), how],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        if how == "mount":
            subprocess.run(["umount", str(folder)], check=True)
    assert ended.returncode == 0, ended.stderr


class FailingDisk(sqlite3.Connection):
    """A connection whose next commit cannot be synced."""

    failing = False

    def execute(self, sql, *parameters):
        if sql == "COMMIT" and self.failing:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return super().execute(sql, *parameters)


async def test_a_failed_fsync_ends_the_handle(tmp_path):
    path = tmp_path / "log.db"
    open_file(path).close()
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=FailingDisk)
    writer = Writer(connection, {}, lambda moved: None)
    await writer.run(lambda transaction: transaction.commit("g", {1: 1}))
    connection.failing = True
    with pytest.raises(LogUnavailable):
        await writer.run(lambda transaction: transaction.commit("g", {1: 2}))
    connection.failing = False
    with pytest.raises(LogUnavailable, match="cannot be trusted"):
        await writer.run(lambda transaction: transaction.commit("g", {1: 3}))
    await writer.close()
    assert connection.execute("SELECT next_offset FROM commits").fetchall() == [(1,)]
    connection.close()


async def test_a_job_that_raises_harms_no_other_and_writes_nothing(tmp_path):
    log = await opened(tmp_path / "log.db")
    await log.append([Append(DEAD_LETTERS, "k", b"v")])
    with pytest.raises(ZeroDivisionError):
        await log._store.writer.run(lambda transaction: 1 / 0)
    (offset,) = await log.append([Append(DEAD_LETTERS, "k", b"v")])
    assert offset == 1
    await log.close()
