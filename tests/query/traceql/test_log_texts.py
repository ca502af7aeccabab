"""Conditions over a compacted log of spans: which texts its key indexes know of changes no answer."""

from __future__ import annotations

import asyncio
import re
import zlib
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.otlp.scan import scan
from collector.otlp.signals import TRACES
from collector.otlp.terms import Sought
from collector.otlp.texts import ATTRIBUTE
from collector.query.deadline import Deadline
from collector.query.effort import Effort
from collector.query.slices import END_OF_TIME
from collector.query.traceql import conditions
from collector.query.traceql.asking import single_filter
from collector.query.traceql.ast import Expression, quote
from collector.query.traceql.keywords import terms
from collector.query.traceql.parser import parse
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.files import MemoryFiles
from collector.wal import grams, merging
from tests.query.traceql.test_search import filled
from tests.wal.logs import open_log
from tests.wal.test_compact import compact_all

WORDS = (
    "order",
    "ORDER",
    "Größe",
    "größe",
    "ticket-004711",
    "4711",
    "10.1.2.3",
    "in",
    "KELVIN \u212a",
    "true",
    "GET /",
)
KEYS = ("customer.id", "level", "http.url")


def drawn(chance: Random) -> str:
    """A text of some words."""
    return chance.choice((" ", ", ", '"', "-", "")).join(chance.choices(WORDS, k=chance.randint(0, 3)))


def value(chance: Random) -> dict[str, Any]:
    """An AnyValue; most are strings."""
    kind = chance.randrange(12)
    if kind < 2:
        return {"array_value": {"values": [value(chance) for _ in range(2)]}}
    if kind == 2:
        return chance.choice(({"int_value": 4711}, {"bool_value": True}, {"bytes_value": b"order"}, {}))
    return {"string_value": drawn(chance)}


def attributes(chance: Random) -> list[dict[str, Any]]:
    """Up to two attributes."""
    return [{"key": chance.choice(KEYS), "value": value(chance)} for _ in range(chance.randrange(3))]


def request(chance: Random, second: int) -> Any:
    """An export request of a few spans."""
    made = [
        {
            "trace_id": chance.randbytes(16),
            "span_id": chance.randbytes(8),
            "name": drawn(chance),
            "start_time_unix_nano": second * 10**9,
            "attributes": attributes(chance),
            "events": [{"name": drawn(chance), "attributes": attributes(chance)} for _ in range(chance.randrange(2))],
            "links": [{"attributes": attributes(chance)} for _ in range(chance.randrange(2))],
            "status": {"message": chance.choice(("", drawn(chance)))},
        }
        for _ in range(chance.randint(1, 3))
    ]
    resource = {"attributes": [{"key": "host", "value": value(chance)}, *attributes(chance)]}
    scope = {"name": drawn(chance), "version": "0.57b0", "attributes": attributes(chance)}
    return TRACES.request_type(
        resource_spans=[{"resource": resource, "scope_spans": [{"scope": scope, "spans": made}]}]
    )


class Corpus:
    """A log without a ring, all of it compacted but its end, of a seed."""

    def __init__(self, seed: int) -> None:
        chance = Random(f"corpus {seed}")
        files = MemoryFiles()
        log = open_log(files, segment_bytes=5000)
        self.texts: set[str] = {"nowhere"}
        for second in range(1, 40):
            block = scan(TRACES, request(chance, second).SerializeToString(), log.next_offset)
            log.append([block.payload], block.count, block.min_time, block.max_time)
        self.texts |= {drawn(chance) for _ in range(60)} - {""}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merging, "FRAME_RECORDS", 4)
            compact_all(files, log)
        loop = asyncio.new_event_loop()
        loop.close()
        self.store = Store(TRACES, Ring(TRACES, 1, 1 << 24, log.next_offset), log, loop)
        assert sum(one.compacted for one in log.sealed_segments) > 1


def answer(corpus: Corpus, condition: Expression | None, *, pruned: bool) -> tuple[list[int], int]:
    """The offsets of the spans that fulfil a condition, and how many were looked at."""
    deadline = Deadline(60, SystemClock())
    deadline.effort = Effort(SystemClock())
    with pytest.MonkeyPatch.context() as patch, corpus.store.view() as view:
        if not pruned:
            patch.setattr(conditions, "terms", lambda asked: ())
        found = conditions.fulfilling(deadline, view, condition, 0, END_OF_TIME)
        offsets = [one.block.base_offset + row for one in found for row in one.rows.tolist()]
        return offsets, deadline.effort.now.log.records


CORPORA = [Corpus(seed) for seed in range(3)]
FIELDS = (
    *(f"{scope}.{key}" for scope in ("", "span", "resource", "event", "link", "instrumentation") for key in KEYS),
    *("name", "statusMessage", "event:name", "instrumentation:name", "instrumentation:version", "resource.host"),
)


@st.composite
def leaves(draw: st.DrawFn, texts: tuple[str, ...]) -> str:
    """A comparison with a text that some span has, or with a part of one."""
    field, text = draw(st.sampled_from(FIELDS)), draw(st.sampled_from(texts))
    kind = draw(st.sampled_from(["=", "=", "mirrored", "=~", "(?i)", "!=", "!~", ">"]))
    if kind == "mirrored":
        return f"{quote(text)} = {field}"
    begin = draw(st.integers(0, len(text)))
    part = re.escape(text[begin : draw(st.integers(begin, len(text)))])
    if kind == "=~":
        return f"{field} =~ {quote(draw(st.sampled_from([f'.*{part}.*', f'{part}.*|{re.escape(text)}'])))}"
    if kind == "(?i)":
        return f"{field} =~ {quote('(?i)' + draw(st.sampled_from([re.escape(text.upper()), f'.*{part.lower()}.*'])))}"
    return f"{field} {kind} {quote(text)}"


TEXTS = tuple(sorted(set.union(*(one.texts for one in CORPORA))))
filters = st.recursive(
    leaves(TEXTS),
    lambda inner: (
        st.builds(lambda op, a, b: f"({a}) {op} ({b})", st.sampled_from(["&&", "||"]), inner, inner)
        | inner.map(lambda a: f"!({a})")
    ),
    max_leaves=3,
)


def same_answer(number: int, text: str) -> None:
    """A condition is fulfilled by the same spans with its terms and without."""
    corpus = CORPORA[number]
    condition = single_filter(parse(f"{{ {text} }}")).expression
    expected, everything = answer(corpus, condition, pruned=False)
    found, looked_at = answer(corpus, condition, pruned=True)
    assert found == expected
    assert looked_at <= everything


of_conditions = given(st.integers(0, len(CORPORA) - 1), filters)
test_terms_change_no_answer = of_conditions(same_answer)


def test_terms_spare_spans() -> None:
    for corpus in CORPORA:
        for text in ('.customer.id = "nowhere"', 'name =~ "nowhere.*"', '.level = "order" && event.level = "nowhere"'):
            condition = single_filter(parse(f"{{ {text} }}")).expression
            found, looked_at = answer(corpus, condition, pruned=True)
            assert found == []
            assert looked_at < answer(corpus, condition, pruned=False)[1] / 2


def test_grams_that_do_not_fold_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary."""
    monkeypatch.setattr(grams, "rows_of", lambda needle: (zlib.crc32(needle) % 65536,) if len(needle) > 3 else ())
    with pytest.raises(AssertionError):
        for field, text in product((f".{key}" for key in KEYS), TEXTS):
            same_answer(0, f"{field} = {quote(text)}")


def is_(*texts: str) -> tuple[Sought, ...]:
    return tuple(Sought(ATTRIBUTE, text.encode(), whole=True) for text in texts)


def has(*texts: str) -> tuple[Sought, ...]:
    return tuple(Sought(ATTRIBUTE, text.encode(), whole=False) for text in texts)


@pytest.mark.parametrize(
    ("condition", "asked"),
    [
        ('.a = "text"', [is_("text")]),
        ('"text" = span.a', [is_("text")]),
        ('resource.a = "x" && event.b = "y" && name = "z"', [is_("x"), is_("y"), is_("z")]),
        ('.a = "x" || .b = "y"', [is_("x", "y")]),
        ('.a = "x" || .b = "x"', [is_("x")]),
        ('.a = "x" || .b > 1', []),
        ('(.a = "longer" && .b = "x") || .c = "y"', [is_("longer", "y")]),
        ('.a =~ "GET /(cart|order).*"', [has("GET /"), has("cart", "order")]),
        ('.a =~ ".*"', []),
        ('.a = ""', []),
        ('.a != "text" && .b !~ "text" && .c > "text"', []),
        ('!(.a = "text")', []),
        ('parent.a = "text" && rootName = "text" && span:id = "0123456789abcdef"', []),
        ('statusMessage = "m" && event:name = "n" && instrumentation:name = "i"', [is_("m"), is_("n"), is_("i")]),
        (".a = .b && .c = 4711 && status = error", []),
        (" || ".join(f'.a = "{number}"' for number in range(65)), []),
    ],
)
def test_what_a_condition_asks_of_texts(condition: str, asked: list[tuple[Sought, ...]]) -> None:
    query = parse(f"{{ {condition} }}").pipeline.stages[0]
    assert sorted(terms(query.expression)) == sorted(asked)  # type: ignore[union-attr]


def test_a_store_without_a_log_asks_nobody() -> None:
    store, _ = filled(1, 20)
    with store.view() as view:
        condition = single_filter(parse('{ .y = "get" }')).expression
        assert list(conditions.in_log(Deadline(60, SystemClock()), view, condition, 0, END_OF_TIME)) == []
