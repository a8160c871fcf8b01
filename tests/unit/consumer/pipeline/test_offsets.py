"""Whatever order work finishes in, what is committed is a finished prefix."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consumer.pipeline.offsets import Offsets
from mesh.log.port import Partition

P = Partition("mesh.r.events", 0)


@given(st.sets(st.integers(0, 60), min_size=1), st.randoms())
def test_any_order_of_ends_commits_the_right_prefix(offsets: set[int], random: object) -> None:
    tracker = Offsets()
    ordered = sorted(offsets)
    for offset in ordered:
        tracker.start(P, offset)
    shuffled = ordered[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    done: set[int] = set()
    for offset in shuffled:
        tracker.finish(P, offset)
        done.add(offset)
        prefix = [at for n, at in enumerate(ordered) if set(ordered[: n + 1]) <= done]
        assert tracker.committable() == ({P: prefix[-1] + 1} if prefix else {})
    assert tracker.in_flight(P) == 0


class Machine(RuleBasedStateMachine):
    """Begin, finish, commit, lose: never is an unfinished offset below the watermark."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = Offsets()
        self.next = 0
        self.unfinished: set[int] = set()
        self.committed = 0

    @rule(hole=st.integers(1, 3))
    def begin(self, hole: int) -> None:
        self.next += hole
        self.tracker.start(P, self.next)
        self.unfinished.add(self.next)

    @rule(pick=st.integers(0, 1000))
    def finish(self, pick: int) -> None:
        if self.unfinished:
            offset = sorted(self.unfinished)[pick % len(self.unfinished)]
            self.tracker.finish(P, offset)
            self.unfinished.discard(offset)

    @rule()
    def commit(self) -> None:
        found = self.tracker.committable()
        self.tracker.committed(found)
        assert found.get(P, self.committed) >= self.committed
        self.committed = found.get(P, self.committed)
        assert self.tracker.committable() == {}

    @rule()
    def lose_and_read_again(self) -> None:
        again = [at for at in range(self.committed, self.next + 1) if at in self.unfinished]
        self.tracker.forget(P)
        for offset in again:
            self.tracker.start(P, offset)

    @invariant()
    def nothing_unfinished_is_passed(self) -> None:
        watermark = self.tracker.committable().get(P, self.committed)
        assert all(offset >= watermark for offset in self.unfinished)


TestOffsets = Machine.TestCase


@given(st.integers(1, 40), st.lists(st.booleans(), max_size=40))
def test_a_head_blocks_its_partition_when_the_window_is_full_and_most_behind_it_is_finished(
    window: int, finished: list[bool]
) -> None:
    tracker = Offsets()
    for offset in range(len(finished) + 1):
        tracker.start(P, offset)
    for offset, done in enumerate(finished, 1):
        if done:
            tracker.finish(P, offset)
    is_full = 10 * (len(finished) + 1) >= 9 * window
    most = finished.count(True) > finished.count(False)
    assert list(tracker.blocking_heads(window)) == ([(P, 0)] if is_full and most else [])
    tracker.finish(P, 0)
    assert (P, 0) not in list(tracker.blocking_heads(window))


def test_an_end_after_the_partition_was_revoked_changes_nothing() -> None:
    tracker = Offsets()
    tracker.start(P, 3)
    tracker.forget(P)
    tracker.finish(P, 3)
    assert tracker.committable() == {}
