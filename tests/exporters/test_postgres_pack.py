"""Rows of binary COPY beside the protobuf library, and which attributes jsonb cannot hold beside json's reader."""

from __future__ import annotations

import json
import struct
from ast import literal_eval
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import RingtailError
from collector.exporters.postgres.copying import COLUMNS, prepare, stored_json
from collector.exporters.postgres.pack import HEADER
from collector.exporters.postgres.values import irregular
from collector.otlp.block import Block
from collector.otlp.records import group_bytes
from collector.otlp.scan import scan
from collector.otlp.signals import METRICS, SIGNALS, TRACES, Signal
from collector.testing.corpus import HOSTILE, corpus
from tests.exporters.rows_oracle import JSON, Pairs, expected, parsed
from tests.otlp.messages import requests

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8) | st.sampled_from(
    ("\0", "a\0b", "\\u0000", "\\\0")
)
OBJECTS = st.dictionaries(
    TEXT,
    st.recursive(
        TEXT | st.integers() | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    ),
    max_size=5,
).map(lambda one: json.dumps(one, ensure_ascii=False))
SOURCE = 7
TRAILER = b"\xff\xff"
EPOCH_US = 946_684_800_000_000
BYTES = {"trace_id", "span_id", "parent_span_id", "record", "container", "metric"}
TEXTS = {"trace_state", "name", "status_message", "severity_text", "event_name", "service"}
DOUBLES = {"value", "count", "sum", "min", "max"}
WIDTHS = {"nanos": ">h", "kind": ">h", "status_code": ">h", "severity_number": ">h", "type": ">h", "source": ">i"}
TIMES = {"time": "time", "end_time": "end_time", "observed_time": "observed_time", "start_time": "start_time"}


def without_nul(value: Any) -> Any:
    """What PostgreSQL is to hold; of JSON that was read, or as `marked` has it."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, Pairs):
        return Pairs((without_nul(key), without_nul(one)) for key, one in value)
    if isinstance(value, tuple):
        kind, text = value
        return (kind, repr(without_nul(literal_eval(text)))) if kind == "str" else value
    if isinstance(value, list):
        return [without_nul(one) for one in value]
    if isinstance(value, dict):
        return {without_nul(key): without_nul(one) for key, one in value.items()}
    return value


def rows_of(copied: bytes) -> Iterator[list[bytes | None]]:
    """Read what COPY is sent, as the documentation has it."""
    assert copied.startswith(HEADER)
    assert copied.endswith(TRAILER)
    at = len(HEADER)
    while copied[at : at + 2] != TRAILER:
        (width,) = struct.unpack_from(">h", copied, at)
        at += 2
        row: list[bytes | None] = []
        for _ in range(width):
            (length,) = struct.unpack_from(">i", copied, at)
            at += 4
            row.append(None if length < 0 else copied[at : at + length])
            at += max(0, length)
        yield row
    assert at + len(TRAILER) == len(copied)


def read(name: str, content: bytes | None) -> Any:
    """Read a field as its column's type has it."""
    if content is None or name in BYTES:
        return content
    if name in JSON:
        assert content[0] == 1
        return content[1:].decode()
    if name in TEXTS or name == "body":
        return content.decode()
    if name == "irregular":
        return {b"\0": False, b"\1": True}[content]
    return struct.unpack(">d" if name in DOUBLES else WIDTHS.get(name, ">q"), content)[0]


def same(wanted: Any, found: Any) -> bool:
    """Compare doubles bit by bit, but for NaN, of which there are many."""
    if wanted is None or found is None:
        return wanted is found
    return repr(float(wanted)) == repr(found)


def plain(value: tuple[str, str]) -> Any:
    """Take back what `marked` has done to a number."""
    kind, text = value
    return None if kind == "NoneType" else int(text) if kind == "int" else float(text)


def check(block: Block) -> None:
    prepared = prepare(block.signal, [block], SOURCE)
    found = [dict(zip(COLUMNS[block.signal], row, strict=True)) for row in rows_of(prepared.copy)]
    assert len(found) == block.count
    ids = {key[1]: row for key, row in prepared.containers.items()}
    for number, row in enumerate(found):
        wanted = expected(block, number)
        has = {name: read(name, content) for name, content in row.items()}
        group = wanted.pop("group")
        assert ids[has["container"]][2] == has["service"]
        assert has["service"] == group_bytes(block, group, "service").decode().replace("\0", "\ufffd")
        assert (has["source"], has["log_offset"]) == (SOURCE, block.base_offset + number)
        times = {name: int(block.column(name)[number]) for name in TIMES if name in has and name != "time"}
        times["time"] = int(block.column("time")[number])
        if block.signal is TRACES:
            times["end_time"] = wanted["end_time"]
            assert has["duration_ns"] % 2**64 == (wanted["end_time"] - times["time"]) % 2**64
            wanted.pop("start_time")
            assert (has["kind"], has["status_code"]) == (block.column("kind")[number], block.column("status")[number])
        for name, time in times.items():
            assert has[name] == time // 1000 - EPOCH_US
            wanted.pop(name, None)
        assert has["nanos"] == times["time"] % 1000
        if block.signal is METRICS:
            value = plain(wanted.pop("value"))
            assert same(value, has["value"])
            assert has["int_value"] == (value if isinstance(value, int) else None)
            for name in ("sum", "min", "max"):
                assert same(plain(wanted.pop(name)), has[name])
            assert same(wanted.pop("count"), has["count"])
            assert has["type"] == block.column("type")[number]
            assert has["name"] == group_bytes(block, group, "name").decode().replace("\0", "\ufffd")
            assert has["metric"] in {key[1] for key in prepared.metrics}
        for name, value in wanted.items():
            if name in JSON:
                assert parsed(has[name]) == without_nul(value)
            elif name == "body" and isinstance(value, list | tuple):
                assert parsed(has[name]) == value
            elif isinstance(value, str):
                assert has[name] == without_nul(value)
            else:
                assert has[name] == value


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
@pytest.mark.parametrize("texts", [("plain",), HOSTILE], ids=["plain", "hostile"])
def test_rows_are_what_protobuf_reads(signal: Signal, texts: tuple[str, ...]) -> None:
    check(scan(signal, corpus(signal, 300, texts=texts), 7))


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_rows_of_anything(signal: Signal, data: st.DataObject) -> None:
    """Anything that the scanner accepts."""
    payload = data.draw(requests(signal)).SerializeToString()
    try:
        block = scan(signal, payload, 0)
    except RingtailError:
        return
    if block.count:
        check(block)


@given(OBJECTS)
def test_json_loses_nul_and_nothing_else(text: str) -> None:
    assert json.loads(stored_json(text)) == without_nul(json.loads(text))


@given(st.lists(st.tuples(TEXT, OBJECTS | TEXT.map(json.dumps)), max_size=6))
def test_objects_that_jsonb_does_not_hold_whole_are_known(members: list[tuple[str, str]]) -> None:
    text = "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{value}" for key, value in members) + "}"
    keys = [key for key, _ in members]
    if len(set(keys)) < len(keys) or any("\0" in key for key in keys):
        assert irregular(text)
    elif "u0000" not in text:
        assert not irregular(text)
