"""Faults that tests inject into the built-in registry, and counters of its traffic.

Every fault can be set and cleared while the registry runs; `Faults.struck` counts how often each one has struck. One
with `times` ends after so many strikes.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from mesh.clock import Clock
from schemas.names import Digest

BLOCK = 256 * 1024  # bytes read or written at a time; all that a transfer holds


@dataclass
class Countdown:
    """A fault that strikes `times` times."""

    times: int = 1


@dataclass
class Cut(Countdown):
    """Closes the connection of a blob's GET after `after` bytes of the answer."""

    after: int = 0


@dataclass
class Throttle(Countdown):
    """Answers 429 to any request. `retry_after` is in seconds; None omits the header."""

    retry_after: int | None = 1


@dataclass
class Fail(Countdown):
    """Answers `status` to requests of `method` (empty: any) whose path starts with `path`."""

    method: str = ""
    path: str = ""
    status: int = 500


@dataclass
class HalfWritten(Countdown):
    """Answers 201 to a blob's upload and loses it; with `head_says_there` HEAD claims that the blob exists."""

    head_says_there: bool = False


@dataclass
class Lie(Countdown):
    """Sends wrong bytes of the right length for a blob or manifest (None: any)."""

    digest: Digest | None = None


@dataclass
class Stall:
    """Sends only the headers of the answer to a GET of the blob `digest`, until `over` is set."""

    digest: Digest
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Faults:
    """The faults of one registry."""

    slow: int | None = None  # bytes/s of each blob, sent or received
    cut: Cut | None = None
    throttle: Throttle | None = None
    fail: Fail | None = None
    half_written: HalfWritten | None = None
    lie: Lie | None = None
    stall: Stall | None = None
    announce_first: float | None = None  # seconds between the notification of a tag and its storage
    struck: Counter[str] = field(default_factory=Counter)
    ghosts: dict[Digest, int] = field(
        default_factory=dict
    )  # sizes in bytes of the lost blobs that HEAD claims to have

    async def pace(self, sent: int, clock: Clock) -> None:
        """Waits as long as `sent` bytes take at the slow speed."""
        if self.slow:
            self.struck["slow"] += 1
            await clock.sleep(sent / self.slow)

    async def hold(self, digest: Digest) -> None:
        """Waits while this blob is stalled."""
        if self.stall is not None and self.stall.digest == digest:
            self.struck["stall"] += 1
            await self.stall.over.wait()

    @property
    def block(self) -> int:
        """The bytes to move at a time: few when slow, so that a slow stream is even."""
        return min(BLOCK, max(1, self.slow // 20)) if self.slow else BLOCK

    def cuts_after(self, length: int) -> int | None:
        """Returns the bytes after which an answer of `length` bytes breaks off, or None."""
        if self.cut is None or self.cut.after >= length:
            return None
        return self.cut.after if self._strikes("cut", self.cut) else None

    def throttles(self) -> Throttle | None:
        """Returns the throttle when it strikes this request."""
        return self.throttle if self.throttle and self._strikes("throttle", self.throttle) else None

    def fails(self, method: str, path: str) -> int | None:
        """Returns the status to fail a request with, or None."""
        fail = self.fail
        if fail is None or fail.method not in ("", method) or not path.startswith(fail.path):
            return None
        return fail.status if self._strikes("fail", fail) else None

    def loses(self, digest: Digest, size: int) -> bool:
        """Returns whether to lose an upload that is answered with 201."""
        self.ghosts.pop(digest, None)
        if self.half_written is None or not self._strikes("half_written", self.half_written):
            return False
        if self.half_written.head_says_there:
            self.ghosts[digest] = size
        return True

    def lies(self, digest: Digest) -> bool:
        """Returns whether to send wrong bytes."""
        lie = self.lie
        return lie is not None and lie.digest in (None, digest) and self._strikes("lie", lie)

    def _strikes(self, name: str, fault: Countdown) -> bool:
        if fault.times <= 0:
            return False
        fault.times -= 1
        self.struck[name] += 1
        return True


@dataclass
class Traffic:
    """The requests and bytes since the start."""

    requests: Counter[tuple[str, str]] = field(
        default_factory=Counter
    )  # by method and route, as ("PUT", "manifest")
    blob_bytes_out: Counter[Digest] = field(default_factory=Counter)
    blob_bytes_in: Counter[Digest] = field(default_factory=Counter)  # of successful uploads
    pulls: Counter[Digest] = field(default_factory=Counter)  # GETs of a blob
    uploads: Counter[Digest] = field(default_factory=Counter)  # successful ones
    mounts: Counter[Digest] = field(default_factory=Counter)


def falsified(body: bytes) -> bytes:
    """Returns other bytes of the same length."""
    return bytes([body[0] ^ 1]) + body[1:] if body else body
