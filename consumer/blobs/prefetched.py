"""Blobs that came ahead of the manifest that names them: how many bytes that may be, and which nobody named. No I/O."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from consumer.task import BlobKey
from schemas.names import Digest, PlaceName, Region

UNNAMED_AFTER = 3600.0  # seconds; by then whoever pushes has pushed the manifest, or never will


@dataclass(frozen=True, slots=True)
class _Came:
    size: int
    sent: Counter[Region]
    began: float


class PrefetchedBlobs:
    """Of one agent. Times are of its monotonic clock."""

    def __init__(self, region_budget: int, agents_here: Callable[[], int] = lambda: 1) -> None:
        """`region_budget`: bytes of what came and was not named yet, shared alike by the agents that live."""
        self._region_budget, self._agents_here = region_budget, agents_here
        self._coming: dict[BlobKey, tuple[int, float]] = {}
        self._came: OrderedDict[BlobKey, _Came] = OrderedDict()  # and waits to be named, oldest first
        self.bytes_waiting = 0

    @property
    def budget(self) -> int:
        """Bytes, of this agent alone. A region's budget does not grow with its agents."""
        return self._region_budget // max(1, self._agents_here())

    def is_coming(self, blob_key: BlobKey) -> bool:
        return blob_key in self._coming

    def begin(self, blob_key: BlobKey, size: int, now: float) -> bool:
        """Whether it may come; False when it is coming or has come already, or the budget is used up."""
        if blob_key in self._coming or blob_key in self._came or self.bytes_waiting + size > self.budget:
            return False
        self._coming[blob_key] = size, now
        self.bytes_waiting += size
        return True

    def came(self, blob_key: BlobKey, sent: Mapping[Region, int]) -> None:
        """It is at the destination; `sent`: how much of it came from which region."""
        size, began = self._coming.pop(blob_key)
        self._came[blob_key] = _Came(size, Counter(sent), began)

    def end(self, blob_key: BlobKey) -> None:
        """It is not coming any more. What has come stays."""
        size, _ = self._coming.pop(blob_key, (0, 0.0))
        self.bytes_waiting -= size

    def claim(self, blob_key: BlobKey) -> Counter[Region] | None:
        """A manifest names it: who sent how much of it. None when it did not come ahead, or was claimed before."""
        found = self._came.pop(blob_key, None)
        if found is None:
            return None
        self.bytes_waiting -= found.size
        return found.sent

    def never_named(self, now: float) -> list[tuple[PlaceName, Digest, int]]:
        """Those that were waited for long enough; they are forgotten, and their bytes are free for others."""
        found = []
        while self._came and (oldest := next(iter(self._came.items())))[1].began <= now - UNNAMED_AFTER:
            blob_key, came = oldest
            self.claim(blob_key)
            found.append((*blob_key, came.size))
        return found
