"""PromQL's grammar: a Pratt parser with static types.

Operators from loose to tight: or; and unless; == != <= < >= >; + -; * / % atan2; unary -; ^ (from the right). Behind
an operand: `[range]`, `[range:step]`, `offset`, `@`. Messages follow Prometheus', positions are characters.
"""

from __future__ import annotations

from collector.errors import InvalidQuery
from collector.query.cursor import NESTING_MAX, Cursor
from collector.query.height import check_height, check_operators
from collector.query.promql.ast import (
    Aggregation,
    Binary,
    Call,
    Expression,
    Matcher,
    Matching,
    MatrixSelector,
    Negation,
    Number,
    Shift,
    String,
    Subquery,
    Type,
    VectorSelector,
)
from collector.query.promql.functions import AGGREGATIONS, FUNCTIONS, PARAMETRIC_AGGREGATIONS
from collector.query.promql.lexer import DURATION_MAX_MS, Token, tokenize
from collector.query.regex import compile_regex

COMPARISONS = ("==", "!=", "<=", "<", ">=", ">")
SET_OPERATORS = ("and", "or", "unless")
_PRECEDENCE = {
    "or": 1,
    "and": 2,
    "unless": 2,
    **dict.fromkeys(COMPARISONS, 3),
    "+": 4,
    "-": 4,
    "*": 5,
    "/": 5,
    "%": 5,
    "atan2": 5,
    "^": 7,
}
_UNARY = 6
_KEYWORDS = ("by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", *SET_OPERATORS, "atan2")


def parse(query: str) -> Expression:
    """Parse a query; raise InvalidQuery with the position of the first mistake."""
    parser = _Parser(tokenize(query))
    expression = parser.expression()
    parser.expect_end()
    check_height(expression)
    return expression


def parse_selector(text: str) -> VectorSelector:
    """Parse a series selector, as `match[]` gives it."""
    expression = parse(text)
    if not isinstance(expression, VectorSelector) or expression.shift != Shift():
        raise InvalidQuery("expected a series selector", 0)
    return expression


class _Parser(Cursor[Token]):
    prefix = "parse error: "

    def _is(self, text: str) -> bool:
        """Tell whether an operator or a keyword comes next; keywords may be written in any case."""
        return self._token.kind in ("op", "word") and self._token.text.lower() == text

    def expect_end(self) -> None:
        if self._token.kind != "end":
            raise self._unexpected("expected the end of the query")

    def _unexpected(self, wanted: str) -> InvalidQuery:
        token = self._token
        found = "end of input" if token.kind == "end" else repr(token.text)
        return InvalidQuery(f"parse error: {wanted}, unexpected {found}", token.at)

    def expression(self, least: int = 0) -> Expression:
        self._enter()
        left = self._operand()
        while self._token.kind in ("op", "word") and _PRECEDENCE.get(self._token.text.lower(), -1) > least:
            left = self._binary(left)
        self._depth -= 1
        return left

    # --- operators ----------------------------------------------------------------------------------------

    def _binary(self, left: Expression) -> Expression:
        operator = self._take()
        op, at = operator.text.lower(), operator.at
        self._operators += 1
        check_operators(self._operators, at)
        returns_bool = self._accept("bool")
        if returns_bool and op not in COMPARISONS:
            raise InvalidQuery("parse error: bool modifier can only be used on comparison operators", at)
        matching = self._matching()
        right = self.expression(_PRECEDENCE[op] - (op == "^"))
        for side in (left, right):
            if side.type not in (Type.SCALAR, Type.VECTOR):
                raise InvalidQuery(
                    "parse error: binary expression must contain only scalar and instant vector types", side.at
                )
        scalars = (left.type is Type.SCALAR, right.type is Type.SCALAR)
        if op in SET_OPERATORS:
            if any(scalars):
                raise InvalidQuery(f"parse error: set operator {op!r} not allowed in binary scalar expression", at)
            if matching.group:
                raise InvalidQuery(f"parse error: no grouping allowed for {op!r} operation", at)
        elif all(scalars) and op in COMPARISONS and not returns_bool:
            raise InvalidQuery("parse error: comparisons between scalars must use BOOL modifier", at)
        if any(scalars) and matching != Matching():
            raise InvalidQuery("parse error: vector matching only allowed between instant vectors", at)
        return Binary(op, left, right, returns_bool, matching, at)

    def _matching(self) -> Matching:
        on = self._is("on")
        if not on and not self._is("ignoring"):
            return Matching()
        self._take()
        labels = self._label_list()
        group = ""
        include: tuple[str, ...] = ()
        if self._is("group_left") or self._is("group_right"):
            group = self._take().text.lower().removeprefix("group_")
            if self._is("("):
                include = self._label_list()
        if on and set(include) & set(labels):
            raise InvalidQuery("parse error: label must not occur in ON and GROUP clause at once", self._token.at)
        return Matching(labels, on, group, include)

    def _label_list(self) -> tuple[str, ...]:
        self._expect("(")
        labels: list[str] = []
        while not self._accept(")"):
            if labels:
                self._expect(",")
                if self._accept(")"):
                    break
            labels.append(self._label_name())
        return tuple(labels)

    def _label_name(self) -> str:
        token = self._take()
        if token.kind == "word" and ":" not in token.text:
            return token.text
        if token.kind == "string" and token.value:
            return str(token.value)
        self._next -= token.kind != "end"
        raise self._unexpected("expected a label name")

    # --- operands -----------------------------------------------------------------------------------------

    def _operand(self) -> Expression:
        token = self._token
        if token.kind == "op" and token.text in "+-":
            self._take()
            operand = self.expression(_UNARY)
            if operand.type not in (Type.SCALAR, Type.VECTOR):
                raise InvalidQuery(
                    "parse error: unary expression only allowed on expressions of type scalar or instant vector, "
                    f"got {operand.type.value!r}",
                    operand.at,
                )
            if token.text == "+":
                return operand
            return Number(-operand.value, token.at) if isinstance(operand, Number) else Negation(operand, token.at)
        return self._postfix(self._primary())

    def _primary(self) -> Expression:
        token = self._take()
        if token.kind == "number":
            return Number(float(token.value), token.at)
        if token.kind == "duration":
            return Number(float(token.value) / 1000, token.at)
        if token.kind == "string":
            return String(str(token.value), token.at)
        if token.kind == "op" and token.text == "(":
            inner = self.expression()
            self._expect(")")
            return inner
        if token.kind == "op" and token.text == "{":
            return self._selector(None, token)
        if token.kind == "word":
            return self._word(token)
        self._next -= token.kind != "end"
        raise self._unexpected("expected an expression")

    def _word(self, token: Token) -> Expression:
        text = token.text
        lower = text.lower()
        follows_call = self._is("(")
        clause = self._is("by") or self._is("without")
        if (follows_call or clause) and (lower in AGGREGATIONS or lower in PARAMETRIC_AGGREGATIONS):
            return self._aggregation(lower, token)
        if follows_call:
            return self._call(token)
        if lower in ("inf", "nan"):
            return Number(float(lower), token.at)
        if lower in _KEYWORDS:
            self._next -= 1
            raise self._unexpected("expected an expression")
        if self._accept("{"):
            return self._selector(text, token)
        return VectorSelector((Matcher("__name__", "=", text),), at=token.at)

    def _selector(self, name: str | None, token: Token) -> VectorSelector:
        matchers = [Matcher("__name__", "=", name)] if name is not None else []
        first = True
        while not self._accept("}"):
            if not first:
                self._expect(",")
                if self._accept("}"):
                    break
            first = False
            label = self._take()
            if label.kind == "string" and not (
                self._token.kind == "op" and self._token.text in ("=", "!=", "=~", "!~")
            ):
                if any(one.name == "__name__" for one in matchers):
                    raise InvalidQuery("parse error: metric name must not be set twice", label.at)
                matchers.append(Matcher("__name__", "=", str(label.value)))
                continue
            if label.kind not in ("word", "string"):
                self._next -= label.kind != "end"
                raise self._unexpected("expected a label name")
            operator = self._take()
            if operator.kind != "op" or operator.text not in ("=", "!=", "=~", "!~"):
                raise InvalidQuery("parse error: expected one of = != =~ !~ in a label matcher", operator.at)
            value = self._take()
            if value.kind != "string":
                raise InvalidQuery("parse error: expected a string in a label matcher", value.at)
            if operator.text in ("=~", "!~"):
                compile_regex(str(value.value), value.at)
            matchers.append(
                Matcher(str(label.value) if label.kind == "string" else label.text, operator.text, str(value.value))
            )
        if not any(_excludes_empty(one) for one in matchers):
            raise InvalidQuery("parse error: vector selector must contain at least one non-empty matcher", token.at)
        return VectorSelector(tuple(matchers), at=token.at)

    def _call(self, token: Token) -> Call:
        signature = FUNCTIONS.get(token.text)
        if signature is None:
            raise InvalidQuery(f"parse error: unknown function with name {token.text!r}", token.at)
        arguments = self._arguments()
        most = len(signature.arguments) if not signature.repeats else NESTING_MAX
        if not signature.least <= len(arguments) <= most:
            wanted = str(signature.least) if most == signature.least else f"{signature.least} to {most}"
            raise InvalidQuery(
                f"parse error: expected {wanted} argument(s) in call to {token.text!r}, got {len(arguments)}", token.at
            )
        for number, argument in enumerate(arguments):
            expected = signature.arguments[min(number, len(signature.arguments) - 1)]
            if argument.type is not expected:
                raise InvalidQuery(
                    f"parse error: expected type {expected.value} in call to function {token.text!r}, "
                    f"got {argument.type.value}",
                    argument.at,
                )
        return Call(token.text, arguments, signature.result, token.at)

    def _arguments(self) -> tuple[Expression, ...]:
        self._expect("(")
        arguments: list[Expression] = []
        while not self._accept(")"):
            if arguments:
                self._expect(",")
            arguments.append(self.expression())
        return tuple(arguments)

    def _aggregation(self, op: str, token: Token) -> Aggregation:
        grouping, without = self._grouping()
        arguments = self._arguments()
        if grouping is None:
            grouping, without = self._grouping()
        wanted = 2 if op in PARAMETRIC_AGGREGATIONS else 1
        if len(arguments) != wanted:
            raise InvalidQuery(
                f"parse error: wrong number of arguments for aggregate expression provided, expected {wanted}, "
                f"got {len(arguments)}",
                token.at,
            )
        if arguments[-1].type is not Type.VECTOR:
            raise InvalidQuery(
                f"parse error: expected type instant vector in aggregation expression, got {arguments[-1].type.value}",
                arguments[-1].at,
            )
        parameter = arguments[0] if wanted == 2 else None
        if parameter is not None and parameter.type is not PARAMETRIC_AGGREGATIONS[op]:
            expected = PARAMETRIC_AGGREGATIONS[op].value
            raise InvalidQuery(f"parse error: expected type {expected} in aggregation parameter", parameter.at)
        return Aggregation(op, arguments[-1], parameter, grouping, without, token.at)

    def _grouping(self) -> tuple[tuple[str, ...] | None, bool]:
        if self._is("by") or self._is("without"):
            without = self._take().text.lower() == "without"
            return self._label_list(), without
        return None, False

    def _postfix(self, operand: Expression) -> Expression:
        while True:
            if self._is("["):
                operand = self._range(operand)
            elif self._is("offset"):
                at = self._take().at
                negative = self._accept("-")
                operand = _shifted(operand, at, offset_ms=-self._duration() if negative else self._duration())
            elif self._is("@"):
                at = self._take().at
                operand = _shifted(operand, at, at_time=self._at_time())
            else:
                return operand

    def _range(self, operand: Expression) -> Expression:
        bracket = self._take()
        length = self._duration()
        if length <= 0:
            raise InvalidQuery("parse error: duration must be greater than 0", bracket.at)
        if self._accept(":"):
            step = 0 if self._is("]") else self._duration()
            self._expect("]")
            if operand.type is not Type.VECTOR:
                raise InvalidQuery(
                    f"parse error: subquery is only allowed on instant vector, got {operand.type.value}", operand.at
                )
            return Subquery(operand, length, step, at=operand.at)
        self._expect("]")
        if not isinstance(operand, VectorSelector):
            raise InvalidQuery("parse error: ranges only allowed for vector selectors", bracket.at)
        if operand.shift != Shift():
            raise InvalidQuery("parse error: no offset modifiers allowed before range", bracket.at)
        return MatrixSelector(operand, length, operand.at)

    def _duration(self) -> int:
        token = self._take()
        if token.kind == "duration":
            return int(token.value)
        if token.kind == "number":
            return _milliseconds(token)
        self._next -= token.kind != "end"
        raise self._unexpected("expected a duration")

    def _at_time(self) -> int | str:
        negative = self._accept("-")
        token = self._take()
        if token.kind == "number":
            return _milliseconds(token) * (-1 if negative else 1)
        if token.kind == "word" and token.text in ("start", "end") and not negative:
            self._expect("(")
            self._expect(")")
            return token.text
        raise InvalidQuery("parse error: @ wants a timestamp, start() or end()", token.at)


def _milliseconds(token: Token) -> int:
    """Read a number of seconds as a time or a duration."""
    seconds = float(token.value)
    if not seconds * 1000 <= DURATION_MAX_MS:
        raise InvalidQuery("parse error: duration out of range", token.at)
    return round(seconds * 1000)


def _shifted(
    operand: Expression, at: int, offset_ms: int | None = None, at_time: int | str | None = None
) -> Expression:
    """Return the operand with an offset or a fixed time."""
    if isinstance(operand, MatrixSelector):
        inner = _shifted(operand.selector, at, offset_ms, at_time)
        assert isinstance(inner, VectorSelector)
        return MatrixSelector(inner, operand.range_ms, operand.at)
    if not isinstance(operand, VectorSelector | Subquery):
        raise InvalidQuery("parse error: offset and @ must be preceded by a selector or a subquery", at)
    old = operand.shift
    if (offset_ms is not None and old.offset_ms) or (at_time is not None and old.at_time is not None):
        raise InvalidQuery("parse error: offset or @ may not be set multiple times", at)
    new = Shift(old.offset_ms if offset_ms is None else offset_ms, old.at_time if at_time is None else at_time)
    if isinstance(operand, VectorSelector):
        return VectorSelector(operand.matchers, new, operand.at)
    return Subquery(operand.expression, operand.range_ms, operand.step_ms, new, operand.at)


def _excludes_empty(matcher: Matcher) -> bool:
    """Tell whether a label that is absent fails the matcher."""
    match matcher.op:
        case "=":
            return matcher.value != ""
        case "!=":
            return matcher.value == ""
        case "=~":
            return compile_regex(matcher.value, any_character=True).fullmatch("") is None
        case _:
            return compile_regex(matcher.value, any_character=True).fullmatch("") is not None
