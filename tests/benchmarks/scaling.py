"""What a record costs on its whole way into ClickHouse, for docs/scaling.md: `python -m tests.benchmarks.scaling`.

A daemon with default settings receives requests of 512 records by HTTP and exports them to ClickHouse with the exporter's
default settings; once without the exporter, for the difference. Told for each signal: CPU time of the daemon and of the server a
record, and the bytes on each wire and each disk. Then everything is merged to one part a day, which costs what the server has
put off, and more than it would ever do.

The server is chdb behind an HTTP server of the tests, whose own part is counted in.
"""

from __future__ import annotations

import http.client
import itertools
import shutil
import sys
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import zstandard
from isal import igzip

from collector.otlp.signals import SIGNALS, Signal
from tests.benchmarks.fresh import Source
from tests.benchmarks.goals import number, parser, publish, say, table
from tests.benchmarks.machine import describe
from tests.benchmarks.process import cpu_time_ns
from tests.daemon import Daemon
from tests.exporters.clickhouse.served import Served

REQUEST = 512
CONNECTIONS = 4
PATIENCE_S = 1800.0
TABLES = {"traces": ("otel_traces",), "logs": ("otel_logs",), "metrics": ("otel_metrics_gauge", "otel_metrics_sum")}


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one record: µs of CPU time, or bytes."""

    signal: str
    payload: float
    gzip: float
    zstd: float
    receiving: float
    exporting: float
    log: float
    """Bytes in Ringtail's log, not compacted."""
    body: float
    """Bytes of the inserts."""
    server: float
    merging: float
    stored: float
    raw: float
    """What the server stores, before it compresses it."""


def send(address: str, signal: Signal, payloads: list[bytes]) -> None:
    """Send them over several connections; each must be taken."""
    at = itertools.count()
    failed: list[object] = []

    def work() -> None:
        connection = http.client.HTTPConnection(address, timeout=60)
        while not failed and (mine := next(at)) < len(payloads):
            headers = {"Content-Type": "application/x-protobuf"}
            connection.request("POST", f"/v1/{signal.name}", payloads[mine], headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                failed.append(answer.status)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failed, failed


def exported(daemon: Daemon, signal: Signal, records: int) -> int:
    """Wait until all is there; return the bytes of the inserts."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        stats = daemon.get("/api/stats").json()["exporters"]["clickhouse"]
        one = stats["signals"].get(signal.name)
        if one is not None and one["position"] >= records and not one["lag_records"]:
            return sum(int(table["body_bytes"]) for table in stats["own"]["tables"].values())
        time.sleep(0.5)
    raise AssertionError(f"not exported: {stats}")


def measured(signal: Signal, records: int, place: Path) -> Cost:
    requests = Source(signal, REQUEST).requests()
    payloads = [next(requests).payload for _ in range(records // REQUEST)]
    count = len(payloads) * REQUEST
    some = payloads[:8]
    costs = []
    log = body = 0
    server = Served(place / "server")
    try:
        for name in ("alone", "exporting"):
            (place / name).mkdir(parents=True)
            keys = ["wal.retention.max_bytes=64GiB"]
            if name == "exporting":
                keys += [f"exporters.clickhouse.endpoint={server.url}", "exporters.clickhouse.signals=" + signal.name]
            daemon = Daemon(place / name, *keys, allow={"export fails"})
            try:
                began, of_server = cpu_time_ns(daemon.process.pid), server.cpu_s()
                send(daemon.http, signal, payloads)
                if name == "exporting":
                    body = exported(daemon, signal, count)
                costs.append((cpu_time_ns(daemon.process.pid) - began) / 1e3 / count)
                log = daemon.get("/api/stats").json()["signals"][signal.name]["log"]["bytes"]
            finally:
                daemon.stop()
        inserting = server.cpu_s() - of_server
        began_s = server.cpu_s()
        for one in TABLES[signal.name]:
            server.post(f"OPTIMIZE TABLE {one} FINAL")
        merging = server.cpu_s() - began_s
        ((stored, raw, rows),) = server.rows(
            "SELECT toUInt32(sum(data_compressed_bytes + secondary_indices_compressed_bytes)),"
            " toUInt32(sum(data_uncompressed_bytes)), toUInt32(sum(rows)) FROM system.parts"
            " WHERE active AND table LIKE 'otel_%' AND table NOT LIKE '%trace_id_ts%'"
        )
        assert rows == count, f"{rows} of {count} are there"
    finally:
        server.kill()
    return Cost(
        signal.noun,
        sum(map(len, some)) / len(some) / REQUEST,
        sum(len(igzip.compress(one, 1)) for one in some) / len(some) / REQUEST,
        sum(len(zstandard.compress(one, 1)) for one in some) / len(some) / REQUEST,
        costs[0],
        costs[1] - costs[0],
        log / count,
        body / count,
        inserting / count * 1e6,
        merging / count * 1e6,
        stored / count,
        raw / count,
    )


def report(found: list[Cost], records: int, scratch: Path) -> str:
    rows = [
        ("OTLP, protobuf, B", [one.payload for one in found]),
        ("the same with gzip, B", [one.gzip for one in found]),
        ("with zstd, B", [one.zstd for one in found]),
        ("Ringtail receives and logs, µs", [one.receiving for one in found]),
        ("Ringtail exports, µs", [one.exporting for one in found]),
        ("in Ringtail's log, not compacted, B", [one.log for one in found]),
        ("to ClickHouse, LZ4, B", [one.body for one in found]),
        ("ClickHouse inserts, µs", [one.server for one in found]),
        ("ClickHouse merges all to one part, µs", [one.merging for one in found]),
        ("in ClickHouse, before compression, B", [one.raw for one in found]),
        ("in ClickHouse, with indexes, B", [one.stored for one in found]),
    ]
    text = table(
        ("of one record", *(one.signal for one in found)),
        [[name, *(number(one) for one in figures)] for name, figures in rows],
    )
    return f"{text}\nµs of CPU time; {records:,} records of each signal. {describe(scratch).text()}.\n"


def main() -> int:
    options = parser("scaling", "What a record costs on its whole way into ClickHouse.")
    options.add_argument("--records", type=int, help="of each signal")
    chosen = options.parse_args()
    if find_spec("chdb") is None:
        say("chdb is not installed: pip install -e '.[test-clickhouse]'")
        return 1
    records = chosen.records or (51_200 if chosen.short else 1_024_000)
    scratch = chosen.output / "scratch"
    found = []
    for signal in SIGNALS:
        place = scratch / f"scaling-{signal.name}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        say(signal.name)
        try:
            found.append(measured(signal, records, place))
        finally:
            shutil.rmtree(place, ignore_errors=True)
    return 1 if publish("scaling", report(found, records, scratch), [], chosen) else 0


if __name__ == "__main__":
    sys.exit(main())
