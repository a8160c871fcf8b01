"""containerd's `hosts.toml` for a domain: the places of a region's clients, nearest first. Pure.

containerd asks the hosts in their order and goes on to the next when one fails or has not what it asks for; `server`
comes last. None of them may be pushed to: replicas are filled by the mesh alone.
"""

from collections.abc import Iterable, Sequence

import orjson

from mesh.gateway.nearest import Holders
from schemas.names import Region


def render(domain: str, region: Region, holders: Sequence[Holders], gateway: str | None = None) -> str:
    """The file for `<config_path>/<domain>/hosts.toml`. `gateway` is asked before all places."""
    lines = [f"# {domain} for clients in {region}, nearest first", f'server = "https://{domain}"', ""]
    if gateway is not None:
        lines += _host(gateway, f"the gateway of {region}")
    for one in holders:
        for candidate in one.candidates:
            lines += _host(candidate.place.url, f"{candidate.place.name} in {candidate.place.region}")
    return "\n".join(lines)


def _host(url: str, what: str) -> Iterable[str]:
    # A JSON string is a TOML string too.
    return (
        f"# {what}", f"[host.{orjson.dumps(url.rstrip('/')).decode()}]", '  capabilities = ["pull", "resolve"]', "",
    )  # fmt: skip
