"""What Grafana's Tempo data source asks a Prometheus for its service map, and a scrape of the same metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from collector.api import jaeger_metrics, prometheus, spanmetrics
from collector.clock import SystemClock
from collector.otlp.signals import METRICS, TRACES
from collector.query.engine import Engine
from collector.query.spanmetrics.generator import Generator
from collector.ring.ring import Ring
from collector.store import Store
from tests.api.asgi import Answer, call

MS = 10**6
S = 10**9
T0 = 1_700_000_000 * S


class Clock(SystemClock):
    """Goes on when it is told to."""

    def __init__(self) -> None:
        self.now = T0

    def now_ns(self) -> int:
        return self.now


def request(number: int, *, failed: bool = False) -> Any:
    """`user` asks `shop`, which asks `stock` and the database `orders`; `stock` may fail."""
    made = TRACES.request_type()
    trace, root = number.to_bytes(16, "big"), b"root%04d" % number

    def add(service: str, span: bytes, parent: bytes, name: str, kind: int, took: int, **attributes: str) -> Any:
        envelope = made.resource_spans.add()
        envelope.resource.attributes.add(key="service.name").value.string_value = service
        one = envelope.scope_spans.add().spans.add(
            trace_id=trace, span_id=span, parent_span_id=parent, name=name, kind=kind, start_time_unix_nano=T0
        )
        one.end_time_unix_nano = T0 + took
        for key, text in attributes.items():
            one.attributes.add(key=key.replace("_", ".")).value.string_value = text
        return one

    add("shop", root, b"", "GET /", 2, 300 * MS)
    add("shop", b"call1234", root, "GET /stock", 3, 150 * MS)
    add("stock", b"serve123", b"call1234", "GET /stock", 2, 120 * MS).status.code = 2 if failed else 0
    add("shop", b"query123", root, "SELECT", 3, 5 * MS, db_system="postgresql", server_address="orders")
    return made


class Api:
    """A store with span metrics, and the Prometheus API over it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock()
        self.stores = {one.name: Store(one, Ring(one, 1000, 1 << 22), None, loop) for one in (TRACES, METRICS)}
        self.engine = Engine(1, 30.0, self.clock)
        self.generator = Generator(self.clock, 1 << 20)
        self.stores["traces"].observe(self.generator.add)
        routes = prometheus.routes(self.stores, self.engine, lambda: [self.generator.series()])
        monitor = jaeger_metrics.routes(self.stores["metrics"], self.engine, self.generator)
        self.app = Starlette(routes=[*routes, *spanmetrics.routes(self.engine, self.generator), *monitor])

    async def receive(self, seconds: int, *requests: Any) -> None:
        for one in requests:
            await self.stores["traces"].append(one.SerializeToString())
        self.clock.now += seconds * S
        self.generator.tick()

    async def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> Answer:
        return await call(self.app, path, query, headers=headers or {})

    async def table(self, query: str, **parameters: Any) -> dict[tuple[str, ...], float]:
        """An instant query's result: label values but the name's, in the order of their names, to values."""
        answer = (await self.get("/api/v1/query", query=query, **parameters)).json
        assert answer["status"] == "success", answer
        assert answer["data"]["resultType"] == "vector"
        return {
            tuple(text for name, text in sorted(one["metric"].items()) if name != "__name__"): float(one["value"][1])
            for one in answer["data"]["result"]
        }


@pytest.fixture
async def api() -> Any:
    """A minute in which ten requests came, two of which failed."""
    made = Api()
    for number in range(1, 5):
        await made.receive(15, request(number, failed=number == 2))
    await made.receive(1, *(request(number, failed=number == 10) for number in range(5, 11)))
    yield made
    made.engine.close()


async def test_the_service_map(api: Api) -> None:
    """Its three queries, as Grafana 13 sends them, over the last minute."""

    def rate(metric: str, seconds: int = 60) -> str:
        return f"sum by (client, server) (rate({metric}{{}}[{seconds}s]))"

    totals = await api.table(rate("traces_service_graph_request_total"))
    assert totals.keys() == {("user", "shop"), ("shop", "stock"), ("shop", "orders")}
    assert all(0.1 < value < 0.25 for value in totals.values())
    failed = await api.table(rate("traces_service_graph_request_failed_total"))
    assert failed[("shop", "stock")] > 0
    assert failed[("user", "shop")] == 0
    seconds = await api.table(rate("traces_service_graph_request_server_seconds_sum"))
    assert seconds[("shop", "stock")] / totals[("shop", "stock")] == pytest.approx(0.12)
    assert seconds[("shop", "orders")] / totals[("shop", "orders")] == pytest.approx(0.005)
    both = " OR ".join(
        f'sum by (client, server) (rate(traces_service_graph_request_total{{client="{one}"}}[1m]))'
        for one in ("user", "shop")
    )
    assert (await api.table(both)).keys() == totals.keys()
    kinds = await api.table(
        'group by (client, connection_type, server) (traces_service_graph_request_server_seconds_bucket{client!=""})'
    )
    assert kinds.keys() == {("user", "virtual_node", "shop"), ("shop", "stock"), ("shop", "database", "orders")}


async def test_the_table_of_rates(api: Api) -> None:
    """The queries of the table above the map: rates, error rates and durations by span name."""
    rates = await api.table(
        'topk(5, sum(rate(traces_spanmetrics_calls_total{span_kind="SPAN_KIND_SERVER"}[60s])) by (span_name))'
    )
    assert rates.keys() == {("GET /",), ("GET /stock",)}
    errors = await api.table(
        "topk(5, sum(rate(traces_spanmetrics_calls_total"
        '{status_code="STATUS_CODE_ERROR",span_name=~"GET /|GET /stock"}[60s])) by (span_name))'
    )
    assert errors.keys() == {("GET /stock",)}
    (p90,) = (
        await api.table(
            'histogram_quantile(.9, sum(rate(traces_spanmetrics_latency_bucket{span_name=~"GET /"}[60s])) by (le))'
        )
    ).values()
    assert 0.256 < p90 <= 0.512


async def test_links_of_the_map(api: Api) -> None:
    """A node's menu opens range queries."""
    answer = await api.get(
        "/api/v1/query_range",
        query='sum by (client, server)(rate(traces_service_graph_request_total{server="stock"}[1m]))',
        start=T0 // S,
        end=T0 // S + 60,
        step=15,
    )
    (series,) = answer.json["data"]["result"]
    assert series["metric"] == {"client": "shop", "server": "stock"}
    assert len(series["values"]) == 4
    assert all(float(value) > 0 for _, value in series["values"])


async def test_values_are_exact_and_at_once(api: Api) -> None:
    query = "traces_service_graph_request_total"
    assert await api.table(query) == {
        ("user", "virtual_node", "shop"): 10,
        ("shop", "stock"): 10,
        ("shop", "database", "orders"): 10,
    }
    assert (await api.table("traces_service_graph_request_failed_total"))[("shop", "stock")] == 2
    api.clock.now += S
    await api.stores["traces"].append(request(11).SerializeToString())
    assert set((await api.table(query)).values()) == {11}, "what is acknowledged is counted, before the next tick"
    assert set((await api.table(query, time=T0 // S + 15)).values()) == {1}
    assert await api.table(query, time=T0 // S - 1) == {}


async def test_the_catalogue(api: Api) -> None:
    names = (await api.get("/api/v1/label/__name__/values")).json["data"]
    assert "traces_service_graph_request_server_seconds_bucket" in names
    assert (await api.get("/api/v1/label/client/values")).json["data"] == ["shop", "user"]
    metadata = (await api.get("/api/v1/metadata", metric="traces_spanmetrics_latency")).json["data"]
    assert metadata["traces_spanmetrics_latency"][0]["type"] == "histogram"
    answer = await call(api.app, "/api/v1/series", [("match[]", 'traces_spanmetrics_calls_total{service="stock"}')])
    assert answer.json["data"] == [
        {
            "__name__": "traces_spanmetrics_calls_total",
            "service": "stock",
            "span_kind": "SPAN_KIND_SERVER",
            "span_name": "GET /stock",
            "status_code": f"STATUS_CODE_{status}",
        }
        for status in ("ERROR", "UNSET")
    ]


async def test_received_metrics_of_the_same_labels_count(api: Api) -> None:
    made = METRICS.request_type()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="traces_service_graph_request_total")
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, 2
    for client in ("shop", "elsewhere"):
        point = metric.sum.data_points.add(time_unix_nano=api.clock.now, as_int=99)
        for key, text in (("client", client), ("server", "stock")):
            point.attributes.add(key=key).value.string_value = text
    await api.stores["metrics"].append(made.SerializeToString())
    found = await api.table('traces_service_graph_request_total{server="stock"}')
    assert found == {("shop", "stock"): 99, ("elsewhere", "stock"): 99}


@pytest.mark.parametrize("openmetrics", [False, True])
async def test_a_scrape(api: Api, openmetrics: bool) -> None:
    answer = await api.get("/metrics/spans", {"accept": "application/openmetrics-text" if openmetrics else "*/*"})
    assert answer.status == 200
    parse = parse_openmetrics if openmetrics else text_string_to_metric_families
    families = {one.name: one for one in parse(answer.text)}
    assert {name: one.type for name, one in families.items()} == {
        "traces_spanmetrics_calls": "counter",
        "traces_spanmetrics_latency": "histogram",
        "traces_service_graph_request": "counter",
        "traces_service_graph_request_failed": "counter",
        "traces_service_graph_request_server_seconds": "histogram",
        "traces_service_graph_request_client_seconds": "histogram",
    }
    totals = {one.labels["server"]: one.value for one in families["traces_service_graph_request"].samples}
    assert totals == {"shop": 10, "stock": 10, "orders": 10}
    assert f"{answer.text}".count('le="+Inf"') == 5 + 2 * 3


MINUTE = {"lookback": 60_000, "step": 60_000, "ratePer": 60_000}


async def test_jaegers_monitor(api: Api) -> None:
    """Calls, errors and latencies as the Monitor tab asks for them."""
    answer = (await api.get("/jaeger/api/metrics/calls", service="shop", spanKind="server", **MINUTE)).json
    assert (answer["name"], answer["type"]) == ("service_call_rate", "GAUGE")
    (metric,) = answer["metrics"]
    assert metric["labels"] == [{"name": "service_name", "value": "shop"}]
    (point,) = metric["metricPoints"]
    assert point["timestamp"] == "2023-11-14T22:14:21Z"
    assert 0.1 < point["gaugeValue"]["doubleValue"] < 0.25
    query = [("service", "shop"), ("service", "stock"), ("groupByOperation", "true"), *MINUTE.items()]
    answer = (await call(api.app, "/jaeger/api/metrics/errors", query)).json
    rates = {
        tuple(one["value"] for one in metric["labels"]): metric["metricPoints"][0]["gaugeValue"]["doubleValue"]
        for metric in answer["metrics"]
    }
    assert answer["name"] == "service_operation_error_rate"
    assert rates.keys() == {("shop", "GET /"), ("stock", "GET /stock")}
    assert rates["shop", "GET /"] == 0
    assert 0.05 < rates["stock", "GET /stock"] < 0.4
    answer = (await api.get("/jaeger/api/metrics/latencies", service="shop", quantile="0.95", **MINUTE)).json
    assert answer["help"] == "0.95th quantile latency, grouped by service"
    (metric,) = answer["metrics"]
    assert 256 < metric["metricPoints"][0]["gaugeValue"]["doubleValue"] <= 512
    assert (await api.get("/jaeger/api/metrics/minstep")).json["data"] == 1000
    assert (await api.get("/jaeger/api/metrics/calls", service='s"|.*', **MINUTE)).json["metrics"] == []


@pytest.mark.parametrize(
    ("path", "query", "code", "message"),
    [
        ("calls", {}, 400, "please provide at least one service name"),
        ("calls", {"service": "a", "spanKind": "x"}, 400, "unsupported span kind"),
        ("calls", {"service": "a", "groupByOperation": "x"}, 400, "unable to parse param 'groupByOperation'"),
        ("calls", {"service": "a", "step": "1"}, 400, "more than 11000 points"),
        ("latencies", {"service": "a"}, 400, "unable to parse param 'quantile'"),
        ("latencies", {"service": "a", "quantile": "2"}, 400, "unable to parse param 'quantile'"),
        ("other", {"service": "a"}, 404, "there is no metric 'other'"),
    ],
)
async def test_mistakes_in_jaegers_monitor(api: Api, path: str, query: dict[str, str], code: int, message: str) -> None:
    answer = await api.get(f"/jaeger/api/metrics/{path}", **query)
    assert answer.status == code
    assert message in answer.json["errors"][0]["msg"]


async def test_without_a_generator() -> None:
    engine = Engine(1, 30.0, SystemClock())
    app = Starlette(routes=spanmetrics.routes(engine, None))
    answer = await call(app, "/metrics/spans")
    assert (answer.status, answer.text) == (404, "span metrics are off (metrics_generator.enabled)\n")
    engine.close()
