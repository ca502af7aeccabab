"""OTLP/JSON that is sent, against the protobuf library's mapping with OTLP's exceptions."""

from __future__ import annotations

import json
import math

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.otlp.json.write import PROTOBUF_JSON, to_json
from collector.otlp.signals import SIGNALS, Signal
from collector.testing import otlp

ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def any_value(value: object) -> AnyValue:
    made = AnyValue()
    match value:
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case str():
            made.string_value = value
        case bytes():
            made.bytes_value = value
        case list():
            made.array_value.values.extend(map(any_value, value))
            made.array_value.SetInParent()
        case dict():
            made.kvlist_value.SetInParent()
            for key, one in value.items():
                made.kvlist_value.values.add(key=key).value.CopyFrom(any_value(one))
    return made


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
def test_requests(signal: Signal) -> None:
    payload = otlp.BUILDERS[signal](40)
    assert json.loads(to_json(signal.request_type.FromString(payload))) == json.loads(otlp.to_json(signal, payload))
    assert PROTOBUF_JSON.tree(signal.request_type.FromString(payload)) == MessageToDict(
        signal.request_type.FromString(payload)
    )


@given(st.text(), ANYTHING, st.binary(min_size=8, max_size=8), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_spans(name: str, value: object, span_id: bytes, time: int, dropped: int) -> None:
    signal = SIGNALS[0]
    request = signal.request_type()
    span = request.resource_spans.add().scope_spans.add().spans.add(name=name, span_id=span_id, trace_id=span_id * 2)
    span.start_time_unix_nano, span.dropped_attributes_count = time, dropped
    span.attributes.add(key=name).value.CopyFrom(any_value(value))
    span.links.add(span_id=span_id, trace_id=span_id * 2).attributes.add(key="")
    span.kind = Span.SPAN_KIND_CONSUMER
    expected = otlp.to_json(signal, request.SerializeToString())
    assert json.loads(to_json(request)) == json.loads(expected)
    assert PROTOBUF_JSON.tree(request) == MessageToDict(request), "protobuf's own form"


def test_what_json_has_no_numbers_for() -> None:
    values = [any_value(value) for value in (math.nan, math.inf, -math.inf)]
    assert [json.loads(to_json(one)) for one in values] == [
        {"doubleValue": "NaN"},
        {"doubleValue": "Infinity"},
        {"doubleValue": "-Infinity"},
    ]


def test_it_stays_on_one_line() -> None:
    assert b"\n" not in to_json(AnyValue(string_value="a\nb\r\u2028"))
