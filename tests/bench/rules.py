"""How many events per second one core matches against many rules of one source, for different kinds of patterns.

`read` is what a consumer does without any rule: it decodes a record. `match` is the agent's step, with one task per
event. Times are processor times, so that other processes count less. A repository that was matched before is faster
than one that is new, so that both are measured.
"""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from consumer.pipeline.match import match
from mesh.clock import SystemClock
from mesh.rules.state import MeshState
from mesh.rules.validation.declarations import judge
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
_ROUND = 2.0  # seconds of the processor at most, for what would take minutes
T = TypeVar("T")
Filter = dict[str, str]


class Shape(NamedTuple):
    """The filters of rule number `{n}`, and what only that rule matches; `{k}` is the number of the event."""

    label: str
    filters: Sequence[Filter]
    repository: str
    tag: str = "v1.{k}.0"


def _name(value: str, decoration: str = "matches") -> Filter:
    return {"type": "name", "value": value, "decoration": decoration}


def _tag(value: str, decoration: str = "matches") -> Filter:
    return {"type": "tag", "value": value, "decoration": decoration}


VERSIONS = _tag("v*")
BEGINNINGS = Shape("`team-N/**`", [_name("team-{n}/**"), VERSIONS], "team-{n}/app-{k}")
ENDS = Shape("`**/web-N`", [_name("**/web-{n}"), VERSIONS], "team-{k}/web-{n}")
EXPRESSION_ENDS = Shape("`re:.*-N$`", [_name("re:.*-{n}$"), VERSIONS], "team-{k}/web-{n}")
MIDDLES = Shape("`**/team-N/**`", [_name("**/team-{n}/**"), VERSIONS], "group/team-{n}/app-{k}")
CHOICES = Shape(
    "`re:(a|b|.*)/web-N[a-z]?`", [_name("re:(a|b|.*)/web-{n}[a-z]?"), VERSIONS], "team-{k}/web-{n}x"
)
TAGS = Shape("`**` with the tag `*-N`", [_name("**"), _tag("*-{n}")], "team/app-{k}", "build-{n}")
MIXED = (
    Shape(
        "", [_name("team-{n}/**"), {"type": "semver", "value": ">=1.2 <9"}], "team-{n}/app-{k}", "v1.{k}9.0"
    ),
    Shape("", [_name("**/web-{n}"), _name("old/**", "excludes"), VERSIONS], "group{k}/web-{n}"),
    Shape("", [_name("re:.*-{n}/[a-z]+"), VERSIONS, _tag("*-rc*", "excludes")], "group{k}/part-{n}/app"),
    TAGS,
)


def rows(options: Options) -> Iterator[Row]:
    """Yields the rows of the group `rules`."""
    most = 100 if options.quick else 10_000
    for count in (10, most // 10):
        yield from _measured(f"{count} rules of one source, `team-N/**`", count, [BEGINNINGS], options)
    for shape in (BEGINNINGS, ENDS, EXPRESSION_ENDS, MIDDLES, CHOICES, TAGS):
        yield from _measured(f"{most} rules of one source, {shape.label}", most, [shape], options)
    yield from _measured(f"{most} rules of one source, a quarter each of four kinds", most, MIXED, options)


def _measured(where: str, count: int, shapes: Sequence[Shape], options: Options) -> Iterator[Row]:
    state = declared(count, shapes)
    size = 200 if options.quick else 5000
    new = [_events(range(size * turn, size * (turn + 1)), count, shapes) for turn in range(options.rounds)]
    assert all(len(match(event, state, FRANKFURT)) == 1 for event in new[0][:20]), (
        "each is wanted by one rule"
    )
    to_reach = TO_REACH if count >= 10_000 else ""
    first = [_rate(lambda event: match(event, state, FRANKFURT), events[20:]) for events in new]
    yield Row("events matched, each of another repository", where, _rates(first))
    few = new[0][:1000]
    _rate(lambda event: match(event, state, FRANKFURT), few)
    known = [_rate(lambda event: match(event, state, FRANKFURT), few) for _ in new]
    yield Row("events matched, 1000 repositories again and again", where, _rates(known), to_reach)
    raw = [codec.encode(event) for event in few]
    bare = [_rate(lambda one: codec.decode(one, Event), raw) for _ in new]
    yield Row("events read, no rules asked", where, _rates(bare))
    both = [_rate(lambda one: match(codec.decode(one, Event), state, FRANKFURT), raw) for _ in new]
    yield Row("events read and matched", where, _rates(both))
    if count >= 10_000:
        yield from _changes(where, state, few[0], options)


def _changes(where: str, state: MeshState, event: Event, options: Options) -> Iterator[Row]:
    """Measures one changed rule among all: its validation, and its application until the next event is matched."""
    judged, applied = [], []
    for turn in range(options.rounds * 4):
        rule = {
            "name": f"r{turn}",
            "source": "cn",
            "destination": "eu",
            "filters": [_name(f"**/new-{turn}**")],
        }
        began = time.process_time()
        assert judge({"rules": [rule]}, state.things())[1] == []
        judged.append(time.process_time() - began)
        record = codec.encode(StateRecord(id="new", time=_NOW, noun="rule", value=rule))
        began = time.process_time()
        state.apply(f"rule/r{turn}", record, state.rev + 1)
        match(event, state, FRANKFURT)
        applied.append(time.process_time() - began)
    for what, seconds in (("judged at control", judged), ("applied, and the next event matched", applied)):
        measured = f"{statistics.median(seconds) * 1000:.2f} ms, at most {max(seconds) * 1000:.2f} ms"
        yield Row(f"one rule changed: {what}", where, measured)


def _rate(work: Callable[[T], object], items: Iterable[T]) -> float:
    """Returns items per second of processor time. Results are dropped at once, as an agent does."""
    began, done = time.process_time(), 0
    for item in items:
        work(item)
        done += 1
        if time.process_time() - began > _ROUND:
            break
    return done / (time.process_time() - began)


def _rates(rates: Sequence[float]) -> str:
    return f"{spread(rates, 0)} events/s"


def declared(count: int, shapes: Sequence[Shape]) -> MeshState:
    """Returns a state with two instances and `count` rules between them, of the shapes in turn."""
    state = MeshState()
    things: list[tuple[str, str, dict[str, object]]] = [
        ("region", "beijing", {"jurisdiction": "cn"}),
        ("region", "frankfurt", {"jurisdiction": "global"}),
        ("instance", "cn", {"account": "game", "region": "beijing", "url": "http://127.0.0.1:5001"}),
        ("instance", "eu", {"account": "game", "region": "frankfurt", "url": "http://127.0.0.1:5002"}),
    ]
    for number in range(count):
        filters = [
            part | {"value": part["value"].replace("{n}", str(number))}
            for part in shapes[number % len(shapes)].filters
        ]
        things.append(("rule", f"r{number}", {"source": "cn", "destination": "eu", "filters": filters}))
    for rev, (noun, name, fields) in enumerate(things):
        record = StateRecord(id=make_id(noun, name), time=_NOW, noun=noun, value={"name": name, **fields})
        state.apply(f"{noun}/{name}", codec.encode(record), rev)
    return state


def _events(numbers: Iterable[int], count: int, shapes: Sequence[Shape]) -> list[Event]:
    """Returns events that one of the `count` rules matches each."""
    return [_event(number, random.Random(number).randrange(count), shapes) for number in numbers]


def _event(number: int, rule: int, shapes: Sequence[Shape]) -> Event:
    shape = shapes[rule % len(shapes)]
    return Event(
        id=f"event-{number}", time=_NOW, origin=PlaceName("cn"), action=Action.MANIFEST_PUSH, place=PlaceName("cn"),
        region=BEIJING, repository=Repository(shape.repository.format(n=rule, k=number)),
        tag=Tag(shape.tag.format(n=rule, k=number)), digest=f"sha256:{number:064x}", occurred_at=_NOW, rules_rev=1,
    )  # fmt: skip
