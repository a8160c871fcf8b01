"""SQLite's plans for the statements of a step: tests check these instead of measuring time."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, event

from mesh.control.storage.database import Database


class Plans(list[str]):
    """Lines of `EXPLAIN QUERY PLAN`, such as `SEARCH images USING INDEX ...`."""

    def scans(self, *tables: str) -> list[str]:
        """Returns the plans that read all of a table, or all of an index of it."""
        return [line for line in self if line.startswith(tuple(f"SCAN {table}" for table in tables))]

    def sorts(self) -> list[str]:
        """Returns the plans that sort rows instead of reading them in the order of an index."""
        return [line for line in self if "TEMP B-TREE FOR ORDER BY" in line]


@contextmanager
def explained(database: Database) -> Iterator[Plans]:
    """Collects the plans of all SELECT statements that run within the block, on a SQLite database."""
    plans, engine = Plans(), database._engine

    def explain(connection: Connection, _: object, statement: str, parameters: object, *__: object) -> None:
        if statement.lstrip().startswith("SELECT"):
            raw = connection.connection.cursor()
            raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(str(row[3]) for row in raw.fetchall())

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield plans
    finally:
        event.remove(engine, "before_cursor_execute", explain)
