"""TraceQL's grammar: recursive descent over tokens, with types checked as the tree grows.

    query      = ( pipeline | series { comparison literal | "|" topk(n) or bottomk(n) } ) [ "with" "(" name "=" literal { "," … } ")" ]
    pipeline   = ( spansets | scalar comparison scalar ) { "|" stage }
    spansets   = spanset { operator spanset }        structural before && and ||, all from the left
    spanset    = "{" [ expression ] "}" | "(" pipeline ")"
    stage      = spansets | by(…) | coalesce() | select(…) | scalar comparison scalar
               | function(…) [ by (…) ] [ comparison literal ] | topk(n) | bottomk(n)
    series     = + - over * / over "(" pipeline ")", "(" series ")" and numbers
    expression = && and || over comparisons over + - over * / % over ^ over unary - !

`&&` and `||` bind alike, as in Tempo's grammar: `a || b && c` is `(a || b) && c`.

A mistake is an InvalidQuery with its position, found before anything runs: a comparison of types that can never
be equal, a regular expression that does not compile, a filter that is not true or false (`types.py`), a metrics
function in the wrong place or with the wrong arguments, a hint that does not exist (`stages.py`).
"""

from __future__ import annotations

from collector.errors import InvalidQuery
from collector.query.cursor import Cursor
from collector.query.height import check_height, check_operators
from collector.query.traceql.ast import (
    ARITHMETIC,
    COMPARISONS,
    INTRINSICS,
    KINDS,
    NUMERIC,
    SHORT_NAMES,
    STATUSES,
    STRUCTURAL,
    Aggregate,
    Attribute,
    Binary,
    Coalesce,
    Expression,
    Filter,
    GroupBy,
    Intrinsic,
    Literal,
    Metrics,
    MetricsFilter,
    Pipeline,
    Query,
    Scalar,
    ScalarFilter,
    ScalarOperation,
    Select,
    SeriesArithmetic,
    SeriesOperand,
    Spanset,
    SpansetOperation,
    Stage,
    Type,
    Unary,
)
from collector.query.traceql.lexer import INTEGER_MAX, TOO_LARGE, Token, tokenize
from collector.query.traceql.stages import (
    FIRST_STAGE,
    METRICS_FUNCTIONS,
    SERIES_OPERATORS,
    check_hint,
    check_metrics,
    check_number,
    check_order,
    joined,
)
from collector.query.traceql.types import checked

_PRECEDENCE = {"||": 1, "&&": 1, **dict.fromkeys(COMPARISONS, 2), "+": 3, "-": 3, "*": 4, "/": 4, "%": 4, "^": 5}
_SPANSET_PRECEDENCE = {"||": 1, "&&": 1, **dict.fromkeys(STRUCTURAL, 2)}
_AGGREGATES = ("count", "min", "max", "avg", "sum")
_BOUNDS = {"minInt": -INTEGER_MAX - 1, "maxInt": INTEGER_MAX}


def parse(query: str) -> Query:
    """Parse a query; raise InvalidQuery with the position of the first mistake."""
    tree = _Parser(tokenize(query)).query()
    check_height(tree)
    return tree


class _Parser(Cursor[Token]):
    # --- spansets and stages ------------------------------------------------------------------------------

    def query(self) -> Query:
        pipeline = self._series_pipeline() if self._series_depth() else self._pipeline()
        hints: list[tuple[str, Literal]] = []
        if self._accept("with"):
            self._expect("(")
            while not self._accept(")"):
                if hints:
                    self._expect(",")
                name = self._take()
                if name.kind != "word":
                    raise InvalidQuery("a hint's name is missing", name.at)
                self._expect("=")
                value = self._literal()
                check_hint(name.text, value, name.at)
                hints.append((name.text, value))
        if self._token.kind != "end":
            last = pipeline.stages[-1]
            if isinstance(last, Metrics | MetricsFilter) and self._token.text in SERIES_OPERATORS:
                raise InvalidQuery("series are combined in parentheses: ( … | rate()) / ( … | rate())", self._token.at)
            raise self._unexpected("expected the end of the query")
        check_order(pipeline)
        return Query(pipeline, tuple(hints))

    def _pipeline(self) -> Pipeline:
        at = self._token.at
        return self._pipeline_behind([self._stage(first=True)], at)

    def _pipeline_behind(self, stages: list[Stage], at: int) -> Pipeline:
        """Read the stages that follow some."""
        while True:
            last = stages[-1]
            if isinstance(last, Metrics | MetricsFilter | SeriesArithmetic) and self._is_comparison():
                operator = self._take()
                value = self._literal()
                if value.type not in NUMERIC:
                    raise InvalidQuery(f"series are compared with a number, not {value.type.value}", value.at)
                stages.append(MetricsFilter(operator.text, value, operator.at))
            elif self._accept("|"):
                stages.append(self._stage(first=False))
            else:
                return Pipeline(tuple(stages), at)

    def _is_comparison(self) -> bool:
        return self._token.kind == "op" and self._token.text in COMPARISONS[:6]

    def _stage(self, *, first: bool) -> Stage:
        token = self._token
        if token.kind == "word" and not first:
            match token.text:
                case "by":
                    self._take()
                    self._expect("(")
                    expression = self._expression()
                    self._expect(")")
                    return GroupBy(expression, token.at)
                case "coalesce":
                    self._take()
                    self._expect("(")
                    self._expect(")")
                    return Coalesce(token.at)
                case "select":
                    self._take()
                    return Select(self._fields(), token.at)
            if token.text in METRICS_FUNCTIONS:
                return self._metrics()
        if self._is_scalar():
            return self._scalar_filter()
        if token.kind == "op" and token.text in "({":
            return self._spansets(0)
        raise self._unexpected("expected a spanset like { .a = 1 }" if first else "expected a stage of the pipeline")

    def _is_scalar(self) -> bool:
        """Tell whether an aggregate or a number comes next, perhaps in parentheses: a spanset has none there."""
        ahead = self._next
        while self._tokens[ahead].kind == "op" and self._tokens[ahead].text == "(":
            ahead += 1
        token = self._tokens[ahead]
        return token.kind in ("int", "float", "duration") or (token.kind == "word" and token.text in _AGGREGATES)

    def _fields(self) -> tuple[Expression, ...]:
        self._expect("(")
        fields = [self._expression()]
        while self._accept(","):
            fields.append(self._expression())
        self._expect(")")
        return tuple(fields)

    def _spansets(self, least: int) -> Spanset:
        left = self._spanset()
        while self._token.kind == "op" and _SPANSET_PRECEDENCE.get(self._token.text, -1) > least:
            operator = self._take()
            right = self._spansets(_SPANSET_PRECEDENCE[operator.text])
            left = SpansetOperation(operator.text, left, right, operator.at)
        return left

    def _spanset(self) -> Spanset:
        token = self._token
        self._enter()
        try:
            if self._accept("{"):
                if self._accept("}"):
                    return Filter(None, token.at)
                expression = self._expression()
                if expression.type not in (Type.BOOL, Type.ATTRIBUTE):
                    raise InvalidQuery(f"a filter must be true or false, not {expression.type.value}", expression.at)
                self._expect("}")
                return Filter(expression, token.at)
            self._expect("(")
            inner = self._pipeline()
            self._expect(")")
            only = inner.stages[0]
            return only if len(inner.stages) == 1 and isinstance(only, Filter | SpansetOperation | Pipeline) else inner
        finally:
            self._depth -= 1

    def _metrics(self) -> Metrics:
        function = self._take()
        arguments: list[Expression | Filter] = []
        self._expect("(")
        while not self._accept(")"):
            if arguments:
                self._expect(",")
            if self._is("{"):
                spanset = self._spanset()
                assert isinstance(spanset, Filter)
                arguments.append(spanset)
            else:
                arguments.append(self._expression())
        check_metrics(function.text, tuple(arguments), function.at)
        by: tuple[Expression, ...] = self._fields() if self._accept("by") else ()
        return Metrics(function.text, tuple(arguments), by, function.at)

    def _scalar_filter(self) -> ScalarFilter:
        begin = self._token.at
        left = self._scalar(0)
        if self._is(")"):
            raise InvalidQuery("an aggregate of a whole pipeline, ( … | count() ), is not supported", begin)
        if not self._is_comparison():
            raise InvalidQuery("expected a comparison behind an aggregate", self._token.at)
        operator = self._take()
        return ScalarFilter(operator.text, left, self._scalar(0), begin)

    def _scalar(self, least: int) -> Scalar:
        left = self._scalar_operand()
        while self._token.kind == "op" and self._token.text in ARITHMETIC and _PRECEDENCE[self._token.text] > least:
            operator = self._take()
            left = ScalarOperation(operator.text, left, self._scalar(_PRECEDENCE[operator.text]), operator.at)
        return left

    def _scalar_operand(self) -> Scalar:
        token = self._token
        if token.kind == "word" and token.text in _AGGREGATES:
            self._take()
            self._expect("(")
            expression = None if self._is(")") else self._expression()
            self._expect(")")
            if (expression is None) != (token.text == "count"):
                wanted = "takes nothing" if token.text == "count" else "wants an expression"
                raise InvalidQuery(f"{token.text}() {wanted}", token.at)
            if expression is not None and expression.type not in (*NUMERIC, Type.ATTRIBUTE):
                raise InvalidQuery(f"{token.text}() wants a number, not {expression.type.value}", expression.at)
            return Aggregate(token.text, expression, token.at)
        if self._accept("("):
            self._enter()
            scalar = self._scalar(0)
            self._depth -= 1
            self._expect(")")
            return scalar
        literal = self._literal()
        if literal.type not in NUMERIC:
            raise InvalidQuery(f"aggregates are numbers; {literal.type.value} is none", literal.at)
        return literal

    # --- arithmetic over series ---------------------------------------------------------------------------

    def _series_depth(self) -> int | None:
        """Return how deep in parentheses from here a function makes series, before those end that this is in."""
        depth, found = 0, None
        for token in self._tokens[self._next :]:
            if token.kind == "op" and token.text in ("(", ")"):
                depth += 1 if token.text == "(" else -1
                if depth < 0:
                    break
            elif token.kind == "word" and token.text in FIRST_STAGE:
                found = min(depth, found) if found is not None else depth
        return found

    def _series_pipeline(self) -> Pipeline:
        at = self._token.at
        series = self._series(0)
        if isinstance(series, Literal):
            raise InvalidQuery("expected a function that makes series", at)
        return self._pipeline_behind(list(series.stages) if isinstance(series, Pipeline) else [series], at)

    def _series(self, least: int) -> SeriesOperand:
        left = self._series_operand()
        while self._token.kind == "op" and self._token.text in SERIES_OPERATORS:
            if _PRECEDENCE[self._token.text] <= least:
                break
            operator = self._take()
            self._operators += 1
            check_operators(self._operators, operator.at)
            left = joined(operator.text, left, self._series(_PRECEDENCE[operator.text]), operator.at)
        return left

    def _series_operand(self) -> SeriesOperand:
        if not self._is("("):
            return check_number(self._literal())
        self._take()
        self._enter()
        inner: SeriesOperand
        depth = self._series_depth()
        if depth is None:
            inner = self._series(0)
        elif depth == 0:
            inner = self._pipeline()
        else:
            inner = self._series_pipeline()
            only = inner.stages[0]
            inner = only if len(inner.stages) == 1 and isinstance(only, SeriesArithmetic) else inner
        self._expect(")")
        self._depth -= 1
        return inner

    # --- expressions over one span ------------------------------------------------------------------------

    def _expression(self, least: int = 0) -> Expression:
        left = self._operand()
        while self._token.kind == "op" and _PRECEDENCE.get(self._token.text, -1) > least:
            operator = self._take()
            self._operators += 1
            check_operators(self._operators, operator.at)
            # ^ binds from the right, all else from the left
            self._enter()
            right = self._expression(_PRECEDENCE[operator.text] - (operator.text == "^"))
            self._depth -= 1
            left = checked(Binary(operator.text, left, right, operator.at))
        return left

    def _operand(self) -> Expression:
        token = self._token
        self._enter()
        try:
            if self._accept("("):
                inner = self._expression()
                self._expect(")")
                return inner
            if token.kind == "op" and token.text in ("-", "!"):
                self._take()
                return self._unary(token)
            if token.kind == "attribute":
                self._take()
                assert isinstance(token.value, tuple)
                return Attribute(*token.value, at=token.at)
            if token.kind == "intrinsic":
                self._take()
                if token.text not in INTRINSICS:
                    raise InvalidQuery(f"{token.text} is no intrinsic", token.at)
                return Intrinsic(token.text, token.at)
            if token.kind == "word" and token.text in SHORT_NAMES:
                self._take()
                return Intrinsic(SHORT_NAMES[token.text], token.at)
            return self._literal()
        finally:
            self._depth -= 1

    def _least(self, at: int) -> Literal | None:
        """Take the digits of minInt, which no positive integer has; behind a minus only."""
        if self._token.kind != "int" or self._token.value != INTEGER_MAX + 1:
            return None
        self._take()
        return Literal(Type.INT, -INTEGER_MAX - 1, at)

    def _unary(self, token: Token) -> Expression:
        least = self._least(token.at) if token.text == "-" else None
        if least is not None:
            return least
        operand = self._operand()
        if token.text == "!":
            if operand.type not in (Type.BOOL, Type.ATTRIBUTE):
                raise InvalidQuery(f"! wants true or false, not {operand.type.value}", operand.at)
            return Unary("!", operand, token.at)
        if operand.type not in (*NUMERIC, Type.ATTRIBUTE):
            raise InvalidQuery(f"- wants a number, not {operand.type.value}", operand.at)
        if isinstance(operand, Literal):
            return _opposite(operand, token.at)
        return Unary("-", operand, token.at)

    def _literal(self) -> Literal:
        token = self._take()
        at = token.at
        if token.kind in ("string", "int", "float", "duration"):
            assert not isinstance(token.value, tuple)
            if token.kind == "int" and token.value == INTEGER_MAX + 1:
                raise InvalidQuery(TOO_LARGE, at)
            return Literal(Type(token.kind), token.value, at)
        if token.kind == "op" and token.text == "-":
            self._enter()
            inner = self._least(at) or _opposite(self._literal(), at)
            self._depth -= 1
            return inner
        if token.kind == "word":
            match token.text:
                case "true" | "false":
                    return Literal(Type.BOOL, token.text == "true", at)
                case "nil":
                    return Literal(Type.NIL, None, at)
                case "minInt" | "maxInt":
                    return Literal(Type.INT, _BOUNDS[token.text], at)
                case text if text in STATUSES:
                    return Literal(Type.STATUS, STATUSES[text], at)
                case text if text in KINDS:
                    return Literal(Type.KIND, KINDS[text], at)
                case text:
                    hint = f"; an attribute is written .{text}" if text.isidentifier() else ""
                    raise InvalidQuery(f"unknown name {text!r}{hint}", at)
        self._next -= token.kind != "end"
        raise self._unexpected("expected a value")


def _opposite(literal: Literal, at: int) -> Literal:
    """Return a number with the other sign; minInt is its own opposite, as 64 bits have it."""
    if literal.type not in NUMERIC or not isinstance(literal.value, int | float):
        raise InvalidQuery("- wants a number", at)
    opposite = -literal.value
    return Literal(
        literal.type, -opposite if opposite == INTEGER_MAX + 1 and literal.type is Type.INT else opposite, at
    )
