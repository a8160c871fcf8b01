"""What a registry takes us by: given once, or asked for anew when it is needed."""

from dataclasses import dataclass, field
from typing import Protocol

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


class AskedFor(Protocol):
    """Credentials that do not last, so that they are asked for each time they are used."""

    async def ask(self, side: Side, *, refused: Credentials | None = None) -> Credentials | None:
        """What holds now; None: there are none. `refused` were taken no more: others, if there are any by now.

        Raises `HelperFailed`, as of that side.
        """
        ...
