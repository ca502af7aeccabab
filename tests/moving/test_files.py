"""Files of records: what is written can be read, also after interruptions; what is bad costs itself and is told."""

from __future__ import annotations

import gzip
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed, Permanent, Unavailable
from collector.exporters.base import Rejected
from collector.moving import out
from collector.moving.importing import Import
from collector.moving.into import Found, requests, signal_of_name
from collector.moving.jaeger import to_otlp
from collector.moving.out import open_output
from collector.moving.source import Range
from collector.otlp.json.request import to_protobuf
from collector.otlp.json.write import to_json
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing import otlp
from collector.wal.files import OperatingSystemFiles

FILES = OperatingSystemFiles()
BODIES = [otlp.traces(5, seed=seed) for seed in range(6)]


class Sink:
    """Takes what is sent, unless told otherwise."""

    def __init__(self) -> None:
        self.taken: list[tuple[Signal, bytes]] = []
        self.away_after: int | None = None
        self.refuses = b"\0never\0"

    def send(self, signal: Signal, payload: bytes) -> Rejected | None:
        if self.away_after is not None and len(self.taken) >= self.away_after:
            raise Unavailable("away")
        if self.refuses in payload:
            raise Permanent("not that one")
        self.taken.append((signal, payload))
        return None

    @property
    def payload(self) -> bytes:
        return b"".join(payload for _, payload in self.taken)


def lines(bodies: list[bytes], signal: Signal = TRACES) -> bytes:
    return b"".join(to_json(signal, body) + b"\n" for body in bodies)


def prefixed(bodies: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(body)) + body for body in bodies)


def found(data: bytes, signal: Signal | None = TRACES) -> list[Found]:
    return list(requests(io.BytesIO(data), signal))


def imported(path: Path, sink: Sink, **options: Any) -> tuple[Import, list[tuple[int, str]]]:
    told: list[tuple[int, str]] = []
    one = Import(str(path), None, sink.send, FILES, told=lambda number, why: told.append((number, why)), **options)
    one.run()
    return one, told


@pytest.mark.parametrize("form", ["jsonl", "binpb"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_an_export_goes_on_where_it_was_interrupted(
    tmp_path: Path, form: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(out, "CHUNK_BYTES", 4000)
    whole, path = (str(tmp_path / f"{name}-traces.{form}{compression}") for name in ("whole", "cut"))
    output = open_output(whole, TRACES, {}, Range(), FILES)
    for number, body in enumerate(BODIES):
        output.write(body, 5, 5 * number + 5)
    output.finish()
    output.close()
    for stop in range(1, 7):
        output = open_output(path, TRACES, {}, Range(), FILES)
        for number in range(output.state.at // 5, stop):
            output.write(BODIES[number], 5, 5 * number + 5)
        if stop == 6:
            output.finish()
        output.close()
        if stop < 6:
            Path(path).write_bytes(Path(path).read_bytes() + b"torn")
            with pytest.raises(Unavailable, match="another export"):
                open_output(path, TRACES, {"query": "{}"}, Range(), FILES)
    assert not (tmp_path / f"cut-traces.{form}{compression}.state").exists()
    sink = Sink()
    one, _ = imported(Path(path), sink)
    assert (one.counts.records, sink.payload) == (30, b"".join(BODIES))
    reference = Sink()
    imported(Path(whole), reference)
    assert reference.payload == sink.payload
    with pytest.raises(Unavailable, match="there already"):
        open_output(path, TRACES, {}, Range(), FILES)


def test_names_say_the_form() -> None:
    for wrong in ("x", "x.gz", "x.csv", "x.jsonl.bz2"):
        with pytest.raises(Malformed, match="ends in"):
            open_output(wrong, TRACES, {}, Range(), FILES)
    assert [signal_of_name(name) for name in ("/metrics/trace-1.pb", "my.logs.gz", "x", "traces-logs")] == [
        *(TRACES, LOGS, None, None)
    ]


@pytest.mark.parametrize("signal", SIGNALS)
def test_the_collectors_file_exporter(signal: Signal) -> None:
    """JSON lines; protobuf behind its length; and each of these compressed by itself behind its length."""
    bodies = [otlp.BUILDERS[signal](3, seed=seed) for seed in range(3)]
    expected = [Found(number, signal, body) for number, body in enumerate(bodies, 1)]
    pack = zstandard.ZstdCompressor()
    assert found(prefixed(bodies), signal) == expected
    assert found(prefixed([pack.compress(body) for body in bodies]), signal) == expected
    assert [one.signal for one in found(lines(bodies, signal), None)] == [signal] * 3
    compressed = prefixed([pack.compress(to_json(signal, body)) for body in bodies])
    assert found(compressed, None) == found(lines(bodies, signal), None)
    laid_out = json.dumps(json.loads(to_json(signal, bodies[0])), indent=2).encode()
    assert [one.signal for one in found(laid_out)] == [signal]


def test_bad_lines_cost_themselves(tmp_path: Path) -> None:
    good = lines(BODIES).splitlines()
    damaged = [
        good[0],
        b'{"resourceSpans": [',
        b"",
        b"?",
        good[1],
        b'{"x": 1}',
        good[2],
        good[3][:50],
        b"\xff{",
        good[4],
    ]
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n".join(damaged)))
    sink = Sink()
    one, told = imported(path, sink)
    assert [number for number, _ in told] == [2, 4, 6, 8, 9]
    assert (one.counts.records, one.counts.bad) == (20, 5)
    assert [one.signal for one in found(b"\n".join([b"{ broken", *good[:2]]))] == [None, TRACES, TRACES]


def test_protobuf_that_breaks_off() -> None:
    data = prefixed(BODIES[:2])
    with pytest.raises(Malformed, match="--signal"):
        found(data, None)
    assert [one.reason[:13] for one in found(data[:-3])] == ["", "the file ends"]
    assert [one.reason[:10] for one in found(data + b"\xff" * 10)] == ["", "", "its length"]
    assert found(b"") == []


def test_an_import_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.moving.importing.BATCH_BYTES", 1)
    path, state = tmp_path / "x.jsonl", tmp_path / "state"
    path.write_bytes(lines(BODIES[:3]) + b"bad\n" + lines(BODIES[3:]))
    sink = Sink()
    for stop in (2, 3, 5):
        sink.away_after = stop
        with pytest.raises(Unavailable, match="away"):
            imported(path, sink, state_path=str(state))
    sink.away_after = None
    with pytest.raises(Unavailable, match="another import"):
        imported(path, sink, state_path=str(state), target="elsewhere")
    one, _ = imported(path, sink, state_path=str(state))
    assert one.resumed == 6
    assert sink.payload == b"".join(BODIES)
    assert not state.exists()


def test_what_is_refused_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "logs.pb"
    bodies = [otlp.logs(4, seed=seed, service=f"s{seed}") for seed in range(5)]
    path.write_bytes(prefixed(bodies))
    sink = Sink()
    sink.refuses = b"s3"
    one, told = imported(path, sink)
    assert (one.counts.records, one.counts.bad, told) == (16, 1, [(4, "not that one")])
    assert {signal for signal, _ in sink.taken} == {LOGS}


@given(st.binary(max_size=300), st.sampled_from([None, TRACES, METRICS]))
def test_any_bytes_are_read_or_told(data: bytes, signal: Signal | None) -> None:
    for prefix in (b"", b"{", b'{"data":', b"\0\0\0\5"):
        try:
            for one in requests(io.BytesIO(prefix + data), signal):
                assert (one.signal is None) is bool(one.reason)
        except Malformed:
            pass  # A document of something else, or protobuf of nobody knows what.


def test_jaegers_fields() -> None:
    trace = {
        "traceID": "abc",
        "spans": [
            {
                "traceID": "abc",
                "spanID": "2",
                "operationName": "GET",
                "references": [
                    {"refType": "CHILD_OF", "traceID": "abc", "spanID": "1"},
                    {"refType": "FOLLOWS_FROM", "traceID": "def", "spanID": "9"},
                ],
                "startTime": 1_700_000_000_000_001,
                "duration": 5,
                "tags": [
                    {"key": "span.kind", "type": "string", "value": "client"},
                    {"key": "error", "type": "bool", "value": True},
                    {"key": "n", "type": "int64", "value": 7},
                    {"key": "f", "type": "float64", "value": 0.5},
                    {"key": "b", "type": "binary", "value": "AQI="},
                    {"key": "otel.scope.name", "type": "string", "value": "lib"},
                ],
                "logs": [
                    {
                        "timestamp": 1_700_000_000_000_002,
                        "fields": [
                            {"key": "event", "type": "string", "value": "retry"},
                            {"key": "k", "type": "bool", "value": False},
                        ],
                    }
                ],
                "processID": "p1",
                "warnings": None,
            }
        ],
        "processes": {"p1": {"serviceName": "shop", "tags": [{"key": "host", "type": "string", "value": "h"}]}},
    }
    envelope = TRACES.request_type.FromString(to_otlp(trace)).resource_spans[0]
    assert [(one.key, one.value.string_value) for one in envelope.resource.attributes] == [
        ("service.name", "shop"),
        ("host", "h"),
    ]
    assert envelope.scope_spans[0].scope.name == "lib"
    span = envelope.scope_spans[0].spans[0]
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()) == (
        "abc".zfill(32),
        "2".zfill(16),
        "1".zfill(16),
    )
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (
        1_700_000_000_000_001_000,
        1_700_000_000_000_006_000,
    )
    assert (span.kind, span.status.code, span.links[0].trace_id.hex()) == (3, 2, "def".zfill(32))
    assert {one.key for one in span.attributes} == {"n", "f", "b"}
    assert (span.events[0].name, span.events[0].attributes[0].key) == ("retry", "k")
    for broken in ({}, {"spans": [{}]}, {"spans": 3}, [], {"spans": [{**trace["spans"][0], "traceID": "x"}]}):
        with pytest.raises(Malformed):
            to_otlp(broken)
    assert [one.reason == "" for one in found(json.dumps({"data": [trace, {}, trace]}, indent=1).encode())] == [
        *(True, False, True)
    ]
    assert [one.reason == "" for one in found(json.dumps({"total": 3, "data": [trace, {}, trace]}).encode())] == [
        *(True, False, True)
    ]


def test_a_compressed_file_that_breaks_off_gives_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(lines(BODIES[:3])) + gzip.compress(lines(BODIES[3:]))[:-20])
    sink = Sink()
    with pytest.raises(Unavailable, match="cannot be read"):
        imported(path, sink)
    assert sink.payload.startswith(b"".join(BODIES[:3]))


FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize(("signal", "count"), [(TRACES, 3), (LOGS, 2), (METRICS, 6)], ids=lambda one: str(one))
def test_a_file_of_the_collector(signal: Signal, count: int, tmp_path: Path) -> None:
    """As its file exporter writes them: JSON lines, and after rotation several files, compressed or not."""
    source = FIXTURES / f"collector-{signal.name}.json"
    sink = Sink()
    one, told = imported(source, sink)
    assert (one.counts.records, one.counts.bad, told) == (count, 0, [])
    assert {taken for taken, _ in sink.taken} == {signal}
    request = signal.request_type.FromString(sink.payload)
    expected = signal.request_type()
    for line in source.read_text().splitlines():
        expected.MergeFrom(signal.request_type.FromString(to_protobuf(signal, line.encode())))
    assert request == expected
    packed = tmp_path / f"{signal.name}-2024-07-16T11-40-00.000.json.zst"
    packed.write_bytes(zstandard.ZstdCompressor().compress(source.read_bytes()))
    again = Sink()
    imported(packed, again)
    assert again.payload == sink.payload
    text = str(request)
    for word in {
        TRACES: ("oteldemo.CheckoutService/PlaceOrder", "card declined", "vendor=1", "1721130000087654321"),
        LOGS: ("telescopes", "WARN", "1721130002000000000"),
        METRICS: ("system.cpu.time", "AGGREGATION_TEMPORALITY_DELTA", "quantile: 0.5", "scale: 3"),
    }[signal]:
        assert word in text


def test_a_file_of_jaegers_ui() -> None:
    sink = Sink()
    one, told = imported(FIXTURES / "jaeger-ui.json", sink)
    assert (one.counts.records, told) == (3, [])
    request = TRACES.request_type.FromString(sink.payload)
    spans = {
        span.name: (container.resource.attributes[0].value.string_value, span)
        for container in request.resource_spans
        for scope in container.scope_spans
        for span in scope.spans
    }
    service, root = spans["HTTP GET /dispatch"]
    assert (service, root.kind, root.parent_span_id, root.trace_id.hex()) == (
        "frontend",
        2,
        b"",
        f"{0:016x}7d7b2c1a4f3e9d80",
    )
    assert root.end_time_unix_nano - root.start_time_unix_nano == 734_410_000
    assert root.events[0].name == "HTTP request received"
    service, query = spans["SQL SELECT"]
    assert (service, query.kind, query.parent_span_id) == ("mysql", 3, root.span_id)
    service, driver = spans["GetDriver"]
    assert (service, driver.status.code, driver.span_id.hex()) == ("redis", 2, f"{0x99:016x}")
    assert (len(driver.links), driver.parent_span_id) == (1, root.span_id)
    assert {pair.key: pair.value.WhichOneof("value") for pair in driver.attributes} == {
        "param.driverID": "string_value",
        "retry.delay": "double_value",
    }
    assert {pair.key for pair in driver.events[0].attributes} == {"error", "attempt"}
