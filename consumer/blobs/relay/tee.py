"""One blob while it comes in, shown to those who follow it: the last 8 MiB of it, in memory.

Who follows reads at a pace of its own. The blob does not wait for anybody: who falls out of the window has to read on
elsewhere. All windows of an agent together are bounded, so each is smaller where many blobs come in at once.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from mesh.errors import RegmeshError

WINDOW = 8 * 1024 * 1024  # bytes of one blob
ALL_WINDOWS = 48 * 1024 * 1024  # bytes of all blobs of an agent


class FellBehind(RegmeshError):
    """What the follower wants is not in the window any more."""

    code = "fell_behind"


class Broken(RegmeshError):
    """The blob did not come in whole."""

    code = "relay_broken"


class Tee:
    """Fed by one, read by many. `window` is in bytes; None keeps nothing, for a blob that nobody may follow."""

    def __init__(self, size: int, window: int | None) -> None:
        self.size = size  # bytes of the whole blob
        self._window = window
        self._chunks: deque[tuple[int, bytes]] = deque()  # with the offset of each, oldest first
        self._start = 0
        self._changed = asyncio.Event()
        self._ended = self._whole = False
        self.received = 0

    def put(self, chunk: bytes) -> None:
        if self._window is None:
            return
        self._chunks.append((self.received, chunk))
        self.received += len(chunk)
        self._forget(self._window)
        self._wake()

    def resize(self, window: int) -> None:
        """As others come and go: all windows of an agent have one bound. What was forgotten does not come back."""
        if self._window is not None:
            self._window = window
            self._forget(window)

    def _forget(self, window: int) -> None:
        while self.received - self._start > window and len(self._chunks) > 1:
            offset, gone = self._chunks.popleft()
            self._start = offset + len(gone)

    def end(self, *, whole: bool) -> None:
        """Nothing more comes; `whole`: the registry has it, so it was what its digest says."""
        self._ended, self._whole = True, whole
        self._wake()

    def holds(self, offset: int) -> bool:
        """Whether one who has `offset` bytes can follow from there."""
        broken = self._ended and not self._whole
        return self._window is not None and not broken and self._start <= offset <= self.received

    async def follow(self, offset: int) -> AsyncIterator[bytes]:
        """From `offset` to the end. `FellBehind`, `Broken`; waits for what has not come yet."""
        while True:
            changed = self._changed
            if (piece := self._piece(offset)) is not None:
                offset += len(piece)
                yield piece
            elif self._ended:
                if not self._whole:
                    raise Broken("the blob did not come in whole")
                return
            else:
                await changed.wait()

    def _piece(self, offset: int) -> bytes | None:
        if offset < self._start:
            raise FellBehind(f"{offset} bytes in, and the window begins at {self._start}")
        for start, chunk in self._chunks:
            if start <= offset < start + len(chunk):
                return chunk[offset - start :]
        return None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
