"""Control's database: every call is one transaction, run in one thread of its own, so that the event loop never waits.

SQLite for a process that has all roles, PostgreSQL for a fleet. The errors of either are translated here and nowhere
else.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from mesh.control.storage.tables import OLD_INDEXES, metadata
from mesh.errors import DatabaseUnavailable, InvalidInput, clean

R = TypeVar("R")

# A call that hangs for ever would hold up the sync log without a word. libpq's units: s, ms.
_POSTGRESQL = {"connect_timeout": 10, "tcp_user_timeout": 30_000, "options": "-c statement_timeout=30000"}
_SQLITE = {"timeout": 10}  # seconds to wait for another process that writes
_NEVER = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM}
)


def check(url: str) -> None:
    """`InvalidInput` when `url` names no database that we can use, and no waiting would make it one.

    A server that does not answer, or a file that is locked, is none of that: it is waited for.
    """
    engine = _engine(url)
    if engine.dialect.name == "sqlite":
        _check_file(engine)


class Database:
    """Opened at its first use, so that a database that is away stops nothing but what needs it."""

    def __init__(self, url: str) -> None:
        """`InvalidInput` when `url` names no database that we can use."""
        self._engine = _engine(url)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control-database")
        self._has_tables = False
        self._closed = False

    async def run(self, step: Callable[[Connection], R]) -> R:
        """`step` in one transaction: whole when it returns, undone when it raises.

        `DatabaseUnavailable` when the database did not do it; then it may still have landed if the connection broke
        at the very end, so a step must be such that doing it again is harmless.
        """
        if self._closed:
            raise DatabaseUnavailable("the sync log's database is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, step)

    async def close(self) -> None:
        """Finish what runs, then let the database go."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
            self._thread.shutdown(wait=False)

    def _transaction(self, step: Callable[[Connection], R]) -> R:
        try:
            with self._engine.begin() as connection:
                if not self._has_tables:
                    _make_tables(connection)
                result = step(connection)
        except SQLAlchemyError as error:
            raise DatabaseUnavailable(_told(error)) from error
        self._has_tables = True
        return result


def _make_tables(connection: Connection) -> None:
    """Those that are missing, and what an older version did not have: columns, always nullable ones, and indexes."""
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SET LOCAL statement_timeout = 0")
        )  # an index of millions of rows takes its time
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                kind = column.type.compile(connection.dialect)
                connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    for name in OLD_INDEXES:
        connection.execute(text(f"DROP INDEX IF EXISTS {name}"))


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        return _sqlite(parsed) if parsed.get_backend_name() == "sqlite" else _postgresql(parsed)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidInput(
            "the sync log's database must be sqlite:///FILE or postgresql://USER@HOST/NAME"
        ) from error
    except ModuleNotFoundError as error:
        raise InvalidInput("PostgreSQL needs a driver: pip install 'regmesh[postgresql]'") from error


def _sqlite(url: URL) -> Engine:
    engine = create_engine(url, connect_args=_SQLITE, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        # FULL: an offset is committed on the log after the entry, so the entry must not be lost by a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _check_file(engine: Engine) -> None:
    """Opened as later, to be written to, and left as it is."""
    (file, *_), options = engine.dialect.create_connect_args(engine.url)
    at_once: dict[str, Any] = {**options, "timeout": 0}
    try:
        with closing(sqlite3.connect(file, **at_once)) as connection:
            for statement in ("PRAGMA journal_mode=WAL", "BEGIN IMMEDIATE", "ROLLBACK"):
                connection.execute(statement)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in _NEVER:
            raise InvalidInput(_why_never(Path(engine.url.database or ""), error)) from error


def _why_never(file: Path, error: sqlite3.Error) -> str:
    told = f"the sync log's database {str(file)!r}"
    if file.is_dir():
        return f"{told} is a folder: name a file in it"
    if not file.parent.is_dir():
        return f"{told} is in a folder that does not exist: make it, or name another file"
    if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
        return f"{told} is a file of another kind, not of SQLite: name another one"
    return f"{told} cannot be written: see to the rights of the file and of its folder, or name another one"


def _postgresql(url: URL) -> Engine:
    if url.get_backend_name() != "postgresql":
        raise ArgumentError("not PostgreSQL")
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_POSTGRESQL,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_size=1,
    )


def _told(error: SQLAlchemyError) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return f"the sync log's database failed: {type(cause).__name__}: {clean(str(cause), 200)}"
