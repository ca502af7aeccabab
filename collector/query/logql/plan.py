"""From a query's text to something that can run: parsed, checked, compiled.

Everything that can be refused before a record is read is refused here, with its line and column: what is no
LogQL, and what is LogQL but not evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

from collector.errors import InvalidQuery
from collector.query.logql import ast
from collector.query.logql.lexer import place
from collector.query.logql.parser import parse
from collector.query.logql.source import Source


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A query, ready to run once."""

    expression: ast.Expression
    sources: dict[ast.LogQuery, Source]
    """The log queries in it, compiled."""

    @property
    def services(self) -> set[bytes | None]:
        """The services whose views are needed; None stands for a view of everything."""
        return {source.selection.service for source in self.sources.values()}


def prepare(text: str) -> Plan:
    """Return the plan of a query. Raises InvalidQuery."""
    expression = parse(text)
    sources: dict[ast.LogQuery, Source] = {}
    try:
        if isinstance(expression, ast.LogQuery):
            sources[expression] = Source(expression)
        else:
            _prepare(expression, sources)
    except InvalidQuery as error:
        if error.position is None:
            raise
        raise InvalidQuery(f"at {place(text, error.position)}: {error}", error.position) from None
    return Plan(expression, sources)


def _prepare(node: ast.Metric, sources: dict[ast.LogQuery, Source]) -> None:
    """Compile the log queries under a node."""
    match node:
        case ast.RangeAggregation():
            query = node.range.query
            if query not in sources:
                sources[query] = Source(query)
        case ast.VectorAggregation() | ast.LabelReplace():
            _prepare(node.expression, sources)
        case ast.Binary():
            _prepare(node.left, sources)
            _prepare(node.right, sources)
