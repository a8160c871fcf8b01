"""The prefetch ledger: its budget is never exceeded and always released, and unnamed blobs expire."""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consumer.blobs.prefetch_ledger import UNNAMED_AFTER, PrefetchLedger
from mesh.registry.port import digest_of
from schemas.names import PlaceName, Region

PLACE, BEIJING = PlaceName("cn@shanghai"), Region("beijing")
blob_keys = st.integers(0, 5).map(lambda n: (PLACE, digest_of(bytes([n]))))


class Ledger(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.now = PrefetchLedger(100), 0.0
        self.in_progress: dict[object, int] = {}
        self.unnamed: dict[object, int] = {}

    @rule(blob_key=blob_keys, size=st.integers(0, 80))
    def start(self, blob_key, size):
        waiting = sum(self.in_progress.values()) + sum(self.unnamed.values())
        fits = blob_key not in self.in_progress and blob_key not in self.unnamed and waiting + size <= 100
        assert self.ledger.start(blob_key, size, self.now) is fits
        if fits:
            self.in_progress[blob_key] = size

    @rule(blob_key=blob_keys, arrives=st.booleans())
    def end(self, blob_key, arrives):
        if arrives and blob_key in self.in_progress:
            self.unnamed[blob_key] = self.in_progress[blob_key]
            self.ledger.complete(blob_key, {BEIJING: self.in_progress[blob_key]})
        self.in_progress.pop(blob_key, None)
        self.ledger.end(blob_key)

    @rule(blob_key=blob_keys)
    def claim(self, blob_key):
        size = self.unnamed.pop(blob_key, None)
        assert self.ledger.claim(blob_key) == (None if size is None else Counter({BEIJING: size}))

    @rule(seconds=st.sampled_from([1.0, UNNAMED_AFTER]))
    def wait(self, seconds):
        self.now += seconds
        for *blob_key, size in self.ledger.expire(self.now):
            assert self.unnamed.pop(tuple(blob_key)) == size

    @invariant()
    def the_budget_holds(self):
        assert (
            self.ledger.bytes_reserved == sum(self.in_progress.values()) + sum(self.unnamed.values()) <= 100
        )


def test_the_live_agents_of_a_region_share_its_budget() -> None:
    agents = [0]  # before the first heartbeat is read
    ledger = PrefetchLedger(100, lambda: agents[0])
    assert ledger.budget == 100
    agents[0] = 3
    assert ledger.budget == 33
    assert not ledger.start((PLACE, digest_of(b"a")), 34, 0.0)
    assert ledger.start((PLACE, digest_of(b"a")), 33, 0.0)


TestLedger = Ledger.TestCase
