"""Any record comes back as it was sent, and from the columns alone as those have it."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any

import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.exporters.base import Context, Wanted
from collector.exporters.clickhouse.backend import ClickHouse
from collector.exporters.clickhouse.settings import ClickHouseSettings
from collector.otlp.signals import LOGS
from collector.testing.corpus import wholes
from collector.testing.exporters import batch_of
from tests.exporters.clickhouse.kept import kept
from tests.exporters.clickhouse.server import Server, database, need_engine, serving

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
leaves = (
    st.builds(AnyValue)
    | st.builds(AnyValue, string_value=texts)
    | st.builds(AnyValue, bool_value=st.booleans())
    | st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1))
    | st.builds(AnyValue, double_value=st.floats())
    | st.builds(AnyValue, bytes_value=st.binary(max_size=8))
)


def nested(values: Any) -> Any:
    pairs = st.dictionaries(texts, values, max_size=3).map(
        lambda found: [KeyValue(key=key, value=value) for key, value in found.items()]
    )
    return st.builds(AnyValue, array_value=st.builds(ArrayValue, values=st.lists(values, max_size=3))) | st.builds(
        AnyValue, kvlist_value=st.builds(KeyValueList, values=pairs)
    )


values = st.recursive(leaves, nested, max_leaves=6)
attributes = st.lists(st.builds(KeyValue, key=texts, value=values), max_size=4)
times = st.integers(1, 2**63 - 1)


@st.composite
def requests(draw: Any) -> bytes:
    request = ExportLogsServiceRequest()
    for _ in range(draw(st.integers(1, 2))):
        outer = request.resource_logs.add(schema_url=draw(texts))
        outer.resource.attributes.extend(draw(attributes))
        scope = outer.scope_logs.add(schema_url=draw(texts))
        scope.scope.name = draw(texts)
        scope.scope.attributes.extend(draw(attributes))
        for _ in range(draw(st.integers(1, 3))):
            record = scope.log_records.add(
                time_unix_nano=draw(times),
                severity_text=draw(texts),
                severity_number=draw(st.integers(0, 24)),  # type: ignore[arg-type]
                trace_id=draw(st.just(b"") | st.binary(min_size=16, max_size=16).filter(any)),
                span_id=draw(st.just(b"") | st.binary(min_size=8, max_size=8).filter(any)),
                flags=draw(st.integers(0, 2**32 - 1)),
                event_name=draw(texts),
                body=draw(values),
            )
            record.attributes.extend(draw(attributes))
    return request.SerializeToString()


def test_whatever_is_sent_comes_back() -> None:
    need_engine()
    tenants = (f"t{number}" for number in itertools.count())

    async def story(stack: AsyncExitStack) -> list[ClickHouse]:
        url = await stack.enter_async_context(serving(Server().answer))
        threads = stack.enter_context(ThreadPoolExecutor(1))
        made = []
        for keeps in (True, False):
            keys = ClickHouseSettings(endpoint=(url,), database=database(), signals=("logs",), keep_records=keeps)
            context = Context("c", SystemClock(), structlog.get_logger(), CollectorRegistry(), threads, None)
            made.append(ClickHouse(keys, context))
            stack.push_async_callback(made[-1].stop)
            await made[-1].start()
        return made

    async def both(whole: ClickHouse, columns: ClickHouse, payload: bytes) -> None:
        tenant = next(tenants)
        sent = list(wholes(LOGS, payload))
        for backend, of in ((whole, lambda one: one.key()), (columns, lambda one: kept(LOGS, one))):
            await backend.export(batch_of(LOGS, [payload], tenant=tenant))
            found = [
                one
                async for block in backend.read(Wanted(LOGS, tenant=tenant))
                for one in wholes(LOGS, bytes(block.payload))
            ]
            assert Counter(map(of, found)) == Counter(map(of, sent))

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        whole, columns = runner.run(story(stack))
        try:

            @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
            @given(requests())
            def examples(payload: bytes) -> None:
                runner.run(both(whole, columns, payload))

            examples()
        finally:
            runner.run(stack.aclose())
