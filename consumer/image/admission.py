"""Decides whether a task may write at its destination, as things are now.

Its rule wanted the artifact when the event was read. What may have changed since, or is not the rule's to decide: the
boundary of its region, the grant of the destination's account, who may pull from the source, and whose tag it is.
What stands under the tag already is checked apart, by `overwrite`.
"""

from collections.abc import Callable
from enum import Enum, auto
from functools import partial

from cachetools import TTLCache

from consumer.image.tag_owners import TagOwners
from consumer.progress import TaskRun
from consumer.task import BOUNDARY, NO_GRANT, NOT_PUBLIC, SOURCE_GONE, NotAdmitted, Task, skipped, superseded
from mesh.clock import Clock
from mesh.errors import Denied, clean
from mesh.registry.absence import resolve_confirmed
from mesh.registry.port import Registry
from mesh.retry import until_log_available
from mesh.rules import boundary, consent
from mesh.rules.state import MeshState
from schemas.completions import Side, TaskError
from schemas.names import PlaceName, Repository

_CACHED_SECONDS = 60.0
_MOST_CACHED = 10_000
_SETTLE_SECONDS = 5.0  # registries announce a push before they store it
_RETRY_SECONDS = 0.25  # between two looks at an unsettled tag
_MISSING = "the source does not have this tag any more"


class Stage(Enum):
    """The points of a task at which it needs admission."""

    START = auto()  # before a registry is asked anything for the task
    WRITE = auto()  # before the first write at the destination
    TAG = auto()  # before the tag is written; the copy may have taken hours


class Check(Enum):
    """What admission checks, cheapest first."""

    DECLARED = auto()  # boundaries and grants, as they are declared
    PUBLIC = auto()  # the source, of rules with `public_only`
    OWNER = auto()  # which rule owns a contested tag


def checks_at(stage: Stage, task: Task) -> frozenset[Check]:
    """Returns what is checked at a stage: the whole admission policy.

    An untagged push becomes a task only when it proves to be a referrer, so nothing is checked before that. Whether
    deleted content was public cannot be seen any more, so a deletion follows without that check.
    """
    if stage is Stage.START and task.tag is None:
        return frozenset()
    if task.operation == "delete":
        return frozenset({Check.DECLARED, Check.OWNER})
    return frozenset(Check)


class PublicView:
    """What anonymous clients may pull from sources, of rules with `public_only`; cached for a minute."""

    def __init__(
        self, anonymous: Callable[[Task], Registry], authorised: Callable[[Task], Registry], clock: Clock
    ) -> None:
        self._anonymous, self._authorised, self._clock = anonymous, authorised, clock
        self._cache = TTLCache[tuple[PlaceName, Repository], bool](
            _MOST_CACHED, _CACHED_SECONDS, timer=clock.monotonic
        )

    async def refusal(self, task: Task, is_superseded: Callable[[], bool]) -> TaskError | None:
        """Returns why the task's rule does not want a repository that is not public, or None if it does.

        Raises:
            RegistryError: The source could not be asked.
        """
        if not task.rule.public_only:
            return None
        key = (task.source.name, task.repository)
        public = self._cache.get(key)
        if public is None:
            public = await self._look(task, is_superseded)
            if public is None:
                outcome = superseded() if is_superseded() else skipped(SOURCE_GONE, _MISSING)
                return outcome.error
            self._cache[key] = public
        if public:
            return None
        message = f"an anonymous client may not pull {task.source.name}/{task.repository}"[:256]
        return TaskError(code=NOT_PUBLIC, side=Side.MESH, message=message)

    async def _look(self, task: Task, is_superseded: Callable[[], bool]) -> bool | None:
        """None when no client sees the tag, not even an authorised one: that says nothing about permissions."""
        deadline = self._clock.monotonic() + _SETTLE_SECONDS
        while True:
            authorised = await self._authorised(task).resolve(task.repository, task.reference)
            public = await self._is_public(task)
            if public or authorised is not None:
                return public  # registries answer 404 too for what a client may not know of
            if is_superseded() or (self._clock.monotonic() >= deadline and await self._is_absent(task)):
                return None
            await self._clock.sleep(_RETRY_SECONDS)

    async def _is_absent(self, task: Task) -> bool:
        source = self._authorised(task)
        found = await resolve_confirmed(source, task.repository, task.reference, clock=self._clock)
        return found is None

    async def _is_public(self, task: Task) -> bool:
        try:
            return await self._anonymous(task).resolve(task.repository, task.reference) is not None
        except Denied:
            return False


class Admission:
    """Runs the checks of `checks_at`."""

    def __init__(self, *, state: MeshState, public: PublicView, owners: TagOwners, clock: Clock) -> None:
        self._state, self._public, self._owners, self._clock = state, public, owners, clock

    async def check(self, run: TaskRun, stage: Stage) -> None:
        """Checks that the task may go on to `stage`; waits while the log is away.

        Raises:
            NotAdmitted: It may not.
            RegistryError: The source could not be asked.
        """
        refusal = await until_log_available(partial(self._refusal, run, stage), self._clock)
        if refusal is not None:
            raise NotAdmitted(refusal)

    async def _refusal(self, run: TaskRun, stage: Stage) -> TaskError | None:
        task, checks = run.task, checks_at(stage, run.task)
        refusal = None
        if Check.DECLARED in checks:
            refusal = task.refusal or self._outside_boundary(task) or self._not_granted(task)
        if refusal is None and Check.PUBLIC in checks:
            refusal = await self._public.refusal(task, run.control.superseded.is_set)
        if refusal is None and Check.OWNER in checks:
            refusal = await self._owners.refusal(task)
        return refusal

    def _outside_boundary(self, task: Task) -> TaskError | None:
        message = boundary.refusal(self._state, task.rule, task.source, task.destination)
        return (
            TaskError(code=BOUNDARY, side=Side.MESH, message=clean(message)) if message is not None else None
        )

    def _not_granted(self, task: Task) -> TaskError | None:
        grant = self._state.get(consent.key_of(task.destination.account, task.source.account))
        message = consent.refusal(task.source, task.destination, task.destination_repository, grant)
        return (
            TaskError(code=NO_GRANT, side=Side.MESH, message=message[:256]) if message is not None else None
        )
