"""One Ringtail forwards to another: the same records, whatever is configured, and ingest never waits."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from collector.otlp.signals import SIGNALS, Signal
from collector.testing import otlp
from collector.testing.corpus import HOSTILE, corpus, wholes
from collector.wal.files import OperatingSystemFiles
from collector.wal.inspect import cat
from tests.daemon import COMMAND, Daemon, environment

PATIENCE_S = 60.0
PLAIN = "tls: {insecure: true}"
QUICK = "retry_on_failure: {initial_interval: 20ms, max_interval: 50ms}"
SMALL = "batch: {min_size: 10, max_size: 10}"
ALLOW = (
    "rings are smaller than configured",
    "export fails",
    "records lost before they were exported",
    "records lost",
    "records refused",
)


def until(condition: Callable[[], Any], what: str) -> Any:
    """Return what a condition gives when it is true at last."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not in time: {what}")


def figures(daemon: Daemon, exporter: str, headers: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """What an exporter's deliveries say, by signal."""
    found: dict[str, dict[str, Any]] = daemon.get("/api/stats", headers).json()["exporters"][exporter]["signals"]
    return found


def level(daemon: Daemon, exporter: str) -> bool:
    """Whether everything was sent."""
    return not any(one["lag_records"] for one in figures(daemon, exporter).values())


def kept(daemon: Daemon, signal: Signal) -> Counter[bytes]:
    """What a stopped daemon's log holds."""
    frames = cat(daemon.data, signal, 0, 10**9, OperatingSystemFiles())
    return Counter(one.key() for frame in frames for one in wholes(signal, bytes(frame.payload)))


def place(directory: Path, name: str) -> Path:
    (directory / name).mkdir(exist_ok=True)
    return directory / name


def test_every_record_arrives_as_it_was_by_every_way(tmp_path: Path) -> None:
    with Daemon(place(tmp_path, "one")) as one, Daemon(place(tmp_path, "two")) as two:
        settings = (
            f"exporters.otlp={{endpoint: 'localhost:{one.grpc.rpartition(':')[2]}', {PLAIN}}}",
            f"exporters.otlphttp/json={{endpoint: 'http://{two.http}', encoding: json, compression: zstd}}",
        )
        with Daemon(place(tmp_path, "first"), *settings) as first:
            for signal in SIGNALS:
                for seed in range(3):
                    assert first.export(signal.http_path, corpus(signal, 50, seed=seed, texts=HOSTILE)).code == 200
            for exporter in ("otlp", "otlphttp/json"):
                until(lambda exporter=exporter: level(first, exporter), exporter)  # type: ignore[misc]
            assert first.get("/readyz").body == b"ready\n"
            metrics = first.get("/metrics").body.decode()
            assert 'otelcol_exporter_sent_spans_total{exporter="otlphttp/json"} 150.0' in metrics
            assert 'ringtail_exporter_lag_records{exporter="otlp",signal="logs"} 0.0' in metrics
    for signal in SIGNALS:
        sent = kept(first, signal)
        assert sent.total() == 150
        assert kept(one, signal) == sent
        assert kept(two, signal) == sent


def test_an_exporter_comes_changes_and_goes_by_reload(tmp_path: Path) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text("{}")

    def reload(text: str) -> Any:
        file.write_text(text)
        return first.request(first.api, "POST", "/-/reload", b"").json()["data"]

    with (
        Daemon(place(tmp_path, "one")) as one,
        Daemon(place(tmp_path, "two")) as two,
        Daemon(place(tmp_path, "first"), files=[str(file)]) as first,
    ):
        assert first.export("/v1/traces", otlp.traces(10)).code == 200
        assert first.get("/api/stats").json()["exporters"] == {}
        told = reload(f"exporters: {{otlphttp: {{endpoint: 'http://{one.http}'}}}}")
        assert told == {"applied": ["exporters.otlphttp"], "restart": []}
        until(lambda: one.stats()["traces"]["records"] == 10, "what there was before")
        told = reload(f"exporters: {{otlphttp: {{endpoint: 'http://{two.http}', timeout: 7s}}}}")
        assert told["applied"] == ["exporters.otlphttp.timeout", "exporters.otlphttp.endpoint"]
        assert first.export("/v1/traces", otlp.traces(5, seed=1)).code == 200
        until(lambda: two.stats()["traces"]["records"] == 5, "it goes on where it was")
        assert one.stats()["traces"]["records"] == 10
        assert reload("{}")["applied"] == ["exporters.otlphttp"]
        until(lambda: first.get("/api/stats").json()["exporters"] == {}, "it is gone")
        assert first.export("/v1/traces", otlp.traces(3, seed=2)).code == 200
        reload(f"exporters: {{otlphttp: {{endpoint: 'http://{two.http}'}}}}")
        until(lambda: two.stats()["traces"]["records"] == 8, "it comes back where it was")
        file.write_text("exporters: {otlphttp: {endpoint: 'ftp://x'}}")
        assert first.request(first.api, "POST", "/-/reload", b"").code == 400
        assert first.export("/v1/traces", otlp.traces(2, seed=3)).code == 200
        until(lambda: two.stats()["traces"]["records"] == 10, "a mistake changes nothing")


def test_tenants_stay_apart(tmp_path: Path) -> None:
    with Daemon(place(tmp_path, "one"), "tenants.enabled=true") as one:
        settings = ("tenants.enabled=true", f"exporters.otlphttp={{endpoint: 'http://{one.http}', {QUICK}}}")
        with Daemon(place(tmp_path, "first"), *settings, allow=ALLOW) as first:
            for count, tenant in enumerate(("ape", "bee"), 3):
                header = {"X-Scope-OrgID": tenant}
                until(
                    lambda header=header, count=count: (  # type: ignore[misc]
                        first.export("/v1/logs", otlp.logs(count), header).code == 200
                    ),
                    "a tenant is opened",
                )
            for count, tenant in enumerate(("ape", "bee"), 3):
                header = {"X-Scope-OrgID": tenant}

                def arrived(header: dict[str, str] = header, count: int = count) -> bool:
                    answer = one.get("/api/stats", header)
                    return answer.code == 200 and answer.json()["signals"]["logs"]["records"] == count

                until(arrived, tenant)
                assert figures(first, "otlphttp", header)["logs"]["sent_records"] == count


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connections: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    connections.append(listening.accept()[0])
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        for connection in connections:
            connection.close()


def test_one_that_takes_nothing_holds_up_nobody(tmp_path: Path) -> None:
    with silent() as nobody, Daemon(place(tmp_path, "one")) as one:
        settings = (
            f"exporters.otlp/silent={{endpoint: '{nobody}', timeout: 500ms, {PLAIN}}}",
            f"exporters.otlphttp={{endpoint: 'http://{one.http}'}}",
            "memory.limit=400MiB",
        )
        with Daemon(place(tmp_path, "first"), *settings, allow=ALLOW) as first:
            for seed in range(100):
                assert first.export("/v1/traces", otlp.traces(200, seed=seed)).code == 200
            until(lambda: one.stats()["traces"]["log"]["next_offset"] == 20_000, "the other one has everything")
            stuck = until(
                lambda: figures(first, "otlp/silent")["traces"]["failing"] and figures(first, "otlp/silent"), ""
            )
            assert stuck["traces"]["lag_records"] == 20_000
            assert stuck["traces"]["lag_bytes"] > 1_000_000
            assert stuck["traces"]["in_flight_batches"] == 1
            assert first.get("/api/stats").json()["memory"]["export_bytes"] < 16 * 1024 * 1024
            answer = first.get("/readyz")
            assert answer.code == 200
            assert b"exporter otlp/silent fails, 20000 records wait" in answer.body


def test_without_a_log_the_rings_are_read(tmp_path: Path) -> None:
    with silent() as nobody, Daemon(place(tmp_path, "one")) as one:
        settings = (
            "wal.enabled=false",
            "stores.traces.capacity=100",
            f"exporters.otlphttp={{endpoint: 'http://{one.http}', sending_queue: {{batch: {{flush_timeout: 10m}}}}}}",
            f"exporters.otlp/silent={{endpoint: '{nobody}', timeout: 200ms, {PLAIN}, sending_queue: {{{SMALL}}}}}",
        )
        with Daemon(place(tmp_path, "first"), *settings, allow=ALLOW) as first:
            for seed in range(9):
                assert first.export("/v1/traces", otlp.traces(10, seed=seed)).code == 200
            assert one.stats()["traces"]["records"] == 0, "it waits for more"
            for seed in range(9, 30):
                assert first.export("/v1/traces", otlp.traces(10, seed=seed)).code == 200
            first.terminate()
            first.stopped()
        assert one.stats()["traces"]["records"] == 100, "a stop sends what there is"
        assert [
            event["records"] for event in first.events if event["event"] == "records lost before they were exported"
        ]


def test_dead_letters_are_kept_and_listed(tmp_path: Path) -> None:
    limit = "receivers.otlp.protocols.http.max_request_body_size=2KiB"
    with Daemon(place(tmp_path, "one"), limit) as one:
        settings = (f"exporters.otlphttp/small={{endpoint: 'http://{one.http}', signals: logs, compression: none}}",)
        with Daemon(place(tmp_path, "first"), *settings, allow=ALLOW) as first:
            assert first.export("/v1/logs", otlp.logs(30)).code == 200
            large = corpus(SIGNALS[1], 1, texts=("x" * 4000,))
            assert first.export("/v1/logs", large).code == 200
            until(lambda: level(first, "otlphttp/small"), "all but one")
            assert one.stats()["logs"]["records"] == 30
            assert figures(first, "otlphttp/small")["logs"]["dead_letter_records"] == 1
    command = [*COMMAND, "wal", "letters", str(first.data)]
    listed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
    assert "otlphttp/small" in listed
    assert "413" in listed
    command = [*COMMAND, "wal", "cat", str(first.data / "dead-letters" / "otlphttp+small"), "--signal", "logs"]
    shown = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout
    assert "x" * 4000 in shown
    assert len(json.loads(shown)["resourceLogs"]) == 1


def test_a_data_directory_that_went_back_in_time_is_another_instance(tmp_path: Path) -> None:
    with Daemon(place(tmp_path, "one")) as one:
        settings = (f"exporters.otlphttp.endpoint=http://{one.http}",)
        with Daemon(place(tmp_path, "first"), *settings) as first:
            assert first.export("/v1/traces", otlp.traces(20)).code == 200
            until(lambda: level(first, "otlphttp"), "sent")
        before = (first.data / "INSTANCE").read_text()
        for path in (first.data / "traces").iterdir():
            path.unlink()
        with Daemon(tmp_path / "first", *settings, allow=["the log is older than its cursor"]) as first:
            assert first.export("/v1/traces", otlp.traces(7, seed=1)).code == 200
            until(lambda: one.stats()["traces"]["records"] == 27, "what is new is sent")
        assert (first.data / "INSTANCE").read_text() != before


@pytest.mark.parametrize("key", ["tls.ca_file", "bearer_token_file"])
def test_files_that_are_missing_are_told_before_a_start(tmp_path: Path, key: str) -> None:
    arguments = ["validate", "--set", "exporters.otlp.endpoint=localhost:1", "--set", f"exporters.otlp.{key}=/nowhere"]
    run = subprocess.run(
        [*COMMAND, *arguments], env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert f"exporters.otlp.{key}: /nowhere: cannot be read" in run.stderr
