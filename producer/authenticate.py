"""Authentication of notifications: registries send static headers only, and none signs its bodies."""

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiohttp import web

from mesh.errors import InvalidInput
from mesh.loopback import is_local
from schemas.names import SecretName
from schemas.topology import Instance

LOG = structlog.get_logger()


class SecretStore(Protocol):
    """Where the values of secrets are."""

    def find(self, name: str) -> str | None:
        """Returns the value of a secret, or None when it has none."""
        ...


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An HTTP status and what the operator should do. Never contains what the sender presented."""

    status: int
    message: str


def authenticate(request: web.Request, instance: Instance, secrets: SecretStore) -> ErrorAnswer | None:
    """Returns why the request may not send notifications of `instance`; None when it may."""
    if instance.intake_secret is None:
        return None if _is_from_this_machine(request) else _only_local(instance)
    expected = _value(instance.intake_secret, secrets)
    if expected is None:
        return ErrorAnswer(
            403,
            f"the intake_secret of instance {instance.name!r} has no value on this node; its log says more",
        )
    # A list: every candidate is compared, so that the time does not depend on which one matches.
    if any([_same(presented, expected) for presented in _presented(request)]):  # noqa: C419
        return None
    return ErrorAnswer(
        401,
        f"the intake_secret of instance {instance.name!r} is missing or wrong: send it as "
        "`Authorization: Bearer SECRET`, or as `?token=SECRET` where the registry cannot set headers",
    )


def _only_local(instance: Instance) -> ErrorAnswer:
    return ErrorAnswer(
        403,
        f"instance {instance.name!r} has no intake_secret, so its notifications are accepted only directly from "
        "this machine; declare an intake_secret and send it as `Authorization: Bearer SECRET`",
    )


def _value(name: SecretName, secrets: SecretStore) -> str | None:
    """Returns the secret, or None when it is empty: an empty token must not authenticate anybody."""
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


def _is_from_this_machine(request: web.Request) -> bool:
    # A browser here sends what any page tells it to send; it adds `Origin`.
    return is_local(request) and "Origin" not in request.headers
