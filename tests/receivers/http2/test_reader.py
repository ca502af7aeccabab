"""The frame reader against its plain oracle: any frames, cut in any way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.receivers.http2.frames import PREFACE, ConnectionBroken
from collector.receivers.http2.reader import CONTROL_BYTES_MAX, DIRECT_BYTES_MIN, FRAME_BYTES, FrameReader
from tests.receivers.http2.peer import CONTINUATION, DATA, HEADERS, PADDED, PING, SETTINGS, frame
from tests.receivers.http2.plain import PlainReader

UNKNOWN = 77


class Received:
    """A stream that keeps what comes."""

    def __init__(self, number: int) -> None:
        self.id = number
        self.came = 0
        self.data = b""
        self.body: Any = None

    def received(self, data: bytes | memoryview) -> None:
        self.data += data


class Recorder:
    """What a connection does with frames, reduced to what the reader sees of it.

    Streams 5 and above want no data; stream 3's frames end the wish for more; the work of stream 1 is a whole turn.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settled = True
        self.streams: dict[int, Received] = {}
        self.events: list[tuple[Any, ...]] = []

    def begin_data(self, number: int, flags: int, length: int) -> Any:
        self.events.append(("data", number, flags, length))
        if number == 0:
            raise ConnectionBroken(1, "DATA on stream 0")  # type: ignore[arg-type]
        return self.streams.setdefault(number, Received(number)) if number < 5 else None

    def end_data(self, number: int, flags: int) -> None:
        self.events.append(("end", number, flags, self.streams[number].data if number in self.streams else None))
        self.turn += 1000 if number == 1 else 1
        if number == 3 and flags & 1:
            self.reading = False

    def take(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        assert type(payload) is bytes
        self.events.append((kind, flags, number, payload))
        if kind in (HEADERS, CONTINUATION):
            self.block_stream = 0 if flags & 4 else number
        self.idle += kind == PING

    def give_way(self) -> None:
        if not self.yielding:
            self.events.append(("way",))
            self.yielding = True


class Compiled(Recorder, FrameReader):
    pass


class Plain(Recorder, PlainReader):
    pass


def run(reader: Any, data: bytes, cuts: list[int]) -> tuple[Any, ...]:
    """Feed pieces, as a connection does."""
    at = number = 0
    error = None
    try:
        while at < len(data) and reader.reading:
            size = cuts[number % len(cuts)] if cuts else len(data)
            number += 1
            piece, at = reader.pending + data[at : at + size], at + size
            reader.pending = b""
            while piece:
                reader.feed(memoryview(piece))
                piece = b""
                if reader.yielding:
                    reader.yielding, reader.turn, reader.idle = False, 0, 0
                    piece, reader.pending = reader.pending, b""
    except ConnectionBroken as broken:
        error = broken.code
    streams = {number: (one.data, one.came) for number, one in reader.streams.items()}
    return reader.events, streams, error, reader.pending, reader.idle, reader.turn, reader.block_stream


kinds = st.sampled_from([DATA, DATA, DATA, HEADERS, CONTINUATION, PING, SETTINGS, UNKNOWN])
flags = st.sampled_from([0, 1, 4, PADDED, PADDED | 1])
numbers = st.sampled_from([0, 1, 2, 3, 5, 2**31 + 1])
payloads = st.one_of(
    st.binary(max_size=20), st.integers(0, 300).map(lambda size: bytes([size % 256]) * size), st.just(bytes(5000))
)
some_frames = st.lists(st.builds(frame, kinds, flags, numbers, payloads), max_size=8)


@given(some_frames, st.binary(max_size=12), st.lists(st.integers(1, 400), max_size=5))
def test_it_does_as_the_oracle(parts: list[bytes], tail: bytes, cuts: list[int]) -> None:
    data = b"".join(parts) + tail
    assert run(Compiled(), data, cuts) == run(Plain(), data, cuts)


@pytest.mark.parametrize(
    "head",
    [
        frame(DATA, 0, 1, bytes(10))[:9].replace(b"\0\0\x0a", (FRAME_BYTES + 1).to_bytes(3, "big"), 1),
        frame(PING, 0, 0, bytes(10))[:9].replace(b"\0\0\x0a", (CONTROL_BYTES_MAX + 1).to_bytes(3, "big"), 1),
        frame(DATA, 0, 1, bytes(10))[:9].replace(b"\0\0\x0a", FRAME_BYTES.to_bytes(3, "big"), 1),
        frame(UNKNOWN, 0, 0, bytes(10))[:9].replace(b"\0\0\x0a", FRAME_BYTES.to_bytes(3, "big"), 1),
    ],
)
@pytest.mark.parametrize("settled", [False, True])
def test_limits(head: bytes, settled: bool) -> None:
    found = []
    for reader in (Compiled(), Plain()):
        reader.settled = settled
        found.append(run(reader, head, []))
    assert found[0] == found[1]


def test_a_preface_in_pieces() -> None:
    reader = Compiled()
    data = PREFACE + frame(SETTINGS, 0, 0)
    assert reader.feed_preface(memoryview(data[:10]))
    assert (reader.pending, reader.prefaced) == (data[:10], False)
    assert reader.feed_preface(memoryview(data))
    assert reader.prefaced
    assert reader.events == [(SETTINGS, 0, 0, b"")]
    assert not Compiled().feed_preface(memoryview(b"GET / HTTP/1.1"))


class Room:
    """A body, as the reader looks at it."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.filled = 0

    def advance(self, count: int) -> None:
        self.filled += count


def test_the_rest_of_a_message_may_come_directly() -> None:
    reader = Compiled()
    size = 2 * DIRECT_BYTES_MIN
    reader.feed(memoryview(frame(DATA, 1, 3, bytes(size))[:109]))
    stream = reader.streams[3]
    assert reader.into is stream
    assert reader.direct() is None, "nothing to read into"
    stream.body = Room(size - 100)
    assert reader.direct() is stream
    stream.body.length += 1
    assert reader.direct() is None, "the frame does not end with the body"
    stream.body.length -= 1
    reader.came_directly(stream, 1000)  # type: ignore[arg-type]
    assert (stream.came, stream.body.filled, reader.into) == (1100, 1000, stream)
    reader.came_directly(stream, size - 1100)  # type: ignore[arg-type]
    assert reader.into is None
    assert reader.events[-1][:3] == ("end", 3, 1)
