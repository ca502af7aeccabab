"""LogQL's grammar: `parse` makes a syntax tree of a query, or says where it is none.

Metric expressions by precedence climbing on top of `pipeline.py`. What Loki refuses while parsing is refused
here too: a selector that would match everything, an aggregation without its parameter, `unwrap` where it is
missing or has no place, `bool` without a comparison, numbers where series are needed.

Cost: one pass over the tokens. Recursion and the height of the tree are bounded by `pipeline.DEPTH_MAX`.
"""

from __future__ import annotations

from collector.query.logql import ast
from collector.query.logql.lexer import Kind, Token
from collector.query.logql.pipeline import DEPTH_MAX, PipelineParser
from collector.query.logql.regex import full_matcher

EMPTY_COMPATIBLE = (
    "queries require at least one regexp or equality matcher that does not have an empty-compatible value. "
    'For instance, app=~".*" does not meet this requirement, but app=~".+" will'
)

LINE_AGGREGATIONS = frozenset(("count_over_time", "bytes_over_time", "bytes_rate"))
"""Range aggregations of lines."""
SAMPLE_AGGREGATIONS = frozenset(
    f"{kind}_over_time" for kind in ("sum", "avg", "min", "max", "stdvar", "stddev", "quantile", "first", "last")
) | {"rate_counter"}
"""Range aggregations of unwrapped samples."""
RANGE_AGGREGATIONS = LINE_AGGREGATIONS | SAMPLE_AGGREGATIONS | {"rate", "absent_over_time"}
"""All range aggregations; the last two take either."""
UNGROUPED_AGGREGATIONS = LINE_AGGREGATIONS | {"rate", "rate_counter", "sum_over_time", "absent_over_time"}
"""Range aggregations that take no grouping."""
VECTOR_AGGREGATIONS = frozenset(
    (
        "sum",
        "avg",
        "count",
        "max",
        "min",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "approx_topk",
        "sort",
        "sort_desc",
    )
)
"""All vector aggregations."""
SECONDS_MAX = 2**33
"""The last second that `@` can name, and the first before 1970: in the years 2242 and 1697."""

Shift = tuple[int, int | str | None]
"""What `offset` says, in ns, and `@`."""

SELECTING_AGGREGATIONS = frozenset(("topk", "bottomk", "approx_topk"))
"""Vector aggregations whose first argument is how many series to keep."""


def parse(text: str) -> ast.Expression:
    """Return the syntax tree of a query. Raises InvalidQuery with line and column where it goes wrong."""
    parser = _Parser(text)
    expression, _ = parser.expression(0)
    parser.expect_end()
    return expression


def parse_selector(text: str) -> ast.Selector:
    """Return the selector that is the whole text, as in requests for labels; `{}` selects everything."""
    parser = _Parser(text)
    selector = parser.selector()
    parser.expect_end()
    return selector


def matches_empty(matcher: ast.Matcher) -> bool:
    """Tell whether a matcher is met by a stream that does not have the label."""
    if matcher.op in ("=", "!="):
        return (matcher.value == "") == (matcher.op == "=")
    return full_matcher(matcher.value)("") == (matcher.op == "=~")


def is_scalar(expression: ast.Metric) -> bool:
    """Tell whether the value is a number and not series."""
    if isinstance(expression, ast.Binary):
        return is_scalar(expression.left) and is_scalar(expression.right)
    return isinstance(expression, ast.Number)


class _Parser(PipelineParser):
    """The rules for expressions. Those for metrics return the tree and its height."""

    def expression(self, binds: int) -> tuple[ast.Expression, int]:
        """Read an expression of operators that bind tighter than `binds`."""
        self.enter()
        left, height = self._operand()
        while (precedence := self._operator_precedence()) > binds:
            operator = self.take()
            op = operator.text.lower()
            returns_bool = self.skip_word("bool")
            matching = self._matching()
            right, right_height = self.expression(precedence - (op == "^"))
            left = self._binary(operator, op, left, right, returns_bool, matching)
            height = max(height, right_height) + 1
            if height > DEPTH_MAX:
                raise self.error(f"the query nests deeper than {DEPTH_MAX} levels", operator.position)
        self.leave()
        return left, height

    def _operator_precedence(self) -> int:
        if self.token.kind in (Kind.SYMBOL, Kind.IDENTIFIER):
            return ast.PRECEDENCE.get(self.token.text.lower(), 0)
        return 0

    def _binary(
        self,
        operator: Token,
        op: str,
        left: ast.Expression,
        right: ast.Expression,
        returns_bool: bool,
        matching: ast.Matching | None,
    ) -> ast.Binary:
        at = operator.position
        if isinstance(left, ast.LogQuery) or isinstance(right, ast.LogQuery):
            raise self.error(
                f"{op!r} needs numbers, but a log query has lines; "
                "put it into a range aggregation such as count_over_time(… [5m])",
                at,
            )
        if returns_bool and op not in ast.COMPARISONS:
            raise self.error("bool is for comparisons", at)
        if op in ast.SET_OPERATORS:
            if is_scalar(left) or is_scalar(right):
                raise self.error(f"{op!r} needs series on both sides, not a number", at)
            if matching is not None and matching.group:
                raise self.error(f"{op!r} takes no group_left or group_right", at)
        return ast.Binary(op, left, right, returns_bool, matching, at)

    def _matching(self) -> ast.Matching | None:
        if not self.at_word("on", "ignoring"):
            return None
        on = self.take().text.lower() == "on"
        labels = self._label_names()
        if not self.at_word("group_left", "group_right"):
            return ast.Matching(on, labels)
        group = self.take().text.lower().removeprefix("group_")
        include = self._label_names() if self.at_symbol("(") else ()
        if on and set(labels) & set(include):
            raise self.error("a label stands in on() and in the group modifier")
        return ast.Matching(on, labels, group, include)

    def _label_names(self) -> tuple[str, ...]:
        self.expect_symbol("(")
        names: list[str] = []
        while not self.at_symbol(")"):
            if names:
                self.expect_symbol(",")
                if self.at_symbol(")"):
                    break
            names.append(self.expect(Kind.IDENTIFIER, "a label name").text)
        self.expect_symbol(")")
        return tuple(names)

    def _operand(self) -> tuple[ast.Expression, int]:
        token = self.token
        if self.at_symbol("{"):
            return self._log_query(), 1
        if self.skip_symbol("("):
            expression, height = self.expression(0)
            self.expect_symbol(")")
            return expression, height
        if self.at_symbol("+", "-") or token.kind is Kind.NUMBER:
            return ast.Number(self._number(), token.position), 1
        word = token.text.lower()
        if token.kind is Kind.IDENTIFIER:
            if word in RANGE_AGGREGATIONS:
                return self._range_aggregation(), 2
            if word in VECTOR_AGGREGATIONS:
                return self._vector_aggregation()
            if word == "vector":
                return self._constant(), 1
            if word == "label_replace":
                return self._label_replace()
            if self.following.text == "(":
                raise self.error(f"there is no function {token.text!r}")
        raise self.unexpected("'{', '(', a number or a function")

    def _number(self) -> float:
        sign = self.sign()
        return sign * float(self.expect(Kind.NUMBER).value)

    def _log_query(self, in_range: bool = False) -> ast.LogQuery:
        selector = self.selector()
        if all(map(matches_empty, selector.matchers)):
            raise self.error(EMPTY_COMPATIBLE, selector.at)
        return ast.LogQuery(selector, self.stages(in_range))

    def _constant(self) -> ast.Constant:
        at = self.take().position
        self.expect_symbol("(")
        value = self._number()
        self.expect_symbol(")")
        return ast.Constant(value, at)

    def _label_replace(self) -> tuple[ast.LabelReplace, int]:
        at = self.take().position
        self.expect_symbol("(")
        expression, height = self._metric_argument("label_replace")
        target = self._text_argument("the target label")
        replacement = self._text_argument("the replacement")
        source = self._text_argument("the source label")
        regex = self._text_argument("the regular expression")
        self.check_expression(full_matcher, regex)
        self.expect_symbol(")")
        return ast.LabelReplace(expression, target, replacement, source, regex, at), height + 1

    def _text_argument(self, what: str) -> str:
        self.expect_symbol(",")
        return self.text_value(f"a string, {what}")

    def _metric_argument(self, function: str) -> tuple[ast.Metric, int]:
        at = self.token.position
        expression, height = self.expression(0)
        if isinstance(expression, ast.LogQuery):
            message = f"{function} needs series; put the log query into count_over_time(… [5m]) or its like"
            raise self.error(message, at)
        if is_scalar(expression):
            raise self.error(f"{function} needs series, not a number", at)
        return expression, height

    def _grouping(self) -> ast.Grouping | None:
        if not self.at_word("by", "without"):
            return None
        return ast.Grouping(self.take().text.lower() == "without", self._label_names())

    def _vector_aggregation(self) -> tuple[ast.VectorAggregation, int]:
        token = self.take()
        op = token.text.lower()
        grouping = self._grouping()
        self.expect_symbol("(")
        parameter = None
        if op in SELECTING_AGGREGATIONS:
            parameter = self._number()
            if parameter < 1 or parameter != int(parameter):
                raise self.error(f"{op} needs a whole number above 0 first", token.position)
            self.expect_symbol(",")
        expression, height = self._metric_argument(op)
        self.expect_symbol(")")
        if grouping is None:
            grouping = self._grouping()
        if grouping is not None and op in ("sort", "sort_desc", "approx_topk"):
            raise self.error(f"{op} takes no grouping", token.position)
        return ast.VectorAggregation(op, expression, parameter, grouping, token.position), height + 1

    def _range_aggregation(self) -> ast.RangeAggregation:
        token = self.take()
        op = token.text.lower()
        self.expect_symbol("(")
        parameter = None
        if op == "quantile_over_time":
            parameter = self._number()
            self.expect_symbol(",")
        log_range = self._log_range(op)
        self.expect_symbol(")")
        unwraps = any(isinstance(stage, ast.Unwrap) for stage in log_range.query.stages)
        if unwraps and op in LINE_AGGREGATIONS:
            raise self.error(f"{op} is over lines and takes no unwrap", token.position)
        if not unwraps and op in SAMPLE_AGGREGATIONS:
            raise self.error(f"{op} needs samples: end the pipeline with | unwrap label", token.position)
        grouping = self._grouping()
        if grouping is not None and op in UNGROUPED_AGGREGATIONS:
            raise self.error(f"{op} takes no grouping; put sum {grouping} around it", token.position)
        return ast.RangeAggregation(op, log_range, parameter, grouping, token.position)

    def _log_range(self, function: str) -> ast.LogRange:
        query, span, shift = self._range_parts()
        if span is None:
            raise self.error(f"{function} needs a range such as [5m] after its selector or pipeline")
        return ast.LogRange(query, span, *shift)

    def _range_parts(self) -> tuple[ast.LogQuery, int | None, Shift]:
        """Read a selector, its stages and its range; the range may stand before the stages or after them."""
        span: int | None = None
        shift: Shift = (0, None)
        if self.skip_symbol("("):
            self.enter()
            query, span, shift = self._range_parts()
            self.leave()
            self.expect_symbol(")")
        else:
            query = self._log_query(in_range=True)
        if span is None and self.at_symbol("["):
            span = self._range()
            shift = self._shift()
            if not query.stages:
                query = ast.LogQuery(query.selector, self.stages(in_range=True))
        return query, span, shift

    def _range(self) -> int:
        self.expect_symbol("[")
        at = self.token.position
        span = int(self.expect(Kind.DURATION, "a duration such as 5m").value)
        if span == 0:
            raise self.error("a range must be longer than 0", at)
        self.expect_symbol("]")
        return span

    def _shift(self) -> Shift:
        """Read `offset` and `@`, each once at most, in any order."""
        offset: int | None = None
        fixed: int | str | None = None
        while True:
            if offset is None and self.skip_word("offset"):
                sign = self.sign()
                offset = sign * int(self.expect(Kind.DURATION, "a duration such as 5m").value)
            elif fixed is None and self.skip_symbol("@"):
                fixed = self._fixed()
            else:
                return offset or 0, fixed

    def _fixed(self) -> int | str:
        if self.at_word("start", "end"):
            word = self.take().text.lower()
            self.expect_symbol("(")
            self.expect_symbol(")")
            return word
        at = self.token.position
        seconds = self._number()
        if abs(seconds) > SECONDS_MAX:
            raise self.error("a time that is too far away", at)
        return round(seconds * 1000)
