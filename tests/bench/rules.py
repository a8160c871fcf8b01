"""How many events a second one core judges against 10, 1,000 and 10,000 rules of one source, beside reading them.

`read` is what a consumer does without any rule: the record's bytes become an event. `match` is the agent's own step,
with one task for each event. Times are of the processor, so that others on the machine count less.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from consumer.match import match
from mesh.clock import SystemClock
from mesh.rules.state import MeshState
from schemas import codec
from schemas.envelope import make_id
from schemas.events import Action, Event
from schemas.names import PlaceName, Region, Repository, Tag
from schemas.state import StateRecord
from tests.bench.table import Options, Row, spread

NEEDS: tuple[str, ...] = ()
TO_REACH = "30000/s at 10000 rules"
BEIJING, FRANKFURT = Region("beijing"), Region("frankfurt")
_NOW = SystemClock().now()
T = TypeVar("T")


def rows(options: Options) -> Iterator[Row]:
    counts = (10, 100) if options.quick else (10, 1000, 10_000)
    events = 200 if options.quick else 5000
    for count in counts:
        raw = [codec.encode(_event(number, f"team-{_some(number, count)}/app")) for number in range(events)]
        yield from _measured(f"{count} rules of one source, `team-N/**`", count, "team-{}/**", raw, options)
    count, events = (100, 50) if options.quick else (1000, 500)
    raw = [codec.encode(_event(number, f"team/web-{_some(number, count)}")) for number in range(events)]
    yield from _measured(f"{count} rules that begin alike, `**/web-N`", count, "**/web-{}", raw, options)


def _measured(where: str, count: int, glob: str, raw: Sequence[bytes], options: Options) -> Iterator[Row]:
    state = declared(count, glob)
    events = [codec.decode(one, Event) for one in raw]
    assert all(len(match(event, state, FRANKFURT)) == 1 for event in events), "each is wanted by one rule"
    to_reach = TO_REACH if glob.startswith("team") else ""
    read = _rate(lambda one: codec.decode(one, Event), raw, options.rounds)
    yield Row("events read, no rules asked", where, read)
    judged = _rate(lambda event: match(event, state, FRANKFURT), events, options.rounds)
    yield Row("events matched", where, judged, to_reach)
    both = _rate(lambda one: match(codec.decode(one, Event), state, FRANKFURT), raw, options.rounds)
    yield Row("events read and matched", where, both)


def _rate(work: Callable[[T], object], items: Sequence[T], rounds: int) -> str:
    """Each result is let go at once, as by an agent."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        for item in items:
            work(item)
        found.append(len(items) / (time.process_time() - began))
    return f"{spread(found, 0)} events/s"


def declared(count: int, glob: str) -> MeshState:
    """A region with an instance, and `count` rules from another region's instance to it."""
    state = MeshState()
    things: list[tuple[str, str, dict[str, object]]] = [
        ("region", "beijing", {"jurisdiction": "cn"}),
        ("region", "frankfurt", {"jurisdiction": "global"}),
        ("instance", "cn", {"account": "game", "region": "beijing", "url": "http://127.0.0.1:5001"}),
        ("instance", "eu", {"account": "game", "region": "frankfurt", "url": "http://127.0.0.1:5002"}),
    ]
    for number in range(count):
        filters = [{"type": "name", "value": glob.format(number)}, {"type": "tag", "value": "v*"}]
        things.append(("rule", f"r{number}", {"source": "cn", "destination": "eu", "filters": filters}))
    for rev, (noun, name, fields) in enumerate(things):
        record = StateRecord(id=make_id(noun, name), time=_NOW, noun=noun, value={"name": name, **fields})
        state.apply(f"{noun}/{name}", codec.encode(record), rev)
    return state


def _some(number: int, count: int) -> int:
    return random.Random(number).randrange(count)


def _event(number: int, repository: str) -> Event:
    return Event(
        id=f"event-{number}", time=_NOW, origin=PlaceName("cn"), action=Action.MANIFEST_PUSH, place=PlaceName("cn"),
        region=BEIJING, repository=Repository(repository), tag=Tag(f"v1.{number}"),
        digest=f"sha256:{number:064x}", occurred_at=_NOW, rules_rev=1,
    )  # fmt: skip
