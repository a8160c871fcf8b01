"""Whether a registry has lost a tag or manifest: the one decision that every "the source does not have it" stands on.

A 404 alone says little. An ingress whose backend restarts answers 404 to everything, so does a proxy with a wrong
route, and a HEAD carries no body that tells them from a registry.
"""

from mesh.clock import Clock
from mesh.errors import AbsenceUnconfirmed, ConfirmedNotFound, NotFound
from mesh.registry.port import Descriptor, Registry
from schemas.names import Reference, Repository

_ANSWERS = 2
_PAUSE_SECONDS = 0.2  # between two answers


async def resolve_confirmed(
    registry: Registry, repository: Repository, reference: Reference, *, clock: Clock
) -> Descriptor | None:
    """Returns what the registry has under the reference; None only when the registry itself says twice that it has not.

    A refusal counts when a GET of the manifest is answered in the OCI error form for that name (OCI distribution spec,
    "Error Codes") while `/v2/` answers as a registry.

    Raises:
        AbsenceUnconfirmed: Somebody answered 404, and not in the words of a registry. Retrying helps.
        RegistryError: The registry could not be asked, or what it holds cannot be read.
    """
    found = await registry.resolve(repository, reference)
    for answer in range(_ANSWERS):
        if found is not None:
            return found
        if answer:
            await clock.sleep(_PAUSE_SECONDS)
        try:
            found = await _read(registry, repository, reference)
        except NotFound as error:
            raise AbsenceUnconfirmed(
                f"a 404 that is not the registry's own proves nothing about {repository}, {reference}: {error}",
                side=error.side, status=error.status,
            ) from error  # fmt: skip
    return found


async def _read(registry: Registry, repository: Repository, reference: Reference) -> Descriptor | None:
    try:
        return (await registry.read_manifest(repository, reference)).descriptor
    except ConfirmedNotFound:
        await registry.ping()
        return None
