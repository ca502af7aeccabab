"""Compiled reading of log records against the protobuf library, on records of any form on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2

from collector.otlp.records import tagged
from collector.otlp.signals import LOGS
from collector.query.logql import labels, reading
from collector.query.logql.containers import Names
from collector.query.logql.labels import decoded
from tests.otlp.messages import requests
from tests.query.logql.logs import REQUESTS

STREAM = {"service_name": "shop", "level": "info", "a": "b"}


def read(payload: bytes, stream: dict[str, str], before: int = 0) -> Any:
    return reading.read(
        b"x" * before + payload,
        before,
        len(payload),
        stream,
        Names(),
        labels._flattened,
        labels._line,
    )


def assert_read_as_decoded(payload: bytes, stream: dict[str, str]) -> bool:
    """Compare, and tell whether the compiled reading knew."""
    found = read(payload, stream, before=3)
    expected = decoded(logs_pb2.LogRecord.FromString(payload), stream)
    assert found is None or found == expected
    if found is not None:
        assert list(found[2]) == list(expected[2])
    return found is not None


@given(st.one_of(REQUESTS, requests(LOGS)))
def test_what_is_read_is_what_is_decoded(request: Any) -> None:
    for resource in request.resource_logs:
        for scope in resource.scope_logs:
            for record in scope.log_records:
                assert_read_as_decoded(record.SerializeToString(), STREAM)


VALUES = st.recursive(
    st.one_of(
        st.builds(lambda text: {"string_value": text}, st.sampled_from(["", "x", "é", "a b"])),
        st.builds(lambda value: {"bool_value": value}, st.booleans()),
        st.builds(lambda value: {"int_value": value}, st.integers(-(2**63), 2**63 - 1)),
        st.builds(lambda value: {"double_value": value}, st.floats()),
        st.builds(lambda value: {"bytes_value": value}, st.binary(max_size=3)),
        st.just({}),
    ),
    lambda inner: st.one_of(
        st.builds(lambda values: {"array_value": {"values": values}}, st.lists(inner, max_size=2)),
        st.builds(
            lambda values: {"kvlist_value": {"values": [{"key": "k", "value": one} for one in values]}},
            st.lists(inner, max_size=2),
        ),
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(["", "a", "a.b", "a_b", "level", "detected_level", "trace_id", "service.name", "1x"])
PAIRS = st.builds(lambda key, value: common_pb2.KeyValue(key=key, value=value).SerializeToString(), KEYS, VALUES)
FIELDS = st.one_of(
    st.builds(lambda **fields: logs_pb2.LogRecord(**fields).SerializeToString(), severity_number=st.integers(0, 24)),
    *(
        st.builds(lambda value, name=name: logs_pb2.LogRecord(**{name: value}).SerializeToString(), values)
        for name, values in (
            ("time_unix_nano", st.integers(0, 2**64 - 1)),
            ("observed_time_unix_nano", st.integers(0, 2**64 - 1)),
            ("severity_text", st.sampled_from(["", "INFO", "é"])),
            ("dropped_attributes_count", st.integers(0, 2**32 - 1)),
            ("flags", st.integers(0, 2**32 - 1)),
            ("trace_id", st.sampled_from([b"", bytes(16), bytes(range(16)), b"short"])),
            ("span_id", st.sampled_from([b"", bytes(8), bytes(range(8)), b"short"])),
            ("event_name", st.sampled_from(["", "e"])),
        )
    ),
    st.builds(lambda value: tagged(5, common_pb2.AnyValue(**value).SerializeToString()), VALUES),
    st.builds(lambda pair: tagged(6, pair), PAIRS),
    st.builds(lambda one, other: tagged(6, one + other), PAIRS, PAIRS),
    st.sampled_from(
        [b"\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x38\x80\x80\x80\x80\x20", tagged(15, b"later")]
    ),
    st.sampled_from(
        [b"\xa3\x06\xa4\x06", b"\x1b\x1c", b"\x28\x05", tagged(5, b"\x12\x01\x01"), tagged(5, b"\x42\x01x")]
    ),
)


@given(st.lists(FIELDS, max_size=8))
def test_any_form_on_the_wire(fields: list[bytes]) -> None:
    assert_read_as_decoded(b"".join(fields), STREAM)


def test_what_senders_send_is_known() -> None:
    record = logs_pb2.LogRecord(time_unix_nano=1, severity_number=9, severity_text="INFO", flags=1)
    record.body.string_value = "a line"
    for number in range(reading.ATTRIBUTES_MAX):
        record.attributes.add(key=f"key.{number}").value.string_value = "text"
    record.attributes[1].value.int_value = -5
    record.attributes[2].value.double_value = 0.5
    record.attributes[3].value.array_value.values.add(string_value="x")
    assert assert_read_as_decoded(record.SerializeToString(), {})
    record.attributes.add(key="one.more")
    assert not assert_read_as_decoded(record.SerializeToString(), {})
    assert assert_read_as_decoded(b"", {})


def test_nothing_is_read_outside_of_the_payload() -> None:
    for start, length in ((0, 5), (5, 1), (-1, 2)):
        with pytest.raises(ValueError, match="outside"):
            reading.read(b"\x10\x09\x10\x09", start, length, {}, {}, labels._flattened, labels._line)
