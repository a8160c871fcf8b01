"""`public_only`: may an anonymous client pull this repository of the source? Asked of the registry itself."""

from collections import OrderedDict
from collections.abc import Callable

from consumer.task import NOT_PUBLIC, SOURCE_GONE, SUPERSEDED, Task
from mesh.clock import Clock
from mesh.errors import Denied
from mesh.registry.absence import resolve_confirmed
from mesh.registry.port import Registry
from schemas.completions import Side, TaskError
from schemas.names import PlaceName, Repository

_BELIEVED_SECONDS = 60.0
_MOST_REMEMBERED = 10_000
_SETTLE_SECONDS = 5.0  # registries announce a push before they store it
_LOOK_SECONDS = 0.25


class PublicView:
    """Sources as everybody sees them. What was seen of a repository is believed for a minute."""

    def __init__(
        self, anonymous: Callable[[Task], Registry], authorised: Callable[[Task], Registry], clock: Clock
    ) -> None:
        self._anonymous, self._authorised, self._clock = anonymous, authorised, clock
        self._seen: OrderedDict[tuple[PlaceName, Repository], tuple[float, bool]] = OrderedDict()

    async def refusal(self, task: Task, newer: Callable[[], bool]) -> TaskError | None:
        """Why the task's rule does not want the repository as it is seen, or None when it does.

        Raises what the registry said when it could not be asked.
        """
        if not task.rule.public_only:
            return None
        public = self._remembered(task)
        if public is None and (public := await self._look(task, newer)) is None:
            code, message = SOURCE_GONE, "the source does not have this tag any more"
            if newer():
                code, message = SUPERSEDED, "a newer push of this tag is waiting behind this one"
            return TaskError(code=code, side=Side.MESH, message=message)
        self._remember(task, public)
        if public:
            return None
        message = f"an anonymous client may not pull {task.source.name}/{task.repository}"[:256]
        return TaskError(code=NOT_PUBLIC, side=Side.MESH, message=message)

    async def _look(self, task: Task, newer: Callable[[], bool]) -> bool | None:
        """None when nobody sees the tag, we neither: that tells nothing of who may."""
        deadline = self._clock.monotonic() + _SETTLE_SECONDS
        while True:
            ours = await self._authorised(task).resolve(task.repository, task.reference)
            if (seen := await self._everybody_sees(task)) or ours is not None:
                return seen  # registries answer 404 too for what one may not know of
            if newer():
                return None
            if self._clock.monotonic() >= deadline:
                source = self._authorised(task)
                if (
                    await resolve_confirmed(source, task.repository, task.reference, clock=self._clock)
                    is None
                ):
                    return None
            await self._clock.sleep(_LOOK_SECONDS)

    async def _everybody_sees(self, task: Task) -> bool:
        try:
            return await self._anonymous(task).resolve(task.repository, task.reference) is not None
        except Denied:
            return False

    def _remembered(self, task: Task) -> bool | None:
        until, public = self._seen.get((task.source.name, task.repository), (0.0, False))
        return public if self._clock.monotonic() < until else None

    def _remember(self, task: Task, public: bool) -> None:
        key = (task.source.name, task.repository)
        if self._remembered(task) is None:
            self._seen[key] = (self._clock.monotonic() + _BELIEVED_SECONDS, public)
            self._seen.move_to_end(key)
        while len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
