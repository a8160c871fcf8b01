"""The sync log entry: one task as people and programs see it. Pure.

A row is what the database keeps and what filters look at; the entry is the JSON made of it.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from schemas.completions import Completion, TaskRecord
from schemas.parked import Parked

Row = Mapping[str, Any]

_AS_THEY_ARE = (
    "task_id", "execution_id", "rule", "replica", "trigger", "operation", "resource_type",
    "source_region", "destination_region", "repository", "tag", "digest",
    "start_time", "bytes_total", "bytes_transferred", "bytes_from", "attempts", "rules_rev", "origin", "hops",
)  # fmt: skip
_OF_AN_END = ("end_time", "bytes_skipped", "blobs_mounted", "lag_ms", "rebuilt_from")
_SHOWN = (
    "task_id", "execution_id", "rule", "replica", "trigger", "operation", "resource_type", "source", "destination",
    "source_region", "destination_region", "repository", "tag", "digest", "status", "start_time", "end_time",
    "bytes_total", "bytes_transferred", "bytes_skipped", "blobs_mounted", "attempts", "lag_ms", "rules_rev",
    "rebuilt_from", "bytes_from", "origin", "hops",
)  # fmt: skip


def row_of(work: TaskRecord) -> dict[str, Any]:
    """The row of a task that has ended, or of one that runs or waits: then what only an end tells is None."""
    row = {field: _plain(getattr(work, field)) for field in _AS_THEY_ARE}
    row |= {field: _plain(getattr(work, field, None)) for field in _OF_AN_END}
    row |= {"source": work.source, "destination": work.destination, "status": work.status.value}
    row |= {"account": str(work.account), "destination_account": str(work.destination_account)}
    error = work.error if isinstance(work, Completion | Parked) else None
    row["error_code"] = error.code if error else None
    row["error_side"] = error.side.value if error else None
    row["error_message"] = error.message if error else None
    return row


def entry_of(row: Row) -> dict[str, object]:
    """The entry in the order of its contract; times in RFC 3339, UTC."""
    entry = {field: rfc3339(row[field]) for field in _SHOWN}
    error = {part: row[f"error_{part}"] for part in ("code", "side", "message")}
    return {**entry, "error": error if error["code"] is not None else None}


def rfc3339(value: Any) -> Any:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def _plain(value: Any) -> Any:
    """A name as a plain `str`: drivers know no subclasses."""
    return str(value) if isinstance(value, str) else value
