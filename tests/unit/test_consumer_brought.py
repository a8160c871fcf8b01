"""Blobs ahead of their manifests: a budget that is never passed and always given back, and what nobody named."""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consumer.brought import UNNAMED_AFTER, Brought
from mesh.registry.port import digest_of
from schemas.names import PlaceName, Region

PLACE, BEIJING = PlaceName("cn@shanghai"), Region("beijing")
cargoes = st.integers(0, 5).map(lambda n: (PLACE, digest_of(bytes([n]))))


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.brought, self.now = Brought(100), 0.0
        self.coming: dict[object, int] = {}
        self.came: dict[object, int] = {}

    @rule(cargo=cargoes, size=st.integers(0, 80))
    def begin(self, cargo, size):
        waiting = sum(self.coming.values()) + sum(self.came.values())
        fits = cargo not in self.coming and cargo not in self.came and waiting + size <= 100
        assert self.brought.begin(cargo, size, self.now) is fits
        if fits:
            self.coming[cargo] = size

    @rule(cargo=cargoes, arrives=st.booleans())
    def end(self, cargo, arrives):
        if arrives and cargo in self.coming:
            self.came[cargo] = self.coming[cargo]
            self.brought.came(cargo, {BEIJING: self.coming[cargo]})
        self.coming.pop(cargo, None)
        self.brought.end(cargo)

    @rule(cargo=cargoes)
    def claim(self, cargo):
        size = self.came.pop(cargo, None)
        assert self.brought.claim(cargo) == (None if size is None else Counter({BEIJING: size}))

    @rule(seconds=st.sampled_from([1.0, UNNAMED_AFTER]))
    def wait(self, seconds):
        self.now += seconds
        for *cargo, size in self.brought.never_named(self.now):
            assert self.came.pop(tuple(cargo)) == size

    @invariant()
    def the_budget_holds(self):
        assert self.brought.bytes_waiting == sum(self.coming.values()) + sum(self.came.values()) <= 100


def test_the_budget_is_a_regions_and_is_shared_by_the_agents_that_live() -> None:
    agents = [0]  # before the first heartbeat came back
    brought = Brought(100, lambda: agents[0])
    assert brought.budget == 100
    agents[0] = 3
    assert brought.budget == 33
    assert not brought.begin((PLACE, digest_of(b"a")), 34, 0.0)
    assert brought.begin((PLACE, digest_of(b"a")), 33, 0.0)


TestLedger = Ledger.TestCase
