"""Where content came from, told to a registry with a push of ours, so that its notification of it tells us again. Pure.

Registries repeat the User-Agent of a push in their notifications. Without it, what our agent put there would look as if
it had been pushed there first, and a chain of rules as if it began anew.
"""

import re

from mesh.registry.port import Chain
from schemas.envelope import MAX_HOPS
from schemas.names import PlaceName

_CHAIN = re.compile(r"regmesh/\S+ \(origin=([^;()\s]{1,127}); hops=(\d)\)", re.ASCII)


def told(user_agent: str, chain: Chain) -> str:
    """`user_agent`, with what is known of the content that is pushed."""
    return f"{user_agent} (origin={chain.origin}; hops={chain.hops})"


def heard(user_agent: object) -> Chain | None:
    """The chain of a push of ours; None of anybody else's."""
    found = _CHAIN.fullmatch(user_agent) if isinstance(user_agent, str) else None
    if found is None:
        return None
    try:
        return Chain(PlaceName(found[1]), min(int(found[2]), MAX_HOPS))
    except ValueError:
        return None
