"""What the `relay` of a declared region gives its agent: the URL to announce, and keys from the operator's secrets."""

import structlog

from consumer.blobs.relay.access import RelayAccess
from consumer.blobs.relay.signing import RegionKeys, RelayKeys, parse_keys
from mesh.errors import InvalidInput
from mesh.node.node import Node
from schemas.names import Region
from schemas.topology import Relay

LOG = structlog.get_logger()


def declared_relay(node: Node, region: Region, own_url: str | None) -> RelayAccess:
    """Returns the relay's URL and keys as the region declares them; `own_url` is for a region without a URL.

    Whoever gets a request can try out secrets on its signature. So a secret is used only if the operator of this
    process named relays for it, and with a declared URL only if that is named for it too: requests are signed for the
    announced URL, so who answers there could pass them on to this agent.
    """
    refused: str | None = None

    def declared() -> Relay | None:
        found = node.state.region(region)
        return found.relay if found is not None else None

    def report(reason: str | None) -> None:
        nonlocal refused
        if reason is not None and reason != refused:
            LOG.warning("nothing is relayed", action="relay_secret_refused", region=region, reason=reason)
        refused = reason

    def keys() -> RelayKeys | None:
        if (relay := declared()) is None:
            return None
        try:
            found = _keys_of(node, region, relay)
        except InvalidInput as error:
            report(str(error))
            return None  # without a secret, blobs are read from registries only
        report(None)
        return found

    def url() -> str | None:
        if keys() is None:
            return None
        relay = declared()
        return (relay.url or own_url) if relay is not None else None

    return RelayAccess(url, keys)


def _keys_of(node: Node, region: Region, relay: Relay) -> RelayKeys:
    """Returns the keys that a declared relay's secret holds.

    Raises:
        InvalidInput: The operator of this process did not name it for relays and the relay's URL, or it has no keys of
            this region.
    """
    value = node.secrets.get_for_relays(relay.secret)
    if relay.url is not None:
        node.secrets.get_for(relay.secret, relay.url)
    keys = parse_keys(value)
    if isinstance(keys, RegionKeys) and keys.region != region:
        raise InvalidInput(f"secret {relay.secret!r} has the keys of region {keys.region}, not of {region}")
    return keys
