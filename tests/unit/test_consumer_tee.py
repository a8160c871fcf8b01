"""What followers of a blob see: all of it, from where they are; or that they fell behind, or that it broke."""

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.relay.incoming import Incoming
from consumer.relay.tee import Broken, FellBehind, Tee
from mesh.registry.port import digest_of
from schemas.names import PlaceName, Region

CARGO = (PlaceName("cn@shanghai"), digest_of(b""))


async def read(tee: Tee, offset: int = 0) -> bytes:
    return b"".join([chunk async for chunk in tee.follow(offset)])


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.integers(0, 30))
async def test_a_follower_gets_what_follows_its_offset(chunks, offset):
    body = b"".join(chunks)
    tee = Tee(len(body), 1000)
    following = asyncio.ensure_future(read(tee, min(offset, len(body))))
    for chunk in chunks:
        tee.put(chunk)
        await asyncio.sleep(0)
    tee.end(whole=True)
    assert await following == body[offset:]


async def test_who_is_too_slow_falls_behind_and_is_told():
    tee = Tee(30, 10)
    for _ in range(3):
        tee.put(b"0123456789")
    assert not tee.holds(0)
    assert tee.holds(20)
    with pytest.raises(FellBehind):
        await read(tee, 5)


async def test_what_broke_is_never_taken_for_whole():
    tee = Tee(10, 100)
    tee.put(b"01234")
    tee.end(whole=False)
    with pytest.raises(Broken):
        await read(tee)
    assert not tee.holds(0)


async def test_nothing_is_kept_where_nobody_can_follow():
    incoming = Incoming(lambda: False)
    with incoming.coming(CARGO, 5) as tee:
        tee.put(b"01234")
        assert not list(tee._chunks)
        assert not tee.holds(0)


async def test_what_is_expected_comes_in_and_is_forgotten():
    incoming = Incoming(lambda: True)
    with incoming.expected([CARGO]) as settled:
        arrival = incoming.get(CARGO)
        assert arrival is not None
        assert arrival.tee is None
        with incoming.asking(CARGO, Region("beijing")):
            assert arrival.waits_for == "beijing"
        with incoming.coming(CARGO, 5) as tee:
            tee.put(b"01234")
            assert arrival.tee is tee
        assert await read(tee) == b"01234"
        settled(CARGO)
        assert incoming.get(CARGO) is None
    with incoming.expected([CARGO]), incoming.expected([CARGO]) as settled:
        settled(CARGO)
        assert incoming.get(CARGO) is not None
    assert incoming.get(CARGO) is None


async def test_all_windows_together_are_bounded():
    incoming = Incoming(lambda: True)
    digests = [digest_of(bytes([n])) for n in range(20)]
    with ExitStack() as stack:
        tees = [stack.enter_context(incoming.coming((CARGO[0], digest), 1)) for digest in digests]
        assert tees[0]._window == 8 * 1024 * 1024
        assert tees[-1]._window < 3 * 1024 * 1024
