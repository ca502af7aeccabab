"""Jaeger's API: what Grafana's Jaeger data source and Jaeger's UI ask, and the shapes that they read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.applications import Starlette

from collector.api import jaeger, jaeger_metrics, jaeger_v3
from collector.api.jaeger_traces import Traces
from collector.api.limit import ResponseLimit
from collector.clock import SystemClock
from collector.otlp.signals import TRACES
from collector.query.engine import Engine
from collector.ring.ring import Ring
from collector.store import Store
from tests.api.asgi import Answer, call

US = 1000
S = 10**9
T0 = 1_700_000_000 * S
TRACE = bytes.fromhex("00000000000000000102030405060708")
OTHER = b"b" * 16
ROOT, CHILD, ALONE, GONE = b"root1234", b"child123", b"alone123", b"x" * 8


def add(made: Any, service: str | None, *spans: dict[str, Any], **attributes: str) -> None:
    envelope = made.resource_spans.add()
    if service is not None:
        envelope.resource.attributes.add(key="service.name").value.string_value = service
    for key, text in attributes.items():
        envelope.resource.attributes.add(key=key).value.string_value = text
    inner = envelope.scope_spans.add()
    inner.scope.name = "lib"
    for span in spans:
        inner.spans.add(**span)


def request() -> Any:
    """`shop` calls `db`, which fails; and another trace of `db` whose parent never came."""
    made = TRACES.request_type()
    add(
        made,
        "shop",
        {
            "trace_id": TRACE,
            "span_id": ROOT,
            "name": "GET /",
            "start_time_unix_nano": T0,
            "end_time_unix_nano": T0 + 3 * S,
            "kind": 2,
        },
        zone="a",
    )
    add(
        made,
        "db",
        {
            "trace_id": TRACE,
            "span_id": CHILD,
            "parent_span_id": ROOT,
            "name": "SELECT",
            "start_time_unix_nano": T0 + 1 * S,
            "end_time_unix_nano": T0 + 2 * S + 7,
            "kind": 3,
            "trace_state": "a=b",
        },
        {
            "trace_id": OTHER,
            "span_id": ALONE,
            "parent_span_id": GONE,
            "name": "q",
            "start_time_unix_nano": T0 - 10 * S,
            "end_time_unix_nano": T0 - 10 * S,
        },
    )
    span = made.resource_spans[1].scope_spans[0].spans[0]
    span.status.code, span.status.message = 2, "broken"
    span.links.add(trace_id=OTHER, span_id=ALONE)
    event = span.events.add(time_unix_nano=T0 + 1_500_000_000, name="exception")
    event.attributes.add(key="exception.type").value.string_value = "E"
    for key, value in (("rows", 500), ("big", 2**60)):
        span.attributes.add(key=key).value.int_value = value
    span.attributes.add(key="cached").value.bool_value = False
    span.attributes.add(key="ratio").value.double_value = 0.5
    span.attributes.add(key="raw").value.bytes_value = b"\x00\x01"
    span.attributes.add(key="list").value.array_value.values.add().string_value = "x"
    return made


class Api:
    """Both versions over a store with the request above."""

    def __init__(self, capacity: int = 100) -> None:
        self.store = Store(TRACES, Ring(TRACES, capacity, 1 << 22), None, asyncio.get_running_loop())
        self.engine = Engine(1, 30.0, SystemClock())
        traces = Traces(self.store, self.engine, ResponseLimit())
        self.app = Starlette(
            routes=[
                *jaeger_v3.routes(traces),
                *jaeger.routes(traces),
                *jaeger_metrics.routes(self.store, self.engine, None),
            ]
        )

    async def get(self, path: str, **query: Any) -> Answer:
        return await call(self.app, f"/jaeger/api{path}", {key.replace("__", "."): one for key, one in query.items()})

    async def data(self, path: str, **query: Any) -> Any:
        """What version 1 answers in its envelope."""
        answer = await self.get(path, **query)
        assert answer.status == 200, answer.text
        body = answer.json
        assert set(body) == {"data", "total", "limit", "offset", "errors"}
        assert body["errors"] is None
        assert body["total"] == len(body["data"])
        return body["data"]

    async def ids(self, **query: Any) -> list[str]:
        return [one["traceID"] for one in await self.data("/traces", **query)]


@pytest.fixture
async def api() -> Any:
    made = Api()
    await made.store.append(request().SerializeToString())
    yield made
    made.engine.close()


# --- version 1 ------------------------------------------------------------------------------------------------


async def test_services_and_operations_as_grafana_asks_them(api: Api) -> None:
    assert (await api.get("/services")).json == {
        "data": ["db", "shop"],
        "total": 2,
        "limit": 0,
        "offset": 0,
        "errors": None,
    }
    assert await api.data("/services/db/operations") == ["SELECT", "q"]
    assert await api.data("/services/none/operations") == []
    assert await api.data("/operations", service="db") == [
        {"name": "SELECT", "spanKind": "client"},
        {"name": "q", "spanKind": ""},
    ]
    assert await api.data("/operations", service="db", spanKind="client") == [{"name": "SELECT", "spanKind": "client"}]


async def test_a_service_is_listed_as_long_as_a_span_of_it_is_held() -> None:
    api = Api(capacity=2)
    for service in ("one", "two", "one", "a/b", None):
        made = TRACES.request_type()
        add(made, service, {"trace_id": TRACE, "span_id": ROOT, "name": "n", "start_time_unix_nano": T0})
        await api.store.append(made.SerializeToString())
        known = await api.data("/services")
        assert (service or "OTLPResourceNoServiceName") in known
        assert len(known) <= 2
    assert await api.data("/services") == ["OTLPResourceNoServiceName", "a/b"]
    assert await api.data("/services/a%2Fb/operations".replace("%2F", "/")) == ["n"]
    assert await api.ids(service="OTLPResourceNoServiceName") == ["0102030405060708"]
    api.engine.close()


async def test_a_trace_has_jaegers_model(api: Api) -> None:
    (trace,) = await api.data(f"/traces/{TRACE.hex()}")
    scope = {"key": "otel.scope.name", "type": "string", "value": "lib"}
    root = {
        "traceID": "0102030405060708",
        "spanID": ROOT.hex(),
        "flags": 1,
        "operationName": "GET /",
        "references": [],
        "startTime": T0 // US,
        "duration": 3_000_000,
        "tags": [{"key": "span.kind", "type": "string", "value": "server"}, scope],
        "logs": [],
        "processID": "p1",
        "warnings": None,
    }
    child = {
        "traceID": "0102030405060708",
        "spanID": CHILD.hex(),
        "flags": 1,
        "operationName": "SELECT",
        "references": [
            {"refType": "CHILD_OF", "traceID": "0102030405060708", "spanID": ROOT.hex()},
            {"refType": "FOLLOWS_FROM", "traceID": OTHER.hex(), "spanID": ALONE.hex()},
        ],
        "startTime": T0 // US + 1_000_000,
        "duration": 1_000_000,
        "tags": [
            {"key": "rows", "type": "int64", "value": 500},
            {"key": "big", "type": "int64", "value": str(2**60)},
            {"key": "cached", "type": "bool", "value": False},
            {"key": "ratio", "type": "float64", "value": 0.5},
            {"key": "raw", "type": "binary", "value": "AAE="},
            {"key": "list", "type": "string", "value": '["x"]'},
            {"key": "span.kind", "type": "string", "value": "client"},
            {"key": "otel.status_code", "type": "string", "value": "ERROR"},
            {"key": "error", "type": "bool", "value": True},
            {"key": "otel.status_description", "type": "string", "value": "broken"},
            {"key": "w3c.tracestate", "type": "string", "value": "a=b"},
            scope,
        ],
        "logs": [
            {
                "timestamp": T0 // US + 1_500_000,
                "fields": [
                    {"key": "event", "type": "string", "value": "exception"},
                    {"key": "exception.type", "type": "string", "value": "E"},
                ],
            }
        ],
        "processID": "p2",
        "warnings": None,
    }
    assert trace == {
        "traceID": "0102030405060708",
        "spans": [root, child],
        "processes": {
            "p1": {"serviceName": "shop", "tags": [{"key": "zone", "type": "string", "value": "a"}]},
            "p2": {"serviceName": "db", "tags": []},
        },
        "warnings": None,
    }


async def test_what_is_missing_from_a_trace_is_told(api: Api) -> None:
    (trace,) = await api.data(f"/traces/{OTHER.hex()}")
    assert trace["spans"][0]["warnings"] == [f"the parent span {GONE.hex()} is not held: not received, so far"]
    assert trace["warnings"] == [
        f"the trace is incomplete: 1 parent span is not held ({GONE.hex()}): not received, so far"
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"service": "shop"}, [TRACE]),
        ({"service": "db"}, [TRACE, OTHER]),
        ({"service": "db", "limit": 1}, [TRACE]),
        ({"service": "none"}, []),
        ({"service": "db", "operation": "q"}, [OTHER]),
        ({"service": "shop", "operation": "q"}, []),
        ({"service": "db", "start": T0 // US}, [TRACE]),
        ({"service": "db", "end": T0 // US}, [OTHER]),
        ({"service": "db", "start": T0 // US - 10_000_000, "end": T0 // US - 10_000_000}, [OTHER]),
        ({"service": "db", "minDuration": "999.5ms"}, [TRACE]),
        ({"service": "db", "minDuration": "1s1ms"}, []),
        ({"service": "db", "maxDuration": "1ms"}, [OTHER]),
        *(
            ({"service": "db", "tags": json.dumps(tags)}, [TRACE])
            for tags in (
                {"rows": "500"},
                {"rows": 500},
                {"ratio": "0.5"},
                {"cached": "false"},
                {"error": "true"},
                {"error": True, "rows": "500"},
                {"span.kind": "client"},
                {"otel.status_code": "ERROR"},
                {"otel.status_description": "broken"},
                {"exception.type": "E"},
                {"event": "exception"},
            )
        ),
        ({"service": "shop", "tags": '{"zone":"a"}'}, [TRACE]),
        ({"service": "shop", "tag": "zone:a"}, [TRACE]),
        ({"service": "db", "tags": '{"otel.scope.name":"lib"}'}, [TRACE, OTHER]),
        *(
            ({"service": "db", "tags": json.dumps(tags)}, [])
            for tags in ({"rows": "501"}, {"error": "no"}, {"zone": "a"}, {"rows": "500", "cached": "true"})
        ),
    ],
)
async def test_search(api: Api, query: dict[str, Any], expected: list[bytes]) -> None:
    assert await api.ids(**query) == [one.hex().removeprefix("0" * 16) for one in expected]


async def test_traces_by_several_ids(api: Api) -> None:
    answer = await call(
        api.app, "/jaeger/api/traces", [("traceID", OTHER.hex()), ("traceID", "f"), ("traceID", "102030405060708")]
    )
    assert [one["traceID"] for one in answer.json["data"]] == [OTHER.hex(), "0102030405060708"]


async def test_dependencies(api: Api) -> None:
    end = (T0 + 60 * S) // 10**6
    assert await api.data("/dependencies", endTs=end, lookback=120_000) == [
        {"parent": "shop", "child": "db", "callCount": 1}
    ]
    assert await api.data("/dependencies", endTs=end, lookback=1) == []
    assert await api.data("/dependencies") == []


async def test_transform(api: Api) -> None:
    body = {
        "resourceSpans": [
            {"scopeSpans": [{"spans": [{"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "2", "name": "x"}]}]}
        ]
    }
    answer = await call(api.app, "/jaeger/api/transform", method="POST", body=json.dumps(body).encode())
    (trace,) = answer.json["data"]
    assert (trace["traceID"], trace["spans"][0]["operationName"]) == ("0000000000000001", "x")
    answer = await call(api.app, "/jaeger/api/transform", method="POST", body=b"{")
    assert (answer.status, answer.json["errors"][0]["code"]) == (400, 400)


@pytest.mark.parametrize(
    ("path", "query", "code", "message"),
    [
        ("/traces/ff", {}, 404, "trace not found"),
        ("/traces/xyz", {}, 400, "malformed parameter traceID"),
        ("/traces", {}, 400, "parameter 'service' is required"),
        ("/operations", {}, 400, "parameter 'service' is required"),
        ("/traces", {"service": "a", "start": "yesterday"}, 400, "malformed parameter start"),
        ("/traces", {"service": "a", "limit": "0"}, 400, "malformed parameter limit"),
        ("/traces", {"service": "a", "minDuration": "5"}, 400, "malformed parameter minDuration"),
        ("/traces", {"service": "a", "minDuration": "5s", "maxDuration": "1s"}, 400, "'maxDuration' should be"),
        ("/traces", {"service": "a", "tags": "{"}, 400, "malformed parameter tags"),
        ("/traces", {"service": "a", "tag": "x"}, 400, "malformed parameter 'tag', expecting key:value"),
        ("/dependencies", {"endTs": "x"}, 400, "malformed parameter endTs"),
        ("/metrics/calls", {"service": "a"}, 501, "metrics querying is currently disabled"),
    ],
)
async def test_errors_have_jaegers_shape(api: Api, path: str, query: dict[str, Any], code: int, message: str) -> None:
    answer = await api.get(path, **query)
    assert answer.status == code
    (error,) = answer.json["errors"]
    assert answer.json["data"] is None
    assert error["code"] == code
    assert message in error["msg"]


# --- version 3 ------------------------------------------------------------------------------------------------


async def test_v3_catalogue(api: Api) -> None:
    assert (await api.get("/v3/services")).json == {"services": ["db", "shop"]}
    everything = [{"name": "SELECT", "spanKind": "client"}, {"name": "q", "spanKind": "internal"}]
    assert (await api.get("/v3/operations", service="db")).json == {"operations": everything}
    for name in ("span_kind", "spanKind"):
        assert (await api.get("/v3/operations", service="db", **{name: "client"})).json["operations"] == everything[:1]


async def test_v3_trace_is_otlp_json(api: Api) -> None:
    body = (await api.get(f"/v3/traces/{TRACE.hex()}")).json
    shop, db = body["result"]["resourceSpans"]
    assert shop["resource"]["attributes"][0] == {"key": "service.name", "value": {"stringValue": "shop"}}
    span = db["scopeSpans"][0]["spans"][0]
    assert (span["traceId"], span["spanId"], span["parentSpanId"]) == (TRACE.hex(), CHILD.hex(), ROOT.hex())
    assert (span["kind"], span["status"]["code"]) == (3, 2)
    assert span["startTimeUnixNano"] == str(T0 + S)
    assert span["links"][0]["traceId"] == OTHER.hex()
    assert not any(one["key"] == "@jaeger@warnings" for one in span["attributes"])


async def test_v3_warns_where_jaeger_does(api: Api) -> None:
    body = (await api.get(f"/v3/traces/{OTHER.hex()}")).json
    (span,) = body["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    (warning,) = (one for one in span["attributes"] if one["key"] == "@jaeger@warnings")
    assert GONE.hex() in warning["value"]["arrayValue"]["values"][0]["stringValue"]


SEARCHES = [
    {"service_name": "db", "operation_name": "SELECT", "search_depth": "20", "duration_min": "1s"},
    {"serviceName": "db", "operationName": "SELECT", "searchDepth": "20", "durationMin": "1s"},
    {"service_name": "db", "attributes": '{"rows":"500"}', "num_traces": "5"},
    {
        "serviceName": "db",
        "startTimeMin": "2023-11-14T22:13:20.000000001Z",
        "startTimeMax": "2023-11-14T23:13:20+00:00",
    },
    {"service_name": "db", "start_time_min": "2023-11-14T22:13:21Z", "start_time_max": "2023-11-14T22:13:21.000Z"},
]


@pytest.mark.parametrize("query", SEARCHES)
async def test_v3_search_in_both_spellings(api: Api, query: dict[str, str]) -> None:
    parameters = {f"query__{name}": text for name, text in query.items()}
    body = (await api.get("/v3/traces", **parameters)).json
    ids = {
        span["traceId"]
        for one in body["result"]["resourceSpans"]
        for scope in one["scopeSpans"]
        for span in scope["spans"]
    }
    assert ids == {TRACE.hex()}
    assert [one["traceId"] for one in (await api.get("/v3/trace-summaries", **parameters)).json["summaries"]] == [
        TRACE.hex()
    ]


async def test_v3_summaries(api: Api) -> None:
    assert (await api.get("/v3/trace-summaries", query__serviceName="db")).json == {
        "summaries": [
            {
                "traceId": TRACE.hex(),
                "rootServiceName": "shop",
                "rootOperationName": "GET /",
                "minStartTimeUnixNano": str(T0),
                "maxEndTimeUnixNano": str(T0 + 3 * S),
                "spanCount": 2,
                "errorSpanCount": 1,
                "services": [
                    {"name": "db", "spanCount": 1, "errorSpanCount": 1},
                    {"name": "shop", "spanCount": 1, "errorSpanCount": 0},
                ],
            },
            {
                "traceId": OTHER.hex(),
                "rootServiceName": "db",
                "rootOperationName": "q",
                "minStartTimeUnixNano": str(T0 - 10 * S),
                "maxEndTimeUnixNano": str(T0 - 10 * S),
                "spanCount": 1,
                "errorSpanCount": 0,
                "services": [{"name": "db", "spanCount": 1, "errorSpanCount": 0}],
            },
        ]
    }


@pytest.mark.parametrize(
    ("path", "query", "code", "message"),
    [
        ("/v3/traces/ff", {}, 404, "No traces found"),
        ("/v3/traces", {"query__service_name": "none"}, 404, "No traces found"),
        ("/v3/traces/no", {}, 400, "malformed parameter trace_id"),
        ("/v3/traces", {"query__start_time_min": "noon"}, 400, "malformed parameter query.start_time_min"),
        ("/v3/traces", {"query__searchDepth": "-1"}, 400, "malformed parameter query.search_depth"),
        ("/v3/trace-summaries", {"query__durationMin": "1"}, 400, "malformed parameter query.duration_min"),
        ("/v3/operations", {}, 400, "parameter service is required"),
    ],
)
async def test_v3_errors(api: Api, path: str, query: dict[str, Any], code: int, message: str) -> None:
    answer = await api.get(path, **query)
    assert answer.status == code
    error = answer.json["error"]
    assert error["httpCode"] == code
    assert message in error["message"]
