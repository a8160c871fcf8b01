"""Notifications that an intake refused, for whoever has to mend it: a registry keeps a refused one to itself."""

from typing import ClassVar

from pydantic import Field

from schemas.envelope import Record, Time

OTHERS = "*"  # in the place of a name: names that nobody declared are as many as somebody likes to send


class Refusal(Record):
    """What one intake refused in the name of one instance. Topic `mesh.<region>.status`, told anew as it goes on."""

    kind: ClassVar[str] = "refusal"

    intake: str
    instance: str = Field(max_length=128)  # as the path said: it may be none that is declared, or `OTHERS`
    status: int  # 401, 403 or 404: of the last one
    reason: str = Field(max_length=1024)  # what to do about it; never what was presented
    count: int = Field(ge=1)  # in a row: since this intake began, or last took one
    last: Time
    sender: str | None = None  # the address that the last one came from
    taken: Time | None = None  # when one in this name was taken after the last that was refused

    @property
    def key(self) -> str:
        return f"refusal/{self.intake}/{self.instance}"
