"""The HTTP/2 connection: RFC 9113's rules, one by one, and its limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from collector.receivers.http2 import frames, pace
from collector.receivers.http2.connection import LINGER_S
from collector.receivers.http2.fields import BLOCK_FRAMES_MAX
from collector.receivers.http2.frames import Code
from collector.receivers.http2.keepalive import Keepalive
from collector.receivers.http2.protocol import CONNECTION_WINDOW, STREAM_WINDOW
from collector.receivers.http2.reader import CONTROL_BYTES_MAX
from collector.receivers.listener import REFUSED_CONNECTIONS_MAX
from collector.testing import otlp
from tests.receivers.doubles import Receiving
from tests.receivers.http2.peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    frame,
    message,
    request_fields,
)

SPANS = otlp.traces(3)


@pytest.fixture
def peer(receiving: Receiving) -> Peer:
    return Peer(receiving)


def setting(key: int, value: int) -> bytes:
    return key.to_bytes(2, "big") + value.to_bytes(4, "big")


def word(value: int) -> bytes:
    return value.to_bytes(4, "big")


def test_it_begins_with_settings_and_acknowledges_the_clients(peer: Peer) -> None:
    kinds = [(kind, flags) for kind, flags, _, _ in peer.frames]
    assert kinds == [(SETTINGS, 0), (WINDOW_UPDATE, 0), (SETTINGS, ACK)]


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, 500, 2400])
def test_an_export_is_stored_and_answered(peer: Peer, step: int, size: int) -> None:
    payload = otlp.traces(size)
    peer.send(peer.export(1, payload), step)
    answered = peer.streams[1]
    assert dict(answered.headers) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-accept-encoding": "identity,gzip,deflate,zstd",
    }
    assert (answered.data, answered.trailers, answered.ended) == (message(b""), [("grpc-status", "0")], True)
    assert answered.reset is None
    assert [bytes(one) for one in peer.receiving.stores["traces"].payloads] == [payload]
    assert not peer.connection.streams
    assert not peer.receiving.admission.in_flight_bytes


@pytest.mark.parametrize("frame_bytes", [1, 1000, 16384, 1 << 20])
@pytest.mark.parametrize("step", [999, 1 << 20])
def test_a_message_in_many_frames(peer: Peer, frame_bytes: int, step: int) -> None:
    payload = otlp.traces(2 if frame_bytes == 1 else 2000)
    whole = message(payload)
    pieces = [whole[i : i + frame_bytes] for i in range(0, len(whole), frame_bytes)]
    peer.send(peer.headers(1) + b"".join(frame(DATA, 0, 1, one) for one in pieces) + frame(DATA, END_STREAM, 1), step)
    assert peer.streams[1].grpc_status == 0
    assert bytes(peer.receiving.stores["traces"].payloads[0]) == payload


def test_a_large_frame_is_read_straight_into_its_message(peer: Peer) -> None:
    payload = otlp.traces(2000)
    assert len(payload) > 512 * 1024
    whole = peer.export(1, payload)
    peer.send(whole[:100_000])
    buffer = peer.connection.get_buffer(-1)
    assert buffer.nbytes != len(peer.receiving.grpc.scratch)
    del buffer
    peer.send(whole[100_000:], 50_000)
    assert bytes(peer.receiving.stores["traces"].payloads[0]) == payload


def test_streams_are_answered_as_their_store_answers(peer: Peer) -> None:
    store = peer.receiving.stores["traces"]
    store.holds = True
    peer.send(b"".join(peer.export(number, SPANS) for number in (1, 3, 5)))
    assert not peer.streams
    store.waiting.reverse()
    store.settle()
    peer.turn()
    assert list(peer.streams) == [5, 3, 1]
    assert {one.grpc_status for one in peer.streams.values()} == {0}


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_and_priority_are_read_over(peer: Peer, padding: int) -> None:
    block = peer.encoder.encode(request_fields())
    pad = bytes(padding)
    data = message(SPANS)
    peer.send(
        frame(PRIORITY, 0, 1, word(0) + b"\x10")
        + frame(
            HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, 1, bytes([padding]) + word(0x80000003) + b"\x05" + block + pad
        )
        + frame(DATA, PADDED, 1, bytes([padding]) + data[:50] + pad)
        + frame(DATA, PADDED, 1, bytes([padding]) + pad)
        + frame(DATA, PADDED | END_STREAM, 1, bytes([padding]) + data[50:] + pad),
        13,
    )
    assert peer.streams[1].grpc_status == 0
    assert bytes(peer.receiving.stores["traces"].payloads[0]) == SPANS


def test_a_header_block_in_pieces(peer: Peer) -> None:
    block = peer.encoder.encode(request_fields())
    pieces = [block[i : i + 7] for i in range(0, len(block), 7)]
    peer.send(
        frame(HEADERS, 0, 1, pieces[0])
        + b"".join(frame(CONTINUATION, 0, 1, one) for one in pieces[1:])
        + frame(CONTINUATION, END_HEADERS, 1)
        + frame(DATA, END_STREAM, 1, message(SPANS))
    )
    assert peer.streams[1].grpc_status == 0


def block_in(count: int, block: bytes) -> bytes:
    """A header block in so many frames."""
    step = -(-len(block) // count)
    pieces = [block[i * step : (i + 1) * step] for i in range(count)]
    middle = b"".join(frame(CONTINUATION, 0, 1, one) for one in pieces[1:-1])
    return frame(HEADERS, 0, 1, pieces[0]) + middle + frame(CONTINUATION, END_HEADERS, 1, pieces[-1])


def test_a_header_block_has_so_many_frames(receiving: Receiving) -> None:
    for count, goaway in ((BLOCK_FRAMES_MAX, None), (BLOCK_FRAMES_MAX + 1, Code.ENHANCE_YOUR_CALM)):
        peer = Peer(receiving)
        block = peer.encoder.encode(request_fields())
        peer.send(block_in(count, block) + frame(DATA, END_STREAM, 1, message(SPANS)))
        assert peer.goaway == goaway
        assert goaway or peer.streams[1].grpc_status == 0
        peer.close()


def test_a_header_block_has_so_many_bytes(receiving: Receiving) -> None:
    for size, goaway in ((CONTROL_BYTES_MAX, None), (CONTROL_BYTES_MAX + 1, Code.ENHANCE_YOUR_CALM)):
        peer = Peer(receiving)
        block = peer.encoder.encode(request_fields())
        # One more field, of 0xff: it makes the list too long for this stream only.
        name = b"\x00\x01x"
        rest = size - len(block) - len(name) - 4
        low = rest - 127
        length = bytes([0x7F, low & 0x7F | 0x80, low >> 7 & 0x7F | 0x80, low >> 14])
        peer.send(block_in(10, block + name + length + b"a" * rest))
        assert peer.goaway == goaway
        assert goaway or peer.streams[1].reset == Code.ENHANCE_YOUR_CALM
        peer.close()


def test_trailers_end_a_request(peer: Peer) -> None:
    peer.send(peer.headers(1) + frame(DATA, 0, 1, message(SPANS)))
    peer.send(peer.headers(1, END_HEADERS | END_STREAM, [("x-checksum", "1")]))
    assert peer.streams[1].grpc_status == 0


def test_unknown_frames_and_settings_are_read_over(peer: Peer) -> None:
    peer.send(frame(0xFA, 0xFF, 77, bytes(100_000)) + frame(SETTINGS, 0, 0, setting(0xABCD, 5)))
    peer.send(peer.export(1, SPANS))
    assert peer.streams[1].grpc_status == 0


def test_reserved_bits_are_ignored(peer: Peer) -> None:
    data = bytearray(peer.export(1, SPANS))
    data[5] |= 0x80
    peer.send(bytes(data))
    assert peer.streams[1].grpc_status == 0


def test_ping_is_answered(peer: Peer) -> None:
    peer.send(frame(PING, 0, 0, b"12345678") + frame(PING, ACK, 0, b"abcdefgh"))
    assert [one for one in peer.frames if one[0] == PING] == [(PING, ACK, 0, b"12345678")]


def test_answers_wait_for_the_clients_windows(peer: Peer) -> None:
    store = peer.receiving.stores["traces"]
    store.message = "some were odd"
    peer.send(frame(SETTINGS, 0, 0, setting(frames.INITIAL_WINDOW_SIZE, 3)))
    peer.send(peer.export(1, SPANS))
    answered = peer.streams[1]
    assert len(answered.data) == 3
    assert not answered.ended
    peer.send(frame(WINDOW_UPDATE, 0, 1, word(4)))
    assert len(answered.data) == 7
    peer.send(frame(SETTINGS, 0, 0, setting(frames.INITIAL_WINDOW_SIZE, 100)))
    assert answered.ended
    assert int.from_bytes(answered.data[1:5], "big") == len(answered.data) - 5
    assert answered.grpc_status == 0


def test_answers_wait_for_the_connections_window(peer: Peer) -> None:
    peer.receiving.stores["traces"].message = "x" * 900
    number = 1
    while not peer.streams.get(number) or peer.streams[number].ended:
        number += 2
        peer.send(peer.export(number, SPANS))
        assert number < 1000
    assert sum(len(one.data) for one in peer.streams.values()) == frames.WINDOW_DEFAULT
    peer.send(frame(WINDOW_UPDATE, 0, 0, word(1000)))
    assert peer.streams[number].ended


def test_windows_are_given_back(peer: Peer) -> None:
    """A client that minds the windows can send for ever."""
    windows = {0: frames.WINDOW_DEFAULT, 1: 0}
    payload = otlp.traces(2400)
    assert len(payload) > 900_000
    whole = message(payload)
    for number in range(1, 200, 2):
        windows[number] = STREAM_WINDOW
        peer.send(peer.headers(number))
        for at in range(0, len(whole), 100_000):
            piece = whole[at : at + 100_000]
            peer.send(frame(DATA, END_STREAM if at + 100_000 >= len(whole) else 0, number, piece))
            windows[0] -= len(piece)
            windows[number] -= len(piece)
            for kind, _, target, update in peer.frames:
                if kind == WINDOW_UPDATE:
                    windows[target] += int.from_bytes(update, "big")
            peer.frames.clear()
            assert 0 <= windows[0] <= CONNECTION_WINDOW
            assert 0 <= windows[number] <= STREAM_WINDOW
        assert peer.streams[number].grpc_status == 0
        peer.receiving.stores["traces"].payloads.clear()


# --- what breaks a connection ---------------------------------------------------------------------------------

BROKEN: dict[str, tuple[bytes, Code]] = {
    "DATA on stream 0": (frame(DATA, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    "DATA on an idle stream": (frame(DATA, 0, 9, b"x"), Code.PROTOCOL_ERROR),
    "DATA padded beyond itself": (frame(DATA, PADDED, 1, b"\x06abcde"), Code.PROTOCOL_ERROR),
    "DATA padded without padding": (frame(DATA, PADDED, 1), Code.PROTOCOL_ERROR),
    "HEADERS on stream 0": (frame(HEADERS, END_HEADERS, 0, b"\x82"), Code.PROTOCOL_ERROR),
    "HEADERS on an even stream": (frame(HEADERS, END_HEADERS, 4, b"\x82"), Code.PROTOCOL_ERROR),
    "HEADERS padded beyond itself": (frame(HEADERS, END_HEADERS | PADDED, 3, b"\x05abc"), Code.PROTOCOL_ERROR),
    "HEADERS padded without padding": (frame(HEADERS, END_HEADERS | PADDED, 3), Code.PROTOCOL_ERROR),
    "HEADERS without its priority": (frame(HEADERS, END_HEADERS | HAS_PRIORITY, 3, b"123"), Code.FRAME_SIZE_ERROR),
    "a stream that depends on itself": (
        frame(HEADERS, END_HEADERS | HAS_PRIORITY, 3, word(3) + b"\x01"),
        Code.PROTOCOL_ERROR,
    ),
    "a block that is no HPACK": (frame(HEADERS, END_HEADERS, 3, b"\xff\xff\xff\xff\xff\xff"), Code.COMPRESSION_ERROR),
    "a block that is interrupted": (frame(HEADERS, 0, 3, b"\x82") + frame(PING, 0, 0, bytes(8)), Code.PROTOCOL_ERROR),
    "a block that goes on elsewhere": (
        frame(HEADERS, 0, 3, b"\x82") + frame(CONTINUATION, END_HEADERS, 5, b"\x82"),
        Code.PROTOCOL_ERROR,
    ),
    "CONTINUATION of nothing": (frame(CONTINUATION, END_HEADERS, 1, b"\x82"), Code.PROTOCOL_ERROR),
    "a block without end": (
        frame(HEADERS, 0, 3, b"\x82") + frame(CONTINUATION, 0, 3, bytes(60_000)) * 3,
        Code.ENHANCE_YOUR_CALM,
    ),
    "a block of nothing without end": (
        frame(HEADERS, 0, 3) + frame(CONTINUATION, 0, 3) * 1000,
        Code.ENHANCE_YOUR_CALM,
    ),
    "a bad PRIORITY on an idle stream": (frame(PRIORITY, 0, 9, bytes(6)), Code.FRAME_SIZE_ERROR),
    "PRIORITY on stream 0": (frame(PRIORITY, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    "RST_STREAM on stream 0": (frame(RST_STREAM, 0, 0, word(8)), Code.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (frame(RST_STREAM, 0, 9, word(8)), Code.PROTOCOL_ERROR),
    "RST_STREAM of a wrong size": (frame(RST_STREAM, 0, 1, b"123"), Code.FRAME_SIZE_ERROR),
    "SETTINGS on a stream": (frame(SETTINGS, 0, 1), Code.PROTOCOL_ERROR),
    "SETTINGS of a wrong size": (frame(SETTINGS, 0, 0, b"12345"), Code.FRAME_SIZE_ERROR),
    "an acknowledgement with content": (frame(SETTINGS, ACK, 0, setting(1, 1)), Code.FRAME_SIZE_ERROR),
    "ENABLE_PUSH of 2": (frame(SETTINGS, 0, 0, setting(2, 2)), Code.PROTOCOL_ERROR),
    "INITIAL_WINDOW_SIZE too large": (frame(SETTINGS, 0, 0, setting(4, 2**31)), Code.FLOW_CONTROL_ERROR),
    "MAX_FRAME_SIZE too small": (frame(SETTINGS, 0, 0, setting(5, 16383)), Code.PROTOCOL_ERROR),
    "MAX_FRAME_SIZE too large": (frame(SETTINGS, 0, 0, setting(5, 2**24)), Code.PROTOCOL_ERROR),
    "PUSH_PROMISE": (frame(PUSH_PROMISE, END_HEADERS, 1, word(2)), Code.PROTOCOL_ERROR),
    "PING on a stream": (frame(PING, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "PING of a wrong size": (frame(PING, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "GOAWAY of a wrong size": (frame(GOAWAY, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE by 0": (frame(WINDOW_UPDATE, 0, 0, word(0)), Code.PROTOCOL_ERROR),
    "WINDOW_UPDATE of a wrong size": (frame(WINDOW_UPDATE, 0, 0, b"123"), Code.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on an idle stream": (frame(WINDOW_UPDATE, 0, 9, word(1)), Code.PROTOCOL_ERROR),
    "WINDOW_UPDATE beyond the largest": (frame(WINDOW_UPDATE, 0, 0, word(2**31 - 1)) * 2, Code.FLOW_CONTROL_ERROR),
    "a frame over the limit": ((2**20 + 1).to_bytes(3, "big") + bytes(6), Code.FRAME_SIZE_ERROR),
    "a large frame that is no data": (
        (2**17).to_bytes(3, "big") + bytes([SETTINGS]) + bytes(5),
        Code.ENHANCE_YOUR_CALM,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_breaks_a_connection(peer: Peer, name: str, step: int) -> None:
    data, code = BROKEN[name]
    peer.receiving.stores["traces"].holds = True
    peer.send(peer.headers(1) + data, step)
    assert peer.goaway == code
    assert peer.transport.ended
    assert not peer.connection.streams
    peer.close()
    assert not peer.receiving.admission.in_flight_bytes


def test_headers_on_a_closed_stream(peer: Peer) -> None:
    peer.send(peer.export(1, SPANS) + peer.headers(1))
    assert peer.goaway == Code.STREAM_CLOSED


def test_a_stream_older_than_the_newest(peer: Peer) -> None:
    peer.send(peer.export(5, SPANS) + peer.headers(3))
    assert peer.goaway == Code.STREAM_CLOSED


def test_settings_must_come_first(receiving: Receiving) -> None:
    peer = Peer(receiving, greet=False)
    peer.send(frames.PREFACE + frame(PING, 0, 0, bytes(8)))
    assert peer.goaway == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n"])
def test_http_1_is_told_where_to_go(receiving: Receiving, begin: bytes) -> None:
    client = Peer(receiving, greet=False)
    client.connection.get_buffer(-1)[: len(begin)] = begin
    client.connection.buffer_updated(len(begin))
    assert bytes(client.transport.written).startswith(b"HTTP/1.1 404 "), "frames before it would hide it"
    assert client.transport.ended


def test_other_bytes_are_cut(receiving: Receiving) -> None:
    peer = Peer(receiving, greet=False)
    peer.send(b"\x16\x03\x01\x02\x00\x01\x00")
    assert peer.transport.ended


# --- what breaks a stream -------------------------------------------------------------------------------------


def fields_without(name: str) -> list[tuple[str, str]]:
    return [one for one in request_fields() if one[0] != name]


BAD_FIELDS: dict[str, list[tuple[str, str]]] = {
    "an upper-case name": [*request_fields(), ("X-Name", "1")],
    "an empty name": [*request_fields(), ("", "1")],
    "a name with a space": [*request_fields(), ("a b", "1")],
    "connection": [*request_fields(), ("connection", "close")],
    "transfer-encoding": [*request_fields(), ("transfer-encoding", "chunked")],
    "te other than trailers": [*fields_without("te"), ("te", "gzip")],
    "an unknown pseudo-header": [(":test", "x"), *request_fields()],
    "a response's pseudo-header": [(":status", "200"), *request_fields()],
    "a pseudo-header behind others": [*fields_without(":path"), (":path", "/")],
    "a pseudo-header twice": [(":method", "POST"), *request_fields()],
    "no method": fields_without(":method"),
    "no scheme": fields_without(":scheme"),
    "no path": fields_without(":path"),
    "an empty path": [(":path", ""), *fields_without(":path")],
    "a line break in a value": [*request_fields(), ("x", "a\r\nb")],
    "a space before a value": [*request_fields(), ("x", " a")],
    "a content-length that is none": [*request_fields(), ("content-length", "-5")],
    "two content-lengths": [*request_fields(), ("content-length", "5"), ("content-length", "6")],
    "a content-length of another size": [*request_fields(), ("content-length", "5")],
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_malformed_requests_break_their_stream(peer: Peer, name: str) -> None:
    peer.send(peer.headers(1, fields=BAD_FIELDS[name]) + frame(DATA, END_STREAM, 1, message(SPANS)))
    assert peer.streams[1].reset == Code.PROTOCOL_ERROR
    assert not peer.receiving.stores["traces"].payloads
    peer.send(peer.export(3, SPANS))
    assert peer.streams[3].grpc_status == 0
    assert not peer.receiving.admission.in_flight_bytes


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(PRIORITY, 0, 1, bytes(4)), Code.FRAME_SIZE_ERROR),
        (frame(PRIORITY, 0, 1, word(1) + b"\x01"), Code.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 1, word(0)), Code.PROTOCOL_ERROR),
        (frame(WINDOW_UPDATE, 0, 1, word(2**31 - 1)), Code.FLOW_CONTROL_ERROR),
    ],
)
def test_what_breaks_a_stream(peer: Peer, data: bytes, code: Code) -> None:
    peer.send(peer.headers(1) + data)
    assert peer.streams[1].reset == code
    assert peer.goaway is None


def test_a_stream_is_reset_once(peer: Peer) -> None:
    bad = frame(PRIORITY, 0, 1, bytes(4))
    peer.send(peer.headers(1) + bad + bad + frame(DATA, 0, 1, b"x"))
    assert [one for one in peer.frames if one[0] == RST_STREAM] == [(RST_STREAM, 0, 1, word(Code.FRAME_SIZE_ERROR))]


def test_data_behind_the_end_of_a_request(peer: Peer) -> None:
    peer.receiving.stores["traces"].holds = True
    peer.send(peer.export(1, SPANS) + frame(DATA, 0, 1, b"x"))
    assert peer.streams[1].reset == Code.STREAM_CLOSED
    peer.receiving.stores["traces"].settle()
    peer.turn()
    assert not peer.receiving.admission.in_flight_bytes


def test_headers_behind_the_end_of_a_request(peer: Peer) -> None:
    peer.receiving.stores["traces"].holds = True
    peer.send(peer.export(1, SPANS) + peer.headers(1, END_HEADERS | END_STREAM, []))
    assert peer.streams[1].reset == Code.STREAM_CLOSED


def test_headers_in_the_middle_of_a_request(peer: Peer) -> None:
    peer.send(peer.headers(1) + frame(DATA, 0, 1, b"\0") + peer.headers(1, END_HEADERS, []))
    assert peer.streams[1].reset == Code.PROTOCOL_ERROR


def test_data_on_a_closed_stream(peer: Peer) -> None:
    peer.send(peer.export(1, SPANS) + frame(DATA, 0, 1, b"x"))
    peer.send(frame(DATA, 0, 1, b"x"))
    assert [one for one in peer.frames if one[0] == RST_STREAM] == [(RST_STREAM, 0, 1, word(Code.STREAM_CLOSED))]
    assert peer.goaway is None


def test_data_beyond_a_streams_window(peer: Peer) -> None:
    peer.connection.streams.clear()
    peer.send(peer.headers(1))
    peer.connection.streams[1].receive_window = 10
    peer.send(frame(DATA, 0, 1, bytes(11)))
    assert peer.streams[1].reset == Code.FLOW_CONTROL_ERROR


# --- limits ---------------------------------------------------------------------------------------------------


def test_streams_over_the_limit_are_refused(peer: Peer) -> None:
    peer.receiving.stores["traces"].holds = True
    limit = peer.receiving.grpc.streams_max
    peer.send(b"".join(peer.export(2 * i + 1, SPANS) for i in range(limit + 1)))
    assert list(peer.streams) == [2 * limit + 1]
    assert peer.streams[2 * limit + 1].reset == Code.REFUSED_STREAM
    peer.receiving.stores["traces"].settle()
    peer.turn()
    assert len([one for one in peer.streams.values() if one.ended]) == limit


def test_rapid_resets_end_the_connection(peer: Peer) -> None:
    number = 1
    while not peer.transport.ended:
        peer.send(peer.headers(number) + frame(RST_STREAM, 0, number, word(Code.CANCEL)))
        number += 2
        assert number < 3 * pace.RESETS_MAX
    assert peer.goaway == Code.ENHANCE_YOUR_CALM
    assert number > pace.RESETS_MAX


def test_cancelling_now_and_then_is_fine(peer: Peer) -> None:
    for number in range(1, 6 * pace.RESETS_MAX, 4):
        peer.send(peer.headers(number) + frame(RST_STREAM, 0, number, word(Code.CANCEL)))
        peer.send(peer.export(number + 2, b""))
    assert peer.goaway is None


def test_a_header_list_over_the_limit(peer: Peer) -> None:
    long = [*request_fields(), *((f"x-{i}", "y" * 1000) for i in range(20))]
    peer.send(peer.headers(1, fields=long))
    assert peer.streams[1].reset == Code.ENHANCE_YOUR_CALM
    peer.send(peer.export(3, SPANS))
    assert peer.streams[3].grpc_status == 0


def test_connections_over_the_limit_are_told_so(receiving: Receiving) -> None:
    receiving.grpc.connections_max = 1
    first, second, silent = Peer(receiving), Peer(receiving), Peer(receiving)
    second.send(second.export(1, SPANS))
    answered = second.streams[1]
    assert answered.grpc_status == 14
    assert "max_connections" in answered.grpc_message
    assert len(answered.status.details) == 1
    assert second.goaway == Code.NO_ERROR
    assert second.transport.ended
    assert not receiving.stores["traces"].payloads
    assert not silent.transport.closed
    pass_time(second, LINGER_S + 1)
    assert second.transport.aborted, "it may not linger for ever"
    assert silent.transport.aborted
    second.close()
    silent.close()
    first.close()
    third = Peer(receiving)
    third.send(third.export(1, SPANS))
    assert third.streams[1].grpc_status == 0


def test_many_connections_over_the_limit_are_cut(receiving: Receiving) -> None:
    receiving.grpc.connections_max = 1
    peers = [Peer(receiving, greet=False) for _ in range(REFUSED_CONNECTIONS_MAX + 2)]
    assert [one.transport.aborted for one in peers] == [False] * (REFUSED_CONNECTIONS_MAX + 1) + [True]
    for one in peers[1:]:
        one.close()
    peers[0].close()
    admitted = Peer(receiving)
    assert admitted.goaway is None


IDLE = {
    "PING": frame(PING, 0, 0, bytes(8)),
    "SETTINGS": frame(SETTINGS, 0, 0),
    "PRIORITY": frame(PRIORITY, 0, 1, bytes(3) + b"\x05\x10"),
    "WINDOW_UPDATE": frame(WINDOW_UPDATE, 0, 0, word(1)),
    "empty DATA": frame(DATA, 0, 1),
    "unknown": frame(0x33, 0, 0),
}


@pytest.mark.parametrize("name", IDLE)
def test_frames_that_bring_no_request_forward(peer: Peer, name: str) -> None:
    peer.send(peer.headers(1))
    for _ in range(10):
        peer.send(IDLE[name] * (pace.IDLE_FRAMES_MAX // 2))
        peer.receiving.clock.seconds += 1
    assert peer.goaway is None, "at this rate they may come"
    peer.send(IDLE[name] * (3 * pace.IDLE_FRAMES_MAX))
    assert peer.goaway == Code.ENHANCE_YOUR_CALM


def test_requests_pay_for_frames_beside_them(peer: Peer) -> None:
    for number in range(1, 4 * pace.IDLE_FRAMES_MAX, 2):
        peer.send(peer.export(number, b"") + IDLE["PING"] * (pace.IDLE_FRAMES_EACH - 1))
    assert peer.goaway is None


def test_an_answer_without_a_window_is_given_up(peer: Peer) -> None:
    peer.send(frame(SETTINGS, 0, 0, setting(frames.INITIAL_WINDOW_SIZE, 0)))
    peer.send(peer.export(1, SPANS))
    pass_time(peer, 6)
    peer.send(peer.export(3, SPANS))
    pass_time(peer, 6)
    assert peer.streams[1].reset == Code.CANCEL
    assert peer.streams[3].reset is None
    peer.send(frame(WINDOW_UPDATE, 0, 3, word(100)))
    assert peer.streams[3].grpc_status == 0
    assert not peer.connection.streams


def test_while_requests_are_refused_slow_messages_give_way(peer: Peer) -> None:
    admission = peer.receiving.admission
    peer.send(peer.headers(1) + frame(DATA, 0, 1, message(bytes(900_000))[:50_000]))
    peer.send(peer.headers(3) + frame(DATA, 0, 3, message(bytes(900_000))[:5_000]))
    pass_time(peer, 2.5)
    assert not peer.streams, "nothing was refused"
    admission.refusals += 1
    pass_time(peer, 0.5)
    assert list(peer.streams) == [3], "the first has brought its due"
    assert peer.streams[3].grpc_status == 14
    assert admission.in_flight_bytes == 900_000


def test_a_client_that_does_not_read_is_not_read_either(peer: Peer) -> None:
    peer.connection.pause_writing()
    assert peer.transport.paused
    peer.connection.resume_writing()
    peer.send(peer.export(1, SPANS))
    assert peer.streams[1].grpc_status == 0
    peer.connection.pause_writing()
    pass_time(peer, 11)
    assert peer.transport.aborted


def pass_time(peer: Peer, seconds: float) -> None:
    peer.receiving.clock.seconds += seconds
    peer.receiving.grpc.sweep()
    peer.read()


@pytest.mark.parametrize("begin", [b"", frames.PREFACE[:10], frames.PREFACE])
def test_a_connection_that_does_not_begin_is_cut(receiving: Receiving, begin: bytes) -> None:
    peer = Peer(receiving, greet=False)
    peer.send(begin)
    pass_time(peer, 6)
    assert peer.transport.closed


def test_a_message_that_does_not_come_is_given_up(peer: Peer) -> None:
    peer.send(peer.headers(1) + frame(DATA, 0, 1, message(bytes(100_000))[:50_000]))
    pass_time(peer, 11)
    assert not peer.streams, "enough came in the first seconds"
    pass_time(peer, 11)
    assert peer.streams[1].grpc_status == 4
    assert peer.streams[1].reset == Code.NO_ERROR
    assert not peer.receiving.admission.in_flight_bytes
    peer.send(frame(DATA, 0, 1, bytes(100)) + peer.export(3, SPANS))
    assert peer.streams[3].grpc_status == 0, "the rest was read over"


def test_a_slow_stream_does_not_cost_the_others(peer: Peer) -> None:
    peer.send(peer.headers(1))
    pass_time(peer, 6)
    peer.send(peer.headers(3))
    pass_time(peer, 6)
    assert list(peer.streams) == [1]
    peer.send(frame(DATA, END_STREAM, 3, message(SPANS)))
    assert peer.streams[3].grpc_status == 0


def test_half_a_frame_is_given_up(peer: Peer) -> None:
    peer.send(peer.headers(1)[:12])
    pass_time(peer, 6)
    assert peer.goaway == Code.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("flags", [0, END_HEADERS])
def test_a_header_block_that_drips_is_given_up(peer: Peer, flags: int) -> None:
    block = b"".join(
        frame(HEADERS if i == 0 else CONTINUATION, 0 if flags == 0 else END_HEADERS, 1, b"") for i in range(40)
    )
    if flags:
        block = frame(HEADERS, END_HEADERS, 1, bytes(2000))
    for byte in range(60):
        if peer.goaway is not None:
            break
        peer.send(block[byte : byte + 1])
        pass_time(peer, 1)
    assert peer.goaway == Code.ENHANCE_YOUR_CALM
    assert byte < 20


def test_frames_that_are_cut_anywhere_are_not_slow(peer: Peer) -> None:
    data = b"".join(peer.export(number, SPANS) for number in range(1, 41, 2))
    step = len(data) // 17
    for begin in range(0, len(data), step):
        peer.send(data[begin : begin + step])
        pass_time(peer, 2)
    assert peer.goaway is None
    assert len(peer.streams) == 20


def test_waiting_for_the_store_is_not_slow(peer: Peer) -> None:
    peer.receiving.stores["traces"].holds = True
    peer.send(peer.export(1, SPANS))
    for _ in range(10):
        pass_time(peer, 100)
    peer.receiving.stores["traces"].settle()
    peer.turn()
    assert peer.streams[1].grpc_status == 0


def test_an_idle_connection_is_pinged_and_then_cut(peer: Peer) -> None:
    for _ in range(2):
        pass_time(peer, Keepalive().time_s + 1)
        pings = [one for one in peer.frames if one[0] == PING]
        peer.frames.clear()
        if pings:
            peer.send(frame(PING, ACK, 0, pings[0][3]))
            pass_time(peer, Keepalive().timeout_s + 1)
            assert not peer.transport.closed
    for _ in range(2):
        pass_time(peer, Keepalive().time_s + 1)
    assert peer.transport.aborted


# --- turns ----------------------------------------------------------------------------------------------------


def test_connections_take_turns(peer: Peer) -> None:
    turns: list[Callable[[], None]] = []
    peer.receiving.grpc.soon = turns.append
    peer.receiving.grpc.idle_timeout_s = 1e9
    count = 100
    data = b"".join(peer.export(2 * i + 1, b"") for i in range(count))
    peer.send(data, len(peer.receiving.grpc.scratch))
    seen = []
    while turns:
        assert peer.transport.paused
        seen.append(len(peer.streams))
        turns.pop()()
        peer.send(b"", len(peer.receiving.grpc.scratch))
    assert not peer.transport.paused
    assert len(peer.streams) == count
    assert max(b - a for a, b in zip([0, *seen], seen, strict=False)) <= pace.TURN // pace.BLOCK_COST
    assert all(one.grpc_status == 0 for one in peer.streams.values())


def test_a_turn_ends_while_the_client_does_not_read(peer: Peer) -> None:
    turns: list[Callable[[], None]] = []
    peer.receiving.grpc.soon = turns.append
    data = b"".join(peer.export(2 * i + 1, b"") for i in range(10))
    peer.send(data, len(peer.receiving.grpc.scratch))
    peer.connection.pause_writing()
    turns.pop()()
    assert peer.transport.paused
    peer.connection.resume_writing()
    assert not peer.transport.paused
    peer.read()
    assert len(peer.streams) == 10
    peer.send(b"".join(peer.export(2 * i + 1, b"") for i in range(10, 30)))
    peer.close()
    turns.pop()()


def test_an_answer_that_finds_no_window_is_given_up(peer: Peer) -> None:
    peer.receiving.stores["traces"].message = "some were odd"
    peer.send(frame(SETTINGS, 0, 0, setting(frames.INITIAL_WINDOW_SIZE, 3)))
    peer.send(peer.export(1, SPANS) + peer.export(3, SPANS))
    pass_time(peer, 6)
    peer.send(frame(WINDOW_UPDATE, 0, 3, word(1)))
    pass_time(peer, 6)
    assert peer.streams[1].reset == Code.CANCEL
    assert peer.streams[3].reset is None, "it went on meanwhile"
    pass_time(peer, 6)
    assert peer.streams[3].reset == Code.CANCEL
    assert not peer.connection.streams
    assert not peer.transport.closed


def test_a_client_that_is_gone_is_noticed_while_its_streams_are_open(peer: Peer) -> None:
    peer.receiving.stores["traces"].holds = True
    peer.send(peer.export(1, SPANS))
    for _ in range(3):
        pass_time(peer, Keepalive().time_s + 1)
    assert peer.transport.aborted
    peer.close()
    peer.receiving.stores["traces"].settle()
    assert not peer.receiving.admission.in_flight_bytes


# --- stopping -------------------------------------------------------------------------------------------------


def test_stopping_tells_the_client_and_answers_what_is_here(peer: Peer) -> None:
    store = peer.receiving.stores["traces"]
    store.holds = True
    peer.send(peer.export(1, SPANS))
    peer.connection.stop()
    peer.read()
    assert peer.goaway == Code.NO_ERROR
    peer.send(peer.export(3, SPANS))
    assert len(store.waiting) == 1, "streams behind GOAWAY are not served"
    assert not peer.transport.closed
    store.settle()
    peer.turn()
    assert peer.streams[1].grpc_status == 0
    assert peer.transport.closed


def test_an_idle_connection_is_closed_by_stopping(peer: Peer) -> None:
    peer.connection.stop()
    assert peer.transport.closed
