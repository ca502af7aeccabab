"""LogQL explained: how each part of a query is answered, and what each stage of a pipeline has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.otlp.terms import TRACE
from collector.query.effort import Use
from collector.query.logql import ast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from collector.otlp.terms import Sought
    from collector.query.deadline import Deadline
    from collector.query.effort import Effort
    from collector.query.logql.columns import Batch
    from collector.query.logql.plan import Plan
    from collector.query.logql.steps import Step


def uses(plan: Plan) -> Iterator[Use]:
    """Yield how the parts of a query are answered, in the order in which they are."""
    for query, source in plan.sources.items():
        service = source.selection.service
        if service is not None:
            how = "postings in memory, key indexes of the log"
            yield Use(str(query.selector), how, "service", service)
        else:
            yield Use(str(query.selector), "once for each resource and scope")
        for term in source.terms:
            yield Use(
                " or ".join(map(_sought, term)), "words in the keyword index, traces in their postings", term=term
            )
        for stage in query.stages:
            yield Use(str(stage), _how(stage))


def _sought(one: Sought) -> str:
    if one.kind == TRACE:
        return f"the trace is {one.text.hex()}"
    return f"{'an attribute is' if one.whole else 'the line has'} {one.text.decode('utf-8', 'replace')!r}"


def _how(stage: ast.Stage) -> str:
    match stage:
        case ast.LineFilter():
            return "each line that is left"
        case ast.LabelStage():
            return "once for each distinct value in a block"
        case _:
            return "each line that is left"


def noted(
    effort: Effort, stages: Sequence[ast.Stage], steps: Sequence[Step], batch: Batch, deadline: Deadline
) -> Batch:
    """Return what the steps of some stages leave of a batch, as `run` does, and note what each does."""
    for stage, step in zip(stages, steps, strict=True):
        if not batch.rows.size:
            break
        deadline.check()
        before, began = len(batch.rows), effort.clock.monotonic()
        batch = step.apply(batch)
        effort.stage(str(stage), before, len(batch.rows), began)
    batch.steps = [step.line for step in steps]
    return batch
