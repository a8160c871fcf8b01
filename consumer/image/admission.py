"""May a task write at its destination, as things are now? Asked when it starts and again before it writes.

Its rule wanted the artifact when the event was read. What can change since, or is not the rule's to say: the consent
of the destination's account, what the source shows to everybody, and whose tag it is.
"""

from consumer.image.public_only import PublicView
from consumer.image.tag_owners import TagOwners
from consumer.progress import TaskControl
from consumer.task import BOUNDARY, NO_GRANT, NotAdmitted, Task
from mesh.errors import clean
from mesh.rules import boundary, consent
from mesh.rules.state import MeshState
from schemas.completions import Side, TaskError


class Admission:
    """All that is asked before a write, cheapest first."""

    def __init__(self, *, state: MeshState, public: PublicView, owners: TagOwners) -> None:
        self._state, self._public, self._owners = state, public, owners

    async def check(self, task: Task, control: TaskControl) -> None:
        """`NotAdmitted`; `LogUnavailable`, or what the source said, when it cannot be told now."""
        refusal = (
            task.refusal
            or self._beyond_the_border(task)
            or self._not_granted(task)
            or await self._not_public(task, control)
            or await self._owners.refusal(task)
        )
        if refusal is not None:
            raise NotAdmitted(refusal)

    async def _not_public(self, task: Task, control: TaskControl) -> TaskError | None:
        """What is gone nobody can be asked for: a deletion takes back what was public when it came."""
        return (
            None
            if task.operation == "delete"
            else await self._public.refusal(task, control.superseded.is_set)
        )

    def _beyond_the_border(self, task: Task) -> TaskError | None:
        border = boundary.refusal(self._state, task.rule, task.source, task.destination)
        return TaskError(code=BOUNDARY, side=Side.MESH, message=clean(border)) if border is not None else None

    def _not_granted(self, task: Task) -> TaskError | None:
        grant = self._state.get(consent.key_of(task.destination.account, task.source.account))
        message = consent.refusal(task.source, task.destination, task.destination_repository, grant)
        return (
            TaskError(code=NO_GRANT, side=Side.MESH, message=message[:256]) if message is not None else None
        )
