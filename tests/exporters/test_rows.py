"""Rows out of blocks, beside the protobuf library; and containers taken off and put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.errors import RingtailError
from collector.exporters import jsontext, rows
from collector.exporters.containers import Container, Metric, assembled, containers
from collector.otlp.block import Block
from collector.otlp.merge import merge
from collector.otlp.records import data_field, group_bytes, record_bytes, tagged
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing.corpus import HOSTILE, corpus, wholes
from tests.exporters.rows_oracle import comparable, expected
from tests.otlp.messages import requests

MAKE = {TRACES: rows.spans, LOGS: rows.logs, METRICS: rows.points}


def check(block: Block, first: int, end: int) -> None:
    columns = MAKE[block.signal](block, first, end)
    assert {len(one) for one in columns.values()} == {end - first}
    for row in range(first, end):
        wanted = expected(block, row)
        assert comparable(block, row, columns, first, wanted) == wanted


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
@pytest.mark.parametrize("texts", [("plain",), HOSTILE], ids=["plain", "hostile"])
def test_rows_are_what_protobuf_reads(signal: Signal, texts: tuple[str, ...]) -> None:
    block = scan(signal, corpus(signal, 300, texts=texts), 7)
    check(block, 0, 300)
    check(block, 13, 14)


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
        check(block, 0, block.count)
        around = containers(block)
        groups = block.column("group").tolist()
        again = assembled(signal, [(around[groups[row]], record_bytes(block, row)) for row in range(block.count)])
        before = sorted(one.key() for one in wholes(signal, bytes(block.payload)))
        assert sorted(one.key() for one in wholes(signal, again)) == before


def fields(message: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Take a message apart: number, the field as it stands, what it holds. Groups are not taken apart: nobody sends any."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        begin = at
        number, wire = divmod(varint(), 8)
        if wire == 0:
            varint()
            inside = at
        else:
            length = {1: 8, 5: 4}.get(wire)
            length = varint() if length is None else length
            inside = at
            at += length
        yield number, message[begin:at], message[inside:at]


def plain_containers(block: Block) -> list[Container]:
    """The oracle: one group after the other, of those that records refer to."""
    types = (
        dict(zip(block.column("group").tolist(), block.column("type").tolist(), strict=True))
        if block.signal is METRICS
        else {}
    )
    found = []
    for group in range(block.groups.count):
        outer, inner = (
            b"".join(whole for number, whole, _ in fields(group_bytes(block, group, part)) if number != 2)
            for part in ("envelope", "scope_envelope")
        )
        metric = None
        if kind := types.get(group, 0):
            field = data_field(kind)
            parts = list(fields(group_bytes(block, group, "metric")))
            own = b"".join(whole for number, whole, _ in parts if number != field)
            inside = b"".join(content for number, _, content in parts if number == field)
            metric = Metric(own, b"".join(whole for number, whole, _ in fields(inside) if number != 1), kind)
        found.append(Container(outer, inner, metric))
    return found


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_containers_of_anything(signal: Signal, data: st.DataObject) -> None:
    """Of blocks merged out of several, with groups that share envelopes and groups that are equal."""
    drawn = [one.SerializeToString() for one in data.draw(st.lists(requests(signal), min_size=1, max_size=3))]
    blocks: list[Block] = []
    for payload in [*drawn, *drawn[:1]]:
        try:
            block = scan(signal, payload, blocks[-1].end_offset if blocks else 0)
        except RingtailError:
            continue
        if block.count:
            blocks.append(block)
    if blocks:
        merged = merge(blocks)
        found = containers(merged)
        assert found == plain_containers(merged)
        assert len({id(one) for one in found}) == len(set(found))


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
def test_rows_beyond_the_block_are_refused(signal: Signal) -> None:
    block = scan(signal, corpus(signal, 3), 0)
    for first, end in ((-1, 2), (0, 4), (2, 2), (3, 2)):
        with pytest.raises(ValueError, match="rows"):
            MAKE[signal](block, first, end)


def test_what_nests_too_deep_is_null() -> None:
    """The scanner lets nothing through that is deeper; here it is bounded once more."""
    value = AnyValue(string_value="deep").SerializeToString()
    for _ in range(150):
        value = tagged(5, tagged(1, value))
    assert jsontext.value(value) == "[" * 100 + "null" + "]" * 100


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (AnyValue(string_value='a"b\\c\n\x01\x7fé\0'), '"a\\"b\\\\c\\n\\u0001\x7fé\\u0000"'),
        (AnyValue(int_value=-(2**63)), "-9223372036854775808"),
        (AnyValue(double_value=3), "3.0"),
        (AnyValue(double_value=float("nan")), '"NaN"'),
        (AnyValue(bytes_value=b"ab"), '"YWI="'),
        (AnyValue(bool_value=False), "false"),
        (AnyValue(), "null"),
    ],
)
def test_values_as_text(value: AnyValue, text: str) -> None:
    assert jsontext.value(value.SerializeToString()) == text
