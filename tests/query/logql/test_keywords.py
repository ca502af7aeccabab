"""Queries are answered alike with and without the keyword index; and what an expression is said to require it does."""

from __future__ import annotations

from typing import Any

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS
from collector.otlp.terms import TRACE, Sought, of_texts
from collector.otlp.texts import ATTRIBUTE, BODY
from collector.otlp.words import fold
from collector.query.effort import Effort, RingEffort
from collector.query.logql import keywords
from collector.query.logql.logs import Line, read_lines
from collector.query.logql.parser import parse
from collector.query.logql.plan import prepare
from collector.query.logql.source import Statistics
from collector.query.required import required
from collector.ring.ring import Ring
from collector.store import Store
from tests.query.logql.logs import SECOND, deadline

TRACE_ID = "0a" * 16
LINES = [
    "order 17 failed",
    "Order 17: OK",
    "ORDER_17",
    "reorder",
    "no-order",
    "GET /a/b",
    'say "no"',
    "Straße",
    "",
    "a\nb",
]
BODIES: list[dict[str, Any]] = [{"string_value": line} for line in LINES]
BODIES += [
    {"kvlist_value": {"values": [{"key": "order", "value": {"int_value": 17}}]}},
    {"kvlist_value": {"values": [{"key": "msg", "value": {"string_value": 'say "no order"\n17'}}]}},
    {"array_value": {"values": [{"double_value": 17.5}, {"bool_value": True}, {}]}},
    *({"bytes_value": b"\xa2\xb7\x9d"}, {"double_value": 1e21}, {"int_value": 17}, {"bool_value": False}),
]
VALUES: list[dict[str, Any]] = [{"string_value": text} for text in ("order", "Order 17", "17", "true", "[1]", TRACE_ID)]
VALUES += [{"int_value": 17}, {"bool_value": True}, {"bytes_value": b"\xa2\xb7\x9d"}]
VALUES += [{"array_value": {"values": [{"int_value": 1}]}}, {"double_value": 17.0}]
VALUES += [{"kvlist_value": {"values": [{"key": "b", "value": {"string_value": "order"}}]}}]
RECORDS = st.fixed_dictionaries(
    {
        "body": st.sampled_from(BODIES),
        "attributes": st.lists(
            st.fixed_dictionaries({"key": st.sampled_from(["a", "a.b", "trace_id"]), "value": st.sampled_from(VALUES)}),
            max_size=2,
        ),
        "trace_id": st.sampled_from([b"", bytes.fromhex(TRACE_ID), b"u" * 16]),
        "severity_text": st.sampled_from(["", "WARN"]),
        "event_name": st.sampled_from(["", "order"]),
    }
)
NEEDLES = [
    "order",
    "Order",
    "17",
    "7",
    "rder 1",
    "order 17 failed",
    "order_17",
    ": OK",
    "no",
    '"',
    "\\n17",
    "\n",
    "trüe",
]
NEEDLES += ["true", "null", "Straße", "STRASSE", "GET /a", "/", "ore", "orert", "1e+21", "b", "17.5", '{"order":17}']
EXPRESSIONS = [
    "ord.r",
    "(?i)ORDER",
    "order|reorder",
    "^order (17|18)",
    "(?i:straße)",
    "o(rde)?r",
    "[oO]rder.17",
    "no+-order",
]
EXPRESSIONS += ["GET .*b$", 'say \\\\?"no', "\\\\d+", "order\\\\W17", "(order){1,2} 17", "x|", "Order 17(: OK)?", "a.b"]


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


STAGES = st.one_of(
    st.builds(
        lambda op, texts: f"{op} {' or '.join(map(quoted, texts))}",
        st.sampled_from(["|=", "|=", "!="]),
        st.lists(st.sampled_from(NEEDLES), min_size=1, max_size=2),
    ),
    st.builds(
        lambda op, texts: f"{op} {' or '.join(f'`{text}`' for text in texts)}",
        st.sampled_from(["|~", "|~", "!~"]),
        st.lists(st.sampled_from([one.replace("\\\\", "\\") for one in EXPRESSIONS]), min_size=1, max_size=2),
    ),
    st.builds(
        lambda label, op, value: f"| {label} {op} {quoted(value)}",
        st.sampled_from(["a", "a_b", "trace_id", "severity_text", "event_name", "scope_name", "host"]),
        st.sampled_from(["=", "=", "!=", "=~"]),
        st.sampled_from(
            ["order", "Order 17", "17", "true", "[1]", "ored", "WARN", "warn", "lib", TRACE_ID, "", "1.7e+01"]
        ),
    ),
    st.just('| a = "order" or a_b = "order"'),
    st.just('| drop a =~ ".*"'),
)


def stored(records: list[list[dict[str, Any]]], keyword_index: bool) -> Store:
    ring = Ring(LOGS, 200, 1 << 30, keyword_index=keyword_index)
    loop: Any = None
    for number, each in enumerate(records):
        request = LOGS.request_type()
        envelope = request.resource_logs.add()
        envelope.resource.attributes.add(key="host").value.string_value = ("order", "other")[number % 2]
        scope = envelope.scope_logs.add()
        scope.scope.name = "lib"
        for place, record in enumerate(each):
            # Blocks overlap in time, and records of a block are not in order.
            scope.log_records.add(time_unix_nano=(number * 3 + place * 5 % 7 + 1) * SECOND, **record)
        ring.append(scan(LOGS, request.SerializeToString(), ring.next_offset))
    return Store(LOGS, ring, None, loop)


def asked(store: Store, query: str, limit: int = 1000, *, oldest_first: bool = False) -> tuple[list[Line], RingEffort]:
    plan = prepare(query)
    [source] = plan.sources.values()
    limited = deadline()
    limited.effort = Effort(SystemClock())
    with store.view() as view:
        lines = read_lines(limited, view, source, 0, 1 << 62, limit, oldest_first, Statistics())
    return lines, limited.effort.now.ring


@given(
    st.lists(st.lists(RECORDS, min_size=1, max_size=6), min_size=1, max_size=5),
    st.lists(STAGES, min_size=1, max_size=3),
    st.sampled_from([1, 3, 1000]),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_answers_are_the_same_with_the_index_and_without(
    records: list[list[dict[str, Any]]], stages: list[str], limit: int, oldest_first: bool
) -> None:
    query = " ".join(['{service_name=~".+"}', *stages])
    with_index, told = asked(stored(records, True), query, limit, oldest_first=oldest_first)
    assert with_index == asked(stored(records, False), query, limit, oldest_first=oldest_first)[0]
    assert told.keyword_candidates <= told.keyword_records


def test_only_what_the_index_names_is_looked_at() -> None:
    records = [[{"body": {"string_value": f"line {number} of ticket-{number}"}}] for number in range(150)]
    lines, told = asked(stored(records, True), '{service_name=~".+"} |= "ticket-77"')
    assert [line.text for line in lines] == ["line 77 of ticket-77"]
    assert (told.keyword_records, told.keyword_candidates, told.records) == (150, 1, 1)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('|= "a b"', [{(BODY, "a b", False)}]),
        ('|= "a" or "b" |= "c"', [{(BODY, "a", False), (BODY, "b", False)}, {(BODY, "c", False)}]),
        ('!= "a"', []),
        ('| json |= "a"', [{(BODY, "a", False)}]),
        ('| json | a = "b"', []),
        ('| line_format "x" |= "a"', []),
        ('| drop x | a = "b"', [{(ATTRIBUTE, "b", True)}]),
        ('| a = "b" and c = "d"', [{(ATTRIBUTE, "b", True)}, {(ATTRIBUTE, "d", True)}]),
        ('| a = "b" or c != "d"', []),
        ('| a = "17"', []),
        ('| detected_level = "error"', []),
        ('|~ "ab+c|de"', [{(BODY, "ab", False), (BODY, "de", False)}]),
        (
            f'| trace_id = "{TRACE_ID}"',
            [{(TRACE, bytes.fromhex(TRACE_ID).decode(), True), (ATTRIBUTE, TRACE_ID, True)}],
        ),
    ],
)
def test_what_a_query_asks_of_texts(query: str, expected: list[set[tuple[int, str, bool]]]) -> None:
    parsed: Any = parse('{service_name=~".+"} ' + query)
    found = keywords.terms(parsed)
    assert [set(term) for term in found] == [
        {Sought(kind, text.encode(), whole) for kind, text, whole in term} for term in expected
    ]
    assert of_texts(found) == (() if "trace_id" in query else found)


ATOMS = st.sampled_from(
    ["a", "b", "ab", "K", "1", ".", "\\.", "[ab]", "[[:alpha:]]", "[^\\]]", "\\d", "\\bab", "^", "$", "é"]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.builds("({}|{})".format, inner, inner),
        st.builds("(?i:{})".format, inner),
        st.builds("(?P<n>{})".format, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{0,2}", "{2}", "+?", "??", ""])),
        st.builds("{}|{}".format, inner, inner),
    ),
    max_leaves=8,
)


@given(PATTERNS, st.lists(st.text(st.sampled_from("abABkK\u212a1.] é"), max_size=12), min_size=1, max_size=20))
@settings(max_examples=300)
def test_a_match_has_what_the_expression_requires(expression: str, texts: list[str]) -> None:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(expression, options)
    except re2.error:
        return
    for text in texts:
        if compiled.search(text) is not None:
            for one in required(expression):
                assert any(fold(part.encode()) in fold(text.encode()) for part in one), (one, text)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("order (placed|refused) by \\d+", [("order ",), ("placed", "refused"), (" by ",)]),
        ("colou?r", [("colo",), ("r",)]),
        ("ab+c", [("ab",), ("c",)]),
        ("(a|b*)c", [("c",)]),
        ("a|", []),
        ("(?i)Error", [("Error",)]),
        ("a\\.b", [("a.b",)]),
        ("a{2,3}b{0,1}c", [("a",), ("c",)]),
        ("a{,3}", [("a{,3}",)]),
        ("[[:alpha:]x]yz", [("yz",)]),
        ("\\Qa.b\\E", []),
        ("(" * 60 + "a" + ")" * 60, []),
    ],
)
def test_what_expressions_require(expression: str, expected: list[tuple[str, ...]]) -> None:
    assert required(expression) == expected
