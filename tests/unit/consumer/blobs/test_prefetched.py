"""Blobs ahead of their manifests: a budget that is never passed and always given back, and what nobody named."""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consumer.blobs.prefetched import UNNAMED_AFTER, PrefetchedBlobs
from mesh.registry.port import digest_of
from schemas.names import PlaceName, Region

PLACE, BEIJING = PlaceName("cn@shanghai"), Region("beijing")
blob_keys = st.integers(0, 5).map(lambda n: (PLACE, digest_of(bytes([n]))))


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.brought, self.now = PrefetchedBlobs(100), 0.0
        self.coming: dict[object, int] = {}
        self.came: dict[object, int] = {}

    @rule(blob_key=blob_keys, size=st.integers(0, 80))
    def begin(self, blob_key, size):
        waiting = sum(self.coming.values()) + sum(self.came.values())
        fits = blob_key not in self.coming and blob_key not in self.came and waiting + size <= 100
        assert self.brought.begin(blob_key, size, self.now) is fits
        if fits:
            self.coming[blob_key] = size

    @rule(blob_key=blob_keys, arrives=st.booleans())
    def end(self, blob_key, arrives):
        if arrives and blob_key in self.coming:
            self.came[blob_key] = self.coming[blob_key]
            self.brought.came(blob_key, {BEIJING: self.coming[blob_key]})
        self.coming.pop(blob_key, None)
        self.brought.end(blob_key)

    @rule(blob_key=blob_keys)
    def claim(self, blob_key):
        size = self.came.pop(blob_key, None)
        assert self.brought.claim(blob_key) == (None if size is None else Counter({BEIJING: size}))

    @rule(seconds=st.sampled_from([1.0, UNNAMED_AFTER]))
    def wait(self, seconds):
        self.now += seconds
        for *blob_key, size in self.brought.never_named(self.now):
            assert self.came.pop(tuple(blob_key)) == size

    @invariant()
    def the_budget_holds(self):
        assert self.brought.bytes_waiting == sum(self.coming.values()) + sum(self.came.values()) <= 100


def test_the_budget_is_a_regions_and_is_shared_by_the_agents_that_live() -> None:
    agents = [0]  # before the first heartbeat came back
    brought = PrefetchedBlobs(100, lambda: agents[0])
    assert brought.budget == 100
    agents[0] = 3
    assert brought.budget == 33
    assert not brought.begin((PLACE, digest_of(b"a")), 34, 0.0)
    assert brought.begin((PLACE, digest_of(b"a")), 33, 0.0)


TestLedger = Ledger.TestCase
