"""The chain of a push in its User-Agent, which registries repeat in their notifications. Pure.

Without it an agent's own push would look like a new push by a client, and each rule would start a new chain.
"""

import re

from mesh.registry.port import Chain
from schemas.envelope import MAX_HOPS
from schemas.names import PlaceName

_CHAIN = re.compile(r"regmesh/\S+ \(origin=([^;()\s]{1,127}); hops=(\d)\)", re.ASCII)


def format_user_agent(user_agent: str, chain: Chain) -> str:
    """Returns `user_agent` with the chain appended as a comment."""
    return f"{user_agent} (origin={chain.origin}; hops={chain.hops})"


def parse_user_agent(user_agent: object) -> Chain | None:
    """Returns the chain of an agent's push, or None for any other User-Agent."""
    found = _CHAIN.fullmatch(user_agent) if isinstance(user_agent, str) else None
    if found is None:
        return None
    try:
        return Chain(PlaceName(found[1]), min(int(found[2]), MAX_HOPS))
    except ValueError:
        return None
