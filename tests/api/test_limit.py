"""The size limit of answers: one that is too large is an error in its API's form, and what fits comes as it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.proto.trace.v1 import trace_pb2
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse, StreamingResponse

from collector.api.app import create_app
from collector.api.limit import LimitedResponses, ResponseLimit
from collector.clock import SystemClock
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES
from collector.query.engine import Engine
from collector.ring.ring import Ring
from collector.store import Store
from tests.api.asgi import Answer, call

S = 10**9
NOW = 1_700_000_000
TRACE = b"t" * 16
WIDE = "w" * 20_000


class Fixed(SystemClock):
    """Now is a second after everything that was sent."""

    def now_ns(self) -> int:
        return (NOW + 1) * S


class Served:
    """The three APIs over one record each, of some twenty kilobytes."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.engine = Engine(1, 10.0, Fixed())
        self.limit = ResponseLimit()
        self.stores = {one.name: Store(one, Ring(one, 100, 1 << 20), None, loop) for one in SIGNALS}
        self.app = create_app(
            self.stores, self.engine, CollectorRegistry(), lambda: ["x" * 100_000], dict, dict, None, limit=self.limit
        )

    async def fill(self) -> None:
        traces, logs, metrics = (one.request_type() for one in (TRACES, LOGS, METRICS))
        envelope = traces.resource_spans.add()
        envelope.resource.attributes.add(key="service.name").value.string_value = "wide"
        span = envelope.scope_spans.add().spans.add(name="wide", trace_id=TRACE, span_id=b"s" * 8)
        span.start_time_unix_nano = span.end_time_unix_nano = NOW * S
        span.attributes.add(key="text").value.string_value = WIDE
        record = logs.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=NOW * S)
        record.body.string_value = WIDE
        point = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="wide").gauge.data_points.add()
        point.time_unix_nano, point.as_int = NOW * S, 1
        point.attributes.add(key="text").value.string_value = WIDE
        for signal, request in ((TRACES, traces), (LOGS, logs), (METRICS, metrics)):
            await self.stores[signal.name].append(request.SerializeToString())

    async def ask(self, path: str, query: dict[str, Any], headers: dict[str, str]) -> Answer:
        return await call(self.app, path, query, headers=headers)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    await made.fill()
    yield made
    made.engine.close()


ASKED: dict[str, tuple[str, dict[str, Any], dict[str, str], int]] = {
    "trace, v1": (f"/api/traces/{TRACE.hex()}", {}, {}, 422),
    "trace, v2": (f"/api/v2/traces/{TRACE.hex()}", {}, {}, 422),
    "trace, protobuf": (f"/api/v2/traces/{TRACE.hex()}", {}, {"Accept": "application/protobuf"}, 422),
    "search": ("/api/search", {"q": '{ span.text != "" }'}, {}, 422),
    "Jaeger, v1": (f"/jaeger/api/traces/{TRACE.hex()}", {}, {}, 422),
    "Jaeger, search": ("/jaeger/api/traces", {"service": "wide", "start": 0, "end": NOW * 10**6 + 1}, {}, 422),
    "Jaeger, v3": (f"/jaeger/api/v3/traces/{TRACE.hex()}", {}, {}, 422),
    "log lines": ("/loki/api/v1/query_range", {"query": '{service_name=~".+"}', "start": NOW - 60}, {}, 400),
    "samples": ("/api/v1/query", {"query": "wide", "time": NOW}, {}, 422),
    "received": ("/metrics/received", {}, {}, 422),
}


@pytest.mark.parametrize("name", ASKED)
async def test_an_answer_that_is_too_large_is_an_error_in_its_own_form(served: Served, name: str) -> None:
    path, query, headers, code = ASKED[name]
    whole = await served.ask(path, query, headers)
    assert whole.status == 200, whole
    size = len(whole.body)
    assert size > len(WIDE)

    served.limit.bytes_max = size // 2
    refused = await served.ask(path, query, headers)
    assert refused.status == code
    assert "api.max_response_size" in refused.text
    assert len(refused.body) == int(refused.headers["content-length"]) < 500
    if path.startswith("/api/v1/"):
        assert refused.json["status"] == "error"
        assert refused.json["errorType"] == "execution"
    elif path.startswith("/jaeger/api/v3/"):
        assert refused.json["error"]["httpCode"] == 422
    elif path.startswith("/jaeger/"):
        assert [one["code"] for one in refused.json["errors"]] == [422]
    else:
        assert refused.headers["content-type"] == "text/plain; charset=utf-8"

    served.limit.bytes_max = 8 * size
    assert (await served.ask(path, query, headers)).status == 200


@pytest.mark.parametrize("version", ["", "/v2"])
async def test_a_trace_as_json_may_have_an_eighth_in_protobuf(served: Served, version: str) -> None:
    path = f"/api{version}/traces/{TRACE.hex()}"
    stored = (await served.ask(f"/api/traces/{TRACE.hex()}", {}, {"Accept": "application/protobuf"})).body
    served.limit.bytes_max = 8 * len(stored)
    assert (await served.ask(path, {}, {})).status == 200
    served.limit.bytes_max -= 1
    refused = await served.ask(path, {}, {})
    assert refused.status == 422
    assert refused.text == (
        f"the spans have {len(stored)} bytes; as JSON at most {len(stored) - 1} are answered, a part of "
        "api.max_response_size; all with Accept: application/protobuf"
    )
    whole = await served.ask(path, {}, {"Accept": "application/protobuf"})
    assert trace_pb2.TracesData.FromString(stored).resource_spans
    assert stored in whole.body


async def test_what_operators_ask_is_always_answered(served: Served) -> None:
    served.limit.bytes_max = 1
    for path, code in (("/healthz", 200), ("/readyz", 503), ("/metrics", 200), ("/api/stats", 200), ("/", 200)):
        assert (await served.ask(path, {}, {})).status == code


async def test_a_stream_has_no_size() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"many"
        yield b"bytes"

    guarded = LimitedResponses(StreamingResponse(pieces()), ResponseLimit(3))
    assert (await call(guarded, "/loki/api/v1/tail")).body == b"manybytes"


async def test_the_limit_is_the_last_size_that_passes() -> None:
    whole = await call(LimitedResponses(PlainTextResponse("many"), ResponseLimit(4)), "/api/x")
    assert (whole.status, whole.text) == (200, "many")
    refused = await call(LimitedResponses(PlainTextResponse("many"), ResponseLimit(3)), "/api/x")
    assert refused.status == 422
    assert refused.text.startswith("the answer has 4 bytes, and api.max_response_size is 3: ask for less")
