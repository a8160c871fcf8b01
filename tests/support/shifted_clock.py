"""The clock of a machine that is wrong."""

from datetime import datetime, timedelta

from mesh.clock import SystemClock


class ShiftedClock(SystemClock):
    """The real time, and how much this clock is ahead of it, which a test may change."""

    def __init__(self, ahead: timedelta = timedelta()) -> None:
        self.ahead = ahead

    def now(self) -> datetime:
        return super().now() + self.ahead
