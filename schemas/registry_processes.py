"""Which processes of a registry sent notifications: a new one may have lost what an earlier one had still to send."""

from typing import ClassVar

from pydantic import Field

from schemas.envelope import Record, make_id
from schemas.names import ObjectName


class RegistryProcess(Record):
    """A process of an instance's registry, written at its first notification. Topic `mesh.<region>.status`."""

    kind: ClassVar[str] = "registry_process"

    instance: ObjectName
    process: str = Field(max_length=128)  # distribution's `source.instanceID`, which each start makes anew

    @property
    def key(self) -> str:
        """Returns `registry_process/instance/id`, where the id stands for the registry's own, which may be any text."""
        return f"registry_process/{self.instance}/{make_id('registry_process', self.process)}"
