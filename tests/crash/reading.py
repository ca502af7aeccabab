"""Reading records back: all of them from the log's files, or those of one request through the query APIs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from urllib.parse import urlencode

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collector.otlp.signals import LOGS, SIGNALS, TRACES, Signal
from collector.wal.files import OperatingSystemFiles
from collector.wal.inspect import cat, verify
from tests.crash.journal import PLACES, Request
from tests.crash.writers import EPOCH, SECOND, SERVICE, trace_id
from tests.daemon import Daemon

NO_LIMIT = 2**62


Ids = dict[Signal, list[int]]


def read_ids(data: Path) -> Ids:
    """Return the ids of all records by their offset, by reading the whole log; beside a running daemon too."""
    found: Ids = {}
    for signal in SIGNALS:
        ids: list[int] = []
        for frame in cat(data, signal, 0, NO_LIMIT, OperatingSystemFiles()):
            assert frame.base_offset == len(ids), f"{signal.name}: no frame at offset {len(ids)}"
            some = ids_of(signal, frame.payload)
            assert len(some) == frame.count
            ids += some
        found[signal] = ids
    return found


def read_log(data: Path) -> dict[Signal, Counter[int]]:
    """Return how often each id stands in the log, by reading all of it; beside a running daemon too."""
    return {signal: Counter(ids) for signal, ids in read_ids(data).items()}


def verify_log(data: Path) -> None:
    """Assert that the log is as it should be, byte for byte."""
    report = verify(data, OperatingSystemFiles())
    assert report.problems == []


def disagreements(daemon: Daemon, held: Ids) -> list[str]:
    """Compare what a daemon says of its rings, indexes and logs with its log's files; a line for each difference.

    For a daemon that has just started, and to which nobody writes; `held` are the ids that its log holds.
    """
    findings = [f"wal verify: {problem}" for problem in verify(daemon.data, OperatingSystemFiles()).problems]
    for signal, told in daemon.stats().items():
        ids = held[next(one for one in SIGNALS if one.name == signal)]
        live = ids[max(0, len(ids) - told["capacity"]) :]
        expected = {
            "log.first_offset": (told["log"]["first_offset"], 0),
            "log.next_offset": (told["log"]["next_offset"], len(ids)),
            "records": (told["records"], len(live)),
            **{
                f"indexes.{name}.postings": (index["postings"], len(live))
                for name, index in told["indexes"].items()
                if name != "tokens"  # as many as the records have words
            },
        }
        if "trace_id" in told["indexes"]:
            traces = len({(one - 1) // PLACES for one in live})
            expected["indexes.trace_id.keys"] = (told["indexes"]["trace_id"]["keys"], traces)
        findings += [f"{signal}: {name} is {is_}, not {due}" for name, (is_, due) in expected.items() if is_ != due]
    return findings


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
