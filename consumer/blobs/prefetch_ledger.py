"""The bookkeeping of prefetched blobs: their budget in bytes, and which of them no manifest has named. No I/O."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from consumer.task import BlobKey
from schemas.names import Digest, PlaceName, Region

UNNAMED_AFTER = 3600.0  # seconds; a client that pushes blobs pushes their manifest before, or never


@dataclass(frozen=True, slots=True)
class _Prefetched:
    size: int
    sent: Counter[Region]
    started: float


class PrefetchLedger:
    """The prefetched blobs of one agent that no manifest has named yet. Times are of its monotonic clock."""

    def __init__(self, region_budget: int, agents_here: Callable[[], int] = lambda: 1) -> None:
        """`region_budget` is in bytes; the live agents of the region share it equally."""
        self._region_budget, self._agents_here = region_budget, agents_here
        self._in_progress: dict[BlobKey, tuple[int, float]] = {}  # size and start
        self._unnamed: dict[BlobKey, _Prefetched] = {}
        self.bytes_reserved = 0  # of blobs in progress or unnamed

    @property
    def budget(self) -> int:
        """This agent's share of the budget, in bytes."""
        return self._region_budget // max(1, self._agents_here())

    def is_in_progress(self, blob_key: BlobKey) -> bool:
        """Returns whether the blob is being prefetched."""
        return blob_key in self._in_progress

    def start(self, blob_key: BlobKey, size: int, now: float) -> bool:
        """Reserves budget for a blob. Returns False when it is known already or the budget is used up."""
        if (
            blob_key in self._in_progress
            or blob_key in self._unnamed
            or self.bytes_reserved + size > self.budget
        ):
            return False
        self._in_progress[blob_key] = size, now
        self.bytes_reserved += size
        return True

    def complete(self, blob_key: BlobKey, sent: Mapping[Region, int]) -> None:
        """Records that the blob is at the destination, and how many bytes each region sent."""
        size, started = self._in_progress.pop(blob_key)
        self._unnamed[blob_key] = _Prefetched(size, Counter(sent), started)

    def end(self, blob_key: BlobKey) -> None:
        """Releases the budget of a blob that is not complete. A complete blob stays."""
        size, _ = self._in_progress.pop(blob_key, (0, 0.0))
        self.bytes_reserved -= size

    def claim(self, blob_key: BlobKey) -> Counter[Region] | None:
        """Releases a blob that a manifest names.

        Returns:
            How many bytes each region sent; None when the blob was not prefetched or was claimed before.
        """
        found = self._unnamed.pop(blob_key, None)
        if found is None:
            return None
        self.bytes_reserved -= found.size
        return found.sent

    def expire(self, now: float) -> list[tuple[PlaceName, Digest, int]]:
        """Releases the blobs that no manifest named within an hour; returns their place, digest and size."""
        expired = {key: it.size for key, it in self._unnamed.items() if it.started <= now - UNNAMED_AFTER}
        for blob_key in expired:
            self.claim(blob_key)
        return [(*blob_key, size) for blob_key, size in expired.items()]
