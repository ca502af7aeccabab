"""LogQL's syntax tree: one frozen class for each thing that the language can say.

`str(node)` is LogQL that parses back to an equal node. `at`, where a node stands in the query (0-based
character), is for messages and takes no part in equality. Durations are int nanoseconds, sizes int bytes.

A query is a `LogQuery` (its answer is lines) or a `Metric` (its answer is numbers):

    LogQuery            {a="b"} | stage | stage
      Selector, Matcher
      Stage             LineFilter, LabelStage (a LabelFilter), Json, Logfmt, Pattern, Regexp, Unpack,
                        LineFormat, LabelFormat, Decolorize, Drop, Keep, Unwrap
      LabelFilter       Matcher, NumberFilter, DurationFilter, SizeFilter, AddressFilter, And, Or
    Metric              Number, Constant, RangeAggregation (over a LogRange), VectorAggregation, Binary,
                        LabelReplace

The tree holds the whole language; what is evaluated is the evaluator's matter (`plan.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from collector.query.logql.literals import duration_text, number_text, quote, size_text


def _names(names: tuple[str, ...]) -> str:
    return f"({', '.join(names)})"


@dataclass(frozen=True, slots=True)
class Matcher:
    """`label op "value"` with op one of `=`, `!=`, `=~`, `!~`.

    A label that is absent has an empty value; a regular expression must match the whole value.
    """

    label: str
    op: str
    value: str
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.label}{self.op}{quote(self.value)}"


@dataclass(frozen=True, slots=True)
class Selector:
    """`{matcher, …}`: the streams whose index labels meet every matcher."""

    matchers: tuple[Matcher, ...]
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.matchers)) + "}"


# Label filters: conditions on one line's labels. A `Matcher` is one of them.


@dataclass(frozen=True, slots=True)
class NumberFilter:
    """`label op 1.5` with op one of `==`, `!=`, `>`, `>=`, `<`, `<=`."""

    label: str
    op: str
    value: float
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.label} {self.op} {number_text(self.value)}"


@dataclass(frozen=True, slots=True)
class DurationFilter:
    """`label op 20ms`; `value` in nanoseconds."""

    label: str
    op: str
    value: int
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.label} {self.op} {duration_text(self.value)}"


@dataclass(frozen=True, slots=True)
class SizeFilter:
    """`label op 20KB`; `value` in bytes."""

    label: str
    op: str
    value: int
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.label} {self.op} {size_text(self.value)}"


@dataclass(frozen=True, slots=True)
class AddressFilter:
    """`label op ip("range")` with op `=` or `!=`: an address, a range `a-b` or a CIDR block."""

    label: str
    op: str
    value: str
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.label}{self.op}ip({quote(self.value)})"


@dataclass(frozen=True, slots=True)
class And:
    """`a and b`, `a, b` or `a b`: at least two conditions that must all hold."""

    terms: tuple[LabelFilter, ...]

    def __str__(self) -> str:
        return " and ".join(f"({term})" if isinstance(term, And | Or) else str(term) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Or:
    """`a or b`: at least two conditions of which one must hold."""

    terms: tuple[LabelFilter, ...]

    def __str__(self) -> str:
        return " or ".join(f"({term})" if isinstance(term, Or) else str(term) for term in self.terms)


LabelFilter = Matcher | NumberFilter | DurationFilter | SizeFilter | AddressFilter | And | Or
"""A condition on one line's labels."""


# Stages of a pipeline.


@dataclass(frozen=True, slots=True)
class LineOperand:
    """What a line filter looks for: a text, an expression, a pattern, or an `address` range, `ip("…")`."""

    value: str
    address: bool = False

    def __str__(self) -> str:
        return f"ip({quote(self.value)})" if self.address else quote(self.value)


@dataclass(frozen=True, slots=True)
class LineFilter:
    """`|= "a" or "b"` and its kin: op one of `|=`, `!=`, `|~`, `!~`, `|>`, `!>`.

    The positive ops keep a line that has one of the operands, the negative ones a line that has none of them.
    """

    op: str
    operands: tuple[LineOperand, ...]
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.op} {' or '.join(map(str, self.operands))}"


@dataclass(frozen=True, slots=True)
class LabelStage:
    """`| condition`: keep the lines whose labels meet it."""

    condition: LabelFilter
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| {self.condition}"


@dataclass(frozen=True, slots=True)
class Extraction:
    """`label="path"` among a parser's arguments; the bare `label` is `label="label"`."""

    label: str
    path: str

    def __str__(self) -> str:
        return f"{self.label}={quote(self.path)}"


def _arguments(extractions: tuple[Extraction, ...]) -> str:
    return f" {', '.join(map(str, extractions))}" if extractions else ""


@dataclass(frozen=True, slots=True)
class Json:
    """`| json [label="path", …]`."""

    extractions: tuple[Extraction, ...] = ()
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| json{_arguments(self.extractions)}"


@dataclass(frozen=True, slots=True)
class Logfmt:
    """`| logfmt [--strict] [--keep-empty] [label="field", …]`."""

    strict: bool = False
    keep_empty: bool = False
    extractions: tuple[Extraction, ...] = ()
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        flags = (" --strict" if self.strict else "") + (" --keep-empty" if self.keep_empty else "")
        return f"| logfmt{flags}{_arguments(self.extractions)}"


@dataclass(frozen=True, slots=True)
class Pattern:
    """`| pattern "<name> literal <_>"`."""

    pattern: str
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| pattern {quote(self.pattern)}"


@dataclass(frozen=True, slots=True)
class Regexp:
    """`| regexp "(?P<name>re)"`."""

    pattern: str
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| regexp {quote(self.pattern)}"


@dataclass(frozen=True, slots=True)
class Unpack:
    """`| unpack`."""

    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return "| unpack"


@dataclass(frozen=True, slots=True)
class LineFormat:
    """`| line_format "template"`."""

    template: str
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| line_format {quote(self.template)}"


@dataclass(frozen=True, slots=True)
class LabelAssignment:
    """`label=source` (rename) or, with `template`, `label="template"`."""

    label: str
    source: str
    template: bool

    def __str__(self) -> str:
        return f"{self.label}={quote(self.source) if self.template else self.source}"


@dataclass(frozen=True, slots=True)
class LabelFormat:
    """`| label_format a=b, c="template"`."""

    assignments: tuple[LabelAssignment, ...]
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| label_format {', '.join(map(str, self.assignments))}"


@dataclass(frozen=True, slots=True)
class Decolorize:
    """`| decolorize`."""

    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return "| decolorize"


@dataclass(frozen=True, slots=True)
class Drop:
    """`| drop label, label="value", …`: take labels away; one with a matcher only where its value matches."""

    labels: tuple[str | Matcher, ...]
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| drop {', '.join(map(str, self.labels))}"


@dataclass(frozen=True, slots=True)
class Keep:
    """`| keep label, label="value", …`: take all other labels away."""

    labels: tuple[str | Matcher, ...]
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| keep {', '.join(map(str, self.labels))}"


@dataclass(frozen=True, slots=True)
class Unwrap:
    """`| unwrap label` or `| unwrap conversion(label)`: the label's value is the sample of a `LogRange`."""

    label: str
    conversion: str = ""
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"| unwrap {self.conversion}({self.label})" if self.conversion else f"| unwrap {self.label}"


Stage = (
    LineFilter
    | LabelStage
    | Json
    | Logfmt
    | Pattern
    | Regexp
    | Unpack
    | LineFormat
    | LabelFormat
    | Decolorize
    | Drop
    | Keep
    | Unwrap
)
"""One step of a pipeline."""


@dataclass(frozen=True, slots=True)
class LogQuery:
    """`{selector} stage …`: lines, filtered and rewritten from left to right."""

    selector: Selector
    stages: tuple[Stage, ...] = ()

    @property
    def at(self) -> int:
        """Where the query begins."""
        return self.selector.at

    def __str__(self) -> str:
        return " ".join(map(str, (self.selector, *self.stages)))


@dataclass(frozen=True, slots=True)
class LogRange:
    """`query [range] @ … offset …`: the lines of a window of `range_ns`, moved `offset_ns` into the past."""

    query: LogQuery
    range_ns: int
    offset_ns: int = 0
    fixed: int | str | None = None
    """`@`: where the window of every step ends before it is moved, Unix ms, or `start` or `end` of the query."""

    def __str__(self) -> str:
        offset = f" offset {duration_text(self.offset_ns)}" if self.offset_ns else ""
        fixed = ""
        if isinstance(self.fixed, str):
            fixed = f" @ {self.fixed}()"
        elif self.fixed is not None:
            fixed = f" @ {'-' if self.fixed < 0 else ''}{abs(self.fixed) // 1000}.{abs(self.fixed) % 1000:03d}"
        return f"{self.query} [{duration_text(self.range_ns)}]{fixed}{offset}"


# Metric expressions.


@dataclass(frozen=True, slots=True)
class Grouping:
    """`by (labels)`, or with `without` everything but them."""

    without: bool
    labels: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'without' if self.without else 'by'} {_names(self.labels)}"


@dataclass(frozen=True, slots=True)
class Number:
    """A number: a scalar."""

    value: float
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return number_text(self.value)


@dataclass(frozen=True, slots=True)
class Constant:
    """`vector(1)`: one series without labels."""

    value: float
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return f"vector({number_text(self.value)})"


@dataclass(frozen=True, slots=True)
class RangeAggregation:
    """`op(range)`, such as `rate({a="b"} [5m])`; `parameter` is quantile_over_time's."""

    op: str
    range: LogRange
    parameter: float | None = None
    grouping: Grouping | None = None
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        parameter = "" if self.parameter is None else f"{number_text(self.parameter)}, "
        grouping = f" {self.grouping}" if self.grouping else ""
        return f"{self.op}({parameter}{self.range}){grouping}"


@dataclass(frozen=True, slots=True)
class VectorAggregation:
    """`op by (labels) (expression)`; `parameter` is topk's, bottomk's and approx_topk's."""

    op: str
    expression: Metric
    parameter: float | None = None
    grouping: Grouping | None = None
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        parameter = "" if self.parameter is None else f"{number_text(self.parameter)}, "
        grouping = f" {self.grouping} " if self.grouping else ""
        return f"{self.op}{grouping}({parameter}{self.expression})"


@dataclass(frozen=True, slots=True)
class Matching:
    """How a binary operation finds pairs: `on (…)` or `ignoring (…)`, `group_left (…)` or `group_right`."""

    on: bool
    labels: tuple[str, ...]
    group: str = ""
    """`left`, `right`, or nothing for one to one."""
    include: tuple[str, ...] = ()

    def __str__(self) -> str:
        group = f" group_{self.group} {_names(self.include)}" if self.group else ""
        return f"{'on' if self.on else 'ignoring'} {_names(self.labels)}{group}"


@dataclass(frozen=True, slots=True)
class Binary:
    """`left op right`; `returns_bool` is the modifier `bool` of comparisons."""

    op: str
    left: Metric
    right: Metric
    returns_bool: bool = False
    matching: Matching | None = None
    at: int = field(default=0, compare=False, repr=False)
    """Where the operator stands."""

    def __str__(self) -> str:
        own = PRECEDENCE[self.op]
        left = f"({self.left})" if _binds(self.left) < own + (self.op == "^") else str(self.left)
        right = f"({self.right})" if _binds(self.right) < own + (self.op != "^") else str(self.right)
        modifier = (" bool" if self.returns_bool else "") + (f" {self.matching}" if self.matching else "")
        return f"{left} {self.op}{modifier} {right}"


@dataclass(frozen=True, slots=True)
class LabelReplace:
    """`label_replace(expression, "target", "replacement", "source", "regex")`."""

    expression: Metric
    target: str
    replacement: str
    source: str
    regex: str
    at: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        texts = ", ".join(map(quote, (self.target, self.replacement, self.source, self.regex)))
        return f"label_replace({self.expression}, {texts})"


Metric = Number | Constant | RangeAggregation | VectorAggregation | Binary | LabelReplace
"""An expression whose answer is numbers."""

Expression = LogQuery | Metric
"""A whole query."""

PRECEDENCE: dict[str, int] = {
    "or": 1,
    "and": 2,
    "unless": 2,
    "==": 3,
    "!=": 3,
    ">": 3,
    ">=": 3,
    "<": 3,
    "<=": 3,
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "%": 5,
    "^": 6,
}
"""How tightly the binary operators bind; all are left-associative but `^`."""

COMPARISONS = frozenset(("==", "!=", ">", ">=", "<", "<="))
SET_OPERATORS = frozenset(("and", "or", "unless"))


def _binds(node: Metric) -> int:
    return PRECEDENCE[node.op] if isinstance(node, Binary) else 7
