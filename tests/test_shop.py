"""What `ringtail send` sends: valid OTLP, and one story told three times."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector.cli.shop import MINUTE_NS, SERVICES, Story, tell
from collector.otlp.scan import BlockBuilder
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.otlp.validate import accept

NOW = 1_790_000_000_000_000_000


def records_of(story: Story, signal: Signal) -> list[Any]:
    """The records of a signal, in the order of the request (for metrics, the metrics)."""
    request = story.requests[signal]
    if signal is TRACES:
        return [one for container in request.resource_spans for scope in container.scope_spans for one in scope.spans]
    if signal is LOGS:
        return [one for outer in request.resource_logs for scope in outer.scope_logs for one in scope.log_records]
    return [one for outer in request.resource_metrics for scope in outer.scope_metrics for one in scope.metrics]


@pytest.fixture(scope="module")
def story() -> Story:
    return tell(NOW, 12, Random(1))


@given(st.integers(1, 40), st.integers(0, 1 << 32))
def test_nothing_of_it_is_rejected(orders: int, seed: int) -> None:
    story = tell(NOW, orders, Random(seed))
    for signal in SIGNALS:
        accepted = accept(BlockBuilder(signal), story.requests[signal].SerializeToString())
        assert (accepted.records, accepted.rejected, accepted.message) == (story.records[signal], 0, "")


def test_every_order_is_one_trace_through_all_services(story: Story) -> None:
    whose: dict[bytes, set[str]] = {}
    for container in story.requests[TRACES].resource_spans:
        service = next(one.value.string_value for one in container.resource.attributes if one.key == "service.name")
        for scope in container.scope_spans:
            for span in scope.spans:
                whose.setdefault(span.trace_id, set()).add(service)
    assert [trace_id.hex() for trace_id in whose] == story.traces
    assert all(services == set(SERVICES) for services in whose.values())


def test_spans_lie_within_their_parents_and_the_minute(story: Story) -> None:
    spans = {(one.trace_id, one.span_id): one for one in records_of(story, TRACES)}
    assert len(spans) == story.records[TRACES]
    for span in spans.values():
        assert NOW - MINUTE_NS <= span.start_time_unix_nano < span.end_time_unix_nano <= NOW
        if span.parent_span_id:
            parent = spans[span.trace_id, span.parent_span_id]
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano
    roots = [span for span in spans.values() if not span.parent_span_id]
    assert [span.trace_id.hex() for span in roots] == story.traces
    assert {span.kind for span in roots} == {Span.SPAN_KIND_SERVER}


def test_failures_go_back_to_the_root_with_an_exception(story: Story) -> None:
    failed = {one.trace_id.hex() for one in records_of(story, TRACES) if one.status.code == Status.STATUS_CODE_ERROR}
    assert failed == set(story.failed)
    assert 0 < len(failed) < len(story.traces)
    events = [(one.trace_id.hex(), event.name) for one in records_of(story, TRACES) for event in one.events]
    assert events == [(trace_id, "exception") for trace_id in story.failed]


def test_log_records_belong_to_spans_and_lie_in_their_time(story: Story) -> None:
    spans = {(one.trace_id, one.span_id): one for one in records_of(story, TRACES)}
    for record in records_of(story, LOGS):
        span = spans[record.trace_id, record.span_id]
        assert span.start_time_unix_nano <= record.time_unix_nano <= span.end_time_unix_nano
    errors = {one.trace_id.hex() for one in records_of(story, LOGS) if one.severity_text == "ERROR"}
    assert errors == set(story.failed)


def test_metrics_are_of_all_five_kinds_and_count_the_same_orders(story: Story) -> None:
    metrics = {one.name: one for one in records_of(story, METRICS)}
    kinds = {"gauge", "sum", "histogram", "exponential_histogram", "summary"}
    assert {one.WhichOneof("data") for one in metrics.values()} == kinds
    good, bad = metrics["shop.orders"].sum.data_points[-2:]
    assert good.time_unix_nano == bad.time_unix_nano == NOW
    assert (good.as_int, bad.as_int) == (len(story.traces) - len(story.failed), len(story.failed))
    for point in metrics["http.server.request.duration"].histogram.data_points:
        assert sum(point.bucket_counts) == point.count
    for point in metrics["shop.payment.duration"].exponential_histogram.data_points:
        assert sum(point.positive.bucket_counts) == point.count
    assert metrics["shop.payment.duration"].exponential_histogram.data_points[-1].count == len(story.traces)


def test_one_order_alone_is_a_failed_one() -> None:
    assert tell(NOW, 1, Random(1)).failed
