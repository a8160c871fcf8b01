"""The base of what an operator declares. It is strict: a misspelt field is an error, and never ignored."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

Noun = Literal["region", "instance", "replica", "grant", "rule", "webhook"]


class Declared(BaseModel):
    """A thing of `mesh.yaml` and of `/api/v1/<noun>s`; its key on `mesh.state` is `noun/name`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    noun: ClassVar[Noun]

    @property
    def key(self) -> str:
        """Returns its key in `mesh.state`."""
        return f"{self.noun}/{self.name}"  # type: ignore[attr-defined]  # every kind has a name
