"""Prometheus' API and /metrics/received: the envelopes that Grafana and Prometheus read."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from collector.api import prometheus, received
from collector.clock import SystemClock
from collector.otlp.signals import METRICS
from collector.query.engine import Engine
from collector.query.promql import exemplars
from collector.ring.ring import Ring
from collector.store import Store
from tests.api.asgi import Answer, call
from tests.e2e.requirements import require

S = 10**9
NOW = 10_000 * S


class FixedClock(SystemClock):
    """Now is 10,000 s after the epoch."""

    def now_ns(self) -> int:
        return NOW


def request(hostile: bool = False) -> Any:
    """A counter with an exemplar, a gauge, a histogram and a summary of one service."""
    made = METRICS.request_type()
    envelope = made.resource_metrics.add()
    for key, text in (("service.name", "shop"), ("service.instance.id", "one"), ("zone", "a")):
        envelope.resource.attributes.add(key=key).value.string_value = text
    metrics = envelope.scope_metrics.add().metrics
    counter = metrics.add(name="orders", unit="{order}", description='Orders\nplaced \\ "all"')
    counter.sum.is_monotonic = True
    counter.sum.aggregation_temporality = 2
    for second, value in ((9_940, 10), (9_970, 40), (10_000, 70)):
        point = counter.sum.data_points.add(time_unix_nano=second * S, as_int=value)
        point.attributes.add(key="kind").value.string_value = 'a"b\\c\nd' if hostile else "web"
        exemplar = point.exemplars.add(time_unix_nano=second * S, as_int=3, trace_id=b"t" * 16, span_id=b"s" * 8)
        exemplar.filtered_attributes.add(key="x").value.string_value = "y"
    gauge = metrics.add(name="temperature", unit="Cel").gauge
    gauge.data_points.add(time_unix_nano=NOW, as_double=21.5)
    histogram = metrics.add(name="duration", unit="s").histogram
    histogram.aggregation_temporality = 2
    point = histogram.data_points.add(
        time_unix_nano=NOW, count=6, sum=7.5, bucket_counts=[1, 2, 3], explicit_bounds=[0.5, 2]
    )
    point.exemplars.add(time_unix_nano=NOW, as_double=1.25, trace_id=b"t" * 16)
    summary = metrics.add(name="size", unit="By").summary
    point = summary.data_points.add(time_unix_nano=NOW, count=2, sum=10)
    point.quantile_values.add(quantile=0.5, value=4)
    return made


class Api:
    """Both APIs over one store."""

    def __init__(self) -> None:
        self.store = Store(METRICS, Ring(METRICS, 1000, 1 << 22), None, asyncio.get_running_loop())
        self.engine = Engine(1, 30.0, FixedClock())
        stores = {"metrics": self.store}
        self.app = Starlette(routes=[*prometheus.routes(stores, self.engine), *received.routes(stores, self.engine)])

    async def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> Answer:
        return await call(self.app, path, list(query.items()), headers=headers or {})

    async def data(self, path: str, **query: Any) -> Any:
        answer = await self.get(path, **query)
        assert answer.status == 200, answer.text
        assert answer.json["status"] == "success"
        return answer.json["data"]


@pytest.fixture
async def api() -> Any:
    made = Api()
    await made.store.append(request().SerializeToString())
    yield made
    made.engine.close()


async def test_save_and_test(api: Api) -> None:
    assert await api.data("/api/v1/query", query="1+1", time=4) == {"resultType": "scalar", "result": [4.0, "2"]}
    assert "version" in await api.data("/api/v1/status/buildinfo")


async def test_instant_queries(api: Api) -> None:
    common = {"instance": "one", "job": "shop"}
    assert await api.data("/api/v1/query", query="temperature_celsius") == {
        "resultType": "vector",
        "result": [{"metric": {"__name__": "temperature_celsius", **common}, "value": [10_000.0, "21.5"]}],
    }
    rate = await api.data("/api/v1/query", query="sum by (kind) (rate(orders_total[2m]))")
    assert rate["result"] == [{"metric": {"kind": "web"}, "value": [10_000.0, "0.5833333333333334"]}]
    matrix = await api.data("/api/v1/query", query="orders_total[45s]")
    assert matrix["resultType"] == "matrix"
    assert matrix["result"][0]["values"] == [[9_970.0, "40"], [10_000.0, "70"]]
    matrix = await api.data("/api/v1/query", query="(orders_total * 2)[61s:30s]")
    assert matrix["resultType"] == "matrix"
    assert matrix["result"] == [{"metric": {**common, "kind": "web"}, "values": [[9_960.0, "20"], [9_990.0, "80"]]}]
    assert await api.data("/api/v1/query", query='"text"') == {"resultType": "string", "result": [10_000.0, "text"]}


async def test_range_queries_by_get_and_post(api: Api) -> None:
    parameters = {"query": "orders_total", "start": "9940", "end": "1970-01-01T02:46:40Z", "step": "30s"}
    found = await api.data("/api/v1/query_range", **parameters)
    assert found["resultType"] == "matrix"
    assert found["result"][0]["values"] == [[9_940.0, "10"], [9_970.0, "40"], [10_000.0, "70"]]
    answer = await call(
        api.app,
        "/api/v1/query_range",
        method="POST",
        body=urlencode(parameters).encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.json["data"] == found


async def test_the_catalogue(api: Api) -> None:
    names = await api.data("/api/v1/label/__name__/values")
    assert names == [
        "duration_seconds_bucket",
        "duration_seconds_count",
        "duration_seconds_sum",
        "orders_total",
        "size_bytes",
        "size_bytes_count",
        "size_bytes_sum",
        "target_info",
        "temperature_celsius",
    ]
    assert await api.data("/api/v1/labels", **{"match[]": "orders_total"}) == ["__name__", "instance", "job", "kind"]
    assert await api.data("/api/v1/series", **{"match[]": '{kind="web"}'}) == [
        {"__name__": "orders_total", "instance": "one", "job": "shop", "kind": "web"}
    ]
    assert await api.data("/api/v1/label/job/values", limit=1) == ["shop"]
    assert await api.data("/api/v1/labels", start=1, end=2) == []
    metadata = await api.data("/api/v1/metadata", metric="orders_total")
    assert metadata == {"orders_total": [{"type": "counter", "help": 'Orders\nplaced \\ "all"', "unit": "{order}"}]}


async def test_exemplars(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    path, common = "/api/v1/query_exemplars", {"instance": "one", "job": "shop"}
    trace, span = "74" * 16, "73" * 8
    assert await api.data(path, query="test", start=0, end=1) == await api.data(path, query="1") == []
    in_bucket = {
        "seriesLabels": {"__name__": "duration_seconds_bucket", **common, "le": "2"},
        "exemplars": [{"labels": {"trace_id": trace}, "value": "1.25", "timestamp": 10_000.0}],
    }
    labels = {"span_id": span, "trace_id": trace, "x": "y"}
    of_counter = {
        "seriesLabels": {"__name__": "orders_total", **common, "kind": "web"},
        "exemplars": [{"labels": labels, "value": "3", "timestamp": time} for time in (9_940.0, 9_970.0, 10_000.0)],
    }
    query = "histogram_quantile(0.9, rate(duration_seconds_bucket[5m])) / on (job) group_left rate(orders_total[5m])"
    assert await api.data(path, query=query) == [in_bucket, of_counter]
    form = urlencode({"query": "orders_total", "start": "1970-01-01T02:46:10Z", "end": 9_999.9}).encode()
    headers = {"content-type": "application/x-www-form-urlencoded"}
    answer = await call(api.app, path, method="POST", body=form, headers=headers)
    assert answer.json == {
        "status": "success",
        "data": [{**of_counter, "exemplars": [{"labels": labels, "value": "3", "timestamp": 9_970.0}]}],
    }
    monkeypatch.setattr(exemplars, "EXEMPLARS_MAX", 2)
    answer = await api.get(path, query="orders_total")
    assert [one["timestamp"] for one in answer.json["data"][0]["exemplars"]] == [9_970.0, 10_000.0]
    assert answer.json["warnings"] == ["these are the newest 2 exemplars; there are no older ones in the answer"]


@pytest.mark.parametrize(
    ("path", "query", "status", "kind"),
    [
        ("/api/v1/query", {"query": "sum("}, 400, "bad_data"),
        ("/api/v1/query", {"query": "a", "time": "x"}, 400, "bad_data"),
        ("/api/v1/query_range", {"query": "a", "start": 1, "end": 0, "step": 1}, 400, "bad_data"),
        ("/api/v1/query_range", {"query": "a", "start": 0, "end": 10**9, "step": 1}, 400, "bad_data"),
        ("/api/v1/query_range", {"query": "a[5m]", "start": 0, "end": 1, "step": 1}, 400, "bad_data"),
        ("/api/v1/query_range", {"query": "a[5m:]", "start": 0, "end": 1, "step": 1}, 400, "bad_data"),
        ("/api/v1/query", {"query": "a[9y:1s]"}, 422, "execution"),
        ("/api/v1/query_range", {"query": "a", "start": 0, "end": 1, "step": 0}, 400, "bad_data"),
        ("/api/v1/series", {}, 400, "bad_data"),
        ("/api/v1/query_exemplars", {}, 400, "bad_data"),
        ("/api/v1/query_exemplars", {"query": "a", "start": "x"}, 400, "bad_data"),
        ("/api/v1/query_exemplars", {"query": "a", "start": 2, "end": 1}, 400, "bad_data"),
        ("/api/v1/query", {"query": "histogram_count(a)"}, 400, "bad_data"),
        ("/api/v1/query", {"query": '{__name__!=""} + on () {__name__!=""}'}, 422, "execution"),
    ],
)
async def test_errors_are_prometheus_errors(api: Api, path: str, query: Any, status: int, kind: str) -> None:
    answer = await api.get(path, **query)
    assert answer.status == status
    assert answer.json["status"] == "error"
    assert answer.json["errorType"] == kind
    assert answer.json["error"]


async def test_received_in_the_text_format(api: Api) -> None:
    answer = await api.get("/metrics/received")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert {name: family.type for name, family in families.items()} == {
        "orders": "counter",
        "temperature_celsius": "gauge",
        "duration_seconds": "histogram",
        "size_bytes": "summary",
        "target_info": "gauge",
    }
    common = {"job": "shop", "instance": "one"}
    assert [(s.name, s.labels, s.value) for s in families["orders"].samples] == [
        ("orders_total", {**common, "kind": "web"}, 70)
    ]
    buckets = {s.labels["le"]: s.value for s in families["duration_seconds"].samples if "le" in s.labels}
    assert buckets == {"0.5": 1, "2": 3, "+Inf": 6}
    assert families["target_info"].samples[0].labels == {**common, "zone": "a"}


async def test_received_in_openmetrics_has_exemplars(api: Api) -> None:
    answer = await api.get("/metrics/received", {"accept": "application/openmetrics-text; version=1.0.0"})
    families = {family.name: family for family in parse_openmetrics(answer.text)}
    exemplar = families["orders"].samples[0].exemplar
    assert exemplar is not None
    assert exemplar.labels == {"trace_id": "74" * 16, "span_id": "73" * 8, "x": "y"}
    assert (exemplar.value, float(exemplar.timestamp)) == (3, 10_000)
    with_exemplar = [s for s in families["duration_seconds"].samples if s.exemplar]
    assert [(s.labels["le"], s.exemplar.value) for s in with_exemplar] == [("2", 1.25)]


async def test_old_series_and_ended_ones_are_not_exposed(api: Api) -> None:
    late = METRICS.request_type()
    metrics = late.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="old").gauge.data_points.add(time_unix_nano=NOW - 301 * S, as_int=1)
    ended = metrics.add(name="ended").gauge
    ended.data_points.add(time_unix_nano=NOW - 2 * S, as_int=1)
    ended.data_points.add(time_unix_nano=NOW - 1 * S, flags=1)
    metrics.add(name="new").gauge.data_points.add(time_unix_nano=NOW - 299 * S, as_int=1)
    await api.store.append(late.SerializeToString())
    text = (await api.get("/metrics/received")).text
    assert "\nnew 1\n" in text
    assert "old" not in text
    assert "ended" not in text


async def test_conflicting_types_and_deltas_are_left_out_and_counted(api: Api) -> None:
    odd = METRICS.request_type()
    metrics = odd.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="orders_total").gauge.data_points.add(time_unix_nano=NOW - 1, as_int=1)
    delta = metrics.add(name="steps").sum
    delta.is_monotonic = True
    delta.aggregation_temporality = 1
    delta.data_points.add(time_unix_nano=NOW, as_int=1)
    await api.store.append(odd.SerializeToString())
    text = (await api.get("/metrics/received")).text
    assert text.count("# TYPE orders_total") == 1
    assert "steps" not in text
    assert "# 1 families or points were left out" in text
    assert "# 1 delta series were left out" in text


async def test_forms_are_read_once(api: Api) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for path, body in (("series", b"match[]=orders_total"), ("labels", b"match[]=orders_total"), ("query", b"query=1")):
        answer = await call(api.app, f"/api/v1/{path}", method="POST", body=body, headers=form)
        assert answer.json["data"], path


@pytest.mark.parametrize("hostile", [False, True])
async def test_promtool_is_content(hostile: bool) -> None:
    require("promtool")
    made = Api()
    await made.store.append(request(hostile).SerializeToString())
    text = (await made.get("/metrics/received")).body
    made.engine.close()
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr) == (0, b"")
