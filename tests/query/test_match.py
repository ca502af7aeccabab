"""The compiled predicates against the protobuf library and plain Python."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.otlp.records import LOG_ATTRIBUTES, SPAN_ATTRIBUTES, record
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, TRACES
from collector.otlp.wire import hash_key
from collector.query import match
from tests.otlp.messages import requests

_TYPES = {
    None: match.EMPTY,
    "string_value": match.STRING,
    "bool_value": match.BOOL,
    "int_value": match.INT,
    "double_value": match.DOUBLE,
    "array_value": match.ARRAY,
    "kvlist_value": match.KVLIST,
    "bytes_value": match.BYTES,
}


def assert_value(payload: bytes, values: match.Values, row: int, expected) -> None:
    """Compare one row of a column with an AnyValue of the library, or None for absent."""
    if expected is None:
        assert values.type[row] == match.ABSENT
        return
    which = expected.WhichOneof("value")
    if which == "string_value_strindex":
        which = None
    assert values.type[row] == _TYPES[which]
    content = payload[values.start[row] : values.start[row] + values.length[row]]
    match which:
        case "string_value":
            assert content.decode() == expected.string_value
        case "bytes_value":
            assert content == expected.bytes_value
        case "bool_value" | "int_value":
            assert values.integer[row] == getattr(expected, which)
        case "double_value":
            assert struct.pack("<d", values.double[row]) == struct.pack("<d", expected.double_value)
        case "array_value" | "kvlist_value":
            assert type(getattr(expected, which)).FromString(content) == getattr(expected, which)


@given(request=requests(TRACES), key=st.sampled_from(["service.name", "a", "http.method", "é∑", "nowhere", ""]))
def test_attribute_is_what_the_library_finds(request, key: str) -> None:
    payload = request.SerializeToString()
    block = scan(TRACES, payload, 0)
    values = match.attribute(payload, block.column("start"), block.column("length"), SPAN_ATTRIBUTES, key.encode())
    for row in range(block.count):
        pairs = [pair for pair in record(block, row).attributes if pair.key == key]
        assert_value(payload, values, row, pairs[0].value if pairs else None)


@given(request=requests(LOGS))
def test_bodies_are_what_the_library_finds(request) -> None:
    payload = request.SerializeToString()
    block = scan(LOGS, payload, 0)
    values = match.any_value(payload, block.column("body_start"), block.column("body_length"))
    for row in range(block.count):
        body = record(block, row).body
        assert_value(payload, values, row, body if body.ByteSize() else None)


@given(request=requests(TRACES))
def test_keys_and_fields_are_what_the_library_finds(request) -> None:
    payload = request.SerializeToString()
    block = scan(TRACES, payload, 0)
    found = match.keys(payload, block.column("start"), block.column("length"), SPAN_ATTRIBUTES)
    expected = {pair.key.encode() for row in range(block.count) for pair in record(block, row).attributes}
    assert found == expected - {b""}
    names = match.strings(payload, *match.string_field(payload, block.column("start"), block.column("length"), 5))
    assert names == [record(block, row).name for row in range(block.count)]


@given(
    texts=st.lists(st.text(alphabet="abAB é", max_size=12), max_size=8),
    needle=st.text(alphabet="abAB é", max_size=4),
    ignore_case=st.booleans(),
)
def test_contains_and_equal_are_pythons(texts: list[str], needle: str, ignore_case: bool) -> None:
    encoded = [text.encode() for text in texts]
    payload = b"".join(encoded)
    lengths = np.array([len(text) for text in encoded], np.uint32)
    starts = np.concatenate(([0], np.cumsum(lengths)))[:-1].astype(np.uint32)
    wanted = needle.encode()

    def lower(raw: bytes) -> bytes:
        return raw.lower() if ignore_case else raw

    found = match.contains(payload, starts, lengths, wanted, ignore_case)
    assert found.tolist() == [lower(wanted) in lower(text) for text in encoded]
    assert match.equal(payload, starts, lengths, wanted).tolist() == [text == wanted for text in encoded]


@given(request=requests(TRACES))
def test_children_and_fixed_numbers_are_what_the_library_finds(request) -> None:
    payload = request.SerializeToString()
    block = scan(TRACES, payload, 0)
    extents = block.column("start"), block.column("length")
    for field, name in ((11, "events"), (13, "links")):
        owner, starts, lengths = match.children(payload, *extents, field)
        found = [
            (row, payload[start : start + length])
            for row, start, length in zip(owner.tolist(), starts.tolist(), lengths.tolist(), strict=True)
        ]
        expected = [(row, one) for row in range(block.count) for one in getattr(record(block, row), name)]
        assert [row for row, _ in found] == [row for row, _ in expected]
        assert [type(one).FromString(raw) for (_, raw), (_, one) in zip(found, expected, strict=True)] == [
            one for _, one in expected
        ]
    times = match.fixed64(payload, *extents, 7)
    assert times.tolist() == [record(block, row).start_time_unix_nano for row in range(block.count)]


@given(st.lists(st.text(max_size=20), max_size=10))
def test_hashes_are_the_keys_of_columns(texts: list[str]) -> None:
    pieces = [text.encode() for text in texts]
    lengths = np.array([len(piece) for piece in pieces], np.uint32)
    starts = (np.cumsum(lengths) - lengths).astype(np.uint32)
    found = match.hashes(b"".join(pieces), starts, lengths)
    assert found.tolist() == [hash_key(piece) for piece in pieces]


def test_an_extent_outside_the_payload_is_refused() -> None:
    inside, outside = np.array([0], np.uint32), np.array([9], np.uint32)
    for call in (
        lambda: match.attribute(b"12345678", inside, outside, 9, b"k"),
        lambda: match.any_value(b"12345678", outside, inside),
        lambda: match.contains(b"12345678", np.array([2**32 - 1], np.uint32), np.array([2], np.uint32), b"1"),
        lambda: match.equal(b"12345678", inside, outside, b"1"),
        lambda: match.keys(b"12345678", inside, outside, 9),
        lambda: match.string_field(b"12345678", inside, outside, 5),
    ):
        with pytest.raises(ValueError, match="outside the payload"):
            call()


def test_many_keys_are_found() -> None:
    """More than there is room for in the table of those seen lately, in an order in which they drive each other out."""
    request = LOGS.request_type()
    scope = request.resource_logs.add().scope_logs.add()
    keys = [f"key.{number * 7919 % 1500}" for number in range(3000)]
    for key in keys:
        scope.log_records.add().attributes.add(key=key)
    block = scan(LOGS, request.SerializeToString(), 0)
    found = match.keys(block.payload, block.column("start"), block.column("length"), LOG_ATTRIBUTES)
    assert found == {key.encode() for key in keys}
