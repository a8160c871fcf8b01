"""Which rules an event asks, where many rules of its source want the repository and few the tag."""

from datetime import timedelta
from typing import Any

import pytest

from consumer.pipeline.match import match
from mesh.clock import SystemClock
from mesh.rules.state import MeshState
from schemas import codec
from schemas.events import Action, Event
from schemas.names import PlaceName, Region, Repository, Tag
from schemas.state import FirstDeclared, StateRecord

MANY = 100
NOW = SystemClock().now()


def declare(state: MeshState, key: str, **fields: Any) -> None:
    noun, _, name = key.partition("/")
    record = StateRecord(id=key, time=NOW, noun=noun, value={"name": name, **fields})
    state.apply(key, codec.encode(record), state.rev + 1)


def declared() -> MeshState:
    state = MeshState()
    for region in ("beijing", "frankfurt"):
        declare(state, f"region/{region}", jurisdiction="cn")
    declare(state, "instance/cn", account="game", region="beijing", url="http://x:5000")
    declare(state, "instance/eu", account="game", region="frankfurt", url="http://y:5000")
    for number in range(MANY):
        filters = [{"type": "name", "value": "game/**"}, {"type": "tag", "value": f"*-{number}"}]
        declare(state, f"rule/r{number}", source="cn", destination="eu", filters=filters, deletion=True)
    return state


def asked(state: MeshState, tag: str | None, action: Action = Action.MANIFEST_PUSH) -> set[str]:
    event = Event(
        id="event", time=NOW, action=action, place=PlaceName("cn"), region=Region("beijing"),
        repository=Repository("game/app"), tag=None if tag is None else Tag(tag), digest=f"sha256:{7:064x}",
        occurred_at=NOW, rules_rev=0,
    )  # fmt: skip
    return {task.rule.name for task in match(event, state, Region("frankfurt"))}


def test_of_many_rules_for_a_repository_those_are_asked_that_want_the_tag() -> None:
    state = declared()
    assert asked(state, "v1-7") == {"r7"}
    assert asked(state, "v1-7", Action.TAG_DELETE) == {"r7"}
    assert asked(state, "v1") == set()
    declare(state, "rule/r8", source="cn", destination="eu", filters=[{"type": "tag", "value": "*-7"}])
    assert asked(state, "v1-7") == {"r7", "r8"}


def test_what_may_follow_a_subject_is_asked_of_all_rules_for_its_repository() -> None:
    state = declared()
    every = {f"r{number}" for number in range(MANY)}
    assert asked(state, None) == every
    assert asked(state, f"sha256-{7:064x}.sig") == every
    assert asked(state, None, Action.MANIFEST_DELETE) == every


@pytest.mark.parametrize(
    ("rules_rev", "minutes_ago", "is_copied"),
    [
        (5, 60, False),  # pushed an hour before the rule was declared
        (-1, 60, False),
        (6, 60, True),  # its intake knew the rule: the clocks disagree
        (5, 0, True),  # an intake that could not ask for the newest revision
    ],
)
def test_what_happened_before_a_rule_was_declared_is_not_for_it(
    rules_rev: int, minutes_ago: int, is_copied: bool
) -> None:
    state = declared()
    first = FirstDeclared(after_rev=5, time=NOW)
    record = StateRecord(
        id="new",
        time=NOW,
        noun="rule",
        value={"name": "new", "source": "cn", "destination": "eu"},
        first=first,
    )
    state.apply("rule/new", codec.encode(record), state.rev + 1)
    event = Event(
        id="event", time=NOW - timedelta(minutes=minutes_ago), action=Action.MANIFEST_PUSH, place=PlaceName("cn"),
        region=Region("beijing"), repository=Repository("other/app"), tag=Tag("v1"), digest=f"sha256:{7:064x}",
        occurred_at=NOW, rules_rev=rules_rev,
    )  # fmt: skip
    tasks = match(event, state, Region("frankfurt"))
    assert [task.rule.name for task in tasks] == (["new"] if is_copied else [])
