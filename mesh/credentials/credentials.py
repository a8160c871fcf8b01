"""What a registry takes us by: given once, or asked for anew when it is needed."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from mesh.errors import InvalidInput
from schemas.completions import Side


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry asks for. With no user, the password is a bearer token.

    An identity token goes to nobody but the registry's token server, which gives bearer tokens for it.
    """

    user: str | None
    password: str = field(repr=False)
    is_identity: bool = False

    @property
    def is_bearer(self) -> bool:
        return self.user is None and not self.is_identity

    @property
    def at_hand(self) -> "Credentials":
        return self

    async def ask(self, side: Side, *, refused: "Credentials | None" = None) -> "Credentials":  # noqa: ARG002
        return self


class AskedFor(Protocol):
    """Credentials that may change while we run; those that never do are the simplest of them."""

    @property
    def at_hand(self) -> Credentials | None:
        """What may be shown without asking anew, until it is refused; None: nothing is kept, so ask."""
        ...

    async def ask(self, side: Side, *, refused: Credentials | None = None) -> Credentials | None:
        """What holds now; None: there are none. `refused` were taken no more: others, if there are any by now.

        Raises `HelperFailed`, as of that side.
        """
        ...


class LookedUp:
    """A secret that may be rotated, and may be somewhere else by then: `AskedFor`, looked up each time it is asked."""

    def __init__(self, look_up: Callable[[], AskedFor | None]) -> None:
        """Raises what `look_up` does, now; later, what we have stays while it raises `InvalidInput`."""
        self._look_up = look_up
        self._found = look_up()

    @property
    def at_hand(self) -> Credentials | None:
        return self._found.at_hand if self._found is not None else None

    async def ask(self, side: Side, *, refused: Credentials | None = None) -> Credentials | None:
        with contextlib.suppress(InvalidInput):  # a file is being replaced
            self._found = self._look_up()
        return await self._found.ask(side, refused=refused) if self._found is not None else None
