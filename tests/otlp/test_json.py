"""OTLP/JSON against proto3's own JSON parser, which agrees once hexadecimal ids are rewritten to base64."""

from __future__ import annotations

import base64
import json
import re
from copy import deepcopy
from random import Random
from typing import Any

import msgspec
import pytest
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.otlp.json.request import DEPTH, to_protobuf
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing import otlp
from tests.otlp.messages import requests

IDS = ("traceId", "spanId", "parentSpanId")
ENUMS = ("kind", "code", "severityNumber", "aggregationTemporality")
each_signal = pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)


def parsed(signal: Signal, text: bytes | str) -> Any:
    """Transcode, and read the result with the protobuf library."""
    return signal.request_type.FromString(to_protobuf(signal, text.encode() if isinstance(text, str) else text))


def same(one: Any, other: Any) -> bool:
    """Equality that takes NaN for itself."""
    return bool(one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True))


# --- against json_format ------------------------------------------------------------------------------------------


def with_base64_ids(tree: Any) -> Any:
    if isinstance(tree, list):
        return [with_base64_ids(item) for item in tree]
    if isinstance(tree, dict):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key in IDS and isinstance(value, str)
            else with_base64_ids(value)
            for key, value in tree.items()
        }
    return tree


def oracle(signal: Signal, tree: Any) -> Any:
    """Parse with json_format; None when it refuses."""
    try:
        return json_format.ParseDict(with_base64_ids(tree), signal.request_type(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, AttributeError):
        return None


@each_signal
@given(data=st.data())
def test_every_message_comes_back(signal: Signal, data: st.DataObject) -> None:
    message = data.draw(requests(signal))
    text = otlp.to_json(signal, message.SerializeToString())
    message.DiscardUnknownFields()
    assert same(parsed(signal, text), message)


# What a JSON value is replaced by. The few on which OTLP differs from json_format on purpose have tests of their own.
REPLACEMENTS: tuple[Any, ...] = (
    None, 0, 1, -1, 7.0, 1.5, 2**31, -(2**31) - 1, 2**32, 2**63, 2**64, -(2**63) - 1, 1e30, 0.1,
    "", "abc", "12", "-3", "18446744073709551616", "1.5x", " 1", "0x10", "infinity", "nan", "NaNs", "YWI=", "YWJj",
    [], {}, [1], ["2", 3], [[]], [{}], [None], {"stringValue": "x"}, {"values": [{"intValue": 5}]},
    {"unknown": {"deep": [1, {"x": None}]}}, {"attributes": [{"key": "k", "value": {"boolValue": False}}]},
)  # fmt: skip

LENIENCIES = (
    r': expected an object, not ("|an array)',  # it takes a string or an array for an object without known fields
    r': expected a number, not "',  # it takes whatever Python's float takes
    rf"\.({'|'.join(ENUMS)}): ",  # it takes 1.5 and 2**32 for an enum
)
"""What json_format accepts although proto3 does not: our messages when we refuse it."""


def nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a JSON value."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        at = pending.pop()
        items: Any = at.items() if isinstance(at, dict) else enumerate(at) if isinstance(at, list) else ()
        for key, value in items:
            found.append((at, key))
            pending.append(value)
    return found


@each_signal
@given(message_seed=st.integers(0, 99), seed=st.integers(0, 2**32))
def test_mutants_are_accepted_or_refused_alike(signal: Signal, message_seed: int, seed: int) -> None:
    chance = Random(seed)
    tree = json.loads(otlp.to_json(signal, otlp.BUILDERS[signal](4, seed=message_seed)))
    for _ in range(chance.randint(1, 3)):
        container, key = chance.choice(nodes(tree))
        replacement = deepcopy(chance.choice(REPLACEMENTS))
        if isinstance(replacement, str) and key in (*ENUMS, *IDS):
            continue
        container[key] = replacement
    expected = oracle(signal, tree)
    try:
        got = parsed(signal, msgspec.json.encode(tree))
    except Malformed as error:
        assert expected is None or any(re.search(leniency, str(error)) for leniency in LENIENCIES)
    else:
        assert expected is not None
        assert same(got, expected)


@each_signal
@given(seed=st.integers(0, 2**32))
def test_no_bytes_crash_it(signal: Signal, seed: int) -> None:
    chance = Random(seed)
    text = bytearray(otlp.to_json(signal, otlp.BUILDERS[signal](2)))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text))
        choice = chance.randrange(3)
        if choice == 0:
            text[at] = chance.choice(b'"\\{}[]:,0-9eE.nulltrue\xff\x00')
        elif choice == 1:
            del text[at : at + chance.randint(1, 50)]
        else:
            text[at:at] = text[chance.randrange(len(text)) :][: chance.randint(1, 50)]
        text = text or bytearray(b" ")
    try:
        message = parsed(signal, bytes(text))
    except Malformed as error:
        assert str(error)
    else:
        assert isinstance(message, signal.request_type)


# --- the mapping, rule by rule ------------------------------------------------------------------------------------


def spans(**fields: Any) -> str:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [{}, fields]}]}]})


def span(**fields: Any) -> Any:
    return parsed(TRACES, spans(**fields)).resource_spans[0].scope_spans[0].spans[1]


def metric(**fields: Any) -> Any:
    request = parsed(METRICS, json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": [fields]}]}]}))
    return request.resource_metrics[0].scope_metrics[0].metrics[0]


def point(**fields: Any) -> Any:
    return metric(gauge={"dataPoints": [fields]}).gauge.data_points[0]


def record(**fields: Any) -> Any:
    request = parsed(LOGS, json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [fields]}]}]}))
    return request.resource_logs[0].scope_logs[0].log_records[0]


def body(**value: Any) -> Any:
    return record(body=value).body


def refused(text: str | bytes) -> str:
    with pytest.raises(Malformed) as caught:
        parsed(TRACES, text)
    return str(caught.value)


def test_a_request_like_the_specification_s_examples() -> None:
    request = parsed(
        TRACES,
        """
        {"resourceSpans": [{
          "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "cart"}}]},
          "schemaUrl": "https://opentelemetry.io/schemas/1.37.0",
          "scopeSpans": [{
            "scope": {"name": "lib", "version": "1.0.0"},
            "spans": [{
              "traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "eee19b7ec3c1b174",
              "parentSpanId": "EEE19B7EC3C1B173", "flags": 257, "name": "GET /", "kind": 2,
              "startTimeUnixNano": "1790000000000000000", "endTimeUnixNano": 1790000001000000000,
              "attributes": [{"key": "n", "value": {"intValue": "-7"}}, {"key": "r", "value": {"doubleValue": 0.5}},
                {"key": "list", "value": {"arrayValue": {"values": [{"boolValue": true}, {}]}}},
                {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"bytesValue": "AQI="}}]}}}],
              "droppedAttributesCount": 3,
              "events": [{"timeUnixNano": "5", "name": "e"}],
              "links": [{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174"}],
              "status": {"code": 2, "message": "no"}
            }]}]}]}
        """,
    )
    made = TRACES.request_type()
    envelope = made.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.37.0")
    envelope.resource.attributes.add(key="service.name").value.string_value = "cart"
    scope = envelope.scope_spans.add()
    scope.scope.name, scope.scope.version = "lib", "1.0.0"
    trace_id, span_id = bytes.fromhex("5b8efff798038103d269b633813fc60c"), bytes.fromhex("eee19b7ec3c1b174")
    one = scope.spans.add(trace_id=trace_id, span_id=span_id, flags=257, name="GET /", kind=2)
    one.parent_span_id = bytes.fromhex("eee19b7ec3c1b173")
    one.start_time_unix_nano, one.end_time_unix_nano = 1790000000000000000, 1790000001000000000
    one.attributes.add(key="n").value.int_value = -7
    one.attributes.add(key="r").value.double_value = 0.5
    values = one.attributes.add(key="list").value.array_value.values
    values.add().bool_value = True
    values.add()
    one.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.bytes_value = b"\x01\x02"
    one.dropped_attributes_count = 3
    one.events.add(time_unix_nano=5, name="e")
    one.links.add(trace_id=trace_id, span_id=span_id)
    one.status.code, one.status.message = 2, "no"
    assert request == made


def test_ids_are_hexadecimal_in_any_case() -> None:
    assert span(traceId="0aF0").trace_id == span(traceId="0Af0").trace_id == b"\x0a\xf0"
    assert span(traceId="").trace_id == b""
    for wrong in ("0a f0", "0", "xy", "W47/+A==", "é0"):
        message = refused(spans(traceId=wrong))
        assert message.startswith("resourceSpans[0].scopeSpans[0].spans[1].traceId: expected hexadecimal")
    assert "not 17" in refused(spans(spanId=17))


def test_ids_in_links_logs_and_exemplars_are_hexadecimal_too() -> None:
    assert span(links=[{"spanId": "ff"}]).links[0].span_id == b"\xff"
    assert point(exemplars=[{"traceId": "ff", "spanId": "FE"}]).exemplars[0].span_id == b"\xfe"
    made = record(traceId="ff", spanId="fe")
    assert (made.trace_id, made.span_id) == (b"\xff", b"\xfe")


@pytest.mark.parametrize("text", ["+/8B", "-_8B"])
def test_other_bytes_are_base64_of_both_alphabets(text: str) -> None:
    assert body(bytesValue=text).bytes_value == b"\xfb\xff\x01"


@pytest.mark.parametrize("text", ["_w==", "_w", "/w==", "/w"])
def test_base64_padding_may_be_left_out(text: str) -> None:
    assert body(bytesValue=text).bytes_value == b"\xff"


@pytest.mark.parametrize("text", ["a", "/w=", "=", "a b=", "é", "ab=c", 5])
def test_bad_base64(text: Any) -> None:
    with pytest.raises(Malformed, match="body.bytesValue: expected base64"):
        body(bytesValue=text)


@pytest.mark.parametrize("value", ["SPAN_KIND_SERVER", "2", "", True, 1.5, 2**31, [], {}])
def test_enums_are_numbers(value: Any) -> None:
    message = refused(spans(kind=value))
    assert message.startswith("resourceSpans[0].scopeSpans[0].spans[1].kind: ")
    if isinstance(value, str):
        assert "the enum's number" in message


def test_enums_that_nobody_knows_yet_pass() -> None:
    assert span(kind=77).kind == 77
    assert span(kind=-1).kind == -1
    assert span(kind=2.0).kind == 2


def test_unknown_fields_and_snake_case_are_ignored() -> None:
    assert span(trace_id="x", Name="x", name="y", later={"a": [None, {"b": 1}]}) == span(name="y")


def test_null_is_absent_but_no_element() -> None:
    assert span(name=None, attributes=None, kind=None, status=None) == span()
    assert not span(status=None).HasField("status")
    assert span(status={}).HasField("status")
    assert "attributes[1]: expected an object, not null" in refused(spans(attributes=[{}, None]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5), ("5", 5), (5.0, 5), ("18446744073709551615", 2**64 - 1), ("5e3", 5000), (1e3, 1000), ("0", 0)],
)
def test_integers(value: Any, expected: int) -> None:
    assert span(endTimeUnixNano=value).end_time_unix_nano == expected


@pytest.mark.parametrize(
    "value", ["", " 5", "5 ", "+", "1_000", "٣", "0x1", "1.5", 1.5, True, "1e999", "9" * 5000, -1, 2**64, "-1", [5]]
)
def test_bad_integers(value: Any) -> None:
    assert "spans[1].endTimeUnixNano: " in refused(spans(endTimeUnixNano=value))


@pytest.mark.parametrize(("value", "expected"), [("-9223372036854775808", -(2**63)), (2**63 - 1, 2**63 - 1), (0, 0)])
def test_signed_integers(value: Any, expected: int) -> None:
    assert body(intValue=value).int_value == expected
    assert point(asInt=value).as_int == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), ("1.5", 1.5), ("Infinity", float("inf")), ("-Infinity", float("-inf")), (0, 0.0), ("-1e-3", -0.001)],
)
def test_doubles(value: Any, expected: float) -> None:
    assert point(asDouble=value).as_double == expected


def test_nan() -> None:
    assert str(point(asDouble="NaN").as_double) == "nan"


@pytest.mark.parametrize("value", ["nan", "inf", "", "1e999", "1_0", True, 10**400, {}, "--1"])
def test_bad_doubles(value: Any) -> None:
    with pytest.raises(Malformed):
        point(asDouble=value)


def test_signed_scales_of_exponential_histograms() -> None:
    fields = {"scale": -3, "zeroCount": "1", "positive": {"offset": -4, "bucketCounts": ["1", 2]}}
    made = metric(exponentialHistogram={"dataPoints": [fields]}).exponential_histogram.data_points[0]
    assert (made.scale, made.positive.offset, list(made.positive.bucket_counts)) == (-3, -4, [1, 2])


def test_which_element_of_packed_numbers_is_wrong() -> None:
    with pytest.raises(Malformed, match=r"histogram.dataPoints\[0\].bucketCounts\[2\]: expected a number"):
        metric(histogram={"dataPoints": [{"bucketCounts": ["1", 2, "x"]}]})
    with pytest.raises(Malformed, match="bucketCounts: expected an array, not an object"):
        metric(histogram={"dataPoints": [{"bucketCounts": {}}]})


def test_two_fields_of_a_oneof_exclude_each_other() -> None:
    with pytest.raises(Malformed, match="stringValue and intValue exclude each other"):
        body(stringValue="x", intValue=1)
    assert body(stringValue="x", intValue=None).string_value == "x"
    with pytest.raises(Malformed, match="asDouble and asInt exclude each other"):
        point(asInt=1, asDouble=1)


@pytest.mark.parametrize(("kind", "value"), [("stringValue", ""), ("intValue", 0), ("boolValue", False)])
def test_a_default_in_a_oneof_is_present(kind: str, value: Any) -> None:
    assert body(**{kind: value}).WhichOneof("value") is not None


def test_of_two_equal_keys_the_last_counts() -> None:
    assert parsed(TRACES, '{"resourceSpans": 1, "resourceSpans": [{}]}') == parsed(TRACES, '{"resourceSpans": [{}]}')


# --- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", " ", "nul", "{", '{"a":1}x', "{'a':1}", '{"a":01}', '{"a":.5}', '{"a":[1,]}', '{"a":"\t"}', "\ufeff{}", "NaN"],
)
def test_what_is_no_json(text: str) -> None:
    assert refused(text).startswith("not valid JSON: ")


@pytest.mark.parametrize("text", [rb'"\ud800"', rb'"\ud800x"', rb'"\udc00"', rb'"\uD83D\ud83d"'])
def test_lone_surrogates(text: bytes) -> None:
    assert "pairs" in refused(b'{"resourceSpans":[{"schemaUrl":' + text + b"}]}")
    assert "pairs" in refused(b'{"unknown":' + text + b"}")


def test_surrogate_pairs_and_escapes() -> None:
    text = rb'{"resourceSpans":[{"schemaUrl":"\ud83d\ude00\u0000\n\/"}]}'
    assert parsed(TRACES, text).resource_spans[0].schema_url == "\U0001f600\0\n/"


@pytest.mark.parametrize("where", [b'{"resourceSpans":[{"schemaUrl":"%s"}]}', b'{"unknown":"%s"}'])
def test_invalid_utf_8(where: bytes) -> None:
    assert "UTF-8" in refused(where % b"\xff")


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "null", "true"])
def test_what_is_no_object(text: str) -> None:
    assert refused(text).startswith("the request: expected an object")


def test_a_message_does_not_repeat_long_values() -> None:
    assert len(refused(spans(kind="x" * 100_000))) < 200


# --- depth --------------------------------------------------------------------------------------------------------


def nested(levels: int, kind: str) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {kind: {"values": [value] if kind == "arrayValue" else [{"value": value}]}}
    return value


def nested_wire(levels: int, kind: str, in_attribute: bool) -> bytes:
    message = LOGS.request_type()
    record = message.resource_logs.add().scope_logs.add().log_records.add()
    deepest = record.attributes.add().value if in_attribute else record.body
    for _ in range(levels):
        if kind == "arrayValue":
            deepest = deepest.array_value.values.add()
        else:
            deepest = deepest.kvlist_value.values.add().value
    deepest.SetInParent()
    return bytes(message.SerializePartialToString())


@pytest.mark.parametrize("in_attribute", [False, True])
@pytest.mark.parametrize(("kind", "below"), [("arrayValue", 2), ("kvlistValue", 3)])
def test_the_depth_limit_is_protobuf_s(kind: str, below: int, in_attribute: bool) -> None:
    """Neither side may accept what the other refuses: what comes in as JSON is read back as protobuf."""
    refusals = 0
    for levels in range(20, 60):
        depth = (5 if in_attribute else 4) + below * levels
        value = nested(levels, kind)
        fields = {"attributes": [{"value": value}]} if in_attribute else {"body": value}
        try:
            LOGS.request_type.FromString(nested_wire(levels, kind, in_attribute))
        except DecodeError:
            refusals += 1
            assert depth > DEPTH
            with pytest.raises(Malformed, match=f"more than {DEPTH} deep"):
                record(**fields)
        else:
            assert depth <= DEPTH
            record(**fields)
    assert refusals


@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b'{"resourceSpans":' + b"[" * 5000 + b"]" * 5000])
def test_bottomless_json(text: bytes) -> None:
    assert refused(text)
