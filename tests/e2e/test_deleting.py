"""What was deleted is shown by nothing any more: not by any API, out of ring or log, nor after kills, nor by its files."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, urlencode

import grpc
from click.testing import CliRunner

from collector.cli import main
from collector.moving.source import Range, from_daemon, from_directory
from collector.otlp.signals import LOGS, TRACES, Signal
from collector.testing import otlp
from collector.wal.files import OperatingSystemFiles
from collector.wal.inspect import verify
from tests.daemon import Daemon
from tests.e2e.test_forward import until

FILES = OperatingSystemFiles()
SECRET = "Geheimnis"
TRACE, OTHER = b"\x5e" * 16, b"\x0d" * 16
NOW = time.time_ns()
SETTINGS = ("metrics_generator.enabled=false", "wal.segment_bytes=64KiB")


def secret_spans(trace: bytes, word: str, count: int = 5) -> bytes:
    made = TRACES.request_type()
    envelope = made.resource_spans.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = f"{word}-service"
    envelope.resource.attributes.add(key=f"{word}.resource").value.string_value = f"{word}-r"
    scope = envelope.scope_spans.add()
    scope.scope.name = f"{word}-scope"
    for number in range(count):
        span = scope.spans.add(
            trace_id=trace,
            span_id=bytes([number + 1]) * 8,
            parent_span_id=b"\1" * 8 if number else b"",
            name=f"{word}-name",
            start_time_unix_nano=NOW - 10**9 + number,
            end_time_unix_nano=NOW,
            kind=2 + number % 2,
        )
        span.attributes.add(key=f"{word}.key").value.string_value = f"{word}-value"
        span.events.add(name=f"{word}-event", time_unix_nano=NOW)
        span.status.message = f"{word}-status"
    return made.SerializeToString()


def secret_logs(trace: bytes, word: str, service: str) -> bytes:
    made = LOGS.request_type()
    envelope = made.resource_logs.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = service
    for number in range(4):
        record = envelope.scope_logs.add().log_records.add(
            time_unix_nano=NOW - 10**9 + number, trace_id=trace, severity_number=9
        )
        record.body.string_value = f"{word} number {number}"
        record.attributes.add(key=f"{word}_key").value.string_value = f"{word}-value"
    return made.SerializeToString()


def background(signal: Signal, seed: int, count: int = 40) -> bytes:
    return otlp.BUILDERS[signal](count, seed=seed, time_ns=NOW - 2 * 10**9)


def answers(daemon: Daemon) -> Iterator[tuple[str, bytes]]:
    """Everything that a daemon says of its spans and log records."""
    begin, end = (NOW - 3600 * 10**9), NOW + 3600 * 10**9
    s = {"start": begin // 10**9, "end": end // 10**9}
    every = '{service_name=~".+"}'
    paths = [
        f"/api/search?{urlencode({'q': '{}', 'limit': 1000, **s})}",
        f"/api/search?{urlencode({'q': '{ name =~ `G.*` || duration > 1ns }', 'limit': 1000, **s})}",
        f"/api/search?{urlencode({'q': '{} >> {}', 'limit': 1000, **s})}",
        f"/api/search?{urlencode({'q': '{} | by(name) | count() > 0', 'limit': 1000, **s})}",
        "/api/search/tags",
        "/api/v2/search/tags",
        *(
            f"/api/v2/search/tag/{quote(tag)}/values?{urlencode(s)}"
            for tag in ("name", "resource.service.name", f"span.{SECRET}.key", f"resource.{SECRET}.resource")
        ),
        f"/api/search/tag/service.name/values?{urlencode(s)}",
        f"/api/metrics/query_range?{urlencode({'q': '{} | rate() by (name)', **s, 'step': '60s'})}",
        f"/api/metrics/query_range?{urlencode({'q': '{} | count_over_time() by (resource.service.name)', **s})}",
        "/jaeger/api/services",
        f"/jaeger/api/services/{SECRET}-service/operations",
        f"/jaeger/api/traces?{urlencode({'service': f'{SECRET}-service', 'lookback': '1h'})}",
        f"/jaeger/api/traces/{TRACE.hex()}",
        f"/jaeger/api/v3/traces/{TRACE.hex()}",
        f"/jaeger/api/dependencies?{urlencode({'endTs': end // 10**6, 'lookback': 7_200_000})}",
        f"/api/traces/{TRACE.hex()}",
        f"/api/v2/traces/{TRACE.hex()}",
        f"/api/related?trace_id={TRACE.hex()}",
        f"/loki/api/v1/labels?{urlencode({'start': begin, 'end': end})}",
        f"/loki/api/v1/label/service_name/values?{urlencode({'start': begin, 'end': end})}",
        f"/loki/api/v1/series?{urlencode({'match[]': every, 'start': begin, 'end': end})}",
    ]
    for query in (every, every + f" |= `{SECRET}`", every + " | trace_id != ``", every + " | json"):
        asked = {"query": query, "start": begin, "end": end, "limit": 5000}
        paths.append(f"/loki/api/v1/query_range?{urlencode(asked)}")
    for query in (f"sum by ({SECRET}_key) (count_over_time({every}[2h]))", f"bytes_over_time({every}[2h])"):
        paths.append(f"/loki/api/v1/query?{urlencode({'query': query, 'time': end})}")
    for name in ("index/volume", "index/stats", "patterns", "detected_labels", "detected_fields"):
        paths.append(f"/loki/api/v1/{name}?{urlencode({'query': every, 'start': begin, 'end': end})}")
    for path in paths:
        found = daemon.get(path)
        assert found.code in (200, 404, 400), (path, found)
        yield path, found.body


def leaks(daemon: Daemon) -> set[str]:
    """What still tells of the secret, without the path itself, which some answers repeat."""
    found = {
        path.partition("?")[0]
        for path, body in answers(daemon)
        if SECRET.encode() in body.replace(b"Geheimnis.key", b"") and b"not found" not in body
    }
    with grpc.insecure_channel(daemon.queries) as channel:
        for signal in (TRACES, LOGS):
            read = from_daemon(channel, signal, Range(), "", (), lambda _, __: None)
            found |= {f"read {signal.name}"} if any(SECRET.encode() in one.payload for one in read) else set()
            cat = from_directory(str(daemon.data), signal, Range(), FILES)
            found |= {f"cat {signal.name}"} if any(SECRET.encode() in one.payload for one in cat) else set()
    return found


def deleted(daemon: Daemon) -> dict[str, dict[str, int]]:
    return {name: daemon.stats()[name]["deleted"] for name in ("traces", "logs")}


def delete(daemon: Daemon, **asked: str) -> dict[str, int]:
    found: dict[str, int] = daemon.request(daemon.api, "POST", f"/api/delete?{urlencode(asked)}", None).json()[
        "deleted"
    ]
    return found


def fill(daemon: Daemon) -> None:
    for seed in range(6):
        for signal in (TRACES, LOGS):
            assert daemon.export(signal.http_path, background(signal, seed)).code == 200
        if seed == 2:
            assert daemon.export(TRACES.http_path, secret_spans(TRACE, SECRET)).code == 200
            assert daemon.export(LOGS.http_path, secret_logs(TRACE, SECRET, f"{SECRET}-service")).code == 200
            assert daemon.export(LOGS.http_path, secret_logs(b"", f"{SECRET}-alone", "shop")).code == 200
            assert daemon.export(TRACES.http_path, secret_spans(OTHER, "open")).code == 200


ALL = {"traces": 5, "logs": 4}


def test_what_was_deleted_is_shown_by_nothing(tmp_path: Path) -> None:
    """Of the ring, and of the log where the ring is small: of both signals in turn, with a kill -9 between; and the backend
    has nothing of it in the end."""
    database = tmp_path / "kept.sqlite"
    small, large = "traces", "logs"

    def settings(small: str, large: str) -> list[str]:
        return [
            *SETTINGS,
            f"exporters.sqlite.path={database}",
            f"stores.{small}.capacity=60",
            f"stores.{large}.capacity=100000",
        ]

    with Daemon(tmp_path, *settings(small, large)) as daemon:
        fill(daemon)
        shown = leaks(daemon)
        assert len(shown) >= 20, shown
        assert delete(daemon, trace_id=TRACE.hex(), dry_run="true") == ALL
        done = CliRunner().invoke(main, ["delete", TRACE.hex(), "--endpoint", f"http://{daemon.api}"], "y\n")
        assert done.output.splitlines()[0] == "5 spans, 4 log records match"
        assert done.output.splitlines()[-1] == "5 spans, 4 log records deleted; being deleted from sqlite, too"
        assert delete(daemon, signal="logs", query='{service_name="shop"} |= "alone"') == {"logs": 4}
        assert leaks(daemon) == set()
        daemon.kill()
    with Daemon(tmp_path, *settings(large, small)) as daemon:
        assert leaks(daemon) == set()
        assert {name: one["records"] for name, one in deleted(daemon).items()} == {"traces": 5, "logs": 8}
        assert daemon.get(f"/api/v2/traces/{OTHER.hex()}").code == 200
        gone = daemon.request(daemon.api, "DELETE", f"/api/traces/{TRACE.hex()}", None).json()
        assert gone["deleted"] == {"traces": 0, "logs": 0}
        # By what its spans have.
        assert delete(daemon, query='{ name = "open-name" }', whole_traces="true")["traces"] == 5
        assert daemon.get(f"/api/v2/traces/{OTHER.hex()}").code == 404
        # What comes later of a trace is meant by nobody.
        assert daemon.export(TRACES.http_path, secret_spans(TRACE, "later", 2)).code == 200
        assert b"later-name" in daemon.get(f"/api/v2/traces/{TRACE.hex()}").body
        with closing(sqlite3.connect(database)) as connection:
            until(lambda: all(not one["pending"] for one in deleted(daemon).values()), "the backend was told")
            found = [
                row[0]
                for table in ("otlp_spans", "otlp_logs")
                for row in connection.execute(f"SELECT record FROM {table}")
            ]
            assert len(found) >= 6 * 80
            assert not any(SECRET.encode() in record or b"open-name" in record for record in found)
    assert verify(daemon.data, FILES).problems == []
