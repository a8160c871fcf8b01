"""From a place to a client of its registry, with the credentials and networks that the operator gave."""

from collections.abc import Callable
from urllib.parse import urlsplit

from yarl import URL

from mesh.node.node import Node
from mesh.registry import auth, egress
from mesh.registry.client import RegistryEndpoint, open_endpoint
from mesh.registry.upstream import UpstreamClient
from schemas.topology import Place


def opener(node: Node, *, anonymous: bool = False) -> Callable[[Place], RegistryEndpoint]:
    """Opens endpoints on the running loop; `InvalidInput` when a place names a secret that has no value.

    `anonymous`: without any credentials, whatever is configured; what everybody sees.
    """

    def open_one(place: Place) -> RegistryEndpoint:
        host = urlsplit(place.url).netloc
        return open_endpoint(
            place.name,
            place.url,
            None if anonymous else node.secrets.credentials(place.credentials, host),
            clock=node.clock,
            random=node.random,
            allowed_networks=node.trust.networks,
            realms=node.trust.realms,
        )

    return open_one


def upstream_clients(node: Node) -> Callable[[Place], UpstreamClient]:
    """Opens ways for the requests of clients, on the running loop. No secret is looked up for them."""
    networks, realms = egress.parse_networks(node.trust.networks), auth.parse_realms(node.trust.realms)

    def open_one(place: Place) -> UpstreamClient:
        return UpstreamClient(place.name, URL(place.url), networks=networks, realms=realms)

    return open_one
