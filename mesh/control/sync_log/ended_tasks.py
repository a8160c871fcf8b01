"""What is known of tasks that ended lately. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple


class Kept(NamedTuple):
    """How many tasks of a window count for a promise, and how many of these kept it."""

    counted: int
    kept: int


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """What is known of the tasks of one rule or replica that ended lately.

    Attributes:
        ended: How many ended in the last five minutes, whatever they did.
        ended_since: The beginning of the minute in which the first of these ended.
        kept: By window, those that count for the present promise.
    """

    ended: int = 0
    ended_since: datetime | None = None
    kept: Mapping[str, Kept] = field(default_factory=dict)
