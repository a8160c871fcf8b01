"""Clients for the registries of places, with the operator's credentials and allowed networks."""

from collections.abc import Callable
from typing import Protocol

from yarl import URL

from mesh.clock import Clock
from mesh.credentials.secrets import Secrets
from mesh.node.node import Node, Trust
from mesh.registry import auth, egress
from mesh.registry.client import RegistryEndpoint, open_endpoint
from mesh.registry.upstream import UpstreamClient
from schemas.topology import Place


class RegistryPorts(Protocol):
    """What opening a registry needs of a process; a node has it."""

    @property
    def clock(self) -> Clock:
        """The clock of its time-outs."""
        ...

    @property
    def secrets(self) -> Secrets:
        """The operator's secrets."""
        ...

    @property
    def trust(self) -> Trust:
        """Where registries may redirect to."""
        ...

    def random(self) -> float:
        """Returns a number from [0, 1) for jitter."""
        ...


def opener(node: RegistryPorts, *, anonymous: bool = False) -> Callable[[Place], RegistryEndpoint]:
    """Returns a function that opens a place's registry on the running event loop.

    The function raises `InvalidInput` when the place names a secret that has no value or is not for its host.

    Args:
        anonymous: Use no credentials, whatever is configured, to see what everybody can see.
    """

    def open_one(place: Place) -> RegistryEndpoint:
        return open_endpoint(
            place.name,
            place.url,
            None if anonymous else node.secrets.credentials(place.credentials, place.url),
            clock=node.clock,
            random=node.random,
            allowed_networks=node.trust.networks,
            realms=node.trust.realms,
        )

    return open_one


def upstream_clients(node: Node) -> Callable[[Place], UpstreamClient]:
    """Returns a function that opens a client for passing on requests, which carry their own credentials."""
    networks, realms = egress.parse_networks(node.trust.networks), auth.parse_realms(node.trust.realms)

    def open_one(place: Place) -> UpstreamClient:
        return UpstreamClient(place.name, URL(place.url), networks=networks, realms=realms)

    return open_one
