"""The queue of parked tasks against a model that looks at all of them each time."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from consumer.pipeline.due_queue import DueQueue

START = datetime(2026, 11, 27, tzinfo=UTC)
KEYS = st.sampled_from("abcde")
SECONDS = st.integers(0, 10)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, SECONDS, st.sampled_from(["eu", "us"]), st.sampled_from(["one", "two"])),
    st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("forward"), KEYS, SECONDS),
    st.tuples(st.just("wait"), SECONDS),
)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


@given(st.lists(STEPS, max_size=40))
def test_what_is_due_is_what_a_look_at_everything_finds(steps: list[Any]) -> None:
    queue, model, now = DueQueue(), dict[str, tuple[datetime, str, str]](), 0
    for kind, *rest in steps:
        if kind == "put":
            key, second, place, agent = rest
            parked: Any = SimpleNamespace(
                task_id=key, not_before=at(second), destination_place=place, agent=agent
            )
            queue.put(parked)
            model[key] = (at(second), place, agent)
        elif kind == "remove":
            queue.remove(rest[0])
            model.pop(rest[0], None)
        elif kind == "forward" and rest[0] in model:
            key, second = rest
            queue.bring_forward(key, at(second))
            model[key] = (min(model[key][0], at(second)), *model[key][1:])
        elif kind == "wait":
            now += rest[0]
        found = [(key, *owner) for owner, keys in queue.due(at(now)) for key in keys]
        assert sorted(found) == sorted((key, *it[1:]) for key, it in model.items() if it[0] <= at(now))


def test_those_that_are_due_for_longest_come_first() -> None:
    queue = DueQueue()
    for key, second in (("late", 5), ("early", 1), ("later", 8)):
        one: Any = SimpleNamespace(task_id=key, not_before=at(second), destination_place="eu", agent="a")
        queue.put(one)
    ((_, keys),) = queue.due(at(6))
    assert list(keys) == ["early", "late"]
