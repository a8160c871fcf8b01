"""When registries came back from a time in which they may have lost notifications, and what to list because of it.

A registry keeps notifications that nobody took in memory, so they are lost when it ends, and some send each only once.
Nothing is known of the time before control started either. Pure.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple

from mesh.errors import HelperFailed, ServerFault, Throttled, Unreachable
from schemas.completions import READY, Status

_SPACING = timedelta(seconds=20)  # after one listing; twice that after two of the last hour, and so on
_COUNTED = timedelta(hours=1)
_REFUSED_AGAIN_AFTER = timedelta(days=1)
_ABANDONED_AFTER = timedelta(days=1)  # a producer of an older version does not know how to list a baseline
_TRANSIENT = frozenset(error.code for error in (HelperFailed, ServerFault, Throttled, Unreachable))


class WholeListing(NamedTuple):
    """An execution that lists all that its rule matches."""

    start_time: datetime
    listed: bool  # whether its listing has ended
    error_code: str | None  # why it did not list all
    status: Status = Status.IN_PROGRESS

    @property
    def is_complete(self) -> bool:
        """Whether it listed everything, and every task of it has ended."""
        is_over = self.status not in (Status.IN_PROGRESS, Status.STOPPED)
        return is_over and self.listed and self.error_code is None


class GapCause(Enum):
    """Why notifications of a registry may be lost."""

    STARTED = auto()  # control started; nothing is known of the time before
    UNREACHABLE = auto()  # the registry did not answer
    RESTARTED = auto()  # another process of the registry sends notifications


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which notifications of a registry may have been lost.

    Attributes:
        cause: What happened.
        since: When it was noticed.
        ended: When the registry was seen to answer after it; None until then.
    """

    cause: GapCause
    since: datetime
    ended: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Returns whether the registry is known not to answer, so that no listing can end the gap."""
        return self.cause is GapCause.UNREACHABLE and self.ended is None


class Returns:
    """The last gap of each registry, from the states that agents report and from the processes that notify intakes."""

    def __init__(self, started: datetime) -> None:
        """`started` is when control started: no return is earlier."""
        self._started = started
        self._gaps: dict[str, Gap] = {}
        self._processes: dict[str, set[str]] = {}  # by place

    def observe(self, places: Iterable[str], states: Mapping[str, str], now: datetime) -> None:
        """Takes the states of places as agents report them now: `Ready` or `Failed: <reason>`.

        A place without a state is left as it is: agents that are away say nothing about its registry.
        """
        for place in places:
            state, known = states.get(place), self._gaps.get(place)
            if state is None:
                continue
            if state != READY:
                if known is None or known.ended is not None:
                    self._gaps[place] = Gap(GapCause.UNREACHABLE, now)
            elif known is None:
                self._gaps[place] = replace(self.gap(place), ended=self._started)
            elif known.ended is None:
                self._gaps[place] = replace(known, ended=now)

    def observe_processes(self, processes: Mapping[str, Collection[str]], now: datetime) -> None:
        """Takes which processes of registries have sent notifications, once all that is known of them was read.

        An additional process of a registry that runs several is taken for a restart too: nothing tells them apart.
        """
        for place, names in processes.items():
            known = self._processes.get(place)
            if known and not known.issuperset(names) and not self.gap(place).is_open:
                self._gaps[place] = Gap(GapCause.RESTARTED, now, now)
            self._processes[place] = (known or set()).union(names)

    def of(self, place: str) -> datetime | None:
        """Returns when a place last returned; None while it is failing, and before it answered for the first time."""
        return self.gap(place).ended

    def gap(self, place: str) -> Gap:
        """Returns the last gap of a place; that of control's start where nothing is known of the place."""
        return self._gaps.get(place, Gap(GapCause.STARTED, self._started))


class Step(Enum):
    """What is to be done about a rule whose source is back."""

    NOTHING = auto()  # its source was listed since
    WAIT = auto()
    COMPARE = auto()


def next_step(listings: Sequence[WholeListing], returned: datetime, now: datetime) -> Step:
    """Decides whether a rule's source is listed again.

    A listing that the registry cut short does not count. A registry that comes and goes is listed less and less often.

    Args:
        listings: The last listings of all that the rule matches, newest first.
        returned: When the source returned.
        now: The present time.
    """
    if not listings:
        return Step.WAIT  # for its backfill
    last = listings[0]
    if not last.listed:
        return Step.WAIT
    if last.start_time >= returned and last.error_code not in _TRANSIENT:
        return Step.NOTHING
    recent = sum(one.start_time > now - _COUNTED for one in listings)
    return Step.COMPARE if now >= last.start_time + _SPACING * 2 ** max(0, recent - 1) else Step.WAIT


def next_attempt(listings: Sequence[WholeListing]) -> datetime:
    """Returns when a baseline that is not complete is listed again; `listings` are the attempts, newest first.

    One that the registry refuses is tried again once a day, since somebody has to change something first.
    """
    if not listings:
        return datetime.min.replace(tzinfo=UTC)
    last = listings[0]
    if last.status is Status.IN_PROGRESS:
        return last.start_time + _ABANDONED_AFTER
    if last.error_code not in _TRANSIENT:
        return last.start_time + _REFUSED_AGAIN_AFTER
    wait: timedelta = min(_SPACING * 2 ** (len(listings) - 1), _COUNTED)
    return last.start_time + wait


class Comparison(Enum):
    """How far the comparison that follows a gap is."""

    PENDING = auto()
    DONE = auto()
    FAILED = auto()  # and it is not repeated before the next gap


def comparison_since(listings: Iterable[WholeListing], returned: datetime) -> Comparison:
    """Returns how far the comparison after a return is: done once all that it found has been dealt with.

    Args:
        listings: The last listings of all that a rule matches, newest first.
        returned: When the source returned.
    """
    since = [one for one in listings if one.start_time >= returned]
    if any(one.is_complete for one in since):
        return Comparison.DONE
    newest = since[0] if since else None
    if newest is None or newest.status is Status.IN_PROGRESS or newest.error_code in _TRANSIENT:
        return Comparison.PENDING
    return Comparison.FAILED
