"""Followers of a blob read all of it from their offset, or fail because they fell behind or it broke."""

import asyncio
from collections.abc import Iterable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.blobs.relay.incoming import Incoming
from consumer.blobs.relay.tee import ALL_WINDOWS, WINDOW, Broken, FellBehind, Tee
from mesh.registry.port import digest_of
from schemas.names import PlaceName, Region

BLOB_KEY = (PlaceName("cn@shanghai"), digest_of(b""))


async def read(tee: Tee, offset: int = 0) -> bytes:
    return b"".join([chunk async for chunk in tee.follow(offset)])


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=9), st.integers(0, 30))
async def test_a_follower_reads_from_its_offset(chunks, offset):
    body = b"".join(chunks)
    tee = Tee(len(body), 1000)
    following = asyncio.ensure_future(read(tee, min(offset, len(body))))
    for chunk in chunks:
        tee.put(chunk)
        await asyncio.sleep(0)
    tee.end(complete=True)
    assert await following == body[offset:]


async def test_a_slow_follower_falls_behind_with_an_error():
    tee = Tee(30, 10)
    for _ in range(3):
        tee.put(b"0123456789")
    assert not tee.can_follow(0)
    assert tee.can_follow(20)
    with pytest.raises(FellBehind):
        await read(tee, 5)


async def test_a_broken_blob_is_not_complete():
    tee = Tee(10, 100)
    tee.put(b"01234")
    tee.end(complete=False)
    with pytest.raises(Broken):
        await read(tee)
    assert not tee.can_follow(0)


async def test_without_a_relay_nothing_is_kept():
    incoming = Incoming(lambda: False)
    with incoming.receiving(BLOB_KEY, 5) as tee:
        tee.put(b"01234")
        assert not list(tee._chunks)
        assert not tee.can_follow(0)


async def test_an_arrival_ends_when_no_task_expects_it():
    incoming = Incoming(lambda: True)
    with incoming.expecting([BLOB_KEY]) as settle:
        arrival = incoming.get(BLOB_KEY)
        assert arrival is not None
        assert arrival.tee is None
        with incoming.waiting_for(BLOB_KEY, Region("beijing")):
            assert arrival.waits_for == "beijing"
        with incoming.receiving(BLOB_KEY, 5) as tee:
            tee.put(b"01234")
            assert arrival.tee is tee
        assert await read(tee) == b"01234"
        settle(BLOB_KEY)
        assert incoming.get(BLOB_KEY) is None
    with incoming.expecting([BLOB_KEY]), incoming.expecting([BLOB_KEY]) as settle:
        settle(BLOB_KEY)
        assert incoming.get(BLOB_KEY) is not None
    assert incoming.get(BLOB_KEY) is None


def _held(tees: Iterable[Tee]) -> int:
    return sum(len(chunk) for tee in tees for _, chunk in tee._chunks)


CHUNK = bytes(256 * 1024)


def _fill(tee: Tee) -> None:
    for _ in range(2 * WINDOW // len(CHUNK)):
        tee.put(CHUNK)


async def test_the_sum_of_all_windows_is_bounded():
    incoming = Incoming(lambda: True)
    with ExitStack() as stack:
        tees: list[Tee] = []
        for number in range(20):
            blob_key = (BLOB_KEY[0], digest_of(bytes([number])))
            tees.append(stack.enter_context(incoming.receiving(blob_key, 4 * WINDOW)))
            _fill(tees[-1])
            assert _held(tees) <= ALL_WINDOWS
        assert _held(tees) > ALL_WINDOWS - len(tees) * len(CHUNK)
    del tees
    with incoming.receiving(BLOB_KEY, 4 * WINDOW) as alone:
        _fill(alone)
        assert _held([alone]) == WINDOW


async def test_a_window_that_is_still_followed_counts():
    incoming = Incoming(lambda: True)
    followed, following = [], []
    for number in range(20):
        with incoming.receiving((BLOB_KEY[0], digest_of(bytes([number]))), 2 * WINDOW) as tee:
            _fill(tee)
            following.append(tee.follow(2 * WINDOW - len(CHUNK)))
            assert await anext(following[-1]) == CHUNK
            followed.append(tee)
        assert _held(followed) <= ALL_WINDOWS
