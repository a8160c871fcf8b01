"""What a test may ask of the built-in registry: to misbehave in one narrow way, and to say what it has seen.

Every fault can be set and cleared while the registry runs; `Faults.struck` counts how often each one struck. Those with
`times` strike so many times and are over.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from mesh.clock import Clock
from schemas.names import Digest

BLOCK = 256 * 1024  # bytes read or written at a time; all that a transfer holds


@dataclass
class Countdown:
    """A fault that strikes the next `times` times."""

    times: int = 1


@dataclass
class Cut(Countdown):
    """Close the connection in a blob's GET when `after` bytes of the answer are sent."""

    after: int = 0


@dataclass
class Throttle(Countdown):
    """Answer 429 to any request; `retry_after` in seconds, None to leave the header out."""

    retry_after: int | None = 1


@dataclass
class Fail(Countdown):
    """Answer `status` to requests of `method` (empty: any) whose path begins with `path`."""

    method: str = ""
    path: str = ""
    status: int = 500


@dataclass
class HalfWritten(Countdown):
    """Say 201 to a blob's upload and lose it; `head_says_there`: HEAD goes on saying that it is there."""

    head_says_there: bool = False


@dataclass
class Lie(Countdown):
    """Send wrong bytes, as many as the right ones, under a blob's or manifest's digest (None: any)."""

    digest: Digest | None = None


@dataclass
class Stall:
    """Send no more than the head of the answer to GETs of the blob `digest`, until `over` is set."""

    digest: Digest
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Faults:
    slow: int | None = None  # bytes/s of each blob, sent or received
    cut: Cut | None = None
    throttle: Throttle | None = None
    fail: Fail | None = None
    half_written: HalfWritten | None = None
    lie: Lie | None = None
    stall: Stall | None = None
    announce_first: float | None = None  # seconds between the announcement of a tag and its storing
    struck: Counter[str] = field(default_factory=Counter)
    ghosts: dict[Digest, int] = field(
        default_factory=dict
    )  # blobs that HEAD wrongly says are there; sizes in bytes

    async def pace(self, sent: int, clock: Clock) -> None:
        """Wait as long as `sent` bytes take at the slow speed."""
        if self.slow:
            self.struck["slow"] += 1
            await clock.sleep(sent / self.slow)

    async def hold(self, digest: Digest) -> None:
        """Wait as long as this blob is stalled."""
        if self.stall is not None and self.stall.digest == digest:
            self.struck["stall"] += 1
            await self.stall.over.wait()

    @property
    def block(self) -> int:
        """Bytes to move at a time: small when slow, so that a slow stream flows and does not jump."""
        return min(BLOCK, max(1, self.slow // 20)) if self.slow else BLOCK

    def cuts_after(self, length: int) -> int | None:
        """Bytes after which this answer of `length` bytes is to break off; None when it is not."""
        if self.cut is None or self.cut.after >= length:
            return None
        return self.cut.after if self._strikes("cut", self.cut) else None

    def throttles(self) -> Throttle | None:
        return self.throttle if self.throttle and self._strikes("throttle", self.throttle) else None

    def fails(self, method: str, path: str) -> int | None:
        """The status to fail with, or None."""
        fail = self.fail
        if fail is None or fail.method not in ("", method) or not path.startswith(fail.path):
            return None
        return fail.status if self._strikes("fail", fail) else None

    def loses(self, digest: Digest, size: int) -> bool:
        """Whether this upload, answered with 201, is not to be kept."""
        self.ghosts.pop(digest, None)
        if self.half_written is None or not self._strikes("half_written", self.half_written):
            return False
        if self.half_written.head_says_there:
            self.ghosts[digest] = size
        return True

    def lies(self, digest: Digest) -> bool:
        lie = self.lie
        return lie is not None and lie.digest in (None, digest) and self._strikes("lie", lie)

    def _strikes(self, name: str, fault: Countdown) -> bool:
        if fault.times <= 0:
            return False
        fault.times -= 1
        self.struck[name] += 1
        return True


@dataclass
class Seen:
    """What came and went since the start."""

    requests: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # by method and route, as ("PUT", "manifest")
    blob_bytes_out: Counter[Digest] = field(default_factory=Counter)
    blob_bytes_in: Counter[Digest] = field(default_factory=Counter)  # of uploads that ended well
    pulls: Counter[Digest] = field(default_factory=Counter)  # GETs of a blob
    uploads: Counter[Digest] = field(default_factory=Counter)  # that ended well
    mounts: Counter[Digest] = field(default_factory=Counter)


def falsified(body: bytes) -> bytes:
    """As long as `body`, and not the same."""
    return bytes([body[0] ^ 1]) + body[1:] if body else body
