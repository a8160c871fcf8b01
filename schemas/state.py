"""The records of the compacted topic `mesh.state`: one for each declared thing."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from schemas.declared import Declared, Noun
from schemas.envelope import Record, Time
from schemas.grants import Grant
from schemas.rules import Rule
from schemas.topology import Instance, RegionDeclaration, Replica
from schemas.webhooks import Webhook

KINDS: Mapping[Noun, type[Declared]] = {
    model.noun: model for model in (RegionDeclaration, Instance, Replica, Grant, Rule, Webhook)
}


class FirstDeclared(BaseModel):
    """When a thing was declared first. It stays as it is while the thing is changed, until it is deleted."""

    model_config = ConfigDict(frozen=True, extra="allow")

    after_rev: int = Field(ge=-1)
    """The last revision before it: an event that an intake stamped with it, or with a smaller one, came before."""
    time: Time


class StateRecord(Record):
    """One declared thing. Topic `mesh.state`, key `noun/name`; the record's offset is its revision.

    A tombstone means that it is no longer declared.
    """

    kind: ClassVar[str] = "state"

    version: str = "1.1"
    noun: Noun
    value: Annotated[dict[str, object], Field(description="the thing as its own model dumps it")]
    position: int | None = Field(default=None, ge=0)
    """The place of an instance in the list: where several share a domain the first listed wins.

    Offsets do not show it, since a thing that is declared again gets a new one.
    """
    first: FirstDeclared | None = Field(default=None, exclude_if=lambda first: first is None)  # since 1.1

    @property
    def thing(self) -> Declared:
        """Returns the parsed value.

        Raises:
            pydantic.ValidationError: It has a shape that this version does not know.
        """
        return KINDS[self.noun].model_validate(self.value)
