"""Push requests made log records: the compiled pass against the protobuf library, and bytes that are no request."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import ScopeLogs

from collector.otlp.signals import LOGS
from collector.receivers import loki, push
from tests.query.test_levels import JSON_KEYS, NAMES
from tests.receivers.pushing import message, request

BANDS = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21, "critical": 21}
TEXTS = st.sampled_from(["", "a", "é", "info", "WRN", "x" * 200, "\n"])
IDS = st.sampled_from(
    ["0" * 32, "0123456789abcdef" * 2, "0123456789ABCDEF" * 2, "0123456789abcdef", "0" * 16, "g" * 16]
)
NAMED = st.sampled_from(
    ["trace_id", "span_id", "severity_number", "severity_text", "detected_level", "level", "Lvl", "user", ""]
)
PAIRS = st.lists(st.tuples(NAMED, TEXTS | IDS | st.sampled_from(["1", "24", "25", "09", "0", "-1"])), max_size=5)
TIMES = st.integers(0, 2**63 - 1) | st.sampled_from([-1, -(10**18), 0, 10**18])
ENTRIES = st.lists(st.tuples(TIMES, TEXTS, PAIRS), max_size=4)


def severity(text: str) -> int:
    return BANDS.get(NAMES.get(text.lower(), ""), 0) if text.isascii() else 0


def expected(time: int, line: str, pairs: list[tuple[str, str]], of_stream: int) -> Any:
    """The record that an entry becomes, by the documentation."""
    record = LOGS.request_type().resource_logs.add().scope_logs.add().log_records.add()
    record.time_unix_nano = time
    record.body.string_value = line
    stated = detected = own = 0
    for name, value in pairs:
        if not name or not value:
            continue
        is_hex = all(each in "0123456789abcdef" for each in value) and set(value) != {"0"}
        if name == "trace_id" and len(value) == 32 and is_hex and not record.trace_id:
            record.trace_id = bytes.fromhex(value)
        elif name == "span_id" and len(value) == 16 and is_hex and not record.span_id:
            record.span_id = bytes.fromhex(value)
        elif name == "severity_number" and not stated and value in [str(n) for n in range(1, 25)]:
            stated = int(value)
        elif name == "severity_text" and not record.severity_text:
            record.severity_text = value
            own = own or severity(value)
        else:
            if name == "detected_level" and not detected:
                detected = severity(value)
            elif name in JSON_KEYS and not own:
                own = severity(value)
            record.attributes.add(key=name).value.string_value = value
    record.severity_number = stated or detected or of_stream or own
    return record


def with_pairs(entries: list[tuple[int, str, list[tuple[str, str]]]]) -> bytes:
    made = request([("{}", [(time, line) for time, line, _ in entries])])
    for entry, (_, _, pairs) in zip(made.streams[0].entries, entries, strict=True):
        for name, value in pairs:
            entry.metadata.add(name=name.encode(), value=value.encode())
    return bytes(made.SerializeToString())


@given(ENTRIES, st.sampled_from([0, 9, 17]))
def test_as_the_documentation_says(entries: list[tuple[int, str, list[tuple[str, str]]]], of_stream: int) -> None:
    data = with_pairs(entries)
    assert push.count(data) == (1, len(entries), sum(len(pairs) for _, _, pairs in entries))
    [(labels, start, length)] = push.streams(data)
    records, count, untimely, is_utf8 = push.records(data, start, length, of_stream)
    kept = [entry for entry in entries if 0 <= entry[0] < 9_223_372_036_000_000_000]
    assert (labels, count, untimely, is_utf8) == (b"{}", len(kept), len(entries) - len(kept), True)
    found = ScopeLogs.FromString(records).log_records
    assert list(found) == [expected(*entry, of_stream) for entry in kept]


@given(
    st.binary(max_size=60)
    | st.lists(st.sampled_from([b"\x0a", b"\x12", b"\x1a", b"\x04", b"\x00", b"a"]), max_size=30).map(b"".join)
)
def test_any_bytes(data: bytes) -> None:
    """What is counted is what the protobuf library reads; what it refuses for its form is not counted."""
    counted = push.count(data)
    try:
        made = message("PushRequest").FromString(data)
    except Exception:
        made = None
    if counted is None:
        assert made is None
        return
    assert made is not None
    streams = made.streams
    entries = [entry for stream in streams for entry in stream.entries]
    assert counted == (len(streams), len(entries), sum(len(entry.metadata) for entry in entries))
    assert [labels for labels, _, _ in push.streams(data)] == [stream.labels for stream in streams]
    for _, start, length in push.streams(data):
        records, count, _, is_utf8 = push.records(data, start, length, 0)
        assert len(ScopeLogs.FromString(records).log_records) == count
        source = data[start : start + length]
        if not is_utf8:
            source = loki._legible(source)
            records, count, _, is_utf8 = push.records(source, 0, len(source), 0)
            assert is_utf8
            assert len(ScopeLogs.FromString(records).log_records) == count


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("", "error parsing labels ''"),
        ('{a="b"', "error parsing labels"),
        ('{a="b"} |= "c"', "error parsing labels"),
        ('{a=~"b"}', "is no label"),
        ('{a:b="c"}', "is no label"),
        ('{a=""}', "at least one label pair"),
        ("{" + "n" * 1025 + '="v"}', "label name too long"),
        ('{n="' + "é" * 1025 + '"}', "label value too long"),
        ('{n="' + "v" * 70_000 + '"}', "at most 65536 are read"),
        ("{" + ", ".join(f'n{n}="{"v" * 900}"' for n in range(65)) + "}", "65 label names; limit 64"),
        ('{a="\\xff"}', "error parsing labels"),
    ],
)
def test_labels_that_are_none(labels: str, words: str) -> None:
    made = request([(labels, [(10**18, "x"), (10**18, "y")]), ('{ok="1"}', [(10**18, "z")])])
    converted = loki.Converter().convert(made.SerializeToString())
    assert converted.refused == 2
    [reason] = converted.reasons
    assert words in reason
    assert len(reason) < 400


def test_streams_are_remembered_and_forgotten() -> None:
    converter = loki.Converter()
    for number in range(loki.KNOWN_MAX + 10):
        data = request([(f'{{n="{number}"}}', [(10**18, "x")])]).SerializeToString()
        assert converter.convert(data).refused == 0
    assert len(converter._known) == loki.KNOWN_MAX
    long = request([('{n="' + "x" * 2048 + '"}', [(10**18, "x")])]).SerializeToString()
    converter.convert(long)
    assert len(converter._known) == loki.KNOWN_MAX
