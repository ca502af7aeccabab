"""OTLP/JSON that is sent, against the protobuf library's mapping with OTLP's exceptions."""

from __future__ import annotations

import json
import math
from random import Random

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector.otlp.json.write import to_json
from collector.otlp.signals import METRICS, SIGNALS, TRACES, Signal
from collector.testing import otlp
from tests.otlp.messages import message as anything

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


def in_both_forms(signal: Signal, payload: bytes) -> None:
    message = signal.request_type.FromString(payload)
    assert json.loads(to_json(signal, payload)) == json.loads(otlp.to_json(signal, payload))
    assert json.loads(to_json(signal, payload, protobuf_form=True)) == MessageToDict(message)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
def test_requests(signal: Signal) -> None:
    in_both_forms(signal, otlp.BUILDERS[signal](40))
    in_both_forms(signal, b"")


@given(st.text(), ANYTHING, st.binary(min_size=8, max_size=8), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_spans(name: str, value: object, span_id: bytes, time: int, dropped: int) -> None:
    request = TRACES.request_type()
    span = request.resource_spans.add().scope_spans.add().spans.add(name=name, span_id=span_id, trace_id=span_id * 2)
    span.start_time_unix_nano, span.dropped_attributes_count = time, dropped
    span.attributes.add(key=name).value.CopyFrom(any_value(value))
    span.links.add(span_id=span_id, trace_id=span_id * 2).attributes.add(key="")
    span.kind = Span.SPAN_KIND_CONSUMER
    in_both_forms(TRACES, request.SerializeToString())


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
@given(chance=st.randoms(use_true_random=False))
def test_messages_of_any_shape(signal: Signal, chance: Random) -> None:
    """Every field that there is, and the wire's liberties: fields that come again, unpacked numbers, unknown ones."""
    payload = bytes(anything(signal.request_type.DESCRIPTOR, chance).SerializeToString())
    in_both_forms(signal, payload + bytes(anything(signal.request_type.DESCRIPTOR, chance).SerializeToString()))


def length(content: bytes) -> bytes:
    assert len(content) < 128
    return bytes((len(content),)) + content


def in_a_span(fields: bytes) -> bytes:
    return b"\x0a" + length(b"\x12" + length(b"\x12" + length(fields)))


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(b"\x2a\x01a\x2a\x01b", id="a text twice"),
        pytest.param(b"\x7a\x02\x18\x01\x7a\x03\x12\x01x", id="a message in two pieces"),
        pytest.param(b"\x4a\x06\x12\x04\x0a\x00\x18\x05", id="a value that is two things"),
        pytest.param(b"\x4a\x0c\x12\x0a\x2a\x02\x0a\x00\x18\x01\x2a\x02\x0a\x00", id="an array, a number, an array"),
        pytest.param(b"\x4a\x0a\x12\x08\x2a\x02\x0a\x00\x2a\x02\x0a\x00", id="an array in two pieces"),
        pytest.param(b"\x4a\x04\x12\x02\x10\x00", id="false, which is there"),
        pytest.param(b"\x30\x00\x50\x00", id="zeros, which are not"),
        pytest.param(b"\x30\x63\x7a\x02\x18\x63", id="unknown values of enums"),
        pytest.param(b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="an enum below zero"),
        pytest.param(b"\x50\x80\x80\x80\x80\x10", id="a number beyond 32 bits"),
        pytest.param(b"\x2d\x01\x02\x03\x04\x9a\x3f\x01x", id="fields that are unknown"),
        pytest.param(b"\x1a\x01\x00", id="a byte of nothing"),
    ],
)
def test_the_wires_liberties(fields: bytes) -> None:
    in_both_forms(TRACES, in_a_span(fields))


def test_numbers_that_are_not_packed() -> None:
    point = b"\x31" + (5).to_bytes(8, "little") + b"\x31" + (6).to_bytes(8, "little") + b"\x32\x08" + bytes(8)
    metric = b"\x4a" + length(b"\x0a" + length(point))
    in_both_forms(METRICS, b"\x0a" + length(b"\x12" + length(b"\x12" + length(metric))))


def value_text(value: object) -> str:
    """Return a value as it stands in the JSON of a span."""
    request = TRACES.request_type()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.attributes.add(key="a").value.CopyFrom(any_value(value))
    found = to_json(TRACES, request.SerializeToString()).decode()
    return found[found.index('"value":') + 8 : -len("}]}]}]}]}")]


def test_what_json_has_no_numbers_for() -> None:
    assert value_text(math.nan) == '{"doubleValue":"NaN"}'
    assert value_text(math.inf) == '{"doubleValue":"Infinity"}'
    assert value_text(-math.inf) == '{"doubleValue":"-Infinity"}'


def test_it_stays_on_one_line() -> None:
    assert value_text('a\nb\r\u2028\x00\x1f\x7f"\\') == ('{"stringValue":"a\\nb\\r\u2028\\u0000\\u001f\x7f\\"\\\\"}')
    assert len(value_text("\n" * 10_000)) == 20_000 + len('{"stringValue":""}')


def test_the_deepest_that_protobuf_allows() -> None:
    value = AnyValue()
    for _ in range(46):
        value = AnyValue(array_value=ArrayValue(values=[value]))
    request = TRACES.request_type()
    request.resource_spans.add().scope_spans.add().spans.add().attributes.add(key="a").value.CopyFrom(value)
    payload = request.SerializeToString()
    assert TRACES.request_type.FromString(payload) == request
    assert to_json(TRACES, payload).count(b'"arrayValue"') == 46
