"""A server in process, and what is asserted about what it has received."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator
from time import time_ns

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.errors import InvalidQuery
from collector.testing import otlp as builders
from collector.testing.assertions import Otlp
from collector.testing.server import Server
from collector.testing.spans import Trace, duration_text


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def otlp(server: Server) -> Otlp:
    server.clear()
    server.violations.take()
    return Otlp(server)


def post(otlp: Otlp, path: str, body: bytes) -> None:
    request = urllib.request.Request(f"{otlp.endpoint}{path}", body, {"Content-Type": "application/x-protobuf"})
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def spans(*shape: tuple[str, int, int], trace: bytes = b"t" * 16) -> bytes:
    """A request with spans (name, id, parent's id), each a ms after the one before."""
    request = ExportTraceServiceRequest()
    envelope = request.resource_spans.add()
    envelope.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value="shop")))
    scope = envelope.scope_spans.add()
    scope.scope.name, scope.scope.version = "tests", "1"
    now = time_ns()
    for at, (name, number, parent) in enumerate(shape):
        start = now + at * 1_000_000
        scope.spans.add(
            trace_id=trace,
            span_id=number.to_bytes(8, "big"),
            parent_span_id=parent.to_bytes(8, "big") if parent else b"",
            name=name,
            kind=2,
            start_time_unix_nano=start,
            end_time_unix_nano=start + 500_000,
        )
    return request.SerializeToString()


def test_a_span_is_what_was_sent(otlp: Otlp) -> None:
    request = ExportTraceServiceRequest.FromString(spans(("parent", 1, 0), ("child", 2, 1), ("other", 3, 1)))
    parent = request.resource_spans[0].scope_spans[0].spans[0]
    parent.status.code, parent.status.message = 2, "too late"
    parent.events.add(name="exception", time_unix_nano=5)
    parent.links.add(trace_id=b"l" * 16, span_id=b"k" * 8)
    for key, value in {
        "text": AnyValue(string_value="a"),
        "many": AnyValue(array_value={"values": [AnyValue(int_value=1), AnyValue(bool_value=True)]}),
        "map": AnyValue(kvlist_value={"values": [KeyValue(key="in", value=AnyValue(double_value=0.5))]}),
        "nothing": AnyValue(),
    }.items():
        parent.attributes.append(KeyValue(key=key, value=value))
    post(otlp, "/v1/traces", request.SerializeToString())
    span = otlp.traces.one("{ status = error }")
    assert (span.name, span.kind, span.status, span.status_message) == ("parent", "server", "error", "too late")
    assert span.attributes == {"text": "a", "many": (1, True), "map": {"in": 0.5}, "nothing": None}
    assert (span.service, span.scope, span.scope_version) == ("shop", "tests", "1")
    assert (span.trace_id, span.span_id, span.parent_span_id) == (b"t".hex() * 16, "0000000000000001", "")
    assert span.duration_ns == 500_000
    assert [one.name for one in span.children] == ["child", "other"]
    assert span.children[0].parent is span
    assert span.parent is None
    assert (span.events[0].name, span.links[0].span_id) == ("exception", b"k".hex() * 8)
    with pytest.raises(TypeError):
        span.attributes["text"] = "b"  # type: ignore[index]


def test_structural_queries_match_the_spans_that_they_return(otlp: Otlp) -> None:
    post(otlp, "/v1/traces", spans(("a", 1, 0), ("b", 2, 1), ("c", 3, 2), ("d", 4, 1)))
    post(otlp, "/v1/traces", spans(("a", 1, 0), ("c", 3, 1), trace=b"u" * 16))
    assert otlp.traces.one('{ name = "b" } > { name = "c" }').trace_id == b"t".hex() * 16
    assert sorted(one.name for one in otlp.traces.all('{ name = "a" } >> { }', count=4)) == ["b", "c", "c", "d"]
    assert {one.name for one in otlp.traces.all('{ name = "b" } && { name = "d" }', count=2)} == {"b", "d"}
    otlp.traces.none('{ name = "a" } !>> { name = "c" }')
    assert len(otlp.traces.all("{ } | count() > 3")) == 4


def test_an_assertion_waits_for_what_comes(otlp: Otlp) -> None:
    asked = threading.Event()
    late = threading.Thread(target=lambda: asked.wait(10) and post(otlp, "/v1/traces", spans(("late", 1, 0))))
    late.start()
    otlp.traces.none('{ name = "late" }')
    asked.set()
    assert otlp.traces.one('{ name = "late" }', wait=30).name == "late"
    late.join()


def test_failures_tell_what_there_is(otlp: Otlp) -> None:
    with pytest.raises(AssertionError, match=r"(?s)no spans match.*No span was received\.\nNo export has arrived"):
        otlp.traces.one("{}", wait=0)
    post(otlp, "/v1/traces", spans(("a", 1, 0), ("b", 2, 1), ("orphan", 3, 9)))
    with pytest.raises(AssertionError) as failure:
        otlp.traces.all('{ name = "a" }', count=2, wait=0)
    told = str(failure.value).splitlines()
    assert told[0] == '1 spans match { name = "a" }, not 2:'
    assert told[2:] == [
        "Received:",
        f"trace {b't'.hex() * 16}: 3 spans, 2.5 ms",
        "  shop: a  [server, 500 µs]",
        "    shop: b  [server, 500 µs]",
        "  (parent not received) shop: orphan  [server, 500 µs]",
    ]
    with pytest.raises(AssertionError, match="1 spans match .* and none should:\n  shop: b "):
        otlp.traces.none('{ name = "b" }')
    with pytest.raises(AssertionError, match="are of traces only"):
        otlp.logs.one('{service_name="shop"}', wait=0)
    with pytest.raises(InvalidQuery):
        otlp.traces.one("{ name = ", wait=30)


def test_logs_and_metrics_are_asked_in_their_languages(otlp: Otlp) -> None:
    request = ExportLogsServiceRequest.FromString(builders.logs(4, time_ns=time_ns()))
    record = request.resource_logs[0].scope_logs[0].log_records[0]
    record.body.string_value = "boom"
    record.severity_text, record.trace_id = "FATAL", b"t" * 16
    post(otlp, "/v1/logs", request.SerializeToString())
    line = otlp.logs.one('{service_name="checkout"} |= "boom"')
    assert (line.body, line.severity, line.trace_id, line.service) == ("boom", "FATAL", b"t".hex() * 16, "checkout")
    assert line.attributes["code_function_name"] == "shop.orders.service.place"
    assert len(otlp.logs.all('{service_name="checkout"}', count=4)) == 4
    with pytest.raises(InvalidQuery):
        otlp.logs.one('sum(rate({service_name="checkout"}[1m]))', wait=0)

    post(otlp, "/v1/metrics", builders.metrics(5, time_ns=time_ns()))
    assert otlp.metrics.value("count(system_memory_utilization_ratio)") == 1
    assert otlp.metrics.value("1 + 1", equals=2) == 2
    sample = otlp.metrics.one("system_memory_utilization_ratio")
    assert sample.labels["http_request_method"] == "GET"
    with pytest.raises(AssertionError, match=r'(?s)not one that is 7.*Received:.*http_request_method="GET"'):
        otlp.metrics.value("system_memory_utilization_ratio", equals=7, wait=0)


def test_what_goes_wrong_over_grpc_is_a_violation_too(otlp: Otlp, server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        for path, body in (
            ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", b"\xff"),
            ("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export", b""),
        ):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(path)(body, timeout=30)
    with socket.create_connection(tuple(server.grpc.split(":")), 30) as one:  # type: ignore[arg-type]
        one.sendall(b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        told = b""
        while b"HTTP/1.1 404" not in told:
            told += one.recv(4096) or pytest.fail(f"closed after {told!r}")
    assert [(one.transport, one.signal, one.outcome) for one in otlp.violations] == [
        ("grpc", "traces", "malformed"),
        ("grpc", "", "unsupported"),
        ("grpc", "", "unsupported"),
    ]
    assert "POST /v1/traces" in str(otlp.violations[2])
    assert len(otlp.forgive()) == 3
    assert otlp.violations == ()


def test_a_tree_shows_every_span_once_whatever_its_shape() -> None:
    """Cycles, a span that is its own parent, duplicate ids, and more depth and more spans than are shown."""
    for shape in (
        [("a", 1, 2), ("b", 2, 1)],
        [("self", 1, 1)],
        [("one", 1, 0), ("two", 1, 0), ("child", 2, 1)],
        [(f"{n}", n, n - 1) for n in range(1, 200)],
    ):
        trace = Trace(spans(*shape))
        assert sorted(span.name for _, span in trace.tree()) == sorted(name for name, _, _ in shape)
        assert len(trace.text().splitlines()) <= 42
    assert [depth for depth, _ in Trace(spans(("c", 3, 2), ("b", 2, 1), ("a", 1, 0))).tree()] == [0, 1, 2]


def test_durations_are_told_shortly() -> None:
    assert [duration_text(ns) for ns in (5, 1500, 2_000_000, 12_345_000_000)] == ["5 ns", "1.5 µs", "2 ms", "12.3 s"]


def test_the_environment_is_what_sdks_read(otlp: Otlp) -> None:
    assert otlp.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == otlp.endpoint
    assert otlp.grpc_environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == otlp.grpc_endpoint
    assert otlp.grpc_environment["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc"
    assert otlp.get("/api/search", q="{}")["traces"] == []
