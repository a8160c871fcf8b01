"""The relay tree: the same for every agent, with one reader at the source, and no relay over its fan-out."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from consumer.blobs.relay.tree import FANOUT, parent_of
from mesh.registry.port import digest_of
from schemas.names import Region

SOURCE = Region("source")
regions = st.sets(st.sampled_from([Region(f"r{n}") for n in range(20)]), min_size=1)


def even(one: Region, other: Region) -> int:
    return 0 if one == other else 100


@given(regions, st.data(), st.binary(max_size=4))
def test_the_source_sends_once_and_every_region_receives_once(awake, data, seed):
    relays = data.draw(st.sets(st.sampled_from(sorted(awake)), min_size=1))
    leaves, digest = awake - relays, digest_of(seed)
    parents = {it: parent_of(it, digest, SOURCE, relays, leaves, even) for it in awake}
    assert [it for it, parent in parents.items() if parent is None] == [
        min(parents, key=lambda it: depth(it, parents))
    ]
    assert all(depth(it, parents) <= len(awake) for it in awake)  # no circle
    assert set(parents.values()) - {None} <= relays
    sends = Counter(parent for parent in parents.values() if parent is not None)
    most = max(FANOUT, -(-(len(awake) - 1) // len(relays)) + 1)
    assert all(count <= most for count in sends.values())


def depth(region, parents):
    steps = 0
    while (region := parents[region]) is not None:
        steps += 1
        assert steps <= len(parents)
    return steps


def test_without_relays_every_region_reads_from_the_source():
    leaves = {Region("a"), Region("b")}
    assert {parent_of(it, digest_of(b""), SOURCE, set(), leaves, even) for it in leaves} == {None}


def test_the_cheapest_region_from_the_source_is_first_and_others_choose_the_cheapest_parent():
    costs = {("source", "near"): 1, ("near", "next"): 1, ("near", "far"): 50, ("next", "far"): 2}

    def cost(one: Region, other: Region) -> int:
        return costs.get((one, other), 100)

    relays = {Region("near"), Region("next"), Region("far")}
    parents = {it: parent_of(it, digest_of(b""), SOURCE, relays, set(), cost) for it in relays}
    assert parents["near"] is None
    assert parents["next"] == "near" or parents["far"] == "near"
    assert parents["far"] in ("near", "next")


def test_the_first_region_depends_on_the_blob():
    relays = {Region(f"r{n}") for n in range(4)}
    first = {
        it
        for seed in range(40)
        for it in relays
        if parent_of(it, digest_of(bytes([seed])), SOURCE, relays, set(), even) is None
    }
    assert first == relays
