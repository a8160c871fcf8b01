"""Opening the embedded log's file: it is locked for one process, checked for damage, and has the right schema.

`log.db.lock` beside `log.db` is held with flock while the log is open. It is never removed, since removing a lock file
can let two processes in.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from mesh import sqlite_file
from mesh.errors import LogError, LogInUse, LogUnavailable

LOG = structlog.get_logger()
_MANY_PAGES = 1024  # of 4 KiB each
_APPLICATION = 0x72676D6C  # "rgml": distinguishes the file from other SQLite files
_VERSION = 1
DISK_TIMEOUT = 30.0  # seconds; a disk that takes longer counts as failed
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs"}
)

# A record's `position` is its partition's id and its offset in one integer: one tree has all partitions, and a read is
# a range of it. `compacted` repeats the partition in compacted topics, and is NULL elsewhere. `left_at` is when a sweep
# first found a commit without a member that reads the partition, NULL while there is one.
_SCHEMA = """
CREATE TABLE topics (name TEXT PRIMARY KEY, cleanup TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    UNIQUE (topic, number));
CREATE TABLE records (
    position INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB, written_at INTEGER NOT NULL, compacted INTEGER);
CREATE UNIQUE INDEX latest ON records (compacted, key) WHERE compacted IS NOT NULL;
CREATE INDEX tombstones ON records (compacted, written_at) WHERE compacted IS NOT NULL AND value IS NULL;
CREATE TABLE commits (
    reader TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL, left_at INTEGER,
    PRIMARY KEY (reader, partition)) WITHOUT ROWID;
CREATE INDEX slowest ON commits (partition, next_offset);
"""
# Of a file that an earlier version made; that version can still open it afterwards.
_MIGRATION = """
ALTER TABLE commits ADD COLUMN left_at INTEGER;
CREATE INDEX slowest ON commits (partition, next_offset);
"""
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_FSYNC = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})


@dataclass(frozen=True, slots=True)
class File:
    """An open log: one connection that writes, one that reads, and the lock that excludes other processes."""

    path: Path
    writer: sqlite3.Connection
    reader: sqlite3.Connection
    lock: int

    def close(self) -> None:
        """Closes the file. No thread may use the connections any more."""
        for connection in (self.reader, self.writer):
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        os.close(self.lock)

    def abandon(self) -> None:
        """Leaves the connections open until the process ends: closing would copy pages that a failed fsync has lost."""
        _abandoned.append(self)


_abandoned: list[File] = []  # a connection without a reference closes itself


def open_file(path: Path) -> File:
    """Opens or creates the log at `path`; blocks while it is checked.

    Raises:
        LogInUse: Another process has it open.
        LogError: It is damaged, no log, not on a local disk or not writable.
    """
    path = path.resolve()
    _refuse_unfit(path)
    lock = _lock(path)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, lock)
        with translated(f"cannot open the embedded log {path}"):
            writer = undo.enter_context(contextlib.closing(_connect(path)))
            _prepare(writer, path)
            reader = undo.enter_context(contextlib.closing(_connect(path)))
            reader.execute("PRAGMA query_only = ON")
        undo.pop_all()
    return File(path, writer, reader, lock)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Translates SQLite's errors in the block; `doing` says what failed."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, doing) from error


def disk_timed_out() -> LogUnavailable:
    """Returns the error for a read or write that took longer than `DISK_TIMEOUT`."""
    return LogUnavailable(f"the disk of the embedded log did not answer for {DISK_TIMEOUT:.0f} s")


def translate(error: sqlite3.Error, doing: str) -> LogError:
    """Returns `LogError` for a damaged file, else `LogUnavailable`: a full disk may have space later."""
    if _code(error) & 0xFF in _DAMAGED:
        return LogError(f"{doing}: the file {sqlite_file.damaged(str(error))}")
    return LogUnavailable(f"{doing}: {error}")


def is_fatal(error: sqlite3.Error) -> bool:
    """Returns whether the connection cannot be trusted any more.

    After a failed fsync the kernel may drop the pages and report success for the next one.
    """
    return _code(error) in _FSYNC or _code(error) & 0xFF in _DAMAGED


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0)  # errors of the module itself have none


def _refuse_unfit(path: Path) -> None:
    if path.exists() and not path.is_file():
        raise LogError(f"the embedded log {path} is not a regular file; name a file on a local disk")
    if not path.parent.is_dir():
        raise LogError(f"the embedded log {path} is in a folder that does not exist; create {path.parent}")
    kind = _filesystem(path)
    if kind in _REMOTE:
        raise LogError(f"the embedded log {path} is on {kind}, which cannot lock it; put it on a local disk")


def _filesystem(path: Path) -> str:
    """Returns the type of the file system under `path`, or '' where the system does not report it."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    kinds = {fields[1]: fields[2] for fields in (line.split(" ") for line in mounts) if len(fields) > 2}
    return next((kinds[str(folder)] for folder in path.parents if str(folder) in kinds), "")


def _lock(path: Path) -> int:
    try:
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogError(f"cannot write beside the embedded log {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LogInUse(
            f"the embedded log {path} is open in another process; one process per embedded log - "
            "use kafka:// to run roles as separate processes"
        ) from error
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "PRAGMA secure_delete = OFF"
    )  # Debian's default writes zeros over every superseded record
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    reason = sqlite_file.why_unfit(connection, application=_APPLICATION, version=_VERSION)
    if reason is not None:
        raise LogError(f"the embedded log {path} {reason}")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file; `_shrink` changes an older one
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LogError(f"the embedded log {path} cannot use a write-ahead log; put it on a local disk")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # the writer does it, since SQLite hides its errors
    connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    _make_schema(connection)
    _shrink(connection, path)


def _make_schema(connection: sqlite3.Connection) -> None:
    """Creates the schema if it is missing. It always writes, which shows that the file is writable."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(commits)")}
    schema = _SCHEMA if not tables else _MIGRATION if "left_at" not in columns else ""
    connection.executescript(
        f"BEGIN IMMEDIATE; {schema} {'; '.join(sqlite_file.mark(_APPLICATION, _VERSION))}; COMMIT;"
    )


def _shrink(connection: sqlite3.Connection, path: Path) -> None:
    """Gives the free pages of a file back that an earlier version made, once they are most of it.

    Such a file has to be written anew for that, which copies only what is in use. Other files are shrunk by the sweep.
    """
    pragmas = ("auto_vacuum", "freelist_count", "page_count")
    mode, free, pages = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in pragmas)
    if mode != 0 or free < _MANY_PAGES or free * 2 < pages:
        return
    try:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("VACUUM")
    except sqlite3.OperationalError as error:  # the disk is full: the file is unchanged, and works
        LOG.warning(
            "the log's free pages are not given back",
            action="log_not_shrunk",
            path=str(path),
            error=str(error),
        )
