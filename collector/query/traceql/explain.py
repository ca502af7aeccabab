"""TraceQL explained: how each part of a query is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.query.effort import Use
from collector.query.traceql.conditions import PROBED
from collector.query.traceql.keywords import terms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.query.traceql.ast import Expression
    from collector.query.traceql.plan import Plan


def uses(plan: Plan) -> Iterator[Use]:
    """Yield how the parts of a query are answered, in the order in which they are."""
    if plan.key is not None:
        index, key = plan.key
        how = "postings in memory, key indexes of the log"
        yield Use(f"{index} = {key.decode('utf-8', 'replace')}", how, index, key)
    condition = str(plan.seed) if plan.seed is not None else "{ }"
    of = "the answer's spans" if plan.flat else "spans of traces in question"
    yield Use(condition, f"{of}: block by block; after {PROBED} blocks by remembered columns")
    yield from _texts(plan.seed)
    for one in plan.required:
        how = "sorts out traces without such a span, if the first ones are not enough"
        if terms(one):
            how += "; or names the traces in question, if few frames of the log can have it"
        yield Use(str(one), how)
        yield from _texts(one)
    if not plan.flat:
        pipeline = " | ".join(map(str, plan.stages))
        yield Use(pipeline, "whole traces, by postings and key indexes of trace ids")


def _texts(condition: Expression | None) -> Iterator[Use]:
    """Yield what key indexes are asked of a condition's texts."""
    for term in terms(condition):
        texts = " or ".join(repr(one.text.decode("utf-8", "replace")) for one in term)
        yield Use(f"some field has {texts}", "key indexes of the log: frames that can have the text")
