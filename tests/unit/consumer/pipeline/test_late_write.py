"""Which tasks are followed by looks at their tag, when, and which ends of a look are not reported."""

from datetime import timedelta
from typing import Any

import pytest

from consumer.pipeline import late_write
from consumer.pipeline.match import match
from consumer.task import ALREADY_THERE, FILTERED, Outcome, Task, skipped
from mesh.clock import SystemClock
from mesh.rules.state import MeshState
from schemas import codec
from schemas.completions import Status
from schemas.events import Action, Event, PartOf
from schemas.names import Digest, PlaceName, Region, Repository, Tag
from schemas.state import StateRecord

NOW = SystemClock().now()
LATER = NOW + timedelta(seconds=10)


def task(*, action: Action = Action.MANIFEST_PUSH, tag: str | None = "v1", **rule: Any) -> Task:
    state = MeshState()
    declared: dict[str, dict[str, Any]] = {
        "region/beijing": {"jurisdiction": "cn"},
        "region/rome": {"jurisdiction": "eu"},
        "instance/cn": {"account": "game", "region": "beijing", "url": "http://x:5000"},
        "instance/eu": {"account": "game", "region": "rome", "url": "http://y:5000"},
        "rule/all": {"source": "cn", "destination": "eu", "deletion": True, **rule},
    }
    for key, fields in declared.items():
        noun, _, name = key.partition("/")
        record = StateRecord(id=key, time=NOW, noun=noun, value={"name": name, **fields})
        state.apply(key, codec.encode(record), state.rev + 1)
    event = Event(
        id="event", time=NOW, action=action, place=PlaceName("cn"), region=Region("beijing"),
        repository=Repository("game/app"), tag=None if tag is None else Tag(tag),
        digest=Digest(f"sha256:{7:064x}"), occurred_at=NOW, rules_rev=0,
    )  # fmt: skip
    (found,) = match(event, state, Region("rome"))
    return found


def test_a_look_asks_for_the_tag_and_not_for_the_digest_and_is_a_task_of_its_own() -> None:
    copied = task()
    look = late_write.look_at(copied, LATER)
    assert look is not None
    assert (look.digest, look.event.digest, look.event.time, look.tag) == (None, None, LATER, "v1")
    assert look.target == copied.target
    assert look.task_id != copied.task_id
    again = late_write.look_at(copied, LATER + timedelta(seconds=1))
    assert again is not None
    assert again.task_id == look.task_id  # a task that is delivered twice is followed by the same looks


@pytest.mark.parametrize("about", [{"action": Action.TAG_DELETE}, {"tag": None}])
def test_what_writes_no_tag_is_not_looked_at(about: dict[str, Any]) -> None:
    assert late_write.look_at(task(**about), LATER) is None


def test_the_look_of_a_listed_tag_belongs_to_no_execution() -> None:
    listed = task()
    part_of = PartOf(execution_id="x", rule=PlaceName("all"), trigger="backfill")
    event = listed.event.model_copy(update={"part_of": part_of})
    look = late_write.look_at(Task(**{**_fields(listed), "event": event}), LATER)
    assert look is not None
    assert not look.is_bulk


def test_looks_are_further_and_further_apart_and_end() -> None:
    due = [late_write.next_look(number, NOW) for number in range(1, 6)]
    assert [(it - NOW).total_seconds() if it else None for it in due] == [15, 30, 45, 210, None]


def test_only_a_look_that_changed_nothing_found_nothing() -> None:
    assert late_write.found_nothing(skipped(ALREADY_THERE, "there"))
    assert not late_write.found_nothing(Outcome(Status.SUCCEED))
    assert not late_write.found_nothing(skipped(FILTERED, "another rule"))


def _fields(one: Task) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}
