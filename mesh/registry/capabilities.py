"""Cached capabilities of a registry. A registry may be upgraded or replaced, so each is cached for a minute only."""

from dataclasses import dataclass

from mesh.clock import Clock
from schemas.names import Digest, Repository

_CACHED_SECONDS = 60.0


class CachedCapability:
    """One capability that was observed at a registry, until the observation expires."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = clock.monotonic()

    def set(self) -> None:
        """Caches the capability from now on."""
        self._until = self._clock.monotonic() + _CACHED_SECONDS

    def clear(self) -> None:
        """Forgets the capability."""
        self._until = self._clock.monotonic()

    def is_set(self) -> bool:
        """Returns whether the capability was observed recently."""
        return self._clock.monotonic() < self._until


@dataclass(slots=True)
class MountCapability:
    """Whether a registry mounts a blob from the repository that already has it; many registries do not mount."""

    works: CachedCapability
    fails: CachedCapability
    known_blob: tuple[Repository, Digest] | None = None  # an existing blob to probe with
