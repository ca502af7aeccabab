"""Span metrics and Jaeger's API in a real daemon: at once, over time, after a restart, and switched off."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlencode

from collector.otlp.signals import TRACES
from collector.testing import otlp
from tests.daemon import Daemon

PATIENCE_S = 20.0
REQUEST = otlp.BUILDERS[TRACES](80, service="checkout")


def total(daemon: Daemon, query: str) -> float:
    found = daemon.get(f"/api/v1/query?{urlencode({'query': query})}").json()["data"]["result"]
    return sum(float(one["value"][1]) for one in found)


def test_span_metrics_of_a_daemon(tmp_path: Path) -> None:
    with Daemon(tmp_path, "metrics_generator.collection_interval=1s").ready() as daemon:
        assert daemon.export(TRACES.http_path, REQUEST).code == 200
        assert total(daemon, "traces_spanmetrics_calls_total") == 80, "what is acknowledged is counted"
        assert total(daemon, 'traces_service_graph_request_total{client="user"}') == 10
        end = time.monotonic() + PATIENCE_S
        while not total(daemon, 'rate(traces_service_graph_request_total{client="user"}[1m])'):
            assert time.monotonic() < end, "the values are kept over time"
            time.sleep(0.1)
        stats = daemon.get("/api/stats").json()["spanmetrics"]
        assert stats["folded"] == {"calls": 0, "edges": 0}
        assert stats["bytes"] > 0
        assert b"ringtail_spanmetrics_series{" in daemon.get("/metrics").body
        assert b'traces_spanmetrics_calls_total{service="checkout"' in daemon.get("/metrics/spans").body
        assert daemon.get("/jaeger/api/services").json()["data"] == ["checkout"]
        daemon.stop()
    with Daemon(tmp_path).ready() as daemon:
        assert daemon.get("/jaeger/api/services").json()["data"] == ["checkout"]
        assert total(daemon, "traces_spanmetrics_calls_total") == 0, "counters begin anew"
        assert daemon.export(TRACES.http_path, REQUEST).code == 200
        assert total(daemon, "traces_spanmetrics_calls_total") == 80
        daemon.stop()
    with Daemon(tmp_path, "metrics_generator.enabled=false").ready() as daemon:
        assert daemon.export(TRACES.http_path, REQUEST).code == 200
        assert total(daemon, "traces_spanmetrics_calls_total") == 0
        assert daemon.get("/metrics/spans").code == 404
        assert "spanmetrics" not in daemon.get("/api/stats").json()
        daemon.stop()
