"""Whether a SQLite file is one of ours, whole, and of a version that this regmesh knows."""

import sqlite3
from collections.abc import Collection


def why_unfit(
    connection: sqlite3.Connection, *, application: int, version: int, adopted: Collection[str] = ()
) -> str | None:
    """Returns why the file must not be used, as the rest of a sentence about it; None when it may be, or is new.

    Args:
        connection: Open on the file. Damage may also be an error of SQLite that has `SQLITE_CORRUPT`.
        application: The number that marks files of this kind.
        version: The newest version that is known.
        adopted: A file without a mark that has these tables was made by a version that did not mark its files.
    """
    (found_version,) = connection.execute("PRAGMA user_version").fetchone()
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    is_of_before = found == 0 and found_version == 0 and bool(adopted) and tables >= set(adopted)
    if tables and found != application and not is_of_before:
        return "is a SQLite file of another program; name another file"
    if found_version > version:
        return "was made by a newer regmesh; use that version"
    (damage,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    return None if damage == "ok" else damaged(damage)


def damaged(how: str) -> str:
    """Returns the rest of a sentence about a file that is damaged."""
    return f"is damaged ({how}); restore it, or move it away to start a new one"


def mark(application: int, version: int) -> tuple[str, str]:
    """Returns the statements that mark a file."""
    return f"PRAGMA application_id = {application}", f"PRAGMA user_version = {version}"
