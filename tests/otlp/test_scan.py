"""The scanner against its oracle, the protobuf library: the same verdict on any bytes, the same values."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.otlp.block import Block
from collector.otlp.records import Ref, _fields, record, regroup, resource
from collector.otlp.rules import REASONS
from collector.otlp.scan import BlockBuilder, scan
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.otlp.validate import STRINDEX_WARNING, Accepted, accept, canonical
from collector.otlp.wire import own_fields
from tests.otlp.columns_oracle import all_records, assert_columns, library_accepts, scanner_accepts
from tests.otlp.messages import requests, strict_records

_ids = st.binary(min_size=16, max_size=16)


def build(signal: Signal, payload: bytes) -> Block:
    builder = BlockBuilder(signal)
    assert builder.add(payload).records >= 0
    return builder.build(0)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
def test_columns_are_what_the_library_reads(signal: Signal) -> None:
    @given(requests(signal))
    def check(request) -> None:
        payload = request.SerializeToString()
        assert_columns(signal, scan(signal, payload, 0), payload)

    check()


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
def test_two_payloads_are_one_block(signal: Signal) -> None:
    @given(strict_records(signal), strict_records(signal))
    def check(first, second) -> None:
        builder = BlockBuilder(signal)
        one, two = first.SerializeToString(), second.SerializeToString()
        counts = [builder.add(one).records, builder.add(two).records]
        block = builder.build(40)
        assert block.base_offset == 40
        assert block.count == sum(counts)
        assert bytes(block.payload) == one * bool(counts[0]) + two * bool(counts[1])
        assert_columns(signal, block, bytes(block.payload))

    check()


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
def test_same_verdict_on_damaged_bytes(signal: Signal) -> None:
    @given(requests(signal), st.randoms(use_true_random=False))
    def check(request, chance: random.Random) -> None:
        payload = bytearray(request.SerializeToString())
        for _ in range(chance.randint(1, 4)):
            if not payload:
                break
            at = chance.randrange(len(payload))
            match chance.randrange(4):
                case 0:
                    payload[at] = chance.randrange(256)
                case 1:
                    payload[at] ^= 1 << chance.randrange(8)
                case 2:
                    del payload[at : at + chance.randint(1, 9)]
                case 3:
                    payload[at:at] = chance.randbytes(chance.randint(1, 5))
        damaged = bytes(payload)
        fine = library_accepts(signal, damaged)
        assert scanner_accepts(signal, damaged) == fine
        if fine:
            builder = BlockBuilder(signal)
            if builder.add(damaged).canonical:
                assert_columns(signal, scan(signal, damaged, 0), damaged)
            else:
                rewritten = canonical(signal, damaged)
                assert builder.add(rewritten).canonical
                assert_columns(signal, scan(signal, rewritten, 0), rewritten)

    check()


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
def test_same_verdict_on_every_prefix(signal: Signal) -> None:
    @given(requests(signal))
    @settings(max_examples=10)
    def check(request) -> None:
        payload = request.SerializeToString()
        for end in range(min(len(payload), 600)):
            assert scanner_accepts(signal, payload[:end]) == library_accepts(signal, payload[:end]), end

    check()


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
@given(payload=st.binary(max_size=60))
def test_same_verdict_on_noise(signal: Signal, payload: bytes) -> None:
    assert scanner_accepts(signal, payload) == library_accepts(signal, payload)


def length_delimited(field: int, content: bytes) -> bytes:
    size = len(content)
    out = bytearray([field << 3 | 2])
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes(out) + bytes([size]) + content


def nested(levels: int) -> bytes:
    value = b"\x10\x01"
    for _ in range(levels):
        value = length_delimited(5, length_delimited(1, value))
    pair = length_delimited(1, b"k") + length_delimited(2, value)
    return length_delimited(1, length_delimited(1, length_delimited(1, pair)))


@pytest.mark.parametrize("levels", [1, 20, 46, 47, 48, 49, 50, 60, 5000])
def test_same_depth_limit(levels: int) -> None:
    payload = nested(levels)
    assert scanner_accepts(TRACES, payload) == library_accepts(TRACES, payload)


@pytest.mark.parametrize("groups", [1, 99, 100, 101, 50_000])
def test_same_depth_limit_of_groups(groups: int) -> None:
    payload = b"\xa3\x06" * groups + b"\xa4\x06" * groups
    assert scanner_accepts(TRACES, payload) == library_accepts(TRACES, payload)


@pytest.mark.parametrize("tag", [b"\x4a", b"\xca\x00", b"\xca\x80\x00", b"\xca\x80\x80\x80\x00"])
@pytest.mark.parametrize("pair", [b"\x0a\x01k\x12\x03\x0a\x01v", b"\x0a\x01k\x12\x03\x0a\x02v", b"\x0a\x01k\x6f"])
def test_a_tag_may_take_more_bytes_than_it_needs(tag: bytes, pair: bytes) -> None:
    attributes = tag + bytes([len(pair)]) + pair + length_delimited(9, pair)
    payload = length_delimited(1, length_delimited(2, length_delimited(2, attributes)))
    assert scanner_accepts(TRACES, payload) == library_accepts(TRACES, payload)


def test_message_says_where() -> None:
    good = length_delimited(1, b"")
    with pytest.raises(Malformed, match=r"ExportTraceServiceRequest: at byte 2, a length reaches beyond"):
        BlockBuilder(TRACES).add(good + b"\x0a\x7f")


def test_refused_payload_leaves_the_builder_as_it_was() -> None:
    builder = BlockBuilder(TRACES)
    good = one_span(trace_id=b"t" * 16, span_id=b"s" * 8)
    builder.add(good)
    with pytest.raises(Malformed):
        builder.add(good + b"\x0a\x7f")
    block = builder.build(0)
    assert block.count == 1
    assert bytes(block.payload) == good


def one_span(**fields) -> bytes:
    request = TRACES.request_type()
    request.resource_spans.add().scope_spans.add().spans.add(**fields)
    return request.SerializeToString()


def test_invalid_spans_are_cut_out_and_counted() -> None:
    request = TRACES.request_type()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="one")
    spans.add(trace_id=bytes(16), span_id=b"s" * 8, name="two")
    spans.add(trace_id=b"t" * 16, span_id=b"short", name="three")
    spans.add(trace_id=b"t" * 16, span_id=b"u" * 8, name="four")
    builder = BlockBuilder(TRACES)
    accepted = accept(builder, request.SerializeToString())
    assert (accepted.records, accepted.rejected) == (2, 2)
    assert accepted.message == (
        "2 spans rejected: 1 because trace_id must be 16 bytes and not all zero; "
        "1 because span_id must be 8 bytes and not all zero; the first is number 1 of the request"
    )
    block = builder.build(0)
    assert [record(block, row).name for row in range(block.count)] == ["one", "four"]


def test_every_reason_can_occur() -> None:
    def points(kind: str, temporality: int = 2, **fields) -> bytes:
        request = METRICS.request_type()
        one = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
        data = getattr(one, kind)
        if kind not in ("gauge", "summary"):
            data.aggregation_temporality = temporality
        data.data_points.add(**fields)
        return request.SerializeToString()

    cases = [
        (TRACES, one_span(span_id=b"s" * 8)),
        (TRACES, one_span(trace_id=b"t" * 16)),
        (METRICS, points("gauge", as_int=1)),
        (METRICS, points("gauge", time_unix_nano=1)),
        (METRICS, points("histogram", time_unix_nano=1, bucket_counts=[1, 2], explicit_bounds=[1, 2])),
        (METRICS, points("histogram", time_unix_nano=1, bucket_counts=[1, 2, 3], explicit_bounds=[2, 2])),
        (METRICS, points("sum", 0, time_unix_nano=1, as_int=1)),
        (METRICS, points("gauge", time_unix_nano=1, as_int=1, exemplars=[{"as_int": 0}, {"time_unix_nano": 1}])),
    ]
    for number, (signal, payload) in enumerate(cases):
        accepted = accept(BlockBuilder(signal), payload)
        assert (accepted.records, accepted.rejected) == (0, 1)
        assert REASONS[number] in accepted.message
    # a stale marker has no value, and is valid
    assert accept(BlockBuilder(METRICS), points("gauge", time_unix_nano=1, flags=1)).records == 1
    assert accept(BlockBuilder(METRICS), points("histogram", time_unix_nano=1, bucket_counts=[4])).records == 1


@pytest.mark.parametrize("kind", ["gauge", "sum", "histogram", "exponential_histogram"])
def test_exemplars_must_have_a_value(kind: str) -> None:
    def one_of(*exemplars: dict) -> tuple[int, int]:
        request = METRICS.request_type()
        data = getattr(request.resource_metrics.add().scope_metrics.add().metrics.add(name="m"), kind)
        if kind != "gauge":
            data.aggregation_temporality = 1
        for found in (exemplars, ()):
            point = data.data_points.add(time_unix_nano=1, exemplars=found)
            if kind in ("gauge", "sum"):
                point.as_int = 1
        accepted = accept(BlockBuilder(METRICS), request.SerializeToString())
        return accepted.records, accepted.rejected

    assert one_of({"as_double": 0.0, "time_unix_nano": 1}, {"as_int": 0}) == (2, 0)
    assert one_of({"as_double": 1.0}, {}) == (1, 1)
    assert one_of({"time_unix_nano": 1, "span_id": b"s" * 8}) == (1, 1)


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
def test_references_into_a_string_table_are_kept_and_warned_about(signal: Signal) -> None:
    @given(strict_records(signal))
    def check(request) -> None:
        payload = request.SerializeToString()
        accepted = accept(BlockBuilder(signal), payload)
        assert (accepted.rejected, accepted.message) == (0, STRINDEX_WARNING if refers(request) else "")

    check()


def refers(message) -> bool:
    """Whether a string index is set anywhere, as the library sees it."""
    for field, value in message.ListFields():
        if field.name in ("string_value_strindex", "key_strindex"):
            return True
        if field.message_type is not None and any(refers(one) for one in (value if field.is_repeated else (value,))):
            return True
    return False


def test_a_reference_into_a_string_table_is_read_as_absent() -> None:
    span = {"trace_id": b"t" * 16, "span_id": b"s" * 8}
    payload = one_span(**span, attributes=[{"key_strindex": 3, "value": {"string_value_strindex": 4}}])
    builder = BlockBuilder(TRACES)
    assert accept(builder, payload) == Accepted(1, 0, STRINDEX_WARNING)
    assert bytes(builder.build(0).payload) == payload


def test_merged_fields_are_rewritten_before_they_are_stored() -> None:
    twice = length_delimited(1, length_delimited(1, b"") + length_delimited(1, b"\x10\x05"))
    builder = BlockBuilder(TRACES)
    assert not builder.add(twice).canonical
    payload = one_span(trace_id=b"t" * 16, span_id=b"s" * 8, name="x")
    envelope = payload[2:]
    resource_once = length_delimited(1, length_delimited(1, length_delimited(1, b"a")))
    merged = length_delimited(1, resource_once + resource_once + envelope)
    assert accept(builder, merged).records == 1
    block = builder.build(0)
    assert len(resource(block, 0).attributes) == 2


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
def test_regroup_returns_the_same_records(signal: Signal) -> None:
    @given(requests(signal), st.data())
    def check(request, data) -> None:
        payload = request.SerializeToString()
        block = scan(signal, payload, 100)
        chosen = data.draw(st.lists(st.integers(0, block.count - 1), unique=True)) if block.count else []
        made = regroup([Ref(0, 100 + row, block, row) for row in chosen])
        originals = all_records(signal, request)
        got = all_records(signal, signal.request_type.FromString(made))
        key = lambda found: (  # noqa: E731
            found[0].resource.SerializeToString(),
            found[0].schema_url,
            found[1].scope.SerializeToString(),
            found[1].schema_url,
            (found[2].name, found[2].unit, found[2].description) if found[2] is not None else "",
            found[4].SerializeToString(),
        )
        assert sorted(map(key, got)) == sorted(key(originals[row]) for row in chosen)

    check()


@pytest.mark.parametrize("signal", SIGNALS, ids=lambda s: s.name)
def test_own_fields_are_all_but_the_children(signal: Signal) -> None:
    """The oracle is the plain walk over fields."""

    @given(requests(signal), st.sampled_from([b"", b"\x9b\x06\x08\x01\x9c\x06", b"\xaa\x06\x03abc"]), st.integers(1, 4))
    def check(request, unknown, child) -> None:
        for envelope in (
            request.SerializeToString(),
            *(one.SerializeToString() for _, many in request.ListFields() for one in many),
        ):
            message = unknown + envelope + unknown
            expected = b"".join(whole for number, whole, _ in _fields(message) if number != child)
            assert own_fields(b"xy" + message + b"z", 2, len(message), child) == expected
            assert own_fields(bytearray(message), 0, 0, child) == b""

    check()


def test_log_without_ids_is_kept() -> None:
    request = LOGS.request_type()
    request.resource_logs.add().scope_logs.add().log_records.add(trace_id=b"odd", severity_number=300)
    builder = BlockBuilder(LOGS)
    assert accept(builder, request.SerializeToString()).records == 1
    block = builder.build(0)
    assert block.column("trace_id")[0].tolist() == [0, 0]
    assert block.column("severity")[0] == 255
