"""PromQL's syntax tree.

Nodes are frozen and compare by value; positions (0-based characters of the query) do not count. Every expression
knows its `type`; `str(node)` is PromQL again, and parses to an equal tree. Durations are integers of milliseconds.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator


class Type(Enum):
    """What an expression evaluates to."""

    SCALAR = "scalar"
    VECTOR = "instant vector"
    MATRIX = "range vector"
    STRING = "string"


LABEL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
METRIC_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")


def _at() -> int:
    """Declare a node's position."""
    return field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: float
    at: int = _at()

    type = Type.SCALAR

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and (
            self.value == other.value or (math.isnan(self.value) and math.isnan(other.value))
        )

    def __hash__(self) -> int:
        return hash(self.value) if not math.isnan(self.value) else 0

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "NaN"
        if math.isinf(self.value):
            return "Inf" if self.value > 0 else "-Inf"
        return repr(self.value)


@dataclass(frozen=True, slots=True)
class String:
    """A string."""

    value: str
    at: int = _at()

    type = Type.STRING

    def __str__(self) -> str:
        return quote(self.value)


@dataclass(frozen=True, slots=True)
class Matcher:
    """A condition on a label; the metric's name is the label `__name__`."""

    name: str
    op: str
    value: str

    def __str__(self) -> str:
        name = self.name if LABEL_NAME.fullmatch(self.name) else quote(self.name)
        return f"{name}{self.op}{quote(self.value)}"


@dataclass(frozen=True, slots=True)
class Shift:
    """`offset` (ms) and `@`: a time in ms, `start`, `end`, or None."""

    offset_ms: int = 0
    at_time: int | str | None = None

    def __str__(self) -> str:
        text = ""
        if isinstance(self.at_time, int):
            text = f" @ {self.at_time / 1000:.3f}"
        elif self.at_time is not None:
            text = f" @ {self.at_time}()"
        if self.offset_ms:
            text += f" offset {duration_text(self.offset_ms)}"
        return text


@dataclass(frozen=True, slots=True)
class VectorSelector:
    """`name{label="value"}`, perhaps shifted in time."""

    matchers: tuple[Matcher, ...]
    shift: Shift = Shift()
    at: int = _at()

    type = Type.VECTOR

    def selector_text(self) -> str:
        """The selector without its shift."""
        names = [one for one in self.matchers if one.name == "__name__" and one.op == "="]
        if len(names) == 1 and METRIC_NAME.fullmatch(names[0].value):
            others = ", ".join(str(one) for one in self.matchers if one is not names[0])
            return f"{names[0].value}{{{others}}}" if others else names[0].value
        return f"{{{', '.join(map(str, self.matchers))}}}"

    def __str__(self) -> str:
        return f"{self.selector_text()}{self.shift}"


@dataclass(frozen=True, slots=True)
class MatrixSelector:
    """A selector over a range of time, in ms."""

    selector: VectorSelector
    range_ms: int
    at: int = _at()

    type = Type.MATRIX

    def __str__(self) -> str:
        return f"{self.selector.selector_text()}[{duration_text(self.range_ms)}]{self.selector.shift}"


@dataclass(frozen=True, slots=True)
class Subquery:
    """`expression[range:step]`; a step of 0 is the default."""

    expression: Expression
    range_ms: int
    step_ms: int
    shift: Shift = Shift()
    at: int = _at()

    type = Type.MATRIX

    def __str__(self) -> str:
        step = duration_text(self.step_ms) if self.step_ms else ""
        return f"({self.expression})[{duration_text(self.range_ms)}:{step}]{self.shift}"


@dataclass(frozen=True, slots=True)
class Call:
    """A function call."""

    function: str
    arguments: tuple[Expression, ...]
    type: Type
    at: int = _at()

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, slots=True)
class Aggregation:
    """`sum by (label) (expression)`; `grouping` is None when there is no clause."""

    op: str
    expression: Expression
    parameter: Expression | None = None
    grouping: tuple[str, ...] | None = None
    without: bool = False
    at: int = _at()

    type = Type.VECTOR

    def __str__(self) -> str:
        inner = f"{self.parameter}, {self.expression}" if self.parameter is not None else str(self.expression)
        if self.grouping is None:
            return f"{self.op}({inner})"
        return f"{self.op} {'without' if self.without else 'by'} ({_labels(self.grouping)}) ({inner})"


@dataclass(frozen=True, slots=True)
class Matching:
    """How the two sides of a vector operation find each other."""

    labels: tuple[str, ...] = ()
    on: bool = False
    group: str = ""
    """`left` or `right` for many-to-one, else empty."""
    include: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f" {'on' if self.on else 'ignoring'} ({_labels(self.labels)})" if self.on or self.labels else ""
        return f"{text} group_{self.group} ({_labels(self.include)})" if self.group else text


@dataclass(frozen=True, slots=True)
class Binary:
    """Arithmetic, a comparison, or a set operation."""

    op: str
    left: Expression
    right: Expression
    returns_bool: bool = False
    matching: Matching = Matching()
    at: int = _at()

    @property
    def type(self) -> Type:
        """A scalar when both sides are."""
        both = self.left.type is Type.SCALAR and self.right.type is Type.SCALAR
        return Type.SCALAR if both else Type.VECTOR

    def __str__(self) -> str:
        return f"({self.left} {self.op}{' bool' if self.returns_bool else ''}{self.matching} {self.right})"


@dataclass(frozen=True, slots=True)
class Negation:
    """Unary minus."""

    expression: Expression
    at: int = _at()

    @property
    def type(self) -> Type:
        """The operand's."""
        return self.expression.type

    def __str__(self) -> str:
        return f"-({self.expression})"


Expression: TypeAlias = (
    Number | String | VectorSelector | MatrixSelector | Subquery | Call | Aggregation | Binary | Negation
)


def selectors(expression: Expression) -> Iterator[VectorSelector]:
    """Yield every selector in an expression."""
    waiting = [expression]
    while waiting:
        match waiting.pop():
            case VectorSelector() as one:
                yield one
            case MatrixSelector() as one:
                yield one.selector
            case Subquery() | Negation() as one:
                waiting.append(one.expression)
            case Call() as one:
                waiting += one.arguments
            case Aggregation() as one:
                waiting += [one.expression] if one.parameter is None else [one.expression, one.parameter]
            case Binary() as one:
                waiting += [one.left, one.right]


_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def duration_text(milliseconds: int) -> str:
    """Write a duration as PromQL reads it."""
    if not milliseconds:
        return "0s"
    text = "-" if milliseconds < 0 else ""
    left = abs(milliseconds)
    for unit, size in _UNITS:
        if left >= size:
            text += f"{left // size}{unit}"
            left %= size
    return text


def quote(text: str) -> str:
    """Write a string literal."""
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'


def _labels(names: tuple[str, ...]) -> str:
    return ", ".join(name if LABEL_NAME.fullmatch(name) else quote(name) for name in names)
