"""Received spans and log records as plain read-only objects, for assertions in tests; and trees of them as text.

A span is built from OTLP's own message, so nothing that a client sent is lost on the way: numbers stay numbers, arrays
become tuples, maps read-only mappings. It knows its trace, and through it its parent and children.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.trace.v1 import trace_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES: Final = ("unset", "ok", "error")
TREE_SPANS_MAX: Final = 40
"""Spans of one trace that its text shows."""
DEPTH_MAX: Final = 30
"""How deep a tree is indented; what lies deeper is shown at this depth."""
VALUE_CHARACTERS_MAX: Final = 60
LINE_CHARACTERS_MAX: Final = 160
"""Of a value, and of a span's line: the rest of its attributes is left out."""

Value = Any
"""str, bool, int, float, bytes, None, a tuple of values, or a mapping of names to values."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a span."""

    name: str
    time_ns: int
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Link:
    """A span's link to another. Ids in hex."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """One span. Equal to itself only; ids are in hex, as logs and Grafana show them."""

    name: str
    trace_id: str
    span_id: str
    parent_span_id: str
    """Empty for a root."""
    kind: str
    """`internal`, `server`, `client`, `producer`, `consumer` or `unspecified`."""
    status: str
    """`unset`, `ok` or `error`."""
    status_message: str
    start_ns: int
    """Unix ns."""
    end_ns: int
    attributes: Mapping[str, Value]
    resource: Mapping[str, Value]
    """The resource's attributes."""
    scope: str
    """The name of the instrumentation scope."""
    scope_version: str
    events: tuple[Event, ...]
    links: tuple[Link, ...]
    trace: Trace = field(repr=False)
    """All spans of its trace that have been received."""

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return self.end_ns - self.start_ns

    @property
    def service(self) -> str:
        """The resource's service.name; empty if it has none."""
        return str(self.resource.get("service.name", ""))

    @property
    def parent(self) -> Span | None:
        """The span that it is a child of; None for a root, and when the parent was not received."""
        return self.trace.span(self.parent_span_id) if self.parent_span_id else None

    @property
    def children(self) -> tuple[Span, ...]:
        """Its children, oldest first."""
        return self.trace.children(self.span_id)

    def line(self) -> str:
        """Return it in a line."""
        parts = [self.kind] if self.kind not in ("unspecified", "internal") else []
        parts.append(duration_text(self.duration_ns))
        if self.status != "unset":
            parts.append(f"{self.status}{f': {self.status_message}' if self.status_message else ''}")
        shown = " ".join(f"{key}={_short(value)}" for key, value in self.attributes.items())
        line = f"{self.service or '(no service)'}: {self.name}  [{', '.join(parts)}]{f'  {shown}' if shown else ''}"
        return line if len(line) <= LINE_CHARACTERS_MAX else f"{line[: LINE_CHARACTERS_MAX - 1]}…"


class Trace:
    """The spans of one trace that have been received, oldest first."""

    __slots__ = ("_by_id", "_children", "id", "spans")

    def __init__(self, payload: bytes) -> None:
        """Take an OTLP TracesData with the spans of one trace."""
        found = sorted(_spans(trace_pb2.TracesData.FromString(payload), self), key=lambda span: span.start_ns)
        self.spans: Final = tuple(found)
        self.id: Final = found[0].trace_id if found else ""
        self._by_id: dict[str, Span] = {}
        self._children: dict[str, list[Span]] = {}
        for span in self.spans:
            self._by_id.setdefault(span.span_id, span)
            if span.parent_span_id:
                self._children.setdefault(span.parent_span_id, []).append(span)

    def span(self, span_id: str) -> Span | None:
        """Return the span of that id, in hex."""
        return self._by_id.get(span_id)

    def children(self, span_id: str) -> tuple[Span, ...]:
        """Return the children of the span of that id."""
        return tuple(self._children.get(span_id, ()))

    @property
    def roots(self) -> tuple[Span, ...]:
        """The spans without a parent, and those whose parent was not received."""
        return tuple(span for span in self.spans if span.parent_span_id not in self._by_id)

    def tree(self) -> Iterator[tuple[int, Span]]:
        """Yield every span once, with its depth: parents before children, and what hangs in a cycle last."""
        seen: set[int] = set()
        for start in (*self.roots, *self.spans):
            ahead = [(0, start)]
            while ahead:
                depth, span = ahead.pop()
                if id(span) in seen:
                    continue
                seen.add(id(span))
                yield depth, span
                ahead += [(depth + 1, child) for child in reversed(self.children(span.span_id))]

    def text(self) -> str:
        """Return the tree in lines, spans beyond `TREE_SPANS_MAX` as a number."""
        begin, end = min(one.start_ns for one in self.spans), max(one.end_ns for one in self.spans)
        count = len(self.spans)
        lines = [f"trace {self.id}: {count} span{'' if count == 1 else 's'}, {duration_text(end - begin)}"]
        for number, (depth, span) in enumerate(self.tree()):
            if number == TREE_SPANS_MAX:
                lines.append(f"  … and {count - number} more spans")
                break
            orphan = "(parent not received) " if span.parent_span_id and span.parent is None else ""
            lines.append(f"{'  ' * (min(depth, DEPTH_MAX) + 1)}{orphan}{span.line()}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log record as LogQL sees it: attribute names are label names, and values texts."""

    body: str
    """The line, after what the query made of it."""
    time_ns: int
    """Unix ns."""
    labels: Mapping[str, str]
    """What names its stream, such as `service_name`."""
    attributes: Mapping[str, str]
    """Everything else: its own attributes, severity, ids, scope and the rest of the resource."""

    @property
    def service(self) -> str:
        """The resource's service.name."""
        return self.labels.get("service_name", "")

    @property
    def severity(self) -> str:
        """Its severity text; empty if it has none."""
        return self.attributes.get("severity_text", "")

    @property
    def trace_id(self) -> str:
        """The trace that it belongs to, in hex; empty if there is none."""
        return self.attributes.get("trace_id", "")

    @property
    def span_id(self) -> str:
        """The span that it belongs to, in hex; empty if there is none."""
        return self.attributes.get("span_id", "")

    def line(self) -> str:
        """Return it in a line."""
        return f"{self.service}: [{self.severity or 'no severity'}] {_short(self.body)}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of an answer to a PromQL query."""

    labels: Mapping[str, str]
    value: float

    def line(self) -> str:
        """Return it in a line, as Prometheus writes it."""
        name = self.labels.get("__name__", "")
        labels = ", ".join(f'{key}="{value}"' for key, value in self.labels.items() if key != "__name__")
        return f"{name}{{{labels}}} {self.value:g}"


def _spans(data: trace_pb2.TracesData, trace: Trace) -> Iterator[Span]:
    for envelope in data.resource_spans:
        resource = _mapping(envelope.resource.attributes)
        for scope in envelope.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_span_id=span.parent_span_id.hex(),
                    kind=_named(KINDS, span.kind),
                    status=_named(STATUSES, span.status.code),
                    status_message=span.status.message,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_mapping(span.attributes),
                    resource=resource,
                    scope=scope.scope.name,
                    scope_version=scope.scope.version,
                    events=tuple(Event(one.name, one.time_unix_nano, _mapping(one.attributes)) for one in span.events),
                    links=tuple(
                        Link(one.trace_id.hex(), one.span_id.hex(), _mapping(one.attributes)) for one in span.links
                    ),
                    trace=trace,
                )


def _named(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else str(number)


def _mapping(pairs: Iterable[Any]) -> Mapping[str, Value]:
    return MappingProxyType({pair.key: _value(pair.value) for pair in pairs})


def _value(value: Any) -> Value:
    """Return what an AnyValue holds. As deep as OTLP may nest, which the scanner bounds."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(one) for one in value.array_value.values)
    if kind == "kvlist_value":
        return _mapping(value.kvlist_value.values)
    return getattr(value, kind) if kind is not None else None


def _short(value: Value) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[: VALUE_CHARACTERS_MAX - 1]}…"


def duration_text(ns: int) -> str:
    """Return a duration with three digits and a unit."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if abs(ns) >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"
