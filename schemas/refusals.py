"""Notifications that an intake refused, for the operator who has to fix it: registries do not show refusals."""

from typing import ClassVar

from pydantic import Field

from schemas.envelope import Record, Time

OTHERS = "*"  # stands for all undeclared names, since a sender can invent any number of them


class Refusal(Record):
    """What one intake refused for one instance. Topic `mesh.<region>.status`, written again while it continues."""

    kind: ClassVar[str] = "refusal"

    intake: str
    instance: str = Field(max_length=128)  # from the path: it may be undeclared, or `OTHERS`
    status: int  # of the last one: 401, 403 or 404
    reason: str = Field(max_length=1024)  # what to do about it; never the credentials that were sent
    count: int = Field(ge=1)  # in a row, since the intake started or accepted one
    last: Time
    sender: str | None = None  # the address of the last one
    taken: Time | None = None  # when one for this name was accepted after the last refusal

    @property
    def key(self) -> str:
        """Returns `refusal/intake/instance`."""
        return f"refusal/{self.intake}/{self.instance}"
