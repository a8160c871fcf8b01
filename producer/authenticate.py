"""May this request speak for the instance in its path? Registries send static headers only; none signs its bodies."""

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Protocol

import structlog
from aiohttp import web

from mesh.errors import InvalidInput
from schemas.names import SecretName
from schemas.topology import Instance

LOG = structlog.get_logger()

# What a proxy or a browser adds: behind either, a loopback peer says nothing about who speaks.
_NOT_DIRECT = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via", "Origin")


class FindsSecrets(Protocol):
    def find(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP status and what the operator should do. Never what was presented."""

    status: int
    message: str


def refusal(request: web.Request, instance: Instance, secrets: FindsSecrets) -> Refusal | None:
    """None when the request may speak for `instance`."""
    if instance.intake_secret is None:
        return None if _is_local(request) else _only_local(instance)
    expected = _value(instance.intake_secret, secrets)
    if expected is None:
        return Refusal(
            403,
            f"the intake_secret of instance {instance.name!r} has no value on this node; its log says more",
        )
    if any([_same(presented, expected) for presented in _presented(request)]):  # noqa: C419  # all, always
        return None
    return Refusal(
        401,
        f"the intake_secret of instance {instance.name!r} is missing or wrong: send it as "
        "`Authorization: Bearer SECRET`, or as `?token=SECRET` where the registry cannot set headers",
    )


def _only_local(instance: Instance) -> Refusal:
    return Refusal(
        403,
        f"instance {instance.name!r} has no intake_secret, so its notifications are taken only straight from "
        "this machine; declare an intake_secret and send it as `Authorization: Bearer SECRET`",
    )


def _value(name: SecretName, secrets: FindsSecrets) -> str | None:
    """The secret; an empty one counts as none, or an empty token would open the door."""
    try:
        found = secrets.find(name)
    except InvalidInput as error:
        LOG.warning(
            "intake secret unreadable", action="intake_secret_unreadable", secret=name, error=str(error)
        )
        return None
    if not found:
        LOG.warning("intake secret without value", action="intake_secret_without_value", secret=name)
    return found or None


def _presented(request: web.Request) -> Iterator[str]:
    for header in request.headers.getall("Authorization", []):
        scheme, _, rest = header.strip().partition(" ")
        yield rest.strip() if scheme.lower() == "bearer" else header.strip()
    yield from request.query.getall("token", [])


def _same(presented: str, expected: str) -> bool:
    return hmac.compare_digest(presented.encode(errors="surrogateescape"), expected.encode())


def _is_local(request: web.Request) -> bool:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not isinstance(peer, tuple) or any(header in request.headers for header in _NOT_DIRECT):
        return False
    return is_loopback(str(peer[0]))


@lru_cache(maxsize=1024)  # registries are few, and their addresses stay
def is_loopback(host: str) -> bool:
    """Of a peer's address as a socket names it: with a zone, or IPv4 mapped into IPv6."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
