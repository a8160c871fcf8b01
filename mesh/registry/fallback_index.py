"""The list of referrers of a registry without the referrers API: an index under a tag, which its clients keep.

A registry cannot write a tag only if it is unchanged, so two clients that write at once can lose each other's
entries. Ours look right before they write and twice afterwards, and write again when something is missing.
"""

from collections.abc import Sequence

from mesh.clock import Clock
from mesh.errors import NotFound, RegistryError
from mesh.registry.port import Manifest, Registry
from mesh.registry.referrers import fallback_tag, merged
from schemas.completions import Side
from schemas.names import Digest, Repository

_MOST_TRIES = 20
_LOOK_AGAIN_SECONDS = 0.1  # longer than another's way from its last look to its write


async def add(
    registry: Registry,
    repository: Repository,
    subject: Digest,
    referrers: Sequence[Manifest],
    *,
    clock: Clock,
) -> None:
    """List `referrers` under the fallback tag of `subject`, beside whatever is listed there already.

    They must be there by digest. To be called for one subject at a time. `FallbackContended` (retryable) when others
    write so often that ours do not stay.
    """
    tag = fallback_tag(subject)
    for _ in range(_MOST_TRIES):
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
    raise FallbackContended(f"others write {repository}:{tag} all the time", side=Side.DESTINATION)


async def _stays(
    registry: Registry, repository: Repository, subject: Digest, referrers: Sequence[Manifest], clock: Clock
) -> bool:
    for pause in (0.0, _LOOK_AGAIN_SECONDS):
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
    code = "fallback_contended"
    retryable = True
