"""How fresh the destination of a rule or replica is, and whether its freshness promise is kept. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from mesh.control.sync_log.ended_tasks import Kept, TaskCounts
from schemas.completions import Heartbeat, RuleBacklog

# Pairs of windows and the burn rate above which both of them mean that the promise is being missed; as the SRE
# workbook (chapter 5, "Multiwindow, Multi-Burn-Rate Alerts") recommends for an objective over 30 days.
ALERTS = (("1h", "5m", 14.4), ("6h", "30m", 6.0))
BURN_WINDOWS = ("5m", "30m", "1h", "6h")
SHARE_WINDOWS = ("1h", "1d")
_SHORTEST_RATE_SPAN = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class FreshnessFacts:
    """What is known of a rule or replica.

    Attributes:
        name: The rule or replica.
        promise: In seconds; None when it promises nothing.
        now: The present time.
        has_live_agent: Whether the region of its destination has a live agent.
        heartbeats: Of the live agents of that region; without any, of those that were live last.
        counts: Of its tasks that ended lately.
        objective: The share of tasks that should keep the promise.
        listed_left: Tasks of its fill that are left, also those that no agent has read yet.
    """

    name: str
    promise: int | None
    now: datetime
    has_live_agent: bool
    heartbeats: Collection[Heartbeat]
    counts: TaskCounts
    objective: float
    listed_left: int = 0


@dataclass(frozen=True, slots=True)
class Freshness:
    """The freshness of a rule's destination, or of a replica.

    Attributes:
        promise_seconds: The promise; None when there is none.
        oldest_push_seconds: The age of the oldest push or deletion that is not applied; 0 when none waits, at most
            that while no agent is live, None when no agent has reported.
        tasks_left: What waits, runs or is parked.
        eta_seconds: When these have ended, by the rate of the last minutes; None when nothing is left or none ended.
        kept: By window (`1h`, `1d`), the share of the tasks that kept the promise; None without such tasks.
        burn_rates: By window, how many times faster than the objective allows the promise is missed.
        promise_missed: Whether the promise is being missed now; None when there is none.
        late: By window, how many tasks did not keep the promise, and how many there were.
    """

    promise_seconds: int | None
    oldest_push_seconds: float | None
    tasks_left: int
    eta_seconds: float | None
    kept: Mapping[str, float | None] = field(default_factory=dict)
    burn_rates: Mapping[str, float] = field(default_factory=dict)
    promise_missed: bool | None = None
    late: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def is_overdue(self) -> bool:
        """Returns whether a push waits for longer than the promise."""
        promise, oldest = self.promise_seconds, self.oldest_push_seconds
        return promise is not None and oldest is not None and oldest > promise

    @property
    def burning_window(self) -> str | None:
        """Returns the window whose burn rate, and that of the short window with it, is too high; None when none is."""
        rates = self.burn_rates
        return next(
            (
                long
                for long, short, limit in ALERTS
                if min(rates.get(long, 0.0), rates.get(short, 0.0)) > limit
            ),
            None,
        )


def freshness_of(facts: FreshnessFacts) -> Freshness:
    """Returns what follows from the facts."""
    backlogs = [one for beat in facts.heartbeats if (one := (beat.rules or {}).get(facts.name)) is not None]
    tasks_left = max(sum(one.tasks for one in backlogs), facts.listed_left)
    oldest = _oldest_push(facts, backlogs)
    eta = _eta(tasks_left, facts.counts, facts.now)
    if facts.promise is None:
        return Freshness(None, oldest, tasks_left, eta)
    windows = facts.counts.kept
    found = Freshness(
        facts.promise,
        oldest,
        tasks_left,
        eta,
        kept={window: share(windows.get(window)) for window in SHARE_WINDOWS},
        burn_rates={window: burn_rate(windows.get(window), facts.objective) for window in BURN_WINDOWS},
        late={window: (it.counted - it.kept, it.counted) for window, it in windows.items()},
    )
    return _with_verdict(found)


def lateness(found: Freshness) -> str:
    """Says how a promise is being missed, for people."""
    late = []
    if found.is_overdue:
        eta = f", which takes about {found.eta_seconds:.0f} s more" if found.eta_seconds is not None else ""
        tasks = "1 task is" if found.tasks_left == 1 else f"{found.tasks_left} tasks are"
        late.append(f"a push waits for {found.oldest_push_seconds:.0f} s, and {tasks} left{eta}")
    if (window := found.burning_window) is not None:
        count, total = found.late[window]
        late.append(f"{count} of the {total} tasks of the last {window} did not keep it")
    return "; ".join(late)


def share(window: Kept | None) -> float | None:
    """Returns the share of tasks that kept the promise; None without tasks."""
    return None if window is None or not window.counted else round(window.kept / window.counted, 4)


def burn_rate(window: Kept | None, objective: float) -> float:
    """Returns how many times faster than `objective` allows the promise was missed; 0 without tasks."""
    if window is None or not window.counted:
        return 0.0
    return round((1 - window.kept / window.counted) / (1 - objective), 3)


def _with_verdict(found: Freshness) -> Freshness:
    promise_missed = found.is_overdue or found.burning_window is not None
    return replace(found, promise_missed=promise_missed)


def _eta(tasks_left: int, counts: TaskCounts, now: datetime) -> float | None:
    if not tasks_left or not counts.ended or counts.ended_since is None:
        return None
    span = max(now - counts.ended_since, _SHORTEST_RATE_SPAN)
    return round(tasks_left * span.total_seconds() / counts.ended, 1)


def _oldest_push(facts: FreshnessFacts, backlogs: Collection[RuleBacklog]) -> float | None:
    """Without a live agent it grows from the last heartbeat, or from what was waiting then."""
    if not any(beat.rules is not None for beat in facts.heartbeats):
        return None
    oldest = [one.oldest_push for one in backlogs if one.oldest_push is not None]
    if not facts.has_live_agent:
        oldest.append(max(beat.time for beat in facts.heartbeats))
    age = (facts.now - min(oldest)).total_seconds() if oldest else 0.0
    return round(max(0.0, age), 3)
