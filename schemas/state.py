"""What the compacted topic `mesh.state` holds: every declared thing, one record each."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from schemas.declared import Declared, Noun
from schemas.envelope import Record
from schemas.grants import Grant
from schemas.rules import Rule
from schemas.topology import Instance, RegionDeclaration, Replica
from schemas.webhooks import Webhook

KINDS: Mapping[Noun, type[Declared]] = {
    model.noun: model for model in (RegionDeclaration, Instance, Replica, Grant, Rule, Webhook)
}


class StateRecord(Record):
    """One declared thing. Topic `mesh.state`, key `kind/name`; the record's offset is its `rev`.

    A tombstone says that it is no longer declared.
    """

    kind: ClassVar[str] = "state"

    noun: Noun
    value: Annotated[dict[str, object], Field(description="the thing as its own model dumps it")]
    # Of an instance its place in the list: the first listed wins where several share a domain. Offsets cannot tell, as
    # a thing that is declared again gets a new one.
    position: int | None = Field(default=None, ge=0)

    @property
    def thing(self) -> Declared:
        """The value parsed; `ValidationError` when this code does not know its shape."""
        return KINDS[self.noun].model_validate(self.value)
