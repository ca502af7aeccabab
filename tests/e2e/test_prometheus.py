"""A real Prometheus, and its promtool, on `/metrics` and `/metrics/received`.

Prometheus scrapes both, and is then asked for the same series as Ringtail itself: the values must agree.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.daemon import Daemon
from tests.e2e.answers import RPC_SIZES, SERIES
from tests.e2e.python_sdk import exporters, send
from tests.e2e.requirements import require

PATIENCE_S = 60.0
POLL_S = 0.1

CONFIGURATION = """
global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}
scrape_configs:
  - job_name: ringtail
    static_configs: [{{targets: ["{api}"]}}]
  - job_name: received
    metrics_path: /metrics/received
    honor_labels: true
    static_configs: [{{targets: ["{api}"]}}]
"""


class Prometheus:
    """A Prometheus server on a port of its own choice."""

    def __init__(self, directory: Path, configuration: str) -> None:
        (directory / "prometheus.yml").write_text(configuration)
        self._lines: list[str] = []
        self._address: str | None = None
        self._listening = threading.Event()
        self._process = subprocess.Popen(
            [
                "prometheus",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--web.listen-address=127.0.0.1:0",
            ],
            cwd=directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._listening.wait(PATIENCE_S) or self._address is None:
            self.stop()
            raise AssertionError("Prometheus did not start:\n" + "".join(self._lines))

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line)
            found = re.search(r'msg="?Listening on"? .*?address="?(127\.0\.0\.1:\d+)', line)
            if found:
                self._address = found[1]
                self._listening.set()
        self._listening.set()

    def ask(self, path: str, **parameters: str) -> Any:
        """Return `data` of an API answer; None while Prometheus is not ready to give one."""
        url = f"http://{self._address}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            error.close()
            return None

    def series(self, query: str) -> dict[frozenset[tuple[str, str]], float]:
        """Return labels and value of every series of an instant query."""
        data = self.ask("query", query=query) or {"result": []}
        return {frozenset(one["metric"].items()): float(one["value"][1]) for one in data["result"]}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self._process.stderr is not None
        self._process.stderr.close()


@pytest.fixture(scope="module")
def received(daemon: Daemon) -> Daemon:
    """The daemon, having received something of everything."""
    send(exporters("grpc", daemon.grpc, daemon.http, False), "scraped")
    return daemon


@pytest.fixture(scope="module")
def prometheus(received: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), CONFIGURATION.format(api=received.api))
    yield server
    server.stop()


def eventually(condition: Callable[[], Any]) -> Any:
    """Return what `condition` returns once that is true: Prometheus scrapes when it will, and tells nobody."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "Prometheus has not come so far"
        time.sleep(POLL_S)
    return found


def test_both_targets_are_up(prometheus: Prometheus) -> None:
    def scraped() -> list[dict[str, Any]] | None:
        active = (prometheus.ask("targets", state="active") or {}).get("activeTargets", [])
        return active if len(active) == 2 and all(one["health"] != "unknown" for one in active) else None

    targets = eventually(scraped)
    assert {one["scrapePool"]: (one["health"], one["lastError"]) for one in targets} == {
        "ringtail": ("up", ""),
        "received": ("up", ""),
    }


def test_what_was_received_is_scraped_with_the_same_values(received: Daemon, prometheus: Prometheus) -> None:
    selector = '{job="e2e/scraped",instance="python-1"}'
    scraped = eventually(lambda: prometheus.series(selector))
    found = {}
    buckets = {}
    for labels, value in scraped.items():
        own = {key: text for key, text in labels if key not in ("job", "instance") and not key.startswith("otel_")}
        name = own.pop("__name__")
        if name == "rpc_size_bytes_bucket":
            buckets[float(own["le"])] = value
        elif name != "target_info":
            typed = {key: float(text) if key == "le" else text for key, text in own.items()}
            found[name, *sorted(typed.items())] = value
    assert found == SERIES
    assert buckets == {bound: sum(size <= bound for size in RPC_SIZES) for bound in buckets}

    data = received.get("/api/v1/query?" + urlencode({"query": selector})).json()["data"]
    answered = {frozenset(one["metric"].items()): float(one["value"][1]) for one in data["result"]}
    assert answered == scraped


def test_ringtails_own_metrics_are_scraped(received: Daemon, prometheus: Prometheus) -> None:
    query = 'otelcol_receiver_accepted_metric_points_total{job="ringtail"}'
    found = eventually(lambda: prometheus.series(query))
    by_transport = {(dict(labels)["receiver"], dict(labels)["transport"]): value for labels, value in found.items()}
    assert by_transport == {("otlp", "grpc"): received.stats()["metrics"]["records"], ("otlp", "http"): 0}


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"], ids=["text", "openmetrics"])
@pytest.mark.parametrize("path", ["/metrics", "/metrics/received", "/metrics/spans"])
def test_promtool_finds_nothing_to_complain_about(received: Daemon, path: str, accept: str) -> None:
    require("promtool")
    answer = received.get(path, {"Accept": accept} if accept else None)
    assert answer.code == 200
    media = answer.headers["content-type"]
    if media.startswith("application/openmetrics-text"):
        # promtool reads the text format only; a scrape reads OpenMetrics, and prefers it
        assert answer.body.endswith(b"# EOF\n")
        return
    check = subprocess.run(["promtool", "check", "metrics"], input=answer.body, capture_output=True, check=False)
    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")
