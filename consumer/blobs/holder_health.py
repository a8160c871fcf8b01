"""The health of blob holders: which place or relay is not asked for a while, whatever blob is wanted."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import structlog
from cachetools import TLRUCache

from mesh.clock import Clock
from mesh.errors import Denied, RegmeshError, Unreachable
from mesh.metrics import Metrics
from schemas.names import PlaceName, Region

LOG = structlog.get_logger()

DISTRUST_SECONDS = 60.0  # for a holder that sent wrong bytes, or does not answer
LATE_SECONDS = 30.0  # for a holder that kept a blob waiting in vain, or broke off
_MOST_DROPPED = 10_000  # keys and addresses


@dataclass(frozen=True, slots=True)
class Holder:
    """A place or a relay that may send one blob.

    `key` identifies the holder: a place's name, for a relay with its address. An unreachable `address` is dropped for
    all its places. `read` opens the blob from an offset in bytes.
    """

    key: str
    address: str
    name: PlaceName
    region: Region
    read: Callable[[int], AbstractAsyncContextManager[AsyncIterator[bytes]]]
    is_relay: bool = False


class HolderHealth:
    """The holders that an agent has dropped, and until when."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock, self._metrics = clock, metrics
        self._dropped_until: TLRUCache[str, float] = TLRUCache(
            _MOST_DROPPED, ttu=lambda _name, until, _now: until, timer=clock.monotonic
        )

    def is_trusted(self, holder: Holder) -> bool:
        """Returns whether the holder may be asked now."""
        return holder.key not in self._dropped_until and holder.address not in self._dropped_until

    def drop(self, name: str, error: RegmeshError, seconds: float = DISTRUST_SECONDS) -> None:
        """Drops a holder by its key, or all holders at an address, for so many seconds."""
        until = self._clock.monotonic() + seconds
        self._dropped_until[name] = max(until, self._dropped_until.get(name, until))
        self._metrics.sources_dropped.labels(error.code).inc()
        LOG.warning("a holder of blobs is dropped", action="source_dropped", source=name, error=str(error))

    def report_failure(self, holder: Holder, error: RegmeshError) -> None:
        """Records that the holder could not be opened. One that merely lacks the blob stays trusted."""
        LOG.info("a holder was skipped", action="source_skipped", source=holder.name, error=str(error))
        if isinstance(error, Unreachable):
            self.drop(holder.address, error)
        elif error.retryable or isinstance(error, Denied):
            self.drop(holder.key, error)
