"""Credentials of a registry: fixed ones, and providers whose credentials change while the process runs."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mesh.errors import InvalidInput
from schemas.completions import Side


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry asks for; the simplest `CredentialProvider`. With no user, the password is a bearer token.

    An identity token is sent only to the registry's token server, which issues bearer tokens for it.
    """

    user: str | None
    password: str = field(repr=False)
    is_identity: bool = False

    @property
    def is_bearer(self) -> bool:
        """Whether the password is a bearer token."""
        return self.user is None and not self.is_identity

    @property
    def cached(self) -> "Credentials":
        """Returns itself: fixed credentials never expire."""
        return self

    async def refresh(self, side: Side, *, rejected: "Credentials | None" = None) -> "Credentials":  # noqa: ARG002
        """Returns itself: fixed credentials have no successor."""
        return self


class CredentialProvider(Protocol):
    """Gives the credentials of one registry, which may change while the process runs."""

    @property
    def cached(self) -> Credentials | None:
        """The credentials to use until the registry rejects them; None when each use needs a `refresh`."""
        ...

    async def refresh(self, side: Side, *, rejected: Credentials | None = None) -> Credentials | None:
        """Returns the current credentials, or None for anonymous access.

        Args:
            side: The side of a task that the registry is on, for the error.
            rejected: Credentials that the registry has just rejected; a cached copy of them is looked up again.

        Raises:
            HelperFailed: The program that keeps the credentials did not return them.
        """
        ...


class RefreshingCredentials:
    """A `CredentialProvider` that looks its source up at each refresh, so that a rotated secret is found.

    While a lookup fails (a file is being replaced), the credentials of the last lookup stay valid.

    Raises:
        InvalidInput: The first lookup failed.
    """

    def __init__(self, look_up: Callable[[], CredentialProvider | None]) -> None:
        self._look_up = look_up
        self._provider = look_up()

    @property
    def cached(self) -> Credentials | None:
        """The cached credentials of the provider that the last lookup found."""
        return self._provider.cached if self._provider is not None else None

    async def refresh(self, side: Side, *, rejected: Credentials | None = None) -> Credentials | None:
        """Returns the credentials of the provider that is configured now, or None for anonymous access."""
        with contextlib.suppress(InvalidInput):
            self._provider = self._look_up()
        return await self._provider.refresh(side, rejected=rejected) if self._provider is not None else None
