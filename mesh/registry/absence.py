"""Whether a registry has lost a tag or manifest: the one decision that every "the source does not have it" stands on.

A 404 alone says little. An ingress whose backend restarts answers 404 to everything, so does a proxy with a wrong
route, and a HEAD carries no body that tells them from a registry.
"""

from mesh.clock import Clock
from mesh.errors import AbsenceUnconfirmed, ContentMismatch, ContentRefused, NotFound, ConfirmedNotFound
from mesh.registry.port import Registry
from schemas.names import Reference, Repository

_ANSWERS = 2
_PAUSE_SECONDS = 0.5  # between two answers


async def confirm_absent(
    registry: Registry, repository: Repository, reference: Reference, *, clock: Clock
) -> bool:
    """Returns True when the registry itself says twice that it has no such manifest, and False when it has it.

    An answer counts when a GET of the manifest is refused in the OCI error form for that name (OCI distribution spec,
    "Error Codes") while `/v2/` answers as a registry.

    Raises:
        AbsenceUnconfirmed: Somebody answered 404, and not in the words of a registry. Retrying helps.
        RegistryError: The registry could not be asked.
    """
    for answer in range(_ANSWERS):
        if answer:
            await clock.sleep(_PAUSE_SECONDS)
        try:
            if await _has(registry, repository, reference):
                return False
        except NotFound as error:
            raise AbsenceUnconfirmed(
                f"a 404 that is not the registry's own proves nothing about {repository}, {reference}: {error}",
                side=error.side, status=error.status,
            ) from error  # fmt: skip
    return True


async def _has(registry: Registry, repository: Repository, reference: Reference) -> bool:
    try:
        await registry.read_manifest(repository, reference)
    except ConfirmedNotFound:
        await registry.ping()
        return False
    except (ContentMismatch, ContentRefused):
        return True  # it holds something there, which cannot be read
    return True
