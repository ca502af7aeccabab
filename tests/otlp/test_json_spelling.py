"""OTLP/JSON in every spelling against a plain oracle: what it means, and what is refused."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal, localcontext
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.otlp.json.request import to_protobuf
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing import otlp
from tests.otlp.json_oracle import Refused, parse
from tests.otlp.messages import message
from tests.otlp.spelling import Speller

each_signal = pytest.mark.parametrize("signal", SIGNALS, ids=lambda signal: signal.name)
seeds = st.integers(0, 2**32)
_SPAN = '{"resourceSpans":[{"scopeSpans":[{"spans":[{"endTimeUnixNano":%s}]}]}]}'
_POINTS = '{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"%s":{"dataPoints":[%s]}}]}]}]}'
Transcode = Callable[[Signal, bytes], bytes]


def wire(made: Any) -> bytes:
    return bytes(made.SerializeToString(deterministic=True))


def disagreement(transcode: Transcode, signal: Signal, text: bytes) -> str | None:
    """Say how a transcoder and the oracle differ over a text, if they do."""
    try:
        expected = wire(parse(signal, text))
    except Refused as error:
        expected, why = None, error
    try:
        got = wire(signal.request_type.FromString(transcode(signal, text)))
    except Malformed as error:
        return None if expected is None and str(error) else f"refused: {error}"
    if expected is None:
        return f"accepted, although: {why!r}"
    return None if got == expected else "another message"


def random_request(signal: Signal, chance: Random) -> Any:
    """Make a small request at random, without unknown fields, which JSON cannot have."""
    made = message(signal.request_type.DESCRIPTOR, chance)
    made.DiscardUnknownFields()
    return made


def mutated(text: bytes, chance: Random) -> bytes:
    """Change, cut out, repeat or cut off something."""
    changed = bytearray(text)
    for _ in range(chance.randint(1, 3)):
        if not changed:
            break
        at = chance.randrange(len(changed))
        choice = chance.randrange(5)
        if choice == 0:
            changed[at] = chance.choice(b'"\\{}[]:,0-9eE+.nulltrue \xff\x00\x1f\xc3\xed\x7f')
        elif choice == 1:
            del changed[at : at + chance.choice((1, 1, 2, 20))]
        elif choice == 2:
            changed[at:at] = changed[chance.randrange(len(changed)) :][: chance.randint(1, 30)]
        elif choice == 3:
            tokens = (b"null", b"1e999", b'"\\ud800"', b"{}", b"[]", b'"x"', b"-1", b",", b"18446744073709551616")
            changed[at : at + chance.randint(0, 3)] = chance.choice(tokens)
        else:
            del changed[at:]
    return bytes(changed)


@each_signal
@given(seed=seeds, plain=st.booleans())
def test_every_spelling_means_the_same_message(signal: Signal, seed: int, plain: bool) -> None:
    chance = Random(seed)
    made = random_request(signal, chance)
    text = Speller(chance, plain=plain).request(made)
    assert wire(parse(signal, text)) == wire(made)
    assert disagreement(to_protobuf, signal, text) is None
    assert to_protobuf(signal, bytearray(text)) == to_protobuf(signal, text)


@each_signal
@given(seed=seeds, plain=st.booleans())
def test_mutants_are_accepted_or_refused_alike(signal: Signal, seed: int, plain: bool) -> None:
    chance = Random(seed)
    text = Speller(chance, plain=plain).request(random_request(signal, chance))
    for _ in range(5):
        mutant = mutated(text, chance)
        assert disagreement(to_protobuf, signal, mutant) is None, mutant


@each_signal
def test_every_beginning_of_a_request_is_refused(signal: Signal) -> None:
    text = otlp.to_json(signal, otlp.BUILDERS[signal](2))
    for length in range(len(text)):
        with pytest.raises(Malformed, match="at byte"):
            to_protobuf(signal, text[:length])


# --- canaries -----------------------------------------------------------------------------------------------------


def _with_snake_case(signal: Signal, text: bytes) -> bytes:
    return to_protobuf(signal, text.replace(b'"trace_id"', b'"traceId"').replace(b'"scope_spans"', b'"scopeSpans"'))


def _without_what_follows(signal: Signal, text: bytes) -> bytes:
    return to_protobuf(signal, text[: text.rfind(b"}") + 1])


def _with_times_as_doubles(signal: Signal, text: bytes) -> bytes:
    request = signal.request_type.FromString(to_protobuf(signal, text))
    for envelope in request.resource_spans:
        for scope in envelope.scope_spans:
            for span in scope.spans:
                span.start_time_unix_nano = min(int(float(span.start_time_unix_nano)), 2**64 - 1)
    return wire(request)


def _with_any_utf8(signal: Signal, text: bytes) -> bytes:
    return to_protobuf(signal, re.sub(rb"\\ud800", b"", text.decode("utf-8", "replace").encode()))


@pytest.mark.parametrize(
    "broken",
    [_with_snake_case, _without_what_follows, _with_times_as_doubles, _with_any_utf8],
    ids=lambda f: f.__name__,
)
def test_a_broken_transcoder_is_caught(broken: Transcode) -> None:
    """The canary of the tests above."""
    for seed in range(3000):
        chance = Random(seed)
        text = Speller(chance).request(random_request(TRACES, chance))
        if disagreement(broken, TRACES, text) or disagreement(broken, TRACES, mutated(text, chance)):
            return
    pytest.fail("nobody noticed")


# --- numbers ------------------------------------------------------------------------------------------------------


def double(written: str) -> float:
    """Return the double that a literal, and the same in a string, is read as."""
    found = []
    for literal in (written, f'"{written}"'):
        text = _POINTS % ("gauge", f'{{"asDouble":{literal}}}')
        request = METRICS.request_type.FromString(to_protobuf(METRICS, text.encode()))
        found.append(request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].as_double)
    assert struct.pack("<d", found[0]) == struct.pack("<d", found[1])
    return float(found[0])


def bits(number: float) -> bytes:
    return struct.pack("<d", number)


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite)
@example(5e-324)
@example(2.2250738585072011e-308)
@example(1.7976931348623157e308)
@example(-0.0)
def test_doubles_come_back(number: float) -> None:
    for written in (repr(number), f"{number:.17e}", f"{Decimal(number):f}", f"{Decimal(number):E}"):
        assert bits(double(written)) == bits(number)


@given(st.from_regex(r"-?(0|[1-9][0-9]{0,24})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?", fullmatch=True))
@example("9007199254740993")
@example("18446744073709551615e27")
@example("18446744073709551615e-27")
@example("18446744073709551616")
@example("0." + "0" * 400 + "1")
@example("0e99999999999999999999")
@example("1e-99999999999999999999")
@example("1" + "0" * 400 + "e-400")
def test_doubles_are_the_nearest(written: str) -> None:
    assert bits(double(written)) == bits(float(written))


@given(st.floats(min_value=1e-25, max_value=1e25), st.sampled_from(["", "1", "0001"]), st.booleans())
def test_halfway_between_two_doubles(number: float, tail: str, below: bool) -> None:
    """Ties go to the even one; a digit more or less decides."""
    above = math.nextafter(number, math.inf)
    with localcontext() as context:
        context.prec = 400
        middle = (Decimal(number) + Decimal(above)) / 2
        if below:
            middle -= Decimal(above) * Decimal("1e-40")
        written = f"{middle:f}"
    written += (tail if "." in written else f".{tail}") if tail else ""
    assert bits(double(written)) == bits(float(written))


@given(st.integers(0, 2**53), st.integers(-30, 30), st.integers(0, 10))
def test_halfway_cases_of_few_digits(mantissa: int, power: int, shift: int) -> None:
    written = f"{(mantissa << shift) + (1 << shift >> 1)}e{power}"
    assert bits(double(written)) == bits(float(written))


@pytest.mark.parametrize("written", ["1e309", "-1.8e308", "1" + "0" * 309, "17976931348623159e292"])
def test_doubles_beyond_the_largest_are_refused(written: str) -> None:
    with pytest.raises(Malformed, match="asDouble: expected a number"):
        double(written)


def time_of(literal: str) -> int:
    request = TRACES.request_type.FromString(to_protobuf(TRACES, (_SPAN % literal).encode()))
    return int(request.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano)


@given(st.integers(1, 2**64 - 1), st.integers(0, 30))
@example(2**64 - 1, 0)
@example(2**53 + 1, 30)
@example(10**19, 1)
def test_integers_are_exact_in_every_form(number: int, zeros: int) -> None:
    some = "0" * zeros
    for written in (f"{number}", f"{number}.{some}0", f"{number}{some}e-{zeros}", f"{number}.{some}0e+0"):
        assert time_of(written) == time_of(f'"{written}"') == number
    assert time_of(f'"{some}{number}"') == time_of(f'"+{number}"') == number


@pytest.mark.parametrize(
    ("literal", "reason"),
    [
        ("18446744073709551616", "not within 0 to 18446744073709551615"),
        ("1844674407370955162e1", "not within"),
        ("184467440737095516160000000000000000e-16", "not within"),
        ("1e99999999999999999999", "not within"),
        ("-1", "not within"),
        ("18446744073709551615.5", "expected an integer"),
        ("1844674407370955161.55", "expected an integer"),
        ("123456789012345678901234567890e-20", "expected an integer"),
        ("1e-99999999999999999999", "expected an integer"),
        ("0.1", "expected an integer"),
    ],
)
def test_what_is_no_integer_or_too_large(literal: str, reason: str) -> None:
    for written in (literal, f'"{literal}"'):
        with pytest.raises(Malformed, match=reason):
            time_of(written)


@pytest.mark.parametrize("literal", ["01", "-", "1.", ".5", "+1", "1e", "1e+", "--1", "0x1", "1_0", "1.e5", "Infinity"])
def test_numbers_that_json_does_not_know(literal: str) -> None:
    for value in (f'{{"unknown":{literal}}}', f'{{"resourceSpans":{literal}}}'):
        with pytest.raises(Malformed, match="not valid JSON"):
            to_protobuf(TRACES, value.encode())


# --- lengths, and where the text ends -----------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["a", "é", "∑", "\U0001f600", '"', "\x01"])
@pytest.mark.parametrize("length", [*range(40), 58, 59, 60, 61, 62, 63, 64, 65, *range(120, 136), 5461, 16382, 16384])
def test_strings_of_every_length(length: int, character: str) -> None:
    text = character * length
    chance = Random(length)
    made = LOGS.request_type()
    record = made.resource_logs.add().scope_logs.add().log_records.add(severity_text=text)
    record.attributes.add(key="k").value.string_value = text
    record.attributes.add(key=text).value.string_value = "v"
    record.attributes.add(key=text[:5]).value.bytes_value = text.encode()
    for plain in (True, False):
        spelled = Speller(chance, plain=plain).request(made)
        assert LOGS.request_type.FromString(to_protobuf(LOGS, spelled)) == made


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 127, 128, 2047, 2048, 5000])
def test_packed_numbers_may_take_more_room_than_their_text(count: int) -> None:
    point = f'{{"bucketCounts":[{",".join("1" * count)}],"explicitBounds":[{",".join("2" * count)}]}}'
    text = _POINTS % ("histogram", ",".join([point] * 3))
    assert disagreement(to_protobuf, METRICS, text.encode()) is None


def test_lengths_that_change_from_message_to_message() -> None:
    made = TRACES.request_type()
    for size in (1, 200, 20_000, 3_000_000, 1, 200, 130):
        span = made.resource_spans.add().scope_spans.add().spans.add(name="n" * size)
        span.attributes.add(key="k").value.array_value.values.add().string_value = "v" * size
    assert TRACES.request_type.FromString(to_protobuf(TRACES, Speller(Random(0), plain=True).request(made))) == made


def nested(levels: int) -> bytes:
    return b'{"unknown":' + b'[{"a":' * levels + b"1" + b"}]" * levels + b"}"


def test_unknown_values_may_be_nested_512_times_two_deep() -> None:
    assert to_protobuf(TRACES, nested(512)) == b""
    with pytest.raises(Malformed, match="nested too deep, at byte"):
        to_protobuf(TRACES, nested(513))


# --- equal keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "void", ["1", '"x"', "[1]", '[{"scopeSpans":[{"spans":[{"kind":"x"}]}]}]', "[{},{},{}]", "null"]
)
def test_a_value_is_void_when_its_key_comes_again(void: str) -> None:
    last = '[{"schemaUrl":"a"}]'
    text = '{"resourceSpans":%s,"x":1,"resourceSpans":%s}'
    assert to_protobuf(TRACES, (text % (void, last)).encode()) == to_protobuf(
        TRACES, b'{"resourceSpans":%s}' % last.encode()
    )
    assert to_protobuf(TRACES, (text % (last, "null")).encode()) == b""


def test_the_first_misfit_that_counts_is_told() -> None:
    text = b'{"resourceSpans":[{"schemaUrl":1,"schemaUrl":"a"},{"scopeSpans":[{"spans":{}}]},{"schemaUrl":2}]}'
    with pytest.raises(
        Malformed, match=r"^resourceSpans\[1\].scopeSpans\[0\].spans: expected an array, not an object$"
    ):
        to_protobuf(TRACES, text)


def test_where_the_text_is_no_json() -> None:
    with pytest.raises(Malformed, match=r"^not valid JSON: expected a colon, at byte 16$"):
        to_protobuf(TRACES, b'{"resourceSpans";[]}')


def test_other_types_of_bodies_are_refused() -> None:
    with pytest.raises(TypeError):
        to_protobuf(TRACES, memoryview(b"{}"))  # type: ignore[arg-type]
