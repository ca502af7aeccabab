"""The sample app of deploy/compose.yaml, unmodified, against a running daemon: all three signals arrive, related."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from tests.daemon import Daemon

APP = Path(__file__).parents[2] / "deploy" / "sample-app"
ORDERS = 5


def test_its_requirements_are_what_is_tested() -> None:
    pins = re.findall(r"^([a-z-]+)==(\d+)\.(\d+)", (APP / "requirements.txt").read_text(), re.MULTILINE)
    assert len(pins) == 2
    for name, major, minor in pins:
        installed = tuple(map(int, version(name).split(".")[:2]))
        assert installed >= (int(major), int(minor)), name


def test_the_sample_app_exports_traces_logs_and_metrics(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{daemon.http}", "PORT": "0"}
        done = subprocess.run(
            [sys.executable, str(APP / "app.py"), str(ORDERS)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert done.stdout.startswith("taking orders on port ")
        assert "Traceback" not in done.stderr
        stats = daemon.stats()
        assert stats["traces"]["indexes"]["trace_id"]["keys"] == ORDERS
        assert stats["traces"]["indexes"]["service"]["keys"] == 2
        query = quote('{ resource.service.name = "shop" && kind = server }')
        found = daemon.get(f"/api/search?q={query}&limit=20").json()["traces"]
        assert len(found) == ORDERS
        assert {one["rootServiceName"] for one in found} == {"customer"}
        for one in found:
            selector = quote(f'{{service_name="shop"}} | trace_id="{one["traceID"]}"')
            lines = daemon.get(f"/loki/api/v1/query_range?query={selector}").json()["data"]["result"]
            assert lines, "log records carry the ids of their span"
        total = daemon.get(f"/api/v1/query?query={quote('sum(shop_orders_total)')}").json()["data"]["result"]
        assert [value for one in total for value in one["value"][1:]] == [str(ORDERS)]
        received = daemon.get("/metrics/received").body.decode()
        assert "http_server_request_duration_seconds_bucket{" in received
        assert json.dumps("kettle") in received
