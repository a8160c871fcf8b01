"""One blob while it is received, for its followers: at most its last 8 MiB, in memory.

Followers read at their own pace. The blob does not wait for them: one that falls out of the window has to read the rest
elsewhere. The sum of a process's windows is bounded, so each is smaller when many blobs are received.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from mesh.errors import RegmeshError

WINDOW = 8 * 1024 * 1024  # bytes of one blob
NEARLY = 4 * WINDOW  # bytes that are missing of a blob for which a late follower waits
ALL_WINDOWS = 48 * 1024 * 1024  # bytes of all blobs of the agents of one process


class FellBehind(RegmeshError):
    """The bytes that the follower wants are not in the window any more."""

    code = "fell_behind"


class Broken(RegmeshError):
    """The blob was not received completely."""

    code = "relay_broken"


class Tee:
    """A buffer with one writer and many readers. `window` is in bytes; with None nothing is kept or followed."""

    def __init__(self, size: int, window: int | None) -> None:
        self.size = size  # bytes of the whole blob
        self._window = window
        self._chunks: deque[tuple[int, bytes]] = deque()  # with their offsets, oldest first
        self._start = 0
        self._changed = asyncio.Event()
        self._ended = self._complete = False
        self.received = 0

    def put(self, chunk: bytes) -> None:
        """Appends a chunk, drops those that leave the window, and wakes the followers."""
        if self._window is None:
            return
        self._chunks.append((self.received, chunk))
        self.received += len(chunk)
        self._drop_old(self._window)
        self._wake()

    def resize(self, window: int) -> None:
        """Changes the window, as a process's windows share one bound. Dropped bytes do not return."""
        if self._window is not None:
            self._window = window
            self._drop_old(window)

    def _drop_old(self, window: int) -> None:
        while self.received - self._start > window and len(self._chunks) > 1:
            offset, dropped = self._chunks.popleft()
            self._start = offset + len(dropped)

    def end(self, *, complete: bool) -> None:
        """Ends the blob; `complete` means that the registry has accepted it, so its digest was right."""
        self._ended, self._complete = True, complete
        self._wake()

    def can_follow(self, offset: int) -> bool:
        """Returns whether a reader that has `offset` bytes can follow from there."""
        broken = self._ended and not self._complete
        return self._window is not None and not broken and self._start <= offset <= self.received

    def is_nearly_there(self) -> bool:
        """Returns whether who is late for the first bytes had better wait a moment until the registry has the blob."""
        return not self._ended and self._start > 0 and self.size - self.received <= NEARLY

    async def follow(self, offset: int) -> AsyncIterator[bytes]:
        """Yields the bytes from `offset` to the end, and waits for those that were not received yet.

        Raises:
            FellBehind: The reader fell out of the window.
            Broken: The blob was not received completely.
        """
        while True:
            changed = self._changed
            if (piece := self._piece(offset)) is not None:
                offset += len(piece)
                yield piece
            elif self._ended:
                if not self._complete:
                    raise Broken("the blob was not received completely")
                return
            else:
                await changed.wait()

    def _piece(self, offset: int) -> bytes | None:
        if offset < self._start:
            raise FellBehind(f"byte {offset} is wanted, and the window starts at {self._start}")
        for start, chunk in self._chunks:
            if start <= offset < start + len(chunk):
                return chunk[offset - start :]
        return None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
