"""Reading records back: all of them from the log's files, or those of one request through the query APIs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collector.otlp.signals import LOGS, SIGNALS, TRACES, Signal
from collector.wal.files import OperatingSystemFiles
from collector.wal.inspect import cat, verify
from tests.crash.journal import Request
from tests.crash.writers import EPOCH, SECOND, SERVICE, trace_id
from tests.daemon import Daemon

NO_LIMIT = 2**62


def read_log(data: Path) -> dict[Signal, Counter[int]]:
    """Return how often each id stands in the log, by reading all of it; beside a running daemon too."""
    found = {}
    for signal in SIGNALS:
        ids: Counter[int] = Counter()
        offset = 0
        for frame in cat(data, signal, 0, NO_LIMIT, OperatingSystemFiles()):
            assert frame.base_offset == offset, f"{signal.name}: no frame at offset {offset}"
            offset = frame.end_offset
            some = ids_of(signal, frame.payload)
            assert len(some) == frame.count
            ids.update(some)
        found[signal] = ids
    return found


def verify_log(data: Path) -> None:
    """Assert that the log is as it should be, byte for byte."""
    report = verify(data, OperatingSystemFiles())
    assert report.problems == []


def ids_of(signal: Signal, payload: bytes) -> list[int]:
    """Return the ids of a payload's records."""
    message = signal.request_type.FromString(payload)
    if signal is TRACES:
        return [
            int.from_bytes(span.span_id, "big")
            for outer in message.resource_spans
            for inner in outer.scope_spans
            for span in inner.spans
        ]
    if signal is LOGS:
        return [
            int.from_bytes(log.span_id, "big")
            for outer in message.resource_logs
            for inner in outer.scope_logs
            for log in inner.log_records
        ]
    return [
        point.as_int
        for outer in message.resource_metrics
        for inner in outer.scope_metrics
        for metric in inner.metrics
        for point in metric.gauge.data_points
    ]


def ask(daemon: Daemon, request: Request) -> list[int]:
    """Return the ids of a request's records as the query API of their signal answers them, in ascending order."""
    start = EPOCH + request.number
    if request.signal is TRACES:
        path = f"/api/traces/{trace_id(request.number).hex()}"
        answer = daemon.get(path, {"Accept": "application/protobuf"})
        if answer.code == 404:
            return []
        assert answer.code == 200, answer
        data = TracesData.FromString(answer.body)
        return sorted(ids_of(TRACES, data.SerializeToString()))
    if request.signal is LOGS:
        query = {
            "query": f'{{service_name="{SERVICE}"}}',
            "start": start * SECOND,
            "end": (start + 1) * SECOND,
            "limit": 5000,
        }
        headers = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
        streams = daemon.get(f"/loki/api/v1/query_range?{urlencode(query)}", headers).json()["data"]["result"]
        return sorted(
            int(metadata["structuredMetadata"]["span_id"], 16)
            for stream in streams
            for _, _, metadata in stream["values"]
        )
    # each place is a series, and (time - 1 s, time] holds one request
    query = {"query": f'writes{{job="{SERVICE}"}}[999ms]', "time": f"{start}.500"}
    series = daemon.get(f"/api/v1/query?{urlencode(query)}").json()["data"]["result"]
    return sorted(int(value) for one in series for _, value in one["values"])


def as_text(found: Mapping[Signal, Counter[int]]) -> str:
    """Return how many records of each signal were found."""
    return json.dumps({signal.name: ids.total() for signal, ids in found.items()})
