"""Registries that misbehave, for tests: each in the one way its name says, until its `faults` are changed."""

from pathlib import Path

from mesh.clock import Clock
from mesh.registry.builtin import BuiltinRegistry
from mesh.registry.builtin.faults import Cut, Fail, Faults, HalfWritten, Lie, Throttle
from mesh.registry.builtin.notify import Notify


class SlowRegistry(BuiltinRegistry):
    """Blobs go in and out at `speed` bytes/s."""

    def __init__(self, root: Path, *, clock: Clock, speed: int, notify: Notify | None = None) -> None:
        super().__init__(root, clock=clock, notify=notify, faults=Faults(slow=speed))


class CuttingRegistry(BuiltinRegistry):
    """The next `times` GETs of a blob break off after `after` bytes."""

    def __init__(
        self, root: Path, *, clock: Clock, after: int, times: int = 1, notify: Notify | None = None
    ) -> None:
        super().__init__(root, clock=clock, notify=notify, faults=Faults(cut=Cut(times, after)))


class ThrottlingRegistry(BuiltinRegistry):
    """The next `times` requests are answered with 429."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        times: int = 1,
        retry_after: int | None = 1,
        notify: Notify | None = None,
    ) -> None:
        super().__init__(
            root, clock=clock, notify=notify, faults=Faults(throttle=Throttle(times, retry_after))
        )


class FailingRegistry(BuiltinRegistry):
    """The next `times` requests of `method` under `path` are answered with 500."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        times: int = 1,
        method: str = "",
        path: str = "",
        notify: Notify | None = None,
    ) -> None:
        super().__init__(root, clock=clock, notify=notify, faults=Faults(fail=Fail(times, method, path)))


class HalfWrittenRegistry(BuiltinRegistry):
    """The next `times` uploads of a blob are answered with 201 and lost."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        times: int = 1,
        head_says_there: bool = False,
        notify: Notify | None = None,
    ) -> None:
        fault = HalfWritten(times, head_says_there)
        super().__init__(root, clock=clock, notify=notify, faults=Faults(half_written=fault))


class LyingRegistry(BuiltinRegistry):
    """The next `times` GETs of a blob or manifest carry wrong bytes under the right digest."""

    def __init__(self, root: Path, *, clock: Clock, times: int = 1, notify: Notify | None = None) -> None:
        super().__init__(root, clock=clock, notify=notify, faults=Faults(lie=Lie(times)))
