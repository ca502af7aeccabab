"""Spanset filters against brute force over decoded spans, and search against sorting everything."""

from __future__ import annotations

import asyncio
import operator
import re
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.otlp.signals import TRACES
from collector.query.deadline import Deadline
from collector.query.slices import slices
from collector.query.traceql import conditions, remembered
from collector.query.traceql.asking import demanded_key, single_filter
from collector.query.traceql.ast import Attribute, Binary, Expression, Intrinsic, Literal, Type, Unary
from collector.query.traceql.evaluate import Evaluation
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import plan
from collector.query.traceql.search import Search, Summary, describe, find
from collector.ring.ring import Ring
from collector.store import Store

_COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def random_request(chance: Random, count: int) -> Any:
    """Spans of a few traces and services with attributes of every type, in several containers."""
    request = TRACES.request_type()
    while count > 0:
        envelope = request.resource_spans.add()
        if chance.random() < 0.9:
            envelope.resource.attributes.add(key="service.name").value.string_value = chance.choice("abc")
        if chance.random() < 0.5:
            envelope.resource.attributes.add(key="x").value.int_value = chance.randint(0, 3)
        inner = envelope.scope_spans.add()
        inner.scope.name = chance.choice(["lib", "other"])
        for _ in range(min(count, chance.randint(1, 4))):
            count -= 1
            start = chance.randint(1, 200)
            span = inner.spans.add(
                trace_id=chance.randint(1, 6).to_bytes(16, "big"),
                span_id=chance.randint(1, 2**60).to_bytes(8, "big"),
                parent_span_id=chance.choice([b"", b"parentid"]),
                name=chance.choice(["get", "put", "get /a", ""]),
                start_time_unix_nano=start,
                end_time_unix_nano=max(0, start + chance.randint(-2, 50)),
                kind=chance.randint(0, 5),
            )
            span.status.code = chance.randint(0, 2)
            span.status.message = chance.choice(["", "bad"])
            for key in ("x", "y"):
                if chance.random() < 0.7:
                    value = span.attributes.add(key=key).value
                    match chance.randint(0, 5):
                        case 0:
                            value.string_value = chance.choice(["a", "get", "1"])
                        case 1:
                            value.int_value = chance.randint(0, 3)
                        case 2:
                            value.double_value = chance.choice([0.5, 1.0, 2.0])
                        case 3:
                            value.bool_value = chance.random() < 0.5
                        case 4:
                            for item in range(chance.randint(0, 2)):
                                value.array_value.values.add().int_value = item
            for part, name in ((span.events, "name"), (span.links, "")):
                for _ in range(chance.choice([0, 0, 1, 2, 3])):
                    one = part.add(**({name: chance.choice("ab")} if name else {"span_id": b"linkedid"}))
                    for key in ("x", "y"):
                        if chance.random() < 0.6:
                            one.attributes.add(key=key).value.int_value = chance.randint(0, 2)
                    if chance.random() < 0.3:
                        one.attributes.add(key="flag").value.bool_value = chance.random() < 0.5
    return request


class OracleSpan:
    """One span as the oracle sees it: decoded by the protobuf library."""

    def __init__(self, resource: Any, scope: Any, span: Any, offset: int) -> None:
        self.resource = {pair.key: pair.value for pair in reversed(resource.attributes)}
        self.scope = scope
        self.span = span
        self.attributes = {pair.key: pair.value for pair in reversed(span.attributes)}
        self.offset = offset
        self.one: dict[str, Any] = {"event": None, "link": None}
        """The event and the link that a condition is about, in turn."""

    def field(self, node: Expression) -> Any:
        """A field's value in Python; None for absent."""
        if isinstance(node, Attribute) and node.scope in self.one:
            pairs = self.one[node.scope].attributes if self.one[node.scope] is not None else ()
            values = [pair.value for pair in pairs if pair.key == node.name]
            return getattr(values[0], values[0].WhichOneof("value")) if values else None
        if isinstance(node, Attribute):
            spaces = {"span": [self.attributes], "resource": [self.resource], "": [self.attributes, self.resource]}
            for space in spaces[node.scope]:
                if node.name in space:
                    value = space[node.name]
                    which = value.WhichOneof("value")
                    if which == "array_value":
                        return [item.int_value for item in value.array_value.values]
                    return getattr(value, which) if which else None
            return None
        assert isinstance(node, Intrinsic)
        span = self.span
        if node.name == "event:name":
            return self.one["event"].name if self.one["event"] is not None else None
        return {
            "span:name": span.name,
            "span:duration": max(0, span.end_time_unix_nano - span.start_time_unix_nano),
            "span:status": span.status.code,
            "span:kind": span.kind,
            "span:statusMessage": span.status.message,
            "span:id": span.span_id.hex(),
            "span:parentID": span.parent_span_id.hex(),
            "trace:id": span.trace_id.hex(),
            "instrumentation:name": self.scope.name,
        }[node.name]

    def matches(self, node: Expression | None) -> bool:
        """Tell whether a condition holds with some event, or none, and some link, or none."""
        for event in (None, *self.span.events):
            for link in (None, *self.span.links):
                self.one = {"event": event, "link": link}
                if self.holds(node):
                    return True
        return False

    def holds(self, node: Expression | None) -> bool:
        """Tell whether a condition holds with the event and the link that it is about."""
        match node:
            case None:
                return True
            case Unary(op="!", operand=Attribute()):
                return self.field(node.operand) is False
            case Unary(op="!"):
                return not self.apart(node.operand)
            case Binary(op="&&"):
                return self.holds(node.left) and self.holds(node.right)
            case Binary(op="||"):
                return self.holds(node.left) or self.holds(node.right)
            case Binary(op="=", right=Literal(type=Type.NIL)):
                return not self.apart(replace(node, op="!="))
            case Binary(right=Literal()):
                return self.compare(node.op, self.field(node.left), node.right)
            case Attribute():
                return self.field(node) is True
        raise AssertionError(node)

    def apart(self, node: Expression) -> bool:
        """Tell whether a condition holds with any event and link, whichever the rest is about."""
        before = self.one
        found = self.matches(node)
        self.one = before
        return found

    def compare(self, op: str, value: Any, literal: Literal) -> bool:
        if literal.type is Type.NIL:
            return (value is None) == (op == "=")
        if isinstance(value, list):
            holds = any(self.compare(op, item, literal) for item in value)
            if op in ("!=", "!~"):
                return holds and not any(
                    self.compare(op.replace("!=", "=").replace("!~", "=~"), i, literal) for i in value
                )
            return holds
        wanted = {Type.STRING: str, Type.BOOL: bool}.get(literal.type, (int, float))
        if (
            value is None
            or not isinstance(value, wanted)
            or (isinstance(value, bool) and literal.type is not Type.BOOL)
        ):
            return False
        if op in ("=~", "!~"):
            return (re.fullmatch(str(literal.value), value) is not None) == (op == "=~")
        return _COMPARE[op](value, literal.value)


_fields = st.sampled_from(
    [".x", "span.x", "resource.x", ".y", "span.y", ".service.name", "resource.service.name", ".z"]
)
_values = st.sampled_from(['"a"', '"get"', '"1"', "1", "2", "0.5", "1.0", "true", "false", "30ns"])
_comparisons = (
    st.builds(lambda field, op, value: f"{field} {op} {value}", _fields, st.sampled_from(["=", "!="]), _values)
    | st.builds(
        lambda field, op, value: f"{field} {op} {value}",
        _fields,
        st.sampled_from(["<", "<=", ">", ">="]),
        st.sampled_from(["1", "0.5", "2", '"b"']),
    )
    | st.builds(lambda field, op: f"{field} {op} nil", _fields, st.sampled_from(["=", "!="]))
    | st.builds(lambda field, op: f'{field} {op} "g.*|1"', _fields | st.just("name"), st.sampled_from(["=~", "!~"]))
    | st.sampled_from(
        [
            'name = "get"',
            "duration > 20ns",
            "duration <= 0.5",
            "status = error",
            "status != ok",
            "kind = server",
            'statusMessage = "bad"',
            'instrumentation:name = "lib"',
            'trace:id = "00000000000000000000000000000003"',
            'span:parentID = ""',
            'span:parentID != "aa"',
        ]
    )
)


def _composed(leaves: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(lambda op, a, b: f"({a}) {op} ({b})", st.sampled_from(["&&", "||"]), inner, inner)
            | inner.map(lambda a: f"!({a})")
        ),
        max_leaves=most,
    )


_filters = _composed(_comparisons, 4)


def _on_parts(scope: str) -> st.SearchStrategy[str]:
    """Conditions on one of a span's events, or links, and on the span."""
    simple = st.builds(
        lambda key, op, value: f"{scope}.{key} {op} {value}",
        st.sampled_from("xy"),
        st.sampled_from(["=", "!=", "<"]),
        st.sampled_from(["0", "1", "2"]),
    )
    more = [f"{scope}.x = nil", f"{scope}.y != nil", f"{scope}.flag", f"!{scope}.flag", "span.x = 1", "status = error"]
    if scope == "event":
        more += ['event:name = "a"', 'event:name != "a"', 'event:name =~ "b|c"', 'event:name !~ "b"']
    return _composed(simple | st.sampled_from(more), 6)


_part_filters = (
    _on_parts("event")
    | _on_parts("link")
    | st.builds(lambda a, b: f"({a}) && ({b}) && link.y = 1 && event.y = 1", _on_parts("event"), _on_parts("link"))
)


def run_search(store: Store, text: str, **options: Any) -> list[Summary]:
    """What the API does: narrow by a demanded key, find, describe."""
    query = parse(text)
    search = Search(query, options.pop("limit", 20), options.pop("spans", 3), **options)
    deadline = Deadline(60, SystemClock())
    key = plan(query).key
    view = store.view(*key) if key is not None else store.view()
    found, _ = find(deadline, view, store.view(), search)
    return describe(deadline, store.view(), found, search)


def filled(seed: int, blocks: int, capacity: int = 1000) -> tuple[Store, list[OracleSpan]]:
    """A store of random spans, and the same spans decoded; those that the ring has evicted are left out."""
    chance = Random(seed)
    loop = asyncio.new_event_loop()
    store = Store(TRACES, Ring(TRACES, capacity, 1 << 24), None, loop)
    spans: list[OracleSpan] = []
    for _ in range(blocks):
        request = random_request(chance, chance.randint(1, 12))
        loop.run_until_complete(store.append(request.SerializeToString()))
        for envelope in request.resource_spans:
            for inner in envelope.scope_spans:
                for span in inner.spans:
                    spans.append(OracleSpan(envelope.resource, inner.scope, span, len(spans)))
    loop.close()
    return store, spans[-capacity:]


def _compare_parts(seed: int, condition: str) -> None:
    """Evaluate one filter on random spans, and by brute force."""
    store, spans = filled(seed, 3)
    expression = single_filter(parse(f"{{ {condition} }}")).expression
    with store.view() as view:
        found = [
            piece.block.base_offset + row
            for piece in slices(view, 0, 1000)
            for row in Evaluation(piece).matching(expression).tolist()
        ]
    assert sorted(found) == [one.offset for one in spans if one.matches(expression)], condition


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), condition=_part_filters)
def test_conditions_hold_for_one_event_and_one_link(seed: int, condition: str) -> None:
    _compare_parts(seed, condition)


def test_conditions_that_two_events_fulfil_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Evaluation,
        "_of_one",
        lambda self, scope, conditions: np.logical_and.reduce([self.mask(one) for one in conditions]),
    )
    with pytest.raises(AssertionError, match="event.x = 1"):
        for seed in range(50):
            _compare_parts(seed, "event.x = 1 && event.y = 2")


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), condition=_filters, capacity=st.sampled_from([7, 1000]))
def test_search_is_brute_force(seed: int, condition: str, capacity: int) -> None:
    store, spans = filled(seed, 6, capacity)
    text = f"{{ {condition} }}"
    expression = single_filter(parse(text)).expression
    matching = [one for one in spans if one.matches(expression)]
    by_trace: dict[bytes, list[OracleSpan]] = {}
    for one in matching:
        by_trace.setdefault(one.span.trace_id, []).append(one)
    for ones in by_trace.values():
        ones.sort(key=lambda one: (one.span.start_time_unix_nano, one.offset), reverse=True)
    order = sorted(
        by_trace,
        key=lambda trace: (by_trace[trace][0].span.start_time_unix_nano, by_trace[trace][0].offset),
        reverse=True,
    )
    for limit, probed, distinct in ((1, 0, 1000), (2, 16, 1000), (20, 0, 1), (20, 0, 1000)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(conditions, "PROBED", probed)
            patch.setattr(remembered, "DISTINCT_MAX", distinct)
            answer = run_search(store, text, limit=limit)
        assert [one.trace_id for one in answer] == order[:limit]
        for one in answer:
            expected = by_trace[one.trace_id]
            assert one.matched == len(expected)
            assert [span.span_id for span in one.spans] == [each.span.span_id for each in expected[:3]]
            whole = [each.span for each in spans if each.span.trace_id == one.trace_id]
            assert sum(count for count, _ in one.services.values()) == len(whole)
            assert sum(errors for _, errors in one.services.values()) == sum(each.status.code == 2 for each in whole)
            assert one.start == min(each.start_time_unix_nano for each in whole)


def test_a_time_range_selects_by_start_and_is_inclusive() -> None:
    store, spans = filled(5, 10)
    answer = run_search(store, "{}", start_ns=50, end_ns=100, limit=100)
    inside = {one.span.trace_id for one in spans if 50 <= one.span.start_time_unix_nano <= 100}
    assert {one.trace_id for one in answer} == inside


def test_trace_intrinsics_and_duration_bounds() -> None:
    store, spans = filled(9, 10)
    durations = {}
    for one in spans:
        start, end = durations.get(one.span.trace_id, (10**9, 0))
        durations[one.span.trace_id] = (
            min(start, one.span.start_time_unix_nano),
            max(end, one.span.end_time_unix_nano),
        )
    long = {trace for trace, (start, end) in durations.items() if end - start > 150}
    assert {one.trace_id for one in run_search(store, "{ traceDuration > 150ns }")} == long
    assert {one.trace_id for one in run_search(store, "{}", min_duration_ns=151)} == long


def test_a_demanded_key_narrows_and_changes_nothing() -> None:
    assert demanded_key(single_filter(parse('{ .a = 1 && resource.service.name = "x" }')).expression) == (
        "service",
        b"x",
    )
    assert demanded_key(single_filter(parse('{ .a = 1 || name = "x" }')).expression) is None
    assert demanded_key(single_filter(parse('{ name = "x" && duration > 1s }')).expression) == ("name", b"x")
    assert demanded_key(single_filter(parse('{ name = "" }')).expression) is None
    assert demanded_key(single_filter(parse('{ trace:id = "3" }')).expression) == ("trace_id", (3).to_bytes(16, "big"))
