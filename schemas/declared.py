"""The base of what an operator declares: strict, so that a misspelt field is an error and never ignored."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Noun = Literal["region", "instance", "replica", "grant", "rule", "webhook"]


class Declared(BaseModel):
    """One declared thing of `mesh.yaml` and of `/api/v1/<kind>s`; on `mesh.state` under `kind/name`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    noun: ClassVar[Noun]

    @property
    def key(self) -> str:
        """Where it stands in `mesh.state`."""
        return f"{self.noun}/{self.name}"  # type: ignore[attr-defined]  # every kind has a name
