"""Runs one scenario: pushes, polls and strikes, then waits for the end and walks over all registries."""

import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.soak import checker
from tests.soak.checker import Finding, Kind
from tests.soak.ledger import StepBack
from tests.soak.poller import Poller, Watch
from tests.soak.pusher import Pusher
from tests.soak.scenarios import SCENARIOS, Battle

_RECOVERY = 180.0  # seconds that a fault's recovery is waited for
_SETTLE = 300.0
_STILL = 10.0  # seconds that everything has to stay as it is before the walk

HEADER = (
    "| scenario | seed | faults | writes | notified | lost | wrong | steps back | recovery: median, worst | date |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass
class Result:
    """What a run found. `mended` are tags that a PUT which a proxy held back moved back for a moment."""

    scenario: str
    seed: int
    strikes: Counter[str] = field(default_factory=Counter)
    pushes: int = 0
    notified: int = 0
    findings: list[Finding] = field(default_factory=list)
    steps_back: list[StepBack] = field(default_factory=list)
    mended: list[StepBack] = field(default_factory=list)
    recoveries: list[tuple[str, float | None]] = field(default_factory=list)
    settled: float | None = None

    def of(self, kind: Kind) -> list[Finding]:
        """Returns the findings of a kind."""
        return [it for it in self.findings if it.kind is kind]

    @property
    def is_good(self) -> bool:
        """Returns whether nothing was lost, wrong or back, and every recovery came."""
        faults = [it for it in self.findings if it.kind is not Kind.SOURCE]
        return not faults and not self.steps_back and self.settled is not None

    def row(self) -> str:
        """Returns the result as a row of the table in docs/reliability.md."""
        strikes = ", ".join(f"{count} {label}" for label, count in sorted(self.strikes.items()))
        back = f"{len(self.steps_back)}" + (f" (+{len(self.mended)} mended)" if self.mended else "")
        seconds = [it for _, it in self.recoveries if it is not None]
        late = len(self.recoveries) - len(seconds)
        median = f"{statistics.median(seconds):.1f} s, {max(seconds):.1f} s" if seconds else "none"
        return (
            f"| {self.scenario} | {self.seed} | {strikes} | {self.pushes} | {self.notified} "
            f"| {len(self.of(Kind.LOST))} | {len(self.of(Kind.WRONG))} | {back} "
            f"| {median}{f', {late} later' if late else ''} | {datetime.now(UTC):%Y-%m-%d} |"
        )


def run(
    name: str, folder: Path, *, seed: int, count: int | None, short: bool, report: Callable[[str], None]
) -> Result:
    """Runs a scenario with `count` faults, or as many as its long or short form has."""
    scenario, result = SCENARIOS[name], Result(name, seed)
    is_short_plan = short and count is None
    faults = scenario.short if is_short_plan else scenario.plan(count or scenario.count)
    chance = random.Random(f"{name} {seed}")
    with scenario.site(folder) as site:
        pusher = Pusher(site.registries["source"].url, site.ledger, scenario.load, seed)
        poller = Poller(site.destinations, site.ledger)
        battle = Battle(site, pusher, chance, short)
        pusher.start()
        poller.start()
        try:
            watches = []
            for number, label in enumerate(faults, 1):
                battle.wait(*scenario.gap)
                scenario.strike(battle, label)
                watch = poller.watch()
                result.strikes[label] += 1
                watches.append((label, watch))
                if chance.random() >= scenario.disturbed:
                    poller.wait(watch, _RECOVERY)
                    report(f"{name} {number}/{len(faults)} {label}: {_seconds(watch)}")
                    result.recoveries.append((label, watch.seconds))
            pusher.stop()
            result.settled = checker.settle(
                site.registries["source"].url, site.destinations, site.ledger, within=_SETTLE
            )
            report(f"{name}: settled after {result.settled} s; walking")
            time.sleep(_STILL if not short else _STILL / 3)
        finally:
            pusher.stop()
            poller.stop()
        result.findings = checker.walk(site.registries["source"].url, site.destinations, site.ledger)
        result.pushes, result.notified = site.ledger.acknowledged, len(site.ledger.accepted)
        result.mended = [it for it in poller.steps_back if it.digest in battle.late]
        result.steps_back = [it for it in poller.steps_back if it.digest not in battle.late]
    return result


def _seconds(watch: Watch) -> str:
    if watch.seconds is not None:
        return f"recovered after {watch.seconds:.1f} s"
    missing = ", ".join(f"{place} {name}" for place, name in sorted(watch.left)[:5])
    return f"not recovered within {_RECOVERY:.0f} s: {len(watch.left)} tags, {missing}"
