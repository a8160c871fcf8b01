"""Writes the fallback list of referrers: an index under a tag, which clients maintain where there is no referrers API.

A registry has no conditional write of a tag, so concurrent clients can lose each other's entries. An agent reads the
list right before it writes and twice afterwards, and writes again when an entry is missing.
"""

from collections.abc import Sequence

from mesh.clock import Clock
from mesh.errors import NotFound, RegistryError
from mesh.registry.port import Manifest, Registry
from mesh.registry.referrers import fallback_tag, merged
from schemas.completions import Side
from schemas.names import Digest, Repository

_MOST_ATTEMPTS = 20
_RECHECK_SECONDS = 0.1  # longer than another client takes between its read and its write


async def add(
    registry: Registry,
    repository: Repository,
    subject: Digest,
    referrers: Sequence[Manifest],
    *,
    clock: Clock,
) -> None:
    """Adds `referrers`, which must exist by digest, to the list of `subject`. Call it for one subject at a time.

    Raises:
        FallbackContended: Others write so often that the entries do not stay.
    """
    tag = fallback_tag(subject)
    for _ in range(_MOST_ATTEMPTS):
        before = await _read(registry, repository, subject)
        index = merged(before, referrers)
        if index is None:
            return
        now = await registry.resolve(repository, tag)
        if (now.digest if now else None) != (before.digest if before else None):
            continue
        await registry.write_manifest(repository, tag, index)
        if await _stays(registry, repository, subject, referrers, clock):
            return
    raise FallbackContended(f"other clients keep writing {repository}:{tag}", side=Side.DESTINATION)


async def _stays(
    registry: Registry, repository: Repository, subject: Digest, referrers: Sequence[Manifest], clock: Clock
) -> bool:
    for pause in (0.0, _RECHECK_SECONDS):
        await clock.sleep(pause)
        found = await _read(registry, repository, subject)
        if merged(found, referrers) is not None:
            return False
    return True


async def _read(registry: Registry, repository: Repository, subject: Digest) -> Manifest | None:
    try:
        return await registry.read_manifest(repository, fallback_tag(subject))
    except NotFound:
        return None


class FallbackContended(RegistryError):
    """Other clients keep writing the list of referrers."""

    code = "fallback_contended"
    retryable = True
