"""PromQL explained: how each selector of a query is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.query.effort import Use
from collector.query.promql.ast import selectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.query.promql.ast import Expression


def uses(expression: Expression) -> Iterator[Use]:
    """Yield how the selectors of a query are answered."""
    for one in dict.fromkeys(selectors(expression)):
        yield Use(
            str(one), "every block in the time range: names decide once for each metric, labels once for each series"
        )
