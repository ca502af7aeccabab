"""The HTTP connection without sockets: bytes in, bytes out, however they are cut."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import zstandard

from collector.errors import Overloaded, Unavailable
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.receivers import connection as module
from collector.receivers.connection import HEAD
from collector.receivers.head import HEAD_BYTES_MAX
from collector.receivers.http import READ_BYTES
from collector.testing import otlp
from tests.receivers.doubles import Receiving
from tests.receivers.wire import JSON, PROTOBUF, Client, chunked, post

SPANS = otlp.traces(3)
MANY = otlp.traces(100)
STEPS = (1, 7, 1000, 1 << 30)

each_step = pytest.mark.parametrize("step", STEPS)
each_signal = pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
both_ways = pytest.mark.parametrize("make", [post, chunked])


def raw_deflate(body: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(body) + deflater.flush()


@pytest.fixture
def client(receiving: Receiving) -> Client:
    return Client(receiving)


def stored(client: Client, signal: Signal = TRACES) -> list[bytes]:
    return [bytes(one) for one in client.receiving.stores[signal.name].payloads]


# --- what is accepted -----------------------------------------------------------------------------------------


@each_step
@each_signal
def test_protobuf_is_stored_and_answered_with_an_empty_message(client: Client, signal: Signal, step: int) -> None:
    payload = otlp.BUILDERS[signal](60)
    client.send(post(payload, signal.http_path), step)
    assert stored(client, signal) == [payload]
    (response,) = client.responses
    assert (response.code, response.body, response.headers["content-type"]) == (200, b"", PROTOBUF)
    assert client.receiving.admission.in_flight_bytes == 0


@each_step
@each_signal
def test_json_is_stored_as_protobuf_and_answered_in_json(client: Client, signal: Signal, step: int) -> None:
    payload = otlp.BUILDERS[signal](20)
    client.send(post(otlp.to_json(signal, payload), signal.http_path, "application/json; charset=utf-8"), step)
    parse = signal.request_type.FromString
    assert [parse(one) for one in stored(client, signal)] == [parse(payload)]
    (response,) = client.responses
    assert (response.code, response.body, response.headers["content-type"]) == (200, b"{}", JSON)


@each_step
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_chunks(client: Client, step: int, size: int) -> None:
    payload = otlp.traces(30)
    client.send(chunked(payload, size), step)
    assert stored(client) == [payload]
    assert [one.code for one in client.responses] == [200]


@each_step
@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:900]) + gzip.compress(body[900:])),
        ("deflate", zlib.compress),
        ("zlib", zlib.compress),
        ("zstd", zstandard.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_content_encodings(client: Client, name: str, compress: Callable[[bytes], bytes], step: int) -> None:
    client.send(post(compress(MANY), Content_Encoding=name), step)
    assert stored(client) == [MANY]
    assert client.receiving.admission.in_flight_bytes == 0


def test_empty_requests_succeed(client: Client) -> None:
    client.send(post(b"") + post(b"{}", media_type=JSON) + chunked(b""))
    assert [one.code for one in client.responses] == [200, 200, 200]
    assert stored(client) == [b"", b"", b""]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"resource_spans": [{}]}', "no spans were received: the request has 'resource_spans', which OTLP ignores"),
        (b'{"resourceLogs": [], "a": 1, "b": 2, "c": 3}', "'resourceLogs', 'a', 'b', …"),
        (b'{"resourceSpans": [], "more": 1}', ""),
        (b"{}", ""),
        (b'{"deep": ' + b"[" * 20 + b"]" * 20 + b"}", "'deep'"),
    ],
)
def test_a_request_of_nothing_that_otlp_knows_is_warned_about(client: Client, body: bytes, said: str) -> None:
    client.send(post(body, media_type=JSON) + post(SPANS))
    client.turn()
    warned, stored_next = client.responses
    partial = json.loads(warned.body).get("partialSuccess", {})
    assert said in partial.get("errorMessage", "")
    assert bool(partial) == bool(said)
    assert "rejectedSpans" not in partial
    assert (warned.code, stored_next.code, stored_next.body) == (200, 200, b"")


@each_step
def test_partial_success(client: Client, step: int) -> None:
    store = client.receiving.stores["traces"]
    store.rejected, store.message = 2, "2 spans rejected: é"
    client.send(post(SPANS) + post(otlp.to_json(TRACES, SPANS), media_type=JSON), step)
    first, second = client.responses
    assert (first.code, second.code) == (200, 200)
    partial = TRACES.response_type.FromString(first.body).partial_success
    assert (partial.rejected_spans, partial.error_message) == (2, "2 spans rejected: é")
    assert second.body.decode() == '{"partialSuccess":{"rejectedSpans":"2","errorMessage":"2 spans rejected: é"}}'


@each_step
def test_chunk_extensions_and_trailers_are_read_over(client: Client, step: int) -> None:
    head = chunked(b"")[:-5]
    body = b"2;a=b\r\n" + SPANS[:2] + b"\r\n%X \r\n" % len(SPANS[2:]) + SPANS[2:] + b"\r\n0\r\nX: y\r\n\r\n"
    client.send(head + body + post(MANY), step)
    assert stored(client) == [SPANS, MANY]


@pytest.mark.parametrize(
    ("target", "code"),
    [("/v1/traces?x=/y", 200), ("http://localhost:4318/v1/traces", 200), ("http://localhost:4318/x", 404)],
)
def test_forms_of_the_target(client: Client, target: str, code: int) -> None:
    client.send(post(SPANS, target))
    assert [one.code for one in client.responses] == [code]


def test_an_offer_to_upgrade_is_left_aside(client: Client) -> None:
    client.send(post(SPANS, Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMA") + post(MANY))
    assert [one.code for one in client.responses] == [200, 200]
    assert stored(client) == [SPANS, MANY]


# --- connections that are kept --------------------------------------------------------------------------------


@each_step
def test_pipelined_requests_are_answered_in_order(client: Client, step: int) -> None:
    requests = [
        post(SPANS),
        chunked(MANY, 77),
        post(otlp.to_json(LOGS, otlp.logs(2)), "/v1/logs", JSON),
        b"\r\n" + post(b"\xff\xff", "/v1/metrics"),
        post(b"", "/v1/nothing"),
        post(SPANS),
    ]
    client.send(b"".join(requests), step)
    assert [one.code for one in client.responses] == [200, 200, 200, 400, 404, 200]
    assert client.responses[2].body == b"{}"
    assert stored(client) == [SPANS, MANY, SPANS]
    assert not client.transport.closed
    assert client.connection.state == HEAD


def test_connections_take_turns(client: Client) -> None:
    turns: list[Callable[[], None]] = []
    client.receiving.http.soon = turns.append
    requests = post(b"\xff\xff") * 20 + post(SPANS)
    client.send(requests)
    seen = [len(client.responses)]
    while turns:
        assert client.transport.paused
        turns.pop()()
        client.send(b"")
        seen.append(len(client.responses))
    assert seen == [8, 16, 21]
    assert not client.transport.paused
    assert [one.code for one in client.responses] == [400] * 20 + [200]
    client.send(post(b"\xff\xff") * 20)
    client.connection.eof_received()
    client.close()
    turns.pop()()


@each_step
def test_what_is_pipelined_waits_while_the_store_works(client: Client, step: int) -> None:
    store = client.receiving.stores["traces"]
    store.holds = True
    client.send(post(SPANS) * 3 + post(MANY), step)
    for _ in range(4):
        assert len(store.waiting) == 1, "one request of a connection is at work at a time"
        store.settle()
        client.turn()
    assert [one.code for one in client.responses] == [200] * 4
    assert stored(client) == [SPANS, SPANS, SPANS, MANY]
    assert not client.transport.paused
    assert client.receiving.admission.in_flight_requests == 0


def test_reading_pauses_while_the_store_works(client: Client) -> None:
    client.receiving.stores["traces"].holds = True
    client.send(post(SPANS) + b"x" * (1 << 20))
    assert client.transport.paused
    assert client.unsent > (1 << 20) - 3 * READ_BYTES, "what waits is bounded by the scratch buffer"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_last_request_of_a_connection(client: Client, version: str) -> None:
    request = post(SPANS, Connection="close").replace(b"HTTP/1.1", f"HTTP/{version}".encode())
    client.send(request + post(SPANS))
    (response,) = client.responses
    assert (response.code, response.headers["connection"]) == (200, "close")
    assert client.transport.ended
    assert len(stored(client)) == 1


def test_requests_before_the_end_of_the_stream_are_answered(client: Client) -> None:
    store = client.receiving.stores["traces"]
    store.holds = True
    client.send(post(SPANS) * 2)
    assert client.connection.eof_received(), "the connection stays for the answers"
    for _ in range(2):
        store.settle()
        client.turn()
    assert [one.code for one in client.responses] == [200, 200]
    assert client.transport.closed


def test_the_end_of_the_stream_between_requests(client: Client) -> None:
    client.send(post(SPANS))
    assert not client.connection.eof_received()


def test_a_client_that_does_not_read_its_answers(client: Client) -> None:
    client.connection.pause_writing()
    client.send(post(SPANS) * 3)
    assert client.transport.paused
    assert not stored(client)
    client.connection.resume_writing()
    client.send(b"")
    assert [one.code for one in client.responses] == [200, 200, 200]
    client.connection.pause_writing()
    client.receiving.clock.seconds += 31
    client.receiving.http.sweep()
    assert client.transport.aborted


def test_expect_100_continue(client: Client) -> None:
    request = post(MANY, Expect="100-continue")
    client.send(request[: -len(MANY)])
    assert [one.code for one in client.responses] == [100]
    client.send(MANY)
    assert [one.code for one in client.responses] == [100, 200]
    client.send(request)
    assert [one.code for one in client.responses] == [100, 200, 200], "the body came unasked"


def test_expect_100_continue_of_a_request_that_is_refused(client: Client) -> None:
    client.send(post(MANY, "/v1/nothing", Expect="100-continue")[: -len(MANY)])
    assert [(one.code, one.headers.get("connection")) for one in client.responses] == [(404, "close")]
    client.send(MANY)
    assert len(client.responses) == 1


# --- memory and the budget ------------------------------------------------------------------------------------


def test_a_usual_body_is_read_into_one_buffer_and_handed_on(client: Client) -> None:
    payload = otlp.traces(500)
    client.send(post(payload)[: -len(payload)])
    buffer = client.connection.get_buffer(-1)
    assert len(buffer) == len(payload) < module.BODY_STEP_BYTES
    place = np.frombuffer(buffer, np.uint8).ctypes.data
    del buffer
    client.send(payload)
    (kept,) = client.receiving.stores["traces"].payloads
    assert np.frombuffer(kept, np.uint8).ctypes.data == place, "it was copied"
    assert bytes(kept) == payload


def test_memory_follows_the_bytes_that_came(client: Client) -> None:
    receiving = client.receiving
    size = receiving.http.body_bytes_max
    client.send(post(bytes(size))[:-size])
    assert receiving.admission.in_flight_bytes == size, "the announced size is taken from the budget"
    came = 0
    while came < size:
        buffer = client.connection.get_buffer(-1)
        held = came + len(buffer)
        del buffer
        assert held <= max(module.BODY_STEP_BYTES, 2 * came)
        client.send(bytes(min(10_000, size - came)), 10_000)
        came += 10_000
    assert [one.code for one in client.responses] == [400], "zeros are no request"


def test_over_the_budget(receiving: Receiving) -> None:
    receiving.admission.bytes_max = 3000
    store = receiving.stores["traces"]
    store.holds = True
    first, second = Client(receiving), Client(receiving)
    first.send(post(SPANS))
    second.send(post(MANY))
    (refused,) = second.responses
    assert refused.code == 503
    assert "max_in_flight_bytes" in refused.status.message
    store.settle()
    first.turn()
    second.send(post(MANY))
    store.settle()
    second.turn()
    assert [one.code for one in second.responses] == [503, 200], "alone, any size fits"
    assert receiving.admission.in_flight_bytes == 0


@both_ways
def test_while_requests_are_refused_slow_bodies_give_way(receiving: Receiving, make: Callable[..., bytes]) -> None:
    slow, busy = Client(receiving), Client(receiving)
    large = otlp.traces(2000)
    slow.send(make(large)[:2000])
    busy.send(make(large)[:200_000])
    receiving.clock.seconds += 2.5
    receiving.http.sweep()
    assert not slow.responses, "nothing was refused"
    receiving.admission.refusals += 1
    receiving.clock.seconds += 0.5
    receiving.http.sweep()
    (refused,) = slow.responses
    assert (refused.code, refused.headers["retry-after"], refused.headers["connection"]) == (503, "1", "close")
    assert not busy.responses
    busy.send(make(large)[200_000:])
    assert [one.code for one in busy.responses] == [200]
    assert receiving.admission.in_flight_bytes == 0


def test_inflating_takes_from_the_budget(receiving: Receiving) -> None:
    receiving.admission.bytes_max = 10_000
    receiving.stores["traces"].holds = True
    first, second = Client(receiving), Client(receiving)
    first.send(post(SPANS))
    second.send(post(gzip.compress(MANY), Content_Encoding="gzip"))
    assert [one.code for one in second.responses] == [503]
    assert receiving.admission.in_flight_bytes == len(SPANS)


@both_ways
@pytest.mark.parametrize("sent", [1, 40, 130, 5000])
def test_a_client_that_vanishes_gives_back_its_budget(client: Client, make: Callable[..., bytes], sent: int) -> None:
    client.send(make(MANY)[:sent])
    client.close()
    assert client.receiving.admission.in_flight_bytes == 0
    assert client.receiving.admission.in_flight_requests == 0


def test_a_client_that_vanishes_while_the_store_works_is_counted(client: Client) -> None:
    receiving = client.receiving
    store = receiving.stores["traces"]
    store.holds = True
    client.send(post(SPANS))
    client.close()
    assert receiving.admission.in_flight_bytes == len(SPANS), "the store still holds the payload"
    store.settle()
    client.turn()
    assert receiving.admission.in_flight_bytes == 0
    assert receiving.sample("otelcol_receiver_accepted_spans_total", receiver="otlp", transport="http") == 3


# --- what is refused ------------------------------------------------------------------------------------------

BAD_HEADS = {
    "two lengths": b"POST /v1/traces HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "length and chunks": b"POST /v1/traces HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no number": b"POST /v1/traces HTTP/1.1\r\nContent-Length: 1x\r\n\r\n",
    "negative": b"POST /v1/traces HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "overflow": b"POST /v1/traces HTTP/1.1\r\nContent-Length: 18446744073709551617\r\n\r\n",
    "bare LF": b"POST /v1/traces HTTP/1.1\nContent-Length: 1\n\n",
    "folded": b"POST /v1/traces HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "space before colon": b"POST /v1/traces HTTP/1.1\r\nContent-Length : 1\r\n\r\n",
    "other coding": b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding twice": b"POST /v1/traces HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "old and chunked": b"POST /v1/traces HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no version": b"POST /v1/traces\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no HTTP": b"hello\r\n\r\n",
}


@each_step
@pytest.mark.parametrize("head", BAD_HEADS.values(), ids=BAD_HEADS.keys())
def test_ambiguous_heads_end_the_connection(client: Client, head: bytes, step: int) -> None:
    client.send(head + post(SPANS), step)
    (response,) = client.responses
    assert response.code == 400
    assert response.headers["connection"] == "close"
    assert response.status.code == 3
    assert client.transport.ended
    assert not stored(client)


BAD_CHUNKS = {
    "no size": b"\r\n",
    "negative": b"-1\r\n",
    "prefixed": b"0x1\r\nx\r\n",
    "bare LF": b"1\nx\n",
    "longer than said": b"1\r\nxy\r\n",
    "huge": b"fffffffff\r\n",
    "endless extension": b"1;" + b"x" * 300,
    "endless trailer": b"0\r\n" + b"a: b\r\n" * 2000,
}


@each_step
@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS.keys())
def test_bad_chunks_end_the_connection(client: Client, chunks: bytes, step: int) -> None:
    client.send(chunked(b"")[:-5] + chunks, step)
    (response,) = client.responses
    assert (response.code, response.headers["connection"]) == (400, "close")
    assert "chunked" in response.status.message
    assert client.receiving.admission.in_flight_requests == 0


@each_step
@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
@pytest.mark.parametrize(
    ("line", "code", "named"),
    [
        (b"POST /v1/profiles HTTP/1.1", 404, "/v1/traces, /v1/logs, /v1/metrics"),
        (b"POST /v1/traces/ HTTP/1.1", 404, "/v1/traces/"),
        (b"GET /v1/traces HTTP/1.1", 405, "POST"),
        (b"OPTIONS /v1/logs HTTP/1.1", 405, "POST"),
    ],
)
def test_refusals_by_the_head_keep_the_connection(
    client: Client, line: bytes, code: int, named: str, media_type: str, step: int
) -> None:
    client.send(post(b"some body", media_type=media_type).replace(b"POST /v1/traces HTTP/1.1", line), step)
    client.send(post(SPANS), step)
    refused, accepted = client.responses
    assert (refused.code, accepted.code) == (code, 200)
    assert refused.headers["content-type"] == media_type
    assert named in refused.status.message
    assert refused.headers.get("allow") == ("POST" if code == 405 else None)
    assert stored(client) == [SPANS]


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/json5"])
def test_other_media_types(client: Client, media_type: str) -> None:
    client.send(post(SPANS, media_type=media_type) + post(SPANS))
    refused, accepted = client.responses
    assert (refused.code, accepted.code) == (415, 200)
    assert PROTOBUF in refused.status.message
    assert JSON in refused.status.message


def test_other_content_encodings(client: Client) -> None:
    client.send(post(SPANS, Content_Encoding="br") + post(SPANS, Content_Encoding="gzip, gzip"))
    assert [one.code for one in client.responses] == [415, 415]
    assert "gzip" in client.responses[0].status.message


def test_the_root_says_what_this_is(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" + post(SPANS))
    greeting, accepted = client.responses
    assert (greeting.code, accepted.code) == (200, 200)
    assert greeting.headers["content-type"].startswith("text/plain")
    assert greeting.body.count(b"\n") == 1
    assert b"OTLP/HTTP" in greeting.body


@pytest.mark.parametrize("path", ["/", "/v1/traces"])
def test_head_requests_get_no_body(client: Client, path: str) -> None:
    client.send(f"HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    written = bytes(client.transport.written)
    assert written.endswith(b"\r\n\r\n")
    assert written.count(b"\r\n\r\n") == 1
    client.transport.written.clear()
    client.send(post(SPANS))
    assert [one.code for one in client.responses] == [200]


@each_step
def test_a_head_over_its_limit(client: Client, step: int) -> None:
    client.send(b"POST /v1/traces HTTP/1.1\r\n" + b"A: b\r\n" * (HEAD_BYTES_MAX // 6), step)
    (response,) = client.responses
    assert (response.code, response.headers["connection"]) == (431, "close")
    assert str(HEAD_BYTES_MAX) in response.status.message


@each_step
def test_a_body_over_the_limit(client: Client, step: int) -> None:
    limit = client.receiving.http.body_bytes_max
    head = f"POST /v1/traces HTTP/1.1\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {limit + 1}\r\n\r\n".encode()
    client.send(head + b"x" * 5000, step)
    (response,) = client.responses
    assert (response.code, response.headers["connection"]) == (413, "close")
    assert "max_request_body_size" in response.status.message
    assert str(limit) in response.status.message
    assert response.status.code == 8
    assert not response.status.details, "a retry cannot help"
    assert client.transport.ended
    assert client.receiving.admission.in_flight_requests == 0


def test_a_chunked_body_over_the_limit(client: Client) -> None:
    client.send(chunked(bytes(client.receiving.http.body_bytes_max + 1), 100_000))
    assert [(one.code, one.headers.get("connection")) for one in client.responses] == [(413, "close")]
    assert client.receiving.admission.in_flight_bytes == 0


def test_a_body_over_the_limit_when_inflated(client: Client) -> None:
    client.send(post(gzip.compress(bytes(client.receiving.http.body_bytes_max + 1)), Content_Encoding="gzip"))
    client.send(post(SPANS))
    refused, accepted = client.responses
    assert (refused.code, accepted.code) == (413, 200)
    assert "after decompression" in refused.status.message
    assert client.receiving.admission.in_flight_bytes == 0


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\x0a\xff", {}),
        (b"no gzip", {"Content_Encoding": "gzip"}),
        (gzip.compress(MANY)[:-9], {"Content_Encoding": "gzip"}),
        (gzip.compress(MANY)[:-6] + b"......", {"Content_Encoding": "gzip"}),
        (zlib.compress(MANY) + b"more", {"Content_Encoding": "deflate"}),
        (b"", {"Content_Encoding": "gzip"}),
    ],
)
def test_malformed_bodies(client: Client, body: bytes, headers: dict[str, str]) -> None:
    client.send(post(body, **headers) + post(SPANS))
    refused, accepted = client.responses
    assert (refused.code, accepted.code) == (400, 200)
    assert refused.status.code == 3
    assert refused.status.message


def test_malformed_json_says_where(client: Client) -> None:
    body = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{},{"traceId":"xyz"}]}]}]}'
    client.send(post(body, media_type=JSON))
    (response,) = client.responses
    assert (response.code, response.headers["content-type"]) == (400, JSON)
    assert "resourceSpans[0].scopeSpans[0].spans[1].traceId" in response.status.message


@pytest.mark.parametrize("error", [Overloaded("full", 2.2), Unavailable("the log has failed", 0.2)])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
def test_retryable_refusals(client: Client, error: Exception, late: bool, media_type: str) -> None:
    store = client.receiving.stores["traces"]
    store.holds, store.error = late, None if late else error
    client.send(post(otlp.to_json(TRACES, SPANS) if media_type == JSON else SPANS, media_type=media_type))
    if late:
        store.settle(error)
        client.turn()
    (response,) = client.responses
    assert (response.code, response.status.code) == (503, 14)
    assert response.headers["retry-after"] == ("3" if isinstance(error, Overloaded) else "1"), "rounded up"
    assert response.status.message == str(error)
    assert [detail.type_url for detail in response.status.details] == ["type.googleapis.com/google.rpc.RetryInfo"]
    assert client.receiving.admission.in_flight_requests == 0
    assert not client.transport.closed


@pytest.mark.parametrize("late", [False, True])
def test_a_defect_is_retryable_logged_and_not_explained(client: Client, late: bool) -> None:
    store = client.receiving.stores["traces"]
    store.holds, store.error = late, None if late else KeyError("secret")
    client.send(post(SPANS))
    if late:
        store.settle(KeyError("secret"))
        client.turn()
    (response,) = client.responses
    assert response.code == 503
    assert "secret" not in response.status.message
    assert [event for event, _ in client.receiving.logger.events] == ["request failed"]


def test_too_many_connections(loop: asyncio.AbstractEventLoop) -> None:
    receiving = Receiving(loop, connections_max=2)
    clients = [Client(receiving) for _ in range(3)]
    assert [len(one.responses) for one in clients] == [0, 0, 1]
    (refused,) = clients[2].responses
    assert (refused.code, refused.headers["connection"]) == (503, "close")
    clients[2].send(post(SPANS))
    assert not receiving.stores["traces"].payloads
    clients[0].close()
    clients[2].close()
    admitted = Client(receiving)
    admitted.send(post(SPANS))
    assert [one.code for one in admitted.responses] == [200]


# --- time -----------------------------------------------------------------------------------------------------


def test_timeouts_of_the_head(client: Client) -> None:
    clock, http = client.receiving.clock, client.receiving.http
    client.send(b"POST /v1/traces HT")
    clock.seconds += 9
    client.send(b"TP/1.1\r\n")
    http.sweep()
    assert not client.responses
    clock.seconds += 2
    http.sweep()
    assert [(one.code, one.headers["connection"]) for one in client.responses] == [(408, "close")]


def test_timeouts_between_requests(client: Client) -> None:
    clock, http = client.receiving.clock, client.receiving.http
    client.send(post(SPANS))
    clock.seconds += 29
    http.sweep()
    assert not client.transport.closed
    clock.seconds += 2
    http.sweep()
    assert client.transport.closed
    assert len(client.responses) == 1


def test_an_empty_line_behind_a_body_begins_no_request(client: Client) -> None:
    client.send(post(SPANS) + b"\r\n")
    client.receiving.clock.seconds += 100
    client.receiving.http.sweep()
    assert client.transport.closed
    assert [one.code for one in client.responses] == [200], "and no 408"


@both_ways
def test_timeouts_of_the_body(client: Client, make: Callable[..., bytes]) -> None:
    receiving = client.receiving
    request = make(otlp.traces(2000))
    client.send(request[:100_000])
    receiving.clock.seconds += 31
    receiving.http.sweep()
    assert not client.responses, "it brought more than its due"
    client.send(request[100_000:101_000])
    receiving.clock.seconds += 31
    receiving.http.sweep()
    (response,) = client.responses
    assert (response.code, response.headers["connection"]) == (408, "close")
    assert receiving.admission.in_flight_bytes == 0
    client.send(request[101_000:])
    receiving.clock.seconds += 3
    receiving.http.sweep()
    assert client.transport.aborted, "it may not linger for ever"


def test_the_store_may_take_its_time(client: Client) -> None:
    store = client.receiving.stores["traces"]
    store.holds = True
    client.send(post(SPANS))
    client.connection.pause_writing()
    client.connection.resume_writing()
    client.receiving.clock.seconds += 3600
    client.receiving.http.sweep()
    store.settle()
    client.turn()
    assert [one.code for one in client.responses] == [200]


# --- the end --------------------------------------------------------------------------------------------------


def test_draining_refuses_and_closes(client: Client) -> None:
    loop, admission = client.receiving.loop, client.receiving.admission
    store = client.receiving.stores["traces"]
    store.holds = True
    other = Client(client.receiving)
    client.send(post(SPANS))
    drained = loop.create_task(admission.drain())
    other.turn()
    other.send(post(SPANS))
    (refused,) = other.responses
    assert (refused.code, refused.headers["connection"]) == (503, "close")
    assert "retry-after" in refused.headers
    assert not drained.done()
    store.settle()
    client.turn()
    assert [one.code for one in client.responses] == [200]
    loop.run_until_complete(drained)


def test_stopping_closes_what_is_idle_and_finishes_what_is_not(client: Client) -> None:
    receiving = client.receiving
    store = receiving.stores["traces"]
    store.holds = True
    idle, begun = Client(receiving), Client(receiving)
    client.send(post(SPANS))
    begun.send(post(SPANS)[:-10])
    stopped = receiving.loop.create_task(receiving.http.stop())
    client.turn()
    assert (idle.transport.closed, begun.transport.closed, client.transport.closed) == (True, False, False)
    idle.close()
    begun.send(post(SPANS)[-10:])
    store.settle()
    client.turn()
    for one in (client, begun):
        assert [(r.code, r.headers["connection"]) for r in one.responses] == [(200, "close")]
        assert one.transport.closed
        assert not stopped.done()
        one.close()
    receiving.loop.run_until_complete(stopped)


def test_stopping_cuts_what_does_not_end(client: Client) -> None:
    client.send(post(SPANS)[:-10])
    client.receiving.loop.run_until_complete(client.receiving.http.stop(grace_s=0))
    assert client.transport.aborted


# --- metrics --------------------------------------------------------------------------------------------------


def test_metrics(client: Client) -> None:
    receiving = client.receiving
    points = otlp.metrics(10)
    client.send(post(SPANS) + post(points, "/v1/metrics") + post(b"\xff") + post(SPANS, media_type="text/plain"))
    receiving.stores["logs"].rejected = 1
    client.send(post(otlp.logs(5), "/v1/logs"))
    http = {"receiver": "otlp", "transport": "http"}
    assert receiving.sample("otelcol_receiver_accepted_spans_total", **http) == 3
    assert receiving.sample("otelcol_receiver_accepted_metric_points_total", **http) == 10
    assert receiving.sample("otelcol_receiver_accepted_log_records_total", **http) == 4
    assert receiving.sample("otelcol_receiver_refused_log_records_total", **http) == 1
    for signal, outcome, expected in [
        (TRACES, "success", 1),
        (TRACES, "malformed", 1),
        (TRACES, "unsupported", 1),
        (METRICS, "success", 1),
        (LOGS, "partial", 1),
        (LOGS, "success", 0),
    ]:
        labels = {"signal": signal.name, "transport": "http", "outcome": outcome}
        assert receiving.sample("ringtail_receiver_requests_total", **labels) == expected
