"""The hosts that each secret is for, as the operator of a process named them.

What is declared on the log is no proof of that: whoever may declare an instance chooses its URL and the name of its
secret. So a secret is sent only where the operator's own configuration of this process sends it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from yarl import URL

from mesh.errors import InvalidInput
from schemas.declared import Declared
from schemas.topology import Instance, RegionDeclaration, Replica
from schemas.webhooks import Webhook

RELAYS = "relays"
"""Stands for the relays of the mesh's agents, whose addresses the agents announce to each other."""

SecretHosts = Mapping[str, Collection[str]]  # the origins of URLs, and RELAYS, by the name of the secret


def origin_of(url: str) -> str:
    """Returns scheme, host and port of a URL in one spelling, as the HTTP client reads them.

    Raises:
        InvalidInput: It is no URL with a host.
    """
    try:
        return str(URL(url).origin())
    except ValueError as error:
        raise InvalidInput(f"{url[:200]!r} is no URL of a host") from error


def hosts_named_by(things: Iterable[Declared]) -> SecretHosts:
    """Returns which hosts a mesh file names for each secret.

    Raises:
        InvalidInput: A URL beside a secret has no host that a client could connect to.
    """
    found = defaultdict[str, set[str]](set)
    for thing in things:
        match thing:
            case Instance(credentials=str(name), url=url) | Replica(credentials=str(name), url=url):
                found[name].add(origin_of(url))
            case Webhook(secret=str(name), url=url):
                found[name].add(origin_of(url))
            case RegionDeclaration(relay=relay) if relay is not None:
                found[relay.secret].add(RELAYS)
                found[relay.secret] |= {origin_of(relay.url)} if relay.url is not None else set()
    return found


def parse_hosts(variable: str, text: str) -> frozenset[str]:
    """Returns the origins in the value of `REGMESH_SECRET_<NAME>_HOSTS`.

    Args:
        variable: Where the text comes from, for the error.
        text: Entries with commas or spaces between them: `HOST[:PORT]` for https, `http://HOST[:PORT]`, or `relays`.

    Raises:
        InvalidInput: An entry is none of these.
    """
    return frozenset(_parse_entry(variable, entry) for entry in text.replace(",", " ").split())


def _parse_entry(variable: str, entry: str) -> str:
    if entry == RELAYS:
        return entry
    try:
        url = URL(entry if "://" in entry else f"https://{entry}")
        if url.scheme in ("http", "https") and url.host and url.raw_path == "/" and "*" not in url.host:
            return origin_of(str(url))
    except ValueError:
        pass
    raise InvalidInput(
        f"{variable}: {entry[:100]!r} is no host: use HOST[:PORT], or http://HOST[:PORT] without TLS"
    )
