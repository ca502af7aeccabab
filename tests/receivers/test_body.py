"""The body: bytes filled in place, by copy and straight from a socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.receivers.body import Body


@given(st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=30), st.integers(1, 64))
def test_it_holds_what_came_in_order(pieces: list[tuple[bytes, bool]], step: int) -> None:
    whole = b"".join(piece for piece, _ in pieces)
    body = Body(len(whole), step)
    for piece, directly in pieces:
        if not directly:
            body.write(piece)
            continue
        while piece:
            with memoryview(body) as room:
                count = min(len(room), len(piece))
                assert count > 0
                room[:count] = piece[:count]
            body.advance(count)
            piece = piece[count:]
    assert body.complete
    assert body.filled == body.length == len(whole)
    assert body.take() == whole


def test_memory_follows_the_bytes_that_came() -> None:
    body = Body(1_000_000, 100)
    for came in range(0, 100_000, 1000):
        with memoryview(body) as room:
            assert came + len(room) <= max(100, 2 * came)
        body.write(bytes(1000))


def test_limits() -> None:
    body = Body(4, 2)
    with pytest.raises(ValueError, match="more bytes"):
        body.write(b"12345")
    body.write(b"123")
    with pytest.raises(ValueError, match="more bytes"):
        body.write(b"45")
    with pytest.raises(ValueError, match="not complete"):
        body.take()
    with memoryview(body) as room:
        assert len(room) == 1
    for count in (-1, 2):
        with pytest.raises(ValueError, match="more bytes"):
            body.advance(count)
    body.write(b"4")
    assert body.take() == b"1234"
    with pytest.raises(ValueError, match="taken"):
        body.take()
    with pytest.raises(BufferError):
        memoryview(body)
    with pytest.raises(ValueError, match="more bytes"):
        body.write(b"")
    for length, step in ((-1, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least"):
            Body(length, step)


def test_it_does_not_move_while_it_is_read_into() -> None:
    body = Body(100, 10)
    with memoryview(body):
        with pytest.raises(BufferError):
            body.write(bytes(11))
        body.write(bytes(10))
        with pytest.raises(BufferError):
            memoryview(body)
    body.write(bytes(90))
    assert body.complete
