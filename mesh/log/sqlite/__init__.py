"""The embedded engine of the log: one file, one process. `engine` is the port; the rest is named for what it does."""

from mesh.log.sqlite.engine import SqliteLog, open_log

__all__ = ["SqliteLog", "open_log"]
