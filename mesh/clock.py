"""Time as a port: only composition roots read the machine's clock."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """The wall clock, a monotonic clock and sleep."""

    def now(self) -> datetime:
        """Returns the wall-clock time in UTC."""
        ...

    def monotonic(self) -> float:
        """Returns seconds that never run backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits for so many seconds on the monotonic clock."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
