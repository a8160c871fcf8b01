"""The faults of a soak. A scenario is a plan, one label for each fault, and what a label does to the site.

`strike` returns when the fault is over: from then on the time of the recovery counts.
"""

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from tests.soak.ledger import Name
from tests.soak.pusher import Load, Pusher
from tests.soak.site import DESTINATION, REPLICA, SOURCE, Site, embedded, on_kafka
from tests.soak.wire import digest_of
from tests.support import gate


@dataclass
class Battle:
    """What a fault may use: the site, the pusher, and randomness from the seed."""

    site: Site
    pusher: Pusher
    random: random.Random
    short: bool
    late: set[str] = field(default_factory=set)  # digests whose PUT of a tag was held back

    def wait(self, least: float, most: float) -> None:
        """Waits for a random time, in seconds."""
        time.sleep(self.random.uniform(least, most))


@dataclass(frozen=True)
class Scenario:
    """One kind of fault, again and again.

    Attributes:
        strike: Does one fault, from its beginning to its end.
        plan: Labels of that many faults.
        count: How many of them `make soak` does.
        short: The faults of the short form.
        gap: The least and the most seconds between two faults.
        disturbed: The share of faults after which the next one does not wait for the recovery.
    """

    site: Callable[[Path], AbstractContextManager[Site]]
    strike: Callable[[Battle, str], None]
    plan: Callable[[int], list[str]]
    count: int
    short: tuple[str, ...]
    gap: tuple[float, float]
    disturbed: float = 0.0
    load: Load = field(default_factory=Load)


def _of(*labels: str) -> Callable[[int], list[str]]:
    """Returns a plan that takes the labels in turn."""
    return lambda count: list(islice(cycle(labels), count))


def _each(*labels: str) -> Callable[[int], list[str]]:
    """Returns a plan that has `count` of each label."""
    return lambda count: list(islice(cycle(labels), count * len(labels)))


def _kill_daemon(battle: Battle, name: str) -> None:
    battle.site.kill(name)
    if name != "up":
        battle.wait(0, 2)
    battle.site.start(name)


def _stop_broker(battle: Battle, how: str) -> None:
    broker = battle.site.broker
    assert broker is not None
    if how == "killed":
        broker.kill()
    else:
        broker.stop()
    time.sleep(30)
    broker.start()


def _stops_and_a_kill(count: int) -> list[str]:
    return [*["stopped"] * count, "killed"]


def _kill_registry(battle: Battle, place: str) -> None:
    registry = battle.site.registries[place]
    registry.end()
    battle.wait(0.2, 6)
    registry.start()


def _forget_notifications(battle: Battle, place: str) -> None:
    """The registry is killed with notifications that nobody took, and is away until a health check has noticed it."""
    registry, notifications = battle.site.registries[place], battle.site.notifications
    notifications.answers(gate.BAD_GATEWAY)
    battle.wait(3, 6)
    registry.end()
    notifications.opens()
    time.sleep(45)
    registry.start()


_ANSWERS = {"404": gate.NOT_FOUND_PAGE, "502": gate.BAD_GATEWAY, "web page": gate.WEB_PAGE}


def _answer_instead(battle: Battle, what: str) -> None:
    """The gate in front of the source answers by itself; with `nothing` it keeps every request waiting."""
    entrance = battle.site.gates[SOURCE]
    seconds = battle.random.uniform(5, 8 if battle.short else 15)
    end = time.monotonic() + seconds
    if what == "nothing":
        entrance.hold = lambda method, path: max(0.0, end - time.monotonic())
    entrance.answers(_ANSWERS.get(what, gate.BAD_GATEWAY))
    time.sleep(seconds)
    entrance.opens()
    entrance.hold = lambda method, path: 0.0


def _hold_a_tag(battle: Battle, how: str) -> None:
    """The PUT of a tag waits in the destination's gate while a newer push of the tag is made, and then lands.

    With `killed`, `up` is killed and started again meanwhile, with `twice` two times.
    """
    entrance = battle.site.gates[DESTINATION]
    seconds, held, landed = (10.0 if battle.short else 60.0), threading.Event(), threading.Event()
    caught: list[str] = []

    def hold(method: str, path: str) -> float:
        if method != "PUT" or "/manifests/v" not in path or caught:
            return 0.0
        caught.append(path)
        held.set()
        return seconds

    def note(method: str, path: str, body: bytes, status: int) -> None:
        if (
            method == "PUT"
            and caught == [path]
            and not landed.is_set()
            and time.monotonic() >= began + seconds
        ):
            battle.late.add(digest_of(body))
            landed.set()

    entrance.hold, entrance.note = hold, note
    began = time.monotonic()
    if not held.wait(60):
        raise RuntimeError("no tag was written within a minute")
    began = time.monotonic()
    for _ in range({"stays": 0, "killed": 1, "twice": 2}[how]):
        battle.wait(0, 2)
        _kill_daemon(battle, "up")
    repository, _, tag = caught[0].removeprefix("/v2/").partition("/manifests/")
    battle.pusher.leave_alone(Name(repository, tag))
    battle.pusher.push(Name(repository, tag))
    landed.wait(seconds + 60)
    entrance.hold, entrance.note = (lambda method, path: 0.0), (lambda method, path, body, status: None)


def _suspend_agent(battle: Battle, name: str) -> None:
    battle.site.suspend(name)
    time.sleep(60)
    battle.site.resume(name)


_DAEMONS = ("control", "producer", "agent shanghai", "agent frankfurt")

SCENARIOS = {
    "up": Scenario(embedded, _kill_daemon, _of("up"), 300, ("up",) * 4, (0.2, 6), disturbed=0.5),
    "daemons": Scenario(on_kafka, _kill_daemon, _of(*_DAEMONS), 300, _DAEMONS, (0.5, 6), disturbed=0.5),
    "broker": Scenario(on_kafka, _stop_broker, _stops_and_a_kill, 10, ("stopped",), (3, 10)),
    # Without deletions: a registry that is killed forgets to notify of them, and only a replica is compared for them.
    "registries": Scenario(
        embedded,
        _kill_registry,
        _each(SOURCE, REPLICA, DESTINATION),
        20,
        (SOURCE, DESTINATION),
        (0.5, 5),
        load=Load(deletions=0),
    ),
    "forgotten": Scenario(
        embedded, _forget_notifications, _of(SOURCE), 10, (SOURCE,), (1, 5), load=Load(deletions=0)
    ),
    "ingress": Scenario(
        partial(embedded, gates=[SOURCE]),
        _answer_instead,
        _of("404", "502", "web page", "nothing"),
        20,
        ("404",),
        (1, 5),
    ),
    "hang": Scenario(
        partial(embedded, gates=[DESTINATION]),
        _hold_a_tag,
        _of("stays", "killed", "twice"),
        12,
        ("killed",),
        (1, 5),
        load=Load(per_second=1),
    ),
    "sigstop": Scenario(
        on_kafka, _suspend_agent, _of("agent frankfurt", "agent shanghai"), 6, ("agent frankfurt",), (3, 10)
    ),
}
