"""What is said of the parked tasks of a rule."""

from typing import NamedTuple


class ParkedFailures(NamedTuple):
    """How many tasks of one rule or replica failed for now and wait to be retried, and the newest of their errors."""

    tasks: int
    message: str
