"""Texts and words against plain Python and the protobuf library; folding against RE2's idea of case."""

from __future__ import annotations

from random import Random
from typing import Any
from zlib import crc32

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from collector.otlp.records import record, resource, scope
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, TRACES, Signal
from collector.otlp.texts import ATTRIBUTE, BODY, BODY_OPAQUE, container_texts, texts
from collector.otlp.words import WORD_BYTES_MAX, fold, words
from tests.otlp import words_oracle as oracle
from tests.otlp.messages import message

TEXTS = st.text(
    st.sampled_from('aKz_09 -.:/"\\éÉſK\u0345ΣςßẞİıⅣ五中\u3001\u2019\u00a0\U0001f600\U00010400ȺჀ'), max_size=30
)


@given(TEXTS | st.text(max_size=20))
def test_words_are_those_of_plain_python(text: str) -> None:
    assert [tuple(word) for word in words(text.encode())] == oracle.words(text)
    assert fold(text.encode()).decode() == "".join(map(oracle.fold, text))


@given(st.binary(max_size=40))
def test_any_bytes_have_words(text: bytes) -> None:
    for word in words(text):
        assert 0 <= word.start < word.end <= len(text)


@pytest.mark.parametrize(("signal", "of_record"), [(LOGS, oracle.of_record), (TRACES, oracle.of_span)])
@given(seed=st.integers(0, 2**32))
def test_texts_are_those_of_the_protobuf_library(signal: Signal, of_record: Any, seed: int) -> None:
    request = message(signal.request_type.DESCRIPTOR, Random(seed))
    block = scan(signal, request.SerializeToString(), 0)
    found, held = texts(block), container_texts(block)
    for row in range(block.count):
        expected, flags = of_record(record(block, row))
        assert of_row(block, found, row) == expected
        assert found.flags[row] & flags == flags
    for group in range(block.groups.count):
        expected, flags = oracle.of_container(resource(block, group), scope(block, group))
        assert of_row(block, held, group) == expected
        assert held.flags[group] & flags == flags


def of_row(block, found, row: int) -> list[tuple[int, str]]:
    return sorted(
        (int(kind), bytes(block.payload[start : start + length]).decode())
        for at, kind, start, length in zip(*found[:4], strict=True)
        if at == row
    )


def test_a_record_as_they_are() -> None:
    request = LOGS.request_type()
    made = request.resource_logs.add().scope_logs.add().log_records.add(severity_text="WARN", event_name="e")
    made.attributes.add(key="k").value.string_value = "v"
    made.attributes.add(key="number").value.int_value = 7
    body = made.body.kvlist_value.values
    body.add(key="message").value.string_value = "hello"
    block = scan(LOGS, request.SerializeToString(), 0)
    assert of_row(block, texts(block), 0) == [
        *((BODY, text) for text in ("hello", "message")),
        *((ATTRIBUTE, text) for text in ("WARN", "e", "v")),
    ]
    assert texts(block).flags.tolist() == [0]
    body.add(key="quote").value.string_value = 'a"b'
    block = scan(LOGS, request.SerializeToString(), 0)
    assert texts(block).flags.tolist() == [BODY_OPAQUE]


def test_a_span_as_it_is() -> None:
    request = TRACES.request_type()
    made = request.resource_spans.add().scope_spans.add().spans.add(name="GET /cart", trace_state="t=1")
    made.attributes.add(key="k").value.string_value = "v"
    made.attributes.add(key="list").value.array_value.values.add().string_value = "member"
    made.events.add(name="exception").attributes.add(key="k").value.string_value = "of an event"
    made.links.add(trace_state="l=1").attributes.add(key="k").value.string_value = "of a link"
    made.status.message = "deadlock"
    block = scan(TRACES, request.SerializeToString(), 0)
    expected = ("GET /cart", "deadlock", "exception", "member", "of a link", "of an event", "v")
    assert of_row(block, texts(block), 0) == [(ATTRIBUTE, text) for text in expected]


def test_characters_that_a_case_blind_expression_takes_for_one_another_are_folded_to_one() -> None:
    """So an expression with (?i) may be looked up by its folded words."""
    cased = [chr(code) for code in range(128, 0x10000) if not 0xD800 <= code < 0xE000]
    cased = [one for one in cased if len({one, one.lower(), one.upper(), one.casefold(), one.title()}) > 1]
    cased += [chr(code) for code in range(128) if chr(code).isalpha()]
    everything = "".join(cased)
    options = re2.Options()
    options.log_errors = False
    for one in cased:
        alike = re2.compile(f"(?i){one}", options).findall(everything)
        in_words = [other for other in alike if words(other.encode())]
        assert not in_words or {fold(other.encode()) for other in alike} == {fold(one.encode())}, (one, alike)


def test_folding_does_not_change_with_the_version_of_python() -> None:
    """Words are on disk."""
    everything = "".join(chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000)
    assert crc32(fold(everything.encode())) == FOLDED


FOLDED = 3099331676


@pytest.mark.parametrize("length", [WORD_BYTES_MAX, WORD_BYTES_MAX + 1])
def test_long_words_are_words_of_a_query(length: int) -> None:
    assert [len(word.folded) for word in words(b"a" * length)] == [length]
