"""The embedded engine of the log: one file, owned by one process. `engine` implements the port."""

from mesh.log.sqlite.engine import SqliteLog, open_log

__all__ = ["SqliteLog", "open_log"]
