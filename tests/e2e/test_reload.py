"""Another configuration for a running daemon: what can change does, the rest is named, a mistake changes nothing."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from collector.config import Config
from collector.reload import is_live, merged
from collector.settings import differences, entries, load
from collector.testing import otlp
from tests.daemon import Daemon


def post(daemon: Daemon) -> tuple[int, dict]:
    request = urllib.request.Request(f"http://{daemon.api}/-/reload", method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


BEFORE = """
stores:
  traces: {capacity: 1000}
telemetry: {logs: {level: info, format: json}}
"""
AFTER = """
receivers:
  otlp:
    protocols:
      http: {max_request_body_size: 64KiB}
      grpc: {max_recv_msg_size_mib: 1}
stores:
  traces: {capacity: 30}
  logs: {capacity: 70000, max_bytes: 80MiB}
wal:
  segment_bytes: 32MiB
  retention: {max_bytes: 900MiB}
api: {max_response_size: 64KiB}
query: {timeout: 5s, threads: 3}
telemetry: {logs: {level: debug, format: json}}
"""


@pytest.mark.parametrize("way", ["POST", "SIGHUP"])
def test_what_can_change_does_and_the_rest_is_named(tmp_path: Path, way: str) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text(BEFORE)
    with Daemon(tmp_path, files=[str(file)]) as daemon:
        assert daemon.export("/v1/traces", otlp.traces(100, service="kept")).code == 200
        assert daemon.export("/v1/traces", bytes(100_000)).code == 400
        file.write_text(AFTER)
        wanted = {"wal.segment_bytes", "query.threads"}
        if way == "POST":
            code, body = post(daemon)
            assert (code, body["status"]) == (200, "success")
            assert set(body["data"]["restart"]) == wanted
            assert "stores.traces.capacity" in body["data"]["applied"]
            again = post(daemon)[1]["data"]
            assert again == {"applied": [], "restart": body["data"]["restart"]}, (
                "what waits for a restart is named again"
            )
        else:
            daemon.process.send_signal(signal.SIGHUP)
            while daemon.stats()["traces"]["capacity"] != 30:
                pass
        stats = daemon.stats()
        assert (stats["traces"]["capacity"], stats["traces"]["records"]) == (30, 30)
        assert stats["logs"]["capacity"] == 70_000
        refused = daemon.export("/v1/traces", bytes(100_000))
        assert refused.code == 413
        assert b"65536" in refused.body
        found = daemon.get(f"/api/search?q=%7B%7D&limit=200&spss=200&start={otlp.TIME_NS // 10**9 - 600}").json()
        assert sum(one["spanSets"][0]["matched"] for one in found["traces"]) == 100, "the log has what the ring gave up"
        assert daemon.export("/v1/traces", otlp.traces(100)).code == 200
        assert daemon.stats()["traces"]["records"] == 30
        for seed in range(4):
            assert daemon.export("/v1/logs", otlp.logs(150, seed=seed)).code == 200
        start = otlp.TIME_NS // 10**9 - 600
        lines = f"/loki/api/v1/query_range?query=%7Bservice_name=%22checkout%22%7D&start={start}&end={start + 1200}"
        assert daemon.get(f"{lines}&limit=10").code == 200
        too_large = daemon.get(f"{lines}&limit=5000")
        assert too_large.code == 400, too_large
        assert b"api.max_response_size is 65536" in too_large.body


def test_a_mistake_changes_nothing_and_says_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text(BEFORE)
    allow = ["configuration not reloaded"]
    with Daemon(tmp_path, files=[str(file)], allow=allow) as daemon:
        before = daemon.stats()
        for text, problem in (
            ("stores:\n  traces: {capacity: 20, capacty: 30}\n", "capacty"),
            ("stores: [", "YAML"),
            ("stores:\n  traces: {capacity: 20}\nmemory: {limit: 1MiB}\n", "memory.limit"),
        ):
            file.write_text(text)
            code, body = post(daemon)
            assert (code, body["status"]) == (400, "error")
            assert problem in body["error"]
            assert daemon.stats() == before
        os.unlink(file)
        assert "cannot be read" in post(daemon)[1]["error"]
        daemon.process.send_signal(signal.SIGHUP)
        event = daemon.wait_for("configuration not reloaded")
        assert "cannot be read" in event["problems"][0]
        assert daemon.stats() == before


def test_the_configuration_in_force_is_made_of_both() -> None:
    running, wanted = Config(), load([("new.yaml", AFTER)], [], {})
    changed = differences(running, wanted)
    force = merged(running, wanted)
    assert differences(running, force) == [key for key in changed if is_live(key)]
    assert differences(force, wanted) == [key for key in changed if not is_live(key)]
    known = {key for key, metadata, _ in entries() if metadata["kind"] != "section"}
    assert {key for key in known if is_live(key)} >= {"stores.traces.capacity", "telemetry.logs.level"}
    assert not is_live("wal.directory")
