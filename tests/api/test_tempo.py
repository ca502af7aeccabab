"""Tempo's API: the shapes that Grafana's Tempo data source reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2
from starlette.applications import Starlette

from collector.api import tempo
from collector.api.limit import ResponseLimit
from collector.clock import SystemClock
from collector.otlp.signals import TRACES
from collector.query.engine import Engine
from collector.ring.ring import Ring
from collector.store import Store
from tests.api.asgi import Answer, call

S = 10**9
TRACE = bytes.fromhex("00000000000000000102030405060708")


def request() -> Any:
    """One trace: a root in `shop`, a failed child in `db`; and a second trace without a root."""
    made = TRACES.request_type()
    for service, spans in (
        ("shop", [(TRACE, b"root1234", b"", "GET /", 100 * S, 103 * S, 1)]),
        (
            "db",
            [
                (TRACE, b"child123", b"root1234", "SELECT", 101 * S, 102 * S, 2),
                (b"b" * 16, b"alone123", b"x" * 8, "q", 90 * S, 90 * S, 0),
            ],
        ),
    ):
        envelope = made.resource_spans.add()
        envelope.resource.attributes.add(key="service.name").value.string_value = service
        inner = envelope.scope_spans.add()
        inner.schema_url = "http://schema"
        for trace, span, parent, name, start, end, status in spans:
            one = inner.spans.add(
                trace_id=trace,
                span_id=span,
                parent_span_id=parent,
                name=name,
                start_time_unix_nano=start,
                end_time_unix_nano=end,
                kind=2,
            )
            one.status.code = status
            one.attributes.add(key="http.status_code").value.int_value = 500
    return made


class Api:
    """The routes over a store with the request above."""

    def __init__(self) -> None:
        self.store = Store(TRACES, Ring(TRACES, 100, 1 << 20), None, asyncio.get_running_loop())
        self.engine = Engine(1, 30.0, SystemClock())
        self.app = Starlette(routes=tempo.routes({"traces": self.store}, self.engine, ResponseLimit()))

    async def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> Answer:
        return await call(self.app, path, query, headers=headers or {})


@pytest.fixture
async def api() -> Any:
    made = Api()
    await made.store.append(request().SerializeToString())
    yield made
    made.engine.close()


async def test_echo(api: Api) -> None:
    answer = await api.get("/api/echo")
    assert (answer.status, answer.text) == (200, "echo")


async def test_search_answers_what_grafana_reads(api: Api) -> None:
    answer = await api.get("/api/search", q="{ status = error && .http.status_code >= 500 }", limit=5)
    spans = {
        "spans": [
            {
                "spanID": b"child123".hex(),
                "name": "SELECT",
                "startTimeUnixNano": str(101 * S),
                "durationNanos": str(1 * S),
                "attributes": [
                    {"key": "status", "value": {"stringValue": "error"}},
                    {"key": "http.status_code", "value": {"intValue": "500"}},
                ],
            }
        ],
        "matched": 1,
    }
    assert answer.json["traces"] == [
        {
            "traceID": TRACE.hex(),
            "rootServiceName": "shop",
            "rootTraceName": "GET /",
            "startTimeUnixNano": str(100 * S),
            "durationMs": 3000,
            "spanSet": spans,
            "spanSets": [spans],
            "serviceStats": {"shop": {"spanCount": 1}, "db": {"spanCount": 1, "errorCount": 1}},
        }
    ]
    assert answer.json["metrics"]["oldestOffset"] == "0"


async def test_search_without_a_query_is_newest_first(api: Api) -> None:
    traces = (await api.get("/api/search")).json["traces"]
    assert [one["traceID"] for one in traces] == [TRACE.hex(), (b"b" * 16).hex()]
    assert traces[1]["rootServiceName"] == "<root span not yet received>"
    assert len((await api.get("/api/search", limit=1)).json["traces"]) == 1
    assert (await api.get("/api/search", start=95, end=200)).json["traces"][0]["traceID"] == TRACE.hex()
    assert (await api.get("/api/search", start=104, end=200)).json["traces"] == []


async def test_the_older_form_of_search(api: Api) -> None:
    traces = (await api.get("/api/search", tags="service.name=db http.status_code=500", minDuration="1s")).json[
        "traces"
    ]
    assert [one["traceID"] for one in traces] == [TRACE.hex()]


@pytest.mark.parametrize("path", ["/api/v2/traces/", "/api/traces/"])
@pytest.mark.parametrize("text", [TRACE.hex(), "102030405060708", TRACE.hex().upper()])
async def test_a_trace_as_protobuf(api: Api, path: str, text: str) -> None:
    answer = await api.get(path + text, {"accept": "application/protobuf"})
    assert answer.headers["content-type"] == "application/protobuf"
    body = answer.body
    if path == "/api/v2/traces/":
        assert body[0] == 0x0A
        body = body[2 if body[1] < 128 else 3 :]
    data = trace_pb2.TracesData.FromString(body)
    names = [
        (e.resource.attributes[0].value.string_value, s.name)
        for e in data.resource_spans
        for i in e.scope_spans
        for s in i.spans
    ]
    assert names == [("shop", "GET /"), ("db", "SELECT")]
    assert data.resource_spans[0].scope_spans[0].schema_url == "http://schema"


@pytest.mark.parametrize("limit", ["AT_HAND_SPANS", "AT_HAND_BYTES"])
async def test_a_larger_trace_is_answered_by_a_worker(api: Api, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = [await api.get(f"/api/v2/traces/{one}") for one in (TRACE.hex(), "abc")]
    monkeypatch.setattr(tempo, limit, -1)
    assert [await api.get(f"/api/v2/traces/{one}") for one in (TRACE.hex(), "abc")] == at_once


async def test_a_trace_as_json(api: Api) -> None:
    new = (await api.get(f"/api/v2/traces/{TRACE.hex()}")).json["trace"]["resourceSpans"]
    old = (await api.get(f"/api/traces/{TRACE.hex()}")).json["batches"]
    assert new == old
    assert new[0]["scopeSpans"][0]["spans"][0]["name"] == "GET /"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/v2/traces/abc", 404), ("/api/traces/abc", 404), ("/api/traces/xyz", 400), ("/api/traces/  ", 400)],
)
async def test_what_is_not_there(api: Api, path: str, status: int) -> None:
    assert (await api.get(path)).status == status


async def test_what_is_missing_from_a_trace_is_told(api: Api) -> None:
    other = (b"b" * 16).hex()
    message = f"the trace is incomplete: 1 parent span is not held ({(b'x' * 8).hex()}): not received, so far"
    body = (await api.get(f"/api/v2/traces/{other}")).json
    assert (body["status"], body["message"]) == ("PARTIAL", message)
    raw = (await api.get(f"/api/v2/traces/{other}", {"accept": "application/protobuf"})).body
    assert len(message) < 128, "its length is one byte"
    assert raw.endswith(b"\x18\x01\x22" + bytes((len(message),)) + message.encode())
    whole = (await api.get(f"/api/v2/traces/{TRACE.hex()}", start=101, end=102)).json
    assert "status" not in whole, "what the range leaves out is not missing"


async def test_tags_and_values(api: Api) -> None:
    scopes = {one["name"]: one["tags"] for one in (await api.get("/api/v2/search/tags")).json["scopes"]}
    assert scopes["resource"] == ["service.name"]
    assert scopes["span"] == ["http.status_code"]
    assert "duration" in scopes["intrinsic"]
    assert [one["name"] for one in (await api.get("/api/v2/search/tags", scope="span")).json["scopes"]] == ["span"]
    assert (await api.get("/api/search/tags")).json["tagNames"] == ["http.status_code", "service.name"]

    async def values(tag: str, **query: str) -> list[tuple[str, str]]:
        found = (await api.get(f"/api/v2/search/tag/{tag}/values", **query)).json["tagValues"]
        return [(one["type"], one["value"]) for one in found]

    assert await values("resource.service.name") == [("string", "db"), ("string", "shop")]
    assert await values("name", q="{ status = error }") == [("string", "SELECT")]
    assert await values("status") == [("keyword", "error"), ("keyword", "ok"), ("keyword", "unset")]
    assert await values(".http.status_code") == [("int", "500")]
    assert await values("rootServiceName") == [("string", "shop")]
    assert await values("rootName") == [("string", "GET /")]
    assert await values("name", q='{ resource.service.name = "db" && status = }') == [
        ("string", "SELECT"),
        ("string", "q"),
    ]
    assert await values("name", q="{ resource.service.name = ") == [("string", x) for x in ("GET /", "SELECT", "q")]
    narrowed = await api.get("/api/search/tag/name/values", q="{ } >> { }")
    assert (narrowed.status, narrowed.text.partition(" at ")[0]) == (
        400,
        "invalid TraceQL query: only one filter over single spans, { … }, can be used here",
    )
    assert (await api.get("/api/search/tag/childCount/values")).status == 400
    assert (await api.get("/api/search/tag/service.name/values")).json["tagValues"] == ["db", "shop"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"q": "{ .a = }"}, "invalid TraceQL query: expected a value, but found '}' at column 8"),
        ({"q": "({ .a } | count()) > 1"}, "an aggregate of a whole pipeline, ( … | count() ), is not supported"),
        ({"q": "{ } | rate()"}, "this is a metrics query: ask /api/metrics/query_range at column 7"),
        ({"cursor": "1.2"}, "cursor is a nextCursor of an answer before, not '1.2'"),
        ({"limit": "0"}, "limit must be a whole number from 1 to 10000, not '0'"),
        ({"start": "x"}, "start must be in Unix seconds, not 'x'"),
    ],
)
async def test_mistakes_are_told(api: Api, query: dict[str, str], message: str) -> None:
    answer = await api.get("/api/search", **query)
    assert answer.status == 400
    assert message in answer.text
