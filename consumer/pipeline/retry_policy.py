"""How long a task is tried."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """All in seconds but `tries`. A task that failed in all its tries is parked; tried again it gets as many."""

    tries: int = 3
    first_wait: float = 0.5
    longest_wait: float = 8.0
    longest_throttled: float = 900.0  # of all waits for 429 together
    first_park: float = 30.0
    longest_park: float = 3600.0
    parked_for: float = 24 * 3600.0  # after which it ends `Failed`; 0 parks nothing
    look_at_parked: float = 1.0
