"""A pipeline ready to run: the stages of a log query as steps over batches, and over single lines.

A step takes a `Batch` and returns one: narrower after a filter, under another layer after a stage that changes labels or
lines. `Step.line` does the same to one line, in the plainest way: that is how answered lines get their final text and
labels. Steps run in the order of the stages. Loki itself moves line filters in front of `decolorize` and tries label
filters on what parsers find before `label_format` has changed it; Ringtail goes by what the query says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from collector.errors import InvalidQuery
from collector.query.logql import ast
from collector.query.logql.address import AddressRange
from collector.query.logql.choices import Dropped, Kept
from collector.query.logql.conditions import Trial, condition_of, text_predicate
from collector.query.logql.formats import Decolorize, LabelFormat, LineFormat
from collector.query.logql.parsers import parser_of
from collector.query.logql.parsing import parsing
from collector.query.logql.patterns import filter_pattern
from collector.query.logql.regex import literal, searcher
from collector.query.logql.row import ERRORS
from collector.query.logql.unwrap import UnwrapStep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.logql.columns import Batch
    from collector.query.logql.lines import Lines
    from collector.query.logql.row import Row

__all__ = ("Step", "compile_stages", "kept_labels", "run", "text_predicate")

LAYERS_MAX = 100
"""Stages of a pipeline other than filters; each assignment of a `label_format` counts."""


class Step(Protocol):
    """One stage, ready to run."""

    def apply(self, batch: Batch) -> Batch:
        """Return what is left of a batch."""
        ...

    def line(self, row: Row) -> bool:
        """Change a line; return whether it is left."""
        ...


def compile_stages(stages: Sequence[ast.Stage], now_ns: int) -> list[Step]:
    """Return the steps of a pipeline, at a time (Unix ns). Raises InvalidQuery for a stage that cannot be one."""
    layers = 0
    for stage in stages:
        if not isinstance(stage, ast.LineFilter | ast.LabelStage):
            layers += len(stage.assignments) if isinstance(stage, ast.LabelFormat) else 1
        if layers > LAYERS_MAX:
            raise InvalidQuery(f"the pipeline has more than {LAYERS_MAX} stages that are not filters", stage.at)
    steps: list[Step] = []
    for stage in stages:
        step = _step(stage, lambda: now_ns)
        if isinstance(step, LineFormat | LabelFormat):
            step.follows([before.line for before in steps])
        steps.append(step)
    return steps


def run(steps: Sequence[Step], batch: Batch, deadline: Deadline) -> Batch:
    """Return what the steps leave of a batch. Raises QueryTimeout: a query may have thousands of them."""
    for step in steps:
        if not batch.rows.size:
            break
        deadline.check()
        batch = step.apply(batch)
    batch.steps = [step.line for step in steps]
    return batch


def kept_labels(stages: Iterable[ast.Stage]) -> frozenset[str] | None:
    """Return the only labels that lines can have after the stages; None where they can have any."""
    kept: frozenset[str] | None = None
    for stage in stages:
        if isinstance(stage, ast.Keep):
            named = {each if isinstance(each, str) else each.label for each in stage.labels} | {*ERRORS}
            kept = frozenset(named) if kept is None else kept & named
        elif isinstance(stage, ast.LabelFormat):
            kept = kept and kept | {each.label for each in stage.assignments}
        elif isinstance(stage, ast.Json | ast.Logfmt | ast.Pattern | ast.Regexp | ast.Unpack):
            kept = None
    return kept


def _step(stage: ast.Stage, now_ns: Callable[[], int]) -> Step:
    match stage:
        case ast.LineFilter():
            return LineStep(stage)
        case ast.LabelStage():
            return LabelStep(stage)
        case ast.Drop():
            return Dropped(stage)
        case ast.Keep():
            return Kept(stage)
        case ast.LineFormat():
            return LineFormat(stage, now_ns)
        case ast.LabelFormat():
            return LabelFormat(stage, now_ns)
        case ast.Decolorize():
            return Decolorize()
        case ast.Unwrap():
            return UnwrapStep(stage)
    return ParseStep(stage)


class _Test:
    """What a line filter looks for."""

    def __init__(self, predicate: Callable[[bytes], bool], needle: bytes | None, *, is_needle: bool = False) -> None:
        """Take a test of one line, and a text that all lines have which pass it; `is_needle` if that says it all."""
        self.line = predicate
        self._needle = needle
        self._is_needle = is_needle

    def lines(self, lines: Lines) -> NDArray[np.bool_]:
        """Tell for each line whether it passes."""
        if not self._needle and not self._is_needle:
            return lines.meet(self.line)
        candidates = lines.contain(self._needle or b"")
        if not self._is_needle and candidates.any():
            candidates[candidates] = lines.narrowed(candidates).meet(self.line)
        return candidates


def _contains(needle: bytes) -> _Test:
    return _Test(lambda line: needle in line, needle, is_needle=True)


class LineStep:
    """A line filter."""

    def __init__(self, stage: ast.LineFilter) -> None:
        """Raises InvalidQuery for what is no pattern or address."""
        self._negative = stage.op[0] == "!"
        self._tests = [self._test(stage, operand) for operand in stage.operands]

    @staticmethod
    def _test(stage: ast.LineFilter, operand: ast.LineOperand) -> _Test:
        if operand.address:
            return _Test(AddressRange(operand.value, stage.at).occurs, None)
        if stage.op in ("|>", "!>"):
            pattern = filter_pattern(operand.value, stage.at)
            return _Test(pattern.fits, pattern.literal())
        text = operand.value if stage.op in ("|=", "!=") else literal(operand.value)
        return _Test(searcher(operand.value), None) if text is None else _contains(text.encode())

    def apply(self, batch: Batch) -> Batch:
        """Keep the lines that have one of the operands; or none of them, if the filter is negative."""
        found = self._tests[0].lines(batch.lines)
        for test in self._tests[1:]:
            found = found | test.lines(batch.lines)
        return batch.narrowed(~found if self._negative else found)

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        return any(test.line(row.line) for test in self._tests) != self._negative


class LabelStep:
    """A label filter."""

    def __init__(self, stage: ast.LabelStage) -> None:
        """Raises InvalidQuery for what is no address."""
        self._condition = condition_of(stage.condition)

    def apply(self, batch: Batch) -> Batch:
        """Keep the rows that meet the condition."""
        trial = Trial(batch)
        return trial.outcome(self._condition.rows(trial, np.ones(len(batch.rows), np.bool_)))

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        return self._condition.meets(row)


class ParseStep:
    """A parser."""

    def __init__(self, stage: ast.Json | ast.Logfmt | ast.Pattern | ast.Regexp | ast.Unpack) -> None:
        """Raises InvalidQuery for a pattern, an expression or a path that is none."""
        self._parser = parser_of(stage)

    def apply(self, batch: Batch) -> Batch:
        """Set labels from the lines, when they are asked for."""
        return batch.under(parsing(batch.layer, self._parser))

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        row.line = self._parser.parse(row.line, row)
        return True
