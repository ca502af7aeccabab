"""TraceQL's syntax tree: what the parser makes and the evaluation walks.

Nodes are frozen and compare by value; positions (0-based characters of the query) do not count. `str(node)` is
TraceQL again, and parses to an equal tree.

Two levels, as in the language: expressions over the fields of one span (`Literal`, `Attribute`, `Intrinsic`,
`Unary`, `Binary`), and spansets (`Filter`, `SpansetOperation`, `Pipeline` with its stages).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias


class Type(Enum):
    """The static type of an expression. ATTRIBUTE is known only when a span is looked at."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    DURATION = "duration"
    BOOL = "bool"
    STATUS = "status"
    KIND = "kind"
    NIL = "nil"
    ATTRIBUTE = "attribute"


NUMERIC = frozenset({Type.INT, Type.FLOAT, Type.DURATION})

STATUSES = {"unset": 0, "ok": 1, "error": 2}
KINDS = {"unspecified": 0, "internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}

INTRINSICS: dict[str, Type] = {
    "span:duration": Type.DURATION,
    "span:name": Type.STRING,
    "span:kind": Type.KIND,
    "span:status": Type.STATUS,
    "span:statusMessage": Type.STRING,
    "span:id": Type.STRING,
    "span:parentID": Type.STRING,
    "span:childCount": Type.INT,
    "trace:duration": Type.DURATION,
    "trace:rootName": Type.STRING,
    "trace:rootService": Type.STRING,
    "trace:id": Type.STRING,
    "event:name": Type.STRING,
    "event:timeSinceStart": Type.DURATION,
    "link:spanID": Type.STRING,
    "link:traceID": Type.STRING,
    "instrumentation:name": Type.STRING,
    "instrumentation:version": Type.STRING,
    "nestedSetLeft": Type.INT,
    "nestedSetRight": Type.INT,
    "nestedSetParent": Type.INT,
    "parent": Type.NIL,
}
"""Every intrinsic by its scoped name, with its type."""

SHORT_NAMES = {
    "duration": "span:duration",
    "name": "span:name",
    "kind": "span:kind",
    "status": "span:status",
    "statusMessage": "span:statusMessage",
    "childCount": "span:childCount",
    "traceDuration": "trace:duration",
    "rootName": "trace:rootName",
    "rootServiceName": "trace:rootService",
    "nestedSetLeft": "nestedSetLeft",
    "nestedSetRight": "nestedSetRight",
    "nestedSetParent": "nestedSetParent",
    "parent": "parent",
}
"""Unscoped spellings of intrinsics."""
_SHORTEST = {full: short for short, full in SHORT_NAMES.items()}


def _at() -> int:
    """Declare a node's position."""
    return field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant. Durations are integers of nanoseconds; statuses and kinds are OTLP's numbers."""

    type: Type
    value: str | int | float | bool | None
    at: int = _at()

    def __str__(self) -> str:
        match self.type:
            case Type.STRING:
                return quote(str(self.value))
            case Type.DURATION:
                return duration_text(int(self.value or 0))
            case Type.STATUS:
                return next(name for name, number in STATUSES.items() if number == self.value)
            case Type.KIND:
                return next(name for name, number in KINDS.items() if number == self.value)
            case Type.FLOAT:
                return repr(self.value)
            case Type.BOOL:
                return "true" if self.value else "false"
            case Type.NIL:
                return "nil"
            case Type.INT if self.value == -(2**63):
                return "minInt"
            case _:
                return str(self.value)


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute: its scope (span, resource, event, link, instrumentation, or none) and its name.

    `parent` asks the span's parent instead.
    """

    scope: str
    name: str
    parent: bool = False
    at: int = _at()

    type = Type.ATTRIBUTE

    def __str__(self) -> str:
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.\-/]*", self.name) is not None
        prefix = f"parent.{self.scope}" if self.parent else self.scope
        return f"{prefix.rstrip('.')}.{self.name if plain else quote(self.name)}"


@dataclass(frozen=True, slots=True)
class Intrinsic:
    """A field that every span has, by its scoped name."""

    name: str
    at: int = _at()

    @property
    def type(self) -> Type:
        """The field's type."""
        return INTRINSICS[self.name]

    def __str__(self) -> str:
        return _SHORTEST.get(self.name, self.name)


@dataclass(frozen=True, slots=True)
class Unary:
    """`-x` or `!x`."""

    op: str
    operand: Expression
    at: int = _at()

    @property
    def type(self) -> Type:
        """Bool for `!`, else the operand's."""
        return Type.BOOL if self.op == "!" else self.operand.type

    def __str__(self) -> str:
        return f"{self.op}{_wrapped(self.operand)}"


COMPARISONS = ("=", "!=", "<", "<=", ">", ">=", "=~", "!~")
ARITHMETIC = ("+", "-", "*", "/", "%", "^")
LOGICAL = ("&&", "||")


def result_type(op: str, left: Type, right: Type) -> Type:
    """Return the type of arithmetic over two types."""
    kinds = {left, right}
    if Type.ATTRIBUTE in kinds:
        return Type.ATTRIBUTE
    if op == "/" and kinds == {Type.DURATION}:
        return Type.FLOAT
    return Type.DURATION if Type.DURATION in kinds else Type.FLOAT if Type.FLOAT in kinds else Type.INT


def _wrapped(node: Expression) -> str:
    """Write an operand, in parentheses where it is an operation."""
    return f"({node})" if isinstance(node, Binary | Unary) else str(node)


@dataclass(frozen=True, slots=True)
class Binary:
    """A comparison, a logical operation or arithmetic over the fields of one span."""

    op: str
    left: Expression
    right: Expression
    at: int = _at()
    type: Type = field(init=False, compare=False, repr=False)
    """Bool, but for arithmetic. Kept: to ask anew at every level would take time with the square of a query's height."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "type", self._type())

    def _type(self) -> Type:
        if self.op not in ARITHMETIC:
            return Type.BOOL
        return result_type(self.op, self.left.type, self.right.type)

    def __str__(self) -> str:
        return f"{_wrapped(self.left)} {self.op} {_wrapped(self.right)}"


Expression: TypeAlias = Literal | Attribute | Intrinsic | Unary | Binary

STRUCTURAL = (">>", ">", "<<", "<", "~", "!>>", "!>", "!<<", "!<", "!~", "&>>", "&>", "&<<", "&<", "&~")


@dataclass(frozen=True, slots=True)
class Filter:
    """`{ … }`: the spans for which an expression is true; all of them without one."""

    expression: Expression | None
    at: int = _at()

    def __str__(self) -> str:
        return "{ }" if self.expression is None else f"{{ {self.expression} }}"


@dataclass(frozen=True, slots=True)
class SpansetOperation:
    """Two spansets of one trace, joined by `&&`, `||` or a structural operator."""

    op: str
    left: Spanset
    right: Spanset
    at: int = _at()

    def __str__(self) -> str:
        return f"({self.left}) {self.op} ({self.right})"


@dataclass(frozen=True, slots=True)
class Aggregate:
    """`count()`, or `min`, `max`, `avg`, `sum` of an expression over a spanset."""

    op: str
    expression: Expression | None
    at: int = _at()

    def __str__(self) -> str:
        return f"{self.op}({self.expression if self.expression is not None else ''})"


@dataclass(frozen=True, slots=True)
class ScalarOperation:
    """Arithmetic over aggregates and constants."""

    op: str
    left: Scalar
    right: Scalar
    at: int = _at()

    def __str__(self) -> str:
        return f"({self.left} {self.op} {self.right})"


Scalar: TypeAlias = Aggregate | ScalarOperation | Literal


@dataclass(frozen=True, slots=True)
class ScalarFilter:
    """`| count() > 2`: the spansets for which a comparison of scalars holds."""

    op: str
    left: Scalar
    right: Scalar
    at: int = _at()

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"


@dataclass(frozen=True, slots=True)
class GroupBy:
    """`| by(expression)`."""

    expression: Expression
    at: int = _at()

    def __str__(self) -> str:
        return f"by({self.expression})"


@dataclass(frozen=True, slots=True)
class Coalesce:
    """`| coalesce()`."""

    at: int = _at()

    def __str__(self) -> str:
        return "coalesce()"


@dataclass(frozen=True, slots=True)
class Select:
    """`| select(field, …)`."""

    fields: tuple[Expression, ...]
    at: int = _at()

    def __str__(self) -> str:
        return f"select({', '.join(map(str, self.fields))})"


@dataclass(frozen=True, slots=True)
class Metrics:
    """A metrics function: `rate()`, `quantile_over_time(duration, .9) by (name)`, `compare({…}, 10)`, …"""

    op: str
    arguments: tuple[Expression | Filter, ...]
    by: tuple[Expression, ...] = ()
    at: int = _at()

    def __str__(self) -> str:
        text = f"{self.op}({', '.join(map(str, self.arguments))})"
        return f"{text} by ({', '.join(map(str, self.by))})" if self.by else text


@dataclass(frozen=True, slots=True)
class MetricsFilter:
    """A comparison behind a metrics function: `| rate() > 10`."""

    op: str
    value: Literal
    at: int = _at()

    def __str__(self) -> str:
        return f"{self.op} {self.value}"


@dataclass(frozen=True, slots=True)
class SeriesArithmetic:
    """`( … | rate()) / ( … | rate())`: series and numbers, sample by sample."""

    op: str
    left: SeriesOperand
    right: SeriesOperand
    at: int = _at()

    def __str__(self) -> str:
        sides = (str(one) if isinstance(one, Literal) else f"({one})" for one in (self.left, self.right))
        return f" {self.op} ".join(sides)


SeriesOperand: TypeAlias = "Pipeline | SeriesArithmetic | Literal"
Stage: TypeAlias = (
    "Filter | SpansetOperation | ScalarFilter | GroupBy | Coalesce | Select | Metrics | MetricsFilter | SeriesArithmetic"
    " | Pipeline"
)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stages joined by `|`; the first yields spansets, each other one changes them."""

    stages: tuple[Stage, ...]
    at: int = _at()

    def __str__(self) -> str:
        text = ""
        for stage in self.stages:
            text += f" {stage}" if isinstance(stage, MetricsFilter) else f" | {stage}" if text else str(stage)
        return text


Spanset: TypeAlias = Filter | SpansetOperation | Pipeline


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query, with its hints: `with (sample=true)`."""

    pipeline: Pipeline
    hints: tuple[tuple[str, Literal], ...] = ()

    def __str__(self) -> str:
        hints = ", ".join(f"{name}={value}" for name, value in self.hints)
        return f"{self.pipeline} with ({hints})" if hints else str(self.pipeline)


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def quote(text: str) -> str:
    """Write a string literal."""
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'


def duration_text(nanoseconds: int) -> str:
    """Write a duration as Go and Tempo do: `86ms`, `1.5s`, `1h0m0s`."""
    amount = abs(nanoseconds)
    sign = "-" if nanoseconds < 0 else ""
    for unit, size in (("ns", 10**3), ("µs", 10**6), ("ms", 10**9)):
        if amount < size:
            return f"{sign}{_decimal(amount, size // 10**3)}{unit}" if amount else "0s"
    minutes, rest = divmod(amount, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    whole = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{whole}{_decimal(rest, 10**9)}s"


def _decimal(amount: int, size: int) -> str:
    """Write an amount of parts, of which `size` are one."""
    whole, part = divmod(amount, size)
    return f"{whole}.{part:0{len(str(size)) - 1}}".rstrip("0").rstrip(".") if part else str(whole)
