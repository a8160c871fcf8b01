"""Assigning partitions: complete, even, and without moving more than necessary."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mesh.log.assignment import assign
from mesh.log.port import Partition

TOPICS = ["mesh.a.events", "mesh.a.bulk", "mesh.a.retry"]


def partitions_of(counts: dict[str, int]) -> list[Partition]:
    return [Partition(topic, number) for topic, count in counts.items() for number in range(count)]


counts = st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 12), min_size=1)
members = st.lists(st.integers(0, 9), min_size=1, max_size=6, unique=True)


@given(counts, st.lists(members, min_size=1, max_size=6))
def test_every_partition_has_one_live_owner_and_shares_are_even_through_any_changes(counts, history):
    wanted = partitions_of(counts)
    owners: dict[Partition, int] = {}
    for alive in history:
        owners = assign(wanted, dict.fromkeys(counts, alive), owners)
        assert set(owners) == set(wanted)
        for topic in counts:
            sizes = Counter(owner for partition, owner in owners.items() if partition.topic == topic)
            assert set(sizes) <= set(alive)
            assert max(sizes[member] for member in alive) - min(sizes[member] for member in alive) <= 1


@given(counts, members)
def test_nothing_moves_when_nobody_comes_or_goes(counts, alive):
    wanted = partitions_of(counts)
    readers = dict.fromkeys(counts, alive)
    first = assign(wanted, readers, {})
    assert assign(wanted, readers, first) == first


@given(st.integers(1, 24), members)
def test_a_member_that_leaves_costs_the_others_nothing(count, alive):
    wanted = partitions_of({"mesh.a.events": count})
    before = assign(wanted, {"mesh.a.events": [*alive, 99]}, {})
    after = assign(wanted, {"mesh.a.events": alive}, before)
    assert all(after[partition] == owner for partition, owner in before.items() if owner != 99)


def test_topics_with_one_partition_each_spread_over_the_members():
    wanted = partitions_of({"mesh.a.retry": 1, "mesh.b.retry": 1})
    shared = assign(wanted, {"mesh.a.retry": ["x", "y"], "mesh.b.retry": ["x", "y"]}, {})
    assert set(shared.values()) == {"x", "y"}


def test_a_member_gets_only_topics_it_reads():
    wanted = partitions_of({"mesh.a.events": 4, "mesh.a.bulk": 4})
    shared = assign(wanted, {"mesh.a.events": ["x"], "mesh.a.bulk": ["x", "y"]}, {})
    assert {owner for partition, owner in shared.items() if partition.topic == "mesh.a.events"} == {"x"}
    assert Counter(owner for partition, owner in shared.items() if partition.topic == "mesh.a.bulk") == {
        "x": 2,
        "y": 2,
    }
