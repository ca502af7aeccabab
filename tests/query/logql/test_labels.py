"""OTLP records as Loki sees them: the rules by example, and columns against decoded records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1 import common_pb2

from collector.otlp.records import record
from collector.otlp.signals import LOGS
from collector.query.logql.containers import label_name
from collector.query.logql.labels import LABELS_ATTRIBUTE, number_text, value_text
from collector.query.logql.levels import detected_level, told
from tests.otlp.messages import requests
from tests.query.logql.logs import REQUESTS, batch_of

RECORD: dict[str, Any] = {
    "resource": {
        "attributes": [
            {"key": "service.name", "value": {"string_value": "shop"}},
            {"key": "k8s.pod.name", "value": {"string_value": "shop-1"}},
            {"key": "host.name", "value": {"string_value": "h"}},
        ]
    },
    "scope_logs": [
        {
            "scope": {
                "name": "lib",
                "version": "1.2",
                "attributes": [{"key": "team", "value": {"string_value": "x"}}],
            },
            "log_records": [
                {
                    "time_unix_nano": 1,
                    "observed_time_unix_nano": 2,
                    "severity_number": 17,
                    "severity_text": "ERROR",
                    "body": {"string_value": "no stock"},
                    "trace_id": bytes(range(16)),
                    "span_id": bytes(range(8)),
                    "flags": 1,
                    "event_name": "stock.empty",
                    "dropped_attributes_count": 2,
                    "attributes": [
                        {"key": "http.status_code", "value": {"int_value": 409}},
                        {"key": "service_name", "value": {"string_value": "other"}},
                        {"key": "host.name", "value": {"string_value": "inner"}},
                        {
                            "key": "item",
                            "value": {
                                "kvlist_value": {
                                    "values": [
                                        {"key": "id", "value": {"int_value": 7}},
                                        {
                                            "key": "tags",
                                            "value": {"array_value": {"values": [{"string_value": "a"}]}},
                                        },
                                    ]
                                }
                            },
                        },
                    ],
                }
            ],
        }
    ],
}


def test_a_record_becomes_stream_labels_and_structured_metadata() -> None:
    batch = batch_of(LOGS.request_type(resource_logs=[RECORD]).SerializeToString())
    container = batch.records.container(batch.block, 0)
    assert container.stream == {"service_name": "shop", "k8s_pod_name": "shop-1"}
    metadata = batch.records.metadata(batch.block, 0, record(batch.block, 0))
    assert metadata == {
        "observed_timestamp": "2",
        "severity_number": "17",
        "severity_text": "ERROR",
        "trace_id": "000102030405060708090a0b0c0d0e0f",
        "span_id": "0001020304050607",
        "flags": "1",
        "event_name": "stock.empty",
        "dropped_attributes_count": "2",
        "http_status_code": "409",
        "service_name_extracted": "other",
        "host_name": "inner",
        "item_id": "7",
        "item_tags": '["a"]',
        "scope_name": "lib",
        "scope_version": "1.2",
        "team": "x",
        "detected_level": "error",
    }


def test_a_resource_without_a_service_has_the_stream_of_the_unknown_service() -> None:
    request = LOGS.request_type()
    request.resource_logs.add().scope_logs.add().log_records.add()
    batch = batch_of(request.SerializeToString())
    assert batch.labels(0) == {"service_name": "unknown_service", "detected_level": "unknown"}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("http.method", "http_method"),
        ("a..b--c", "a_b_c"),
        ("a__b", "a_b"),
        ("__a__", "__a__"),
        ("1st", "key_1st"),
        ("é", "_"),
        ("", "_"),
    ],
)
def test_label_names(key: str, name: str) -> None:
    assert label_name(key) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, ""),
        ({"string_value": "é"}, "é"),
        ({"bool_value": False}, "false"),
        ({"int_value": -5}, "-5"),
        ({"double_value": 2.0}, "2"),
        ({"bytes_value": b"\xff"}, "/w=="),
        (
            {
                "kvlist_value": {
                    "values": [
                        {"key": "b", "value": {"array_value": {"values": [{}, {"double_value": 0.5}]}}},
                        {"key": "a", "value": {"string_value": '<"é"\n>'}},
                        {"key": "c", "value": {"double_value": float("nan")}},
                        {"key": "d", "value": {"bool_value": True}},
                    ]
                }
            },
            '{"a":"<\\"é\\"\\n>","b":[null,0.5],"c":"NaN","d":true}',
        ),
    ],
)
def test_texts_of_values(value: dict[str, Any], text: str) -> None:
    assert value_text(common_pb2.AnyValue(**value)) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_read_back(number: float) -> None:
    text = number_text(number)
    assert float(text) == number
    assert ("e" in text) == (number != 0 and not 1e-6 <= abs(number) < 1e21)
    assert "e-0" not in text
    assert not text.endswith(".0")


@pytest.mark.parametrize(
    ("stream", "metadata", "number", "line", "level"),
    [
        ({}, {}, 0, "nothing to see", "unknown"),
        ({}, {}, 1, "", "trace"),
        ({}, {}, 4, "", "trace"),
        ({}, {}, 5, "", "debug"),
        ({}, {}, 9, "an error", "info"),
        ({}, {}, 13, "", "warn"),
        ({}, {}, 17, "", "error"),
        ({}, {}, 24, "", "fatal"),
        ({}, {}, 25, "", "unknown"),
        ({}, {}, -1, "", "unknown"),
        ({}, {"severity_text": "CRITICAL"}, 21, "", "critical"),
        ({}, {"severity_text": "Warning"}, 9, "", "warn"),
        ({}, {"severity_text": "notice"}, 9, "", "notice"),
        ({}, {"severity_text": "INFO", "level": "err"}, 9, "", "error"),
        ({}, {"SEVERITY": "dbg", "lvl": "warn"}, 0, "", "debug"),
        ({"level": "Trc"}, {"level": "info"}, 9, "", "trace"),
        ({"level": "info"}, {"detected_level": "WRN"}, 9, "", "warn"),
        ({}, {}, 0, "an error occured", "error"),
    ],
)
def test_detected_levels(stream: dict[str, str], metadata: dict[str, str], number: int, line: str, level: str) -> None:
    assert detected_level(told(stream), metadata, number, line.encode()) == level


def test_a_resource_names_its_labels() -> None:
    """What comes by Loki's push API, or from a Collector that is told so."""
    request = LOGS.request_type()
    for labels in ("job, a__b,http.method,gone", ["job", "a__b", "http.method", "gone"]):
        resource = request.resource_logs.add()
        for key in ("job", "a__b", "http.method", "other"):
            resource.resource.attributes.add(key=key).value.string_value = f"my {key}"
        value = resource.resource.attributes.add(key=LABELS_ATTRIBUTE).value
        if isinstance(labels, str):
            value.string_value = labels
        else:
            for label in labels:
                value.array_value.values.add(string_value=label)
        record = resource.scope_logs.add().log_records.add(severity_number=9)
        record.attributes.add(key="job").value.string_value = "inner"
    batch = batch_of(request.SerializeToString())
    for place in range(2):
        labels = batch.records.container(batch.block, place).stream
        assert labels == {
            "service_name": "unknown_service",
            "job": "my job",
            "a__b": "my a__b",
            "http_method": "my http.method",
        }
        assert batch.labels(place) == labels | {
            "other": "my other",
            "job_extracted": "inner",
            "severity_number": "9",
            "detected_level": "info",
        }
    assert_columns_are_what_records_say(request.SerializeToString())


def assert_columns_are_what_records_say(payload: bytes) -> None:
    """Compare every column of a request with the labels of its records."""
    batch = batch_of(payload)
    expected = [batch.labels(place) for place in range(len(batch.rows))]
    names = {name for labels in expected for name in labels} | {"nowhere", "http", "service_name_extracted"}
    for name in names:
        column = batch.column(name)
        assert [column.values[code] for code in column.codes] == [labels.get(name, "") for labels in expected], name
        assert column.values[0] == ""
        assert len(set(column.values)) == len(column.values)
    lines = [value_text(record(batch.block, row).body).encode() for row in range(len(batch.rows))]
    assert batch.lines.sizes().tolist() == list(map(len, lines))
    for needle in (b"", b"a", b"E", b"method", b"\xc3\xa9"):
        assert batch.lines.contain(needle).tolist() == [needle in line for line in lines]
        assert batch.lines.meet(lambda line, needle=needle: needle in line).tolist() == [
            needle in line for line in lines
        ]


@given(REQUESTS)
def test_columns_are_what_records_say(request: Any) -> None:
    assert_columns_are_what_records_say(request.SerializeToString())


@given(requests(LOGS))
def test_columns_of_any_request_are_what_records_say(request: Any) -> None:
    assert_columns_are_what_records_say(request.SerializeToString())
