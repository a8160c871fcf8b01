"""The sync log entry: one task as people and programs see it. Pure.

A row is what the database stores and what filters look at; the entry is the JSON made of it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from schemas.completions import Completion, TaskError, TaskRecord
from schemas.parked import Parked

Row = Mapping[str, Any]

_FIELDS = (
    "task_id", "execution_id", "rule", "replica", "trigger", "operation", "resource_type",
    "source_region", "destination_region", "repository", "tag", "digest",
    "start_time", "bytes_total", "bytes_transferred", "bytes_from", "attempts", "rules_rev", "origin", "hops",
)  # fmt: skip
_COMPLETION_FIELDS = ("end_time", "bytes_skipped", "blobs_mounted", "lag_ms", "rebuilt_from")
_SHOWN = (
    "task_id", "execution_id", "rule", "replica", "trigger", "operation", "resource_type", "source", "destination",
    "source_region", "destination_region", "repository", "tag", "digest", "status", "start_time", "end_time",
    "bytes_total", "bytes_transferred", "bytes_skipped", "blobs_mounted", "attempts", "lag_ms", "rules_rev",
    "rebuilt_from", "bytes_from", "origin", "hops",
)  # fmt: skip


def row_of(task: TaskRecord) -> dict[str, Any]:
    """Returns the row of a task; the fields of completions are None while it is in progress or parked."""
    row = {field: _plain(getattr(task, field)) for field in _FIELDS}
    row |= {field: _plain(getattr(task, field, None)) for field in _COMPLETION_FIELDS}
    row |= {"source": task.source, "destination": task.destination, "status": task.status.value}
    row |= {"account": str(task.account), "destination_account": str(task.destination_account)}
    return row | error_columns(task.error if isinstance(task, Completion | Parked) else None)


def entry_of(row: Row) -> dict[str, object]:
    """Returns the entry, its fields in the order of the contract and its times as RFC 3339 in UTC."""
    return {field: rfc3339(row[field]) for field in _SHOWN} | {"error": error_of(row)}


def error_columns(error: TaskError | None) -> dict[str, str | None]:
    """Returns the columns of an error."""
    return {
        "error_code": error.code if error else None,
        "error_side": error.side.value if error else None,
        "error_message": error.message if error else None,
    }


def error_of(row: Row) -> dict[str, str] | None:
    """Returns the error of a row as the API shows it."""
    error = {part: row[f"error_{part}"] for part in ("code", "side", "message")}
    return error if error["code"] is not None else None


def rfc3339(value: Any) -> Any:
    """Returns a time as RFC 3339, and any other value unchanged."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _plain(value: Any) -> Any:
    """Returns a name as a plain `str`, since database drivers accept no subclasses."""
    return str(value) if isinstance(value, str) else value
