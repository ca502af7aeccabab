"""Traces for comparing two servers: drawn trees of every shape, and a random shop with attributes of every type.

A tree is drawn as text: `a(b c(d))` is a span named a with the children b and c, and d below c. The name is the span's
attribute `l` too. Trees of one trace stand beside each other. Before a name, `?` says that the span's parent was never
sent; behind it, `=3` gives the span's id, `^3` its parent's id, where the drawing is not enough (cycles, ids that come
twice).

All times lie in the ten minutes before `at`, and ids follow from `at` and the trace's number, so that the same `at`
makes the same bytes, and a server that has answered for one `at` can be sent another.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final, TypeAlias

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

Value: TypeAlias = "bool | int | float | str | bytes | list[Value] | dict[str, Value] | None"

SPAN_S: Final = 600
"""Seconds before `at` over which the spans are strewn."""
SHOP_TRACES: Final = 120
SECOND: Final = 1_000_000_000
_ZEROS: Final = 1000
"""The trace whose span ids begin with zeros."""

TREES: Final = {
    "one span": "a",
    "a pair": "a(b)",
    "a pair, the other way": "b(a)",
    "the same twice": "a(a)",
    "a chain of three": "a(c(b))",
    "a chain back": "b(c(a))",
    "in turns": "a(b(a(b(a(b)))))",
    "a long chain": "a(" + "c(" * 40 + "b" + ")" * 41,
    "siblings": "c(a b)",
    "siblings, the other way": "c(b a)",
    "siblings of their kind": "c(a a a)",
    "siblings and a stranger": "c(a b c)",
    "cousins": "c(c(a) c(b))",
    "uncle": "c(a c(b))",
    "nephew": "c(b c(a))",
    "a wide one": "a(" + " ".join("bc" * 20) + ")",
    "a comb": "a(b c(b a c(b a c(b a))))",
    "a full tree": "a(b(a(b a) b(c c)) c(a(b b) b(a a)))",
    "two roots": "a b",
    "two roots of a kind": "a a",
    "two roots with children": "a(b) b(a)",
    "three roots": "a(c) b(c) c(a b)",
    "root with three": "r(a b(a) a(b(b)))",
    "an orphan": "?a",
    "an orphan with a child": "?a(b)",
    "orphans of one parent": "?a^77 ?b^77",
    "orphans of two parents": "?a^77 ?b^78",
    "a root and an orphan": "a(b) ?b(a)",
    "a root and orphans of one parent": "c(c) ?a^77 ?b^77(a)",
    "a deep orphan": "a(b) ?c(a(b(a)))",
    "two orphan subtrees": "?a(b(a)) ?b(a b)",
    "its own parent": "a(b) b=50^50",
    "its own parent, with children": "a=50^50(b(a))",
    "a cycle of two": "a=50^51 b=51^50",
    "a cycle of two beside a root": "c(a b) a=50^51 b=51^50",
    "a cycle of three with a tail": "a=50^52 b=51^50(a(b)) c=52^51",
    "an id twice, two kinds, children": "c(a=50 b=50 b^50 a^50)",
    "an id twice, server and client": "c(a=50 a=50(b))",
    "an id twice, far apart": "c(a=50(c) c(b=50(a)))",
}
"""Drawn trees by their names."""
_DEFORMITIES: Final = (
    ("an id twice", re.compile("twice,")),
    ("a cycle", re.compile("cycle|own parent")),
    ("a lost parent", re.compile("orphan")),
    ("several roots", re.compile("roots|root with")),
)

_TOKEN = re.compile(r"\s*(?:([()])|(\??)([a-z])(?:=(\d+))?(?:\^(\d+))?)")


@dataclass(frozen=True, slots=True)
class Trace:
    """One trace: what it is called in a report, its id in hex, and its spans with what they came from."""

    title: str
    trace_id: str
    resources: list[ResourceSpans]

    @property
    def spans(self) -> Iterator[Span]:
        """All spans."""
        for resource in self.resources:
            for scope in resource.scope_spans:
                yield from scope.spans


def woods(at: int) -> list[Trace]:
    """Return all traces of the ten minutes before `at` (Unix seconds)."""
    trees = [_tree(title, text, at, number) for number, (title, text) in enumerate(TREES.items(), 1)]
    chance = Random(f"shop {at % SPAN_S}")
    return trees + [_visit(chance, at, 1000 + number) for number in range(SHOP_TRACES)]


def requests(traces: list[Trace], size: int = 20) -> Iterator[bytes]:
    """Serialize the traces, each whole, so many in a request."""
    for begin in range(0, len(traces), size):
        request = ExportTraceServiceRequest()
        for trace in traces[begin : begin + size]:
            request.resource_spans.extend(trace.resources)
        yield request.SerializeToString()


def any_value(value: Value) -> AnyValue:
    """Return a value as OTLP has it."""
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
        case bytes():
            return AnyValue(bytes_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=[any_value(one) for one in value]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))


def key_values(pairs: dict[str, Value]) -> list[KeyValue]:
    """Return attributes as OTLP has them."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in pairs.items()]


def shape(title: str) -> str:
    """Tell what is unusual about a trace's tree; `a tree`, if nothing is."""
    return next((name for name, pattern in _DEFORMITIES if pattern.search(title)), "a tree")


def _trace_id(at: int, number: int) -> bytes:
    return b"\x77" + at.to_bytes(5, "big") + bytes(8) + number.to_bytes(2, "big")


def _span_id(number: int, place: int) -> bytes:
    zeros = b"\x00\x0b" if number == _ZEROS else b"\x5a\x0b"
    return zeros + bytes(2) + (number * 1000 + place).to_bytes(4, "big")


def _resource(
    attributes: dict[str, Value], scope: str = "woods", version: str = "1.0"
) -> tuple[ResourceSpans, ScopeSpans]:
    resource = ResourceSpans()
    resource.resource.attributes.extend(key_values(attributes))
    spans = resource.scope_spans.add()
    spans.scope.name, spans.scope.version = scope, version
    return resource, spans


def _tree(title: str, text: str, at: int, number: int) -> Trace:
    resource, scope = _resource({"service.name": "woods", "tree": title})
    begin = (at - 300) * SECOND + number * SECOND
    ids = itertools.count(1)
    path: list[int] = []
    last = 0
    for match in _TOKEN.finditer(text):
        bracket, orphan, name, own, parent = match.groups()
        if bracket == "(":
            path.append(last)
        elif bracket == ")":
            path.pop()
        else:
            place = next(ids)
            last = int(own) if own else place
            above = int(parent) if parent else 99 if orphan else path[-1] if path else 0
            scope.spans.add(
                trace_id=_trace_id(at, number),
                span_id=_span_id(number, last),
                parent_span_id=_span_id(number, above) if above else b"",
                name=name,
                kind=Span.SPAN_KIND_SERVER if place % 2 else Span.SPAN_KIND_CLIENT,
                start_time_unix_nano=begin + place * 1_000_000,
                end_time_unix_nano=begin + 90_000_000 - place * 1_000_000,
                attributes=key_values({"l": name, "place": place}),
            )
    return Trace(title, _trace_id(at, number).hex(), [resource])


_CODES = (*[Status.STATUS_CODE_UNSET] * 3, Status.STATUS_CODE_OK, Status.STATUS_CODE_ERROR)
_SERVICES = ("gateway", "orders", "payments", "stock")
_ODD: Final[tuple[dict[str, Value], ...]] = (
    {},
    {"n": 1, "f": 1.0, "s": "1", "flag": True, "any": 1},
    {"n": 2, "f": 2.5, "s": "", "flag": False, "any": 1.0},
    {"n": -7, "f": -0.5, "s": "Grüße, 世界", "flag": True, "any": "1"},
    {"n": 2**63 - 1, "f": 1e300, "s": 'a "quoted" \\ text', "flag": False, "any": True},
    {"n": -(2**63), "f": 0.0, "s": "line\nbreak", "any": 2},
    {"n": 5, "f": 0.25, "s": "one", "any": 2.5},
    {"list": ["x", "y"], "ints": [1, 2, 3], "mixed": ["x", 1], "flags": [True, False], "floats": [0.5, 1.5]},
    {"list": ["y", "z"], "ints": [3, 4], "floats": [1.0]},
    {"list": [], "ints": 3, "one": ["x"]},
    {"list": "x", "ints": [0], "one": "x", "flags": False},
    {"raw": b"\x00\x01", "map": {"k": "v"}, "nothing": None},
    {"with space": "yes", "dotted.name.here": "deep", 'with"quote': "q", "UPPER": "Upper"},
    {"service.name": "from the span", "region": "span"},
    {"region": 7},
)


def _visit(chance: Random, at: int, number: int) -> Trace:
    """One visit to a shop: a tree of up to a dozen spans over up to four services."""
    trace_id = _trace_id(at, number)
    begin = (at - SPAN_S) * SECOND + chance.randrange(0, (SPAN_S - 10) * 1000) * 1_000_000
    homes = {}
    for service in _SERVICES:
        attributes: dict[str, Value] = {"service.name": service, "replicas": _SERVICES.index(service)}
        if service != "stock":
            attributes |= {"region": chance.choice(["eu", "us"]), "deployment.environment": "production"}
        homes[service] = _resource(attributes, f"lib/{service}", chance.choice(["1.0", "2.0"]))
        if service == "orders":
            homes[service][1].scope.attributes.extend(key_values({"language": "python", "level": 3}))
    spans: list[Span] = []
    for place in range(chance.randint(1, 12)):
        parent = chance.choice(spans) if spans else None
        service = "gateway" if parent is None else chance.choice(_SERVICES)
        start = begin if parent is None else parent.start_time_unix_nano + chance.randrange(0, 50) * 1_000_000
        span = homes[service][1].spans.add(
            trace_id=trace_id,
            span_id=_span_id(number, place + 1),
            parent_span_id=parent.span_id if parent else b"",
            name=f"{chance.choice(['GET', 'POST'])} /{service}" if place % 3 else service,
            kind=chance.choice(list(Span.SpanKind.values())),
            start_time_unix_nano=start,
            end_time_unix_nano=start
            + chance.choice([0, 1, 999, 1_000_000, 5_000_000, 10_000_000, 70_000_000, 2 * SECOND]),
        )
        span.status.code = chance.choice(_CODES)
        if span.status.code == Status.STATUS_CODE_ERROR:
            span.status.message = chance.choice(["", "timeout", "no such item"])
        _adorn(chance, span)
        spans.append(span)
    return Trace(f"visit {number}", trace_id.hex(), [resource for resource, home in homes.values() if home.spans])


def _adorn(chance: Random, span: Span) -> None:
    attributes: dict[str, Value] = dict(chance.choice(_ODD))
    if chance.random() < 0.6:
        attributes["http.method"] = chance.choice(["GET", "POST", "DELETE"])
        attributes["http.status_code"] = chance.choice([200, 200, 201, 404, 500])
        attributes["code"] = chance.choice([200, 404, "404", "500"])
        attributes["size"] = chance.choice([0, 10, 100, 1000, 4096])
    span.attributes.extend(key_values(attributes))
    for _ in range(chance.choice([0, 0, 1, 2])):
        event = span.events.add(
            time_unix_nano=span.start_time_unix_nano + chance.choice([0, 1_000_000, 3_000_000, 10_000_000]),
            name=chance.choice(["exception", "retry", "cache miss"]),
        )
        if event.name == "exception":
            kind = chance.choice(["OSError", "ValueError"])
            event.attributes.extend(key_values({"exception.type": kind, "exception.message": f"{kind}: it broke"}))
        else:
            event.attributes.extend(key_values({"attempt": chance.randint(1, 3)}))
    if chance.random() < 0.2:
        link = span.links.add(
            trace_id=b"\x4c" + bytes(14) + bytes([chance.randint(1, 3)]), span_id=b"\x4d" + bytes(6) + b"\x09"
        )
        link.attributes.extend(key_values({"opentracing.ref_type": chance.choice(["child_of", "follows_from"])}))
