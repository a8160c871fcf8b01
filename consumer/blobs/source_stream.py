"""One blob as a stream, from one holder after the other, verified as a whole."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, Self

import structlog

from consumer.blobs.relay.waits import Waits
from consumer.task import Task
from mesh.errors import ContentMismatch, Denied, RegistryError, RegmeshError, Unreachable
from mesh.registry.port import Descriptor, Registry
from mesh.registry.verify import Verifier
from schemas.completions import Side
from schemas.names import PlaceName, Region

LOG = structlog.get_logger()

DISTRUST_SECONDS = 60.0  # of who lied, or does not answer
LATE_SECONDS = 30.0  # of who was waited for in vain, or broke off


@dataclass(frozen=True, slots=True)
class Holder:
    """One who may send a blob."""

    key: str  # by which it is dropped for a while: a place's name, for a relay's with its address
    address: str  # where it is reached: what does not answer there is dropped for all places
    name: PlaceName
    region: Region
    read: Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]]  # from so many bytes on
    is_relay: bool = False


class HolderKeeper(Protocol):
    """What is known of holders by all blobs of an agent."""

    def trusts(self, holder: Holder) -> bool: ...

    def drop(self, name: str, why: RegmeshError, seconds: float = DISTRUST_SECONDS) -> None: ...

    async def wait_for(
        self, holder: Holder, task: Task, blob: Descriptor, stack: AsyncExitStack, waits: Waits
    ) -> AsyncIterator[bytes]: ...


class SourceStream:
    """An async iterator of chunks, from one holder after the other; to be entered, opened once, and closed.

    What is entered waits for a relay if one comes first, and holds nothing else open: it may take long until the blob
    has its turn. `open` asks the next ones, down to the origin; it waits for nobody that has to be sent the blob first.

    Not a generator: an upload reads it from a task of its own, and a generator can't be closed while it runs there.
    """

    def __init__(
        self,
        blob: Descriptor,
        task: Task,
        holders: Sequence[Holder],
        origin: Registry,
        sources: HolderKeeper,
        waits: Waits,
    ) -> None:
        self._blob, self._task, self._sources, self._waits = blob, task, sources, waits
        self._holders = list(holders)
        self._origin = origin
        self.is_shared = bool(holders)
        self._verifier = Verifier(blob, Side.SOURCE)
        self._stack = AsyncExitStack()
        self._chunks: AsyncIterator[bytes] | None = None
        self._used: list[str] = []
        self.name, self.region = task.source.name, task.source.region  # of who sends now
        self._is_origin = False

    async def __aenter__(self) -> Self:
        while self._chunks is None and self._holders and self._holders[0].is_relay:
            await self._try(self._holders.pop(0), self._awaited)
        return self

    async def open(self) -> None:
        """Raises what the origin says, when nobody else has it."""
        if self._chunks is None:
            await self._next_holder()

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def __aiter__(self) -> "SourceStream":
        return self

    async def __anext__(self) -> bytes:
        while True:
            assert self._chunks is not None
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                if self.is_shared and not self._verifier.complete:
                    await self._next_holder()
                    continue
                if self.is_shared:  # what one registry sent alone was verified there
                    with self._liars_are_dropped():
                        self._verifier.check()
                raise
            except RegistryError as error:
                if self._is_origin:
                    raise
                self._sources.drop(self._used[-1], error, LATE_SECONDS)
                await self._next_holder()
            else:
                if self.is_shared:
                    with self._liars_are_dropped():
                        self._verifier.add(chunk)
                return chunk

    async def _next_holder(self) -> None:
        """Of those that are left the first that can be opened. The origin's error passes through."""
        await self._stack.aclose()
        self._chunks = None
        while self._holders:
            if await self._try(self._holders.pop(0), self._at_once):
                return
        self.name, self.region, self._is_origin = self._task.source.name, self._task.source.region, True
        offset = self._verifier.received if self.is_shared else None
        reading = self._origin.read_blob(self._task.repository, self._blob, offset=offset)
        self._chunks = await self._stack.enter_async_context(reading)

    async def _try(
        self, holder: Holder, opening: Callable[[Holder], Awaitable[AsyncIterator[bytes]]]
    ) -> bool:
        if not self._sources.trusts(holder):  # since it was found
            return False
        try:
            self._chunks = await opening(holder)
        except RegistryError as error:
            LOG.info("a holder was passed over", action="source_passed", source=holder.name, error=str(error))
            if isinstance(error, Unreachable):
                self._sources.drop(holder.address, error)
            elif error.retryable or isinstance(error, Denied):
                self._sources.drop(holder.key, error)
            return False
        self.name, self.region = holder.name, holder.region
        self._used.append(holder.key)
        return True

    async def _awaited(self, holder: Holder) -> AsyncIterator[bytes]:
        return await self._sources.wait_for(holder, self._task, self._blob, self._stack, self._waits)

    async def _at_once(self, holder: Holder) -> AsyncIterator[bytes]:
        return await self._stack.enter_async_context(holder.read(self._verifier.received))

    @contextmanager
    def _liars_are_dropped(self) -> Iterator[None]:
        """Whose bytes were wrong nobody can tell, so all who sent some."""
        try:
            yield
        except ContentMismatch as error:
            for name in self._used:
                self._sources.drop(name, error)
            raise
