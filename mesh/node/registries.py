"""From an instance to a client of its registry, with the credentials and networks that the operator gave."""

from collections.abc import Callable
from urllib.parse import urlsplit

from mesh.node.node import Node
from mesh.registry.client import RegistryEndpoint, open_endpoint
from schemas.topology import Instance


def opener(node: Node, *, anonymous: bool = False) -> Callable[[Instance], RegistryEndpoint]:
    """Opens endpoints on the running loop; `InvalidInput` when an instance names a secret that has no value.

    `anonymous`: without any credentials, whatever is configured; what everybody sees.
    """

    def open_one(instance: Instance) -> RegistryEndpoint:
        host = urlsplit(instance.url).netloc
        return open_endpoint(
            instance.name,
            instance.url,
            None if anonymous else node.secrets.credentials(instance.credentials, host),
            clock=node.clock,
            random=node.random,
            allowed_networks=node.trust.networks,
            realms=node.trust.realms,
        )

    return open_one
