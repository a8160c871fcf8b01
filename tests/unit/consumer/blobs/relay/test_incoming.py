"""The memory of what is relayed: one bound for all agents of a process."""

from contextlib import ExitStack
from weakref import WeakSet

import pytest

from consumer.blobs.relay import incoming
from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.tee import Tee
from schemas.names import Digest, PlaceName

KIB = 1024


def test_the_agents_of_one_process_share_one_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "WINDOW", 8 * KIB)
    monkeypatch.setattr(incoming, "ALL_WINDOWS", 16 * KIB)
    tees: WeakSet[Tee] = WeakSet()
    agents = [Incoming(lambda: True, tees) for _ in range(8)]
    with ExitStack() as stack:
        for number, agent in enumerate(agents):
            blob_key = PlaceName(f"game@region{number}"), Digest(f"sha256:{number:064}")
            tee = stack.enter_context(agent.receiving(blob_key, 100 * KIB))
            for _ in range(20):
                tee.put(bytes(KIB))
        held = [tee.received - tee._start for tee in tees]
        assert (len(held), sum(held)) == (8, 16 * KIB)
