"""TraceQL explained: how each part of a query is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.query.effort import Use
from collector.query.traceql.conditions import PROBED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.query.traceql.plan import Plan


def uses(plan: Plan) -> Iterator[Use]:
    """Yield how the parts of a query are answered, in the order in which they are."""
    if plan.key is not None:
        index, key = plan.key
        how = "postings in memory, key indexes of the log; the condition decides"
        yield Use(f"{index} = {key.decode('utf-8', 'replace')}", how, index, key)
    condition = str(plan.seed) if plan.seed is not None else "{ }"
    of = "the spans of the answer" if plan.flat else "traces that come into question, by single spans"
    yield Use(condition, f"{of}: block by block; after {PROBED} blocks by remembered columns, where there are")
    for one in plan.required:
        yield Use(str(one), "traces without such a span are sorted out, when the first ones have not been enough")
    if not plan.flat:
        pipeline = " | ".join(map(str, plan.stages))
        yield Use(pipeline, "whole traces, by postings of trace ids in memory, and key indexes of the log")
