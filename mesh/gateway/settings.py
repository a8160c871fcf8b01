"""The options of a gateway on its command line, and its limits."""

from dataclasses import dataclass

from pydantic import Field

from mesh.settings import Settings


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How clients reach a gateway.

    Args:
        domain: Served whatever the Host header names; None = the Host header decides.
        behind_proxy: Whether X-Forwarded-Proto is trusted.
    """

    domain: str | None = None
    behind_proxy: bool = False


class GatewaySettings(Settings):
    """Limits of a gateway."""

    probe_interval: float = Field(3.0, gt=0)
    """How long the gateway pauses between two probes of all places, in seconds."""

    manifest_timeout: float = Field(30.0, gt=0)
    """How long a place may take to send a whole manifest, in seconds; then the next place is asked."""

    client_stall_timeout: float = Field(60.0, gt=0)
    """How long a client may read nothing of a response, in seconds; then its connection is closed."""

    blob_resumes: int = Field(5, ge=0)
    """How often a blob that breaks off is resumed from a place, for one pull."""

    miss_interval: float = Field(60.0, gt=0)
    """How long after a miss of a tag at a replica no other replication of it is started, in seconds."""

    repository_miss_interval: float = Field(600.0, gt=0)
    """The same for misses by digest, which replicate a whole repository, in seconds."""

    negative_cache_size: int = Field(100_000, gt=0)
    """How many missing tags and lists of instances are remembered, for when their registries do not answer."""
