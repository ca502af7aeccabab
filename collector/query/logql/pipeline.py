"""The grammar of log queries: selectors, pipelines of stages, label filters. `parser.py` builds on it.

Recursive descent over a list of tokens with one token of lookahead (two where a word may be a label or not).
Nesting is counted: `DEPTH_MAX` bounds the recursion here and in everything that walks a tree afterwards.

A word is a keyword only where the grammar can have one, so `sum` or `by` can be labels; after a `|`, the
names of stages are reserved, as in Loki. Keywords are read in any case.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from collector.errors import InvalidQuery
from collector.query.logql import ast
from collector.query.logql.lexer import Kind, Token, query_error, tokenize
from collector.query.logql.regex import full_matcher, searcher

if TYPE_CHECKING:
    from collections.abc import Callable

DEPTH_MAX = 64
"""How deep parentheses, calls and operators may nest. A query that nests deeper is refused."""

_STAGES = frozenset(
    (
        "json",
        "logfmt",
        "pattern",
        "regexp",
        "unpack",
        "decolorize",
        "line_format",
        "label_format",
        "drop",
        "keep",
        "unwrap",
    )
)
_RESERVED = _STAGES | {"and", "or", "unless"}
_LINE_OPERATORS = frozenset(("|=", "|~", "|>", "!=", "!~", "!>"))
_TEXT_OPERATORS = frozenset(("=", "!=", "=~", "!~"))
_VALUE_OPERATORS = frozenset(("=", "==", "!=", ">", ">=", "<", "<="))
_FILTER_OPERATORS = _TEXT_OPERATORS | _VALUE_OPERATORS
_CONVERSIONS = frozenset(("bytes", "duration", "duration_seconds"))

Item = TypeVar("Item")


class Cursor:
    """A place in a query's tokens, and what is common to all rules."""

    def __init__(self, text: str) -> None:
        """Read the tokens; raises InvalidQuery where there is none."""
        self.text = text
        self._tokens = tokenize(text)
        self._index = 0
        self._depth = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self._tokens[self._index]

    @property
    def following(self) -> Token:
        """The token after the next one."""
        return self._tokens[min(self._index + 1, len(self._tokens) - 1)]

    def take(self) -> Token:
        """Go past the next token and return it."""
        token = self.token
        if token.kind is not Kind.END:
            self._index += 1
        return token

    def at_symbol(self, *symbols: str) -> bool:
        """Tell whether the next token is one of these symbols."""
        return self.token.kind is Kind.SYMBOL and self.token.text in symbols

    def at_word(self, *words: str) -> bool:
        """Tell whether the next token is one of these keywords (given in lower case)."""
        return self.token.kind is Kind.IDENTIFIER and self.token.text.lower() in words

    def skip_symbol(self, symbol: str) -> bool:
        """Go past the symbol if it is next."""
        if self.at_symbol(symbol):
            self._index += 1
            return True
        return False

    def skip_word(self, word: str) -> bool:
        """Go past the keyword if it is next."""
        if self.at_word(word):
            self._index += 1
            return True
        return False

    def expect_symbol(self, symbol: str) -> Token:
        """Take the symbol; anything else is an error."""
        if not self.at_symbol(symbol):
            raise self.unexpected(f"{symbol!r}")
        return self.take()

    def expect(self, kind: Kind, what: str = "") -> Token:
        """Take a token of a kind; anything else is an error that asks for `what`."""
        if self.token.kind is not kind:
            raise self.unexpected(what or kind.value)
        return self.take()

    def text_value(self, what: str) -> str:
        """Take a string and return its value."""
        return str(self.expect(Kind.STRING, what).value)

    def error(self, message: str, at: int | None = None) -> InvalidQuery:
        """Return the error for the next token, or for a place."""
        return query_error(self.text, self.token.position if at is None else at, message)

    def unexpected(self, wanted: str) -> InvalidQuery:
        """Return the error for a next token that is not what the grammar has here."""
        found = self.token.kind.value if self.token.kind is Kind.END else repr(self.token.text[:40])
        return self.error(f"unexpected {found}, expected {wanted}")

    def enter(self) -> None:
        """Count one level of nesting; pair with `leave`."""
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self.error(f"the query nests deeper than {DEPTH_MAX} levels")

    def leave(self) -> None:
        """End a level of nesting."""
        self._depth -= 1

    def expect_end(self) -> None:
        """Refuse anything after a whole query."""
        if self.token.kind is not Kind.END:
            raise self.unexpected(Kind.END.value)


class PipelineParser(Cursor):
    """The rules for everything that stands in a log query."""

    def selector(self) -> ast.Selector:
        """Read `{label="value", …}`; it may be empty."""
        at = self.expect_symbol("{").position
        matchers: list[ast.Matcher] = []
        while not self.at_symbol("}"):
            if matchers:
                self.expect_symbol(",")
                if self.at_symbol("}"):
                    break
            matchers.append(self._matcher("a label name or '}'"))
        self.expect_symbol("}")
        return ast.Selector(tuple(matchers), at)

    def _matcher(self, what: str) -> ast.Matcher:
        label = self.expect(Kind.IDENTIFIER, what)
        if not self.at_symbol(*_TEXT_OPERATORS):
            raise self.unexpected("'=', '!=', '=~' or '!~'")
        op = self.take().text
        value = self.text_value("a string")
        if op in ("=~", "!~"):
            self.check_expression(full_matcher, value)
        return ast.Matcher(label.text, op, value, label.position)

    def check_expression(self, compiler: Callable[[str], object], expression: str) -> None:
        """Compile the regular expression just taken, so that a bad one is refused where it stands."""
        try:
            compiler(expression)
        except InvalidQuery as error:
            raise self.error(str(error), self._tokens[self._index - 1].position) from None

    def stages(self, in_range: bool) -> tuple[ast.Stage, ...]:
        """Read the stages that follow, if any. `unwrap` is only allowed `in_range`."""
        stages: list[ast.Stage] = []
        unwrapped = False
        while True:
            if self.at_symbol(*_LINE_OPERATORS):
                stage: ast.Stage = self._line_filter()
            elif self.skip_symbol("|"):
                stage = self._pipe_stage()
            else:
                return tuple(stages)
            self._check_order(stage, in_range, unwrapped)
            unwrapped = unwrapped or isinstance(stage, ast.Unwrap)
            stages.append(stage)

    def _check_order(self, stage: ast.Stage, in_range: bool, unwrapped: bool) -> None:
        if isinstance(stage, ast.Unwrap) and not in_range:
            raise self.error("unwrap belongs into a range, such as sum_over_time(… | unwrap x [5m])", stage.at)
        if unwrapped and not isinstance(stage, ast.LabelStage):
            raise self.error("only label filters can follow unwrap", stage.at)

    def _line_filter(self) -> ast.LineFilter:
        op = self.take()
        operands = [self._line_operand(op)]
        while self.at_word("or"):
            self.take()
            operands.append(self._line_operand(op))
        return ast.LineFilter(op.text, tuple(operands), op.position)

    def _line_operand(self, op: Token) -> ast.LineOperand:
        if self.at_word("ip"):
            if op.text not in ("|=", "!="):
                raise self.error("ip() is for |= and !=")
            return ast.LineOperand(self._address(), address=True)
        value = self.text_value('a string or ip("…")')
        if op.text in ("|~", "!~"):
            self.check_expression(searcher, value)
        return ast.LineOperand(value)

    def _address(self) -> str:
        self.take()
        self.expect_symbol("(")
        value = self.text_value("a string")
        self.expect_symbol(")")
        return value

    def _pipe_stage(self) -> ast.Stage:
        word, at = self.token.text.lower(), self.token.position
        if self.token.kind is not Kind.IDENTIFIER or word not in _STAGES:
            return ast.LabelStage(self._condition(), at)
        self.take()
        match word:
            case "json":
                return ast.Json(self._extractions(), at)
            case "logfmt":
                return self._logfmt(at)
            case "pattern":
                return ast.Pattern(self.text_value("a pattern"), at)
            case "regexp":
                pattern = self.text_value("a regular expression")
                self.check_expression(searcher, pattern)
                return ast.Regexp(pattern, at)
            case "unpack":
                return ast.Unpack(at)
            case "line_format":
                return ast.LineFormat(self.text_value("a template"), at)
            case "label_format":
                return self._label_format(at)
            case "decolorize":
                return ast.Decolorize(at)
            case "drop":
                return ast.Drop(self._list(self._label_choice), at)
            case "keep":
                return ast.Keep(self._list(self._label_choice), at)
            case _:
                return self._unwrap(at)

    def _list(self, rule: Callable[[], Item]) -> tuple[Item, ...]:
        items = [rule()]
        while self.skip_symbol(","):
            items.append(rule())
        return tuple(items)

    def _extractions(self) -> tuple[ast.Extraction, ...]:
        return self._list(self._extraction) if self.token.kind is Kind.IDENTIFIER else ()

    def _extraction(self) -> ast.Extraction:
        label = self.expect(Kind.IDENTIFIER, "a label name").text
        return ast.Extraction(label, self.text_value("a string") if self.skip_symbol("=") else label)

    def _logfmt(self, at: int) -> ast.Logfmt:
        flags = set()
        while self.token.kind is Kind.FLAG:
            flags.add(self.take().text)
        return ast.Logfmt("--strict" in flags, "--keep-empty" in flags, self._extractions(), at)

    def _label_format(self, at: int) -> ast.LabelFormat:
        assignments = self._list(self._assignment)
        labels = [assignment.label for assignment in assignments]
        if len(set(labels)) < len(labels):
            raise self.error("label_format sets a label twice; use two stages", at)
        return ast.LabelFormat(assignments, at)

    def _assignment(self) -> ast.LabelAssignment:
        label = self.expect(Kind.IDENTIFIER, "a label name").text
        self.expect_symbol("=")
        if self.token.kind is Kind.STRING:
            return ast.LabelAssignment(label, self.text_value("a template"), template=True)
        source = self.expect(Kind.IDENTIFIER, "a label name or a template").text
        return ast.LabelAssignment(label, source, template=False)

    def _label_choice(self) -> str | ast.Matcher:
        if self.following.kind is Kind.SYMBOL and self.following.text in _TEXT_OPERATORS:
            return self._matcher("a label name")
        return self.expect(Kind.IDENTIFIER, "a label name").text

    def _unwrap(self, at: int) -> ast.Unwrap:
        label = self.expect(Kind.IDENTIFIER, "a label name").text
        if not self.at_symbol("("):
            return ast.Unwrap(label, "", at)
        conversion = label.lower()
        if conversion not in _CONVERSIONS:
            raise self.error("unwrap converts by bytes(), duration() or duration_seconds()", at)
        self.take()
        label = self.expect(Kind.IDENTIFIER, "a label name").text
        self.expect_symbol(")")
        return ast.Unwrap(label, conversion, at)

    # Label filters. `or` binds loosest; `and`, a comma and nothing at all are the same.

    def _condition(self) -> ast.LabelFilter:
        terms = [self._conjunction()]
        while self.skip_word("or"):
            terms.append(self._conjunction())
        return terms[0] if len(terms) == 1 else ast.Or(tuple(terms))

    def _conjunction(self) -> ast.LabelFilter:
        terms = [self._label_filter()]
        while self.skip_word("and") or self.skip_symbol(",") or self._at_label_filter():
            terms.append(self._label_filter())
        return terms[0] if len(terms) == 1 else ast.And(tuple(terms))

    def _at_label_filter(self) -> bool:
        if self.at_symbol("("):
            return True
        return self.token.kind is Kind.IDENTIFIER and self.following.text in _FILTER_OPERATORS

    def _label_filter(self) -> ast.LabelFilter:
        if self.at_symbol("("):
            self.take()
            self.enter()
            condition = self._condition()
            self.leave()
            self.expect_symbol(")")
            return condition
        label = self.expect(Kind.IDENTIFIER, "a stage or a label filter")
        if label.text.lower() in _RESERVED:
            raise self.error(f"{label.text!r} is a reserved word here", label.position)
        if not self.at_symbol(*_FILTER_OPERATORS):
            raise self.unexpected(f"an operator after the label {label.text!r}")
        op = self.take()
        if self.token.kind is Kind.STRING and op.text in _TEXT_OPERATORS:
            value = self.text_value("a string")
            if op.text in ("=~", "!~"):
                self.check_expression(full_matcher, value)
            return ast.Matcher(label.text, op.text, value, label.position)
        if self.at_word("ip"):
            if op.text not in ("=", "!="):
                raise self.error("ip() is for = and !=")
            return ast.AddressFilter(label.text, op.text, self._address(), label.position)
        if op.text not in _VALUE_OPERATORS:
            raise self.unexpected("a string")
        return self._value_filter(label, "==" if op.text == "=" else op.text)

    def _value_filter(self, label: Token, op: str) -> ast.LabelFilter:
        sign = self.sign()
        if self.token.kind is Kind.DURATION:
            return ast.DurationFilter(label.text, op, sign * int(self.take().value), label.position)
        if self.token.kind is Kind.SIZE:
            return ast.SizeFilter(label.text, op, sign * int(self.take().value), label.position)
        number = self.expect(Kind.NUMBER, "a string, a number, a duration or a size").value
        return ast.NumberFilter(label.text, op, sign * float(number), label.position)

    def sign(self) -> int:
        """Read a sign before a number, if there is one: 1 or -1."""
        if self.skip_symbol("-"):
            return -1
        self.skip_symbol("+")
        return 1
