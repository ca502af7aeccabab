"""A pipeline ready to run: the stages of a log query as steps over batches.

A step takes a `Batch` and returns one: narrower after a filter, with changed labels after `drop` and `keep`.
Steps run in the order of the stages, because a filter after `drop x` sees no x.

Not every stage of the language runs yet; `compile_stages` refuses the others by name and place, so that no
query is answered as if a stage were not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from collector.errors import InvalidQuery
from collector.query.logql import ast
from collector.query.logql.columns import Column
from collector.query.logql.regex import full_matcher, literal, searcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from collector.query.engine import Deadline
    from collector.query.logql.columns import Batch, Change, Lines


class Step(Protocol):
    """One stage, ready to run."""

    def apply(self, batch: Batch) -> Batch:
        """Return what is left of a batch."""
        ...


def unsupported(what: str, at: int) -> InvalidQuery:
    """Return the refusal of what the language has and the evaluator has not; `plan.py` adds the place."""
    return InvalidQuery(f"{what} is LogQL, but is not evaluated yet", at)


def compile_stages(stages: Iterable[ast.Stage]) -> list[Step]:
    """Return the steps of a pipeline. Raises InvalidQuery for a stage that is not evaluated."""
    return [_step(stage) for stage in stages]


def run(steps: Iterable[Step], batch: Batch, deadline: Deadline) -> Batch:
    """Return what the steps leave of a batch. Raises QueryTimeout: a query may have thousands of them."""
    for step in steps:
        if not batch.rows.size:
            break
        deadline.check()
        batch = step.apply(batch)
    return batch


def text_predicate(matcher: ast.Matcher) -> Callable[[str], bool]:
    """Return the test that a label's text must pass."""
    value = matcher.value
    match matcher.op:
        case "=":
            return lambda text: text == value
        case "!=":
            return lambda text: text != value
    matches = full_matcher(value)
    return matches if matcher.op == "=~" else lambda text: not matches(text)


def _step(stage: ast.Stage) -> Step:
    match stage:
        case ast.LineFilter():
            return LineStep(stage)
        case ast.LabelStage():
            return LabelStep(stage)
        case ast.Drop():
            return ChangeStep(Dropped(stage))
        case ast.Keep():
            return ChangeStep(Kept(stage))
    name = "label_format" if isinstance(stage, ast.LabelFormat) else str(stage).split()[1]
    raise unsupported(f"the stage {name!r}", stage.at)


class LineStep:
    """A line filter."""

    def __init__(self, stage: ast.LineFilter) -> None:
        if stage.op in ("|>", "!>"):
            raise unsupported(f"the pattern filter {stage.op!r}", stage.at)
        self._negative = stage.op[0] == "!"
        self._tests = [self._test(stage, operand) for operand in stage.operands]

    @staticmethod
    def _test(stage: ast.LineFilter, operand: ast.LineOperand) -> Callable[[Lines], NDArray[np.bool_]]:
        if operand.address:
            raise unsupported("the address filter ip()", stage.at)
        text = operand.value if stage.op in ("|=", "!=") else literal(operand.value)
        if text is not None:
            needle = text.encode()
            return lambda lines: lines.contain(needle)
        predicate = searcher(operand.value)
        return lambda lines: lines.meet(predicate)

    def apply(self, batch: Batch) -> Batch:
        """Keep the lines that have one of the operands; or none of them, if the filter is negative."""
        found = self._tests[0](batch.lines)
        for test in self._tests[1:]:
            found = found | test(batch.lines)
        return batch.narrowed(~found if self._negative else found)


class LabelStep:
    """A label filter."""

    def __init__(self, stage: ast.LabelStage) -> None:
        self._condition = _condition(stage.condition, stage.at)

    def apply(self, batch: Batch) -> Batch:
        """Keep the rows that meet the condition."""
        return batch.narrowed(self._condition(batch))


def _condition(node: ast.LabelFilter, at: int) -> Callable[[Batch], NDArray[np.bool_]]:
    match node:
        case ast.And() | ast.Or():
            terms = [_condition(term, at) for term in node.terms]
            combine = np.logical_and if isinstance(node, ast.And) else np.logical_or
            return lambda batch: combine.reduce([term(batch) for term in terms])
        case ast.Matcher():
            label, predicate = node.label, text_predicate(node)
            return lambda batch: batch.column(label).where(predicate)
        case ast.AddressFilter():
            raise unsupported("the address filter ip()", node.at)
    kind = {ast.NumberFilter: "numbers", ast.DurationFilter: "durations", ast.SizeFilter: "sizes"}[type(node)]
    raise unsupported(f"comparing labels with {kind}", node.at)


class ChangeStep:
    """`drop` or `keep`."""

    def __init__(self, change: Change) -> None:
        self.change = change

    def apply(self, batch: Batch) -> Batch:
        """Change the labels and no rows."""
        return batch.changed(self.change)


class _Choice:
    """The labels that a `drop` or `keep` names: some always, some where their text passes a test."""

    def __init__(self, labels: tuple[str | ast.Matcher, ...]) -> None:
        self._always = {label for label in labels if isinstance(label, str)}
        self._tests: dict[str, list[Callable[[str], bool]]] = {}
        for label in labels:
            if isinstance(label, ast.Matcher):
                self._tests.setdefault(label.label, []).append(text_predicate(label))

    def has(self, name: str, text: str) -> bool:
        """Tell whether the label is named."""
        return name in self._always or any(test(text) for test in self._tests.get(name, ()))

    def names(self) -> set[str]:
        """Return all names that can be meant."""
        return self._always | self._tests.keys()


class Dropped:
    """The change that `drop` makes."""

    def __init__(self, stage: ast.Drop) -> None:
        self._choice = _Choice(stage.labels)

    def column(self, name: str, column: Column) -> Column:
        """See `Change.column`."""
        if name not in self._choice.names():
            return column
        return _without(column, lambda text: self._choice.has(name, text))

    def labels(self, labels: dict[str, str]) -> dict[str, str]:
        """See `Change.labels`."""
        return {name: text for name, text in labels.items() if not self._choice.has(name, text)}


class Kept:
    """The change that `keep` makes."""

    def __init__(self, stage: ast.Keep) -> None:
        self._choice = _Choice(stage.labels)
        self.names = frozenset(self._choice.names())
        """The only labels that can be left."""

    def column(self, name: str, column: Column) -> Column:
        """See `Change.column`."""
        return _without(column, lambda text: not self._choice.has(name, text))

    def labels(self, labels: dict[str, str]) -> dict[str, str]:
        """See `Change.labels`."""
        return {name: text for name, text in labels.items() if self._choice.has(name, text)}


def _without(column: Column, gone: Callable[[str], bool]) -> Column:
    """Return the column with some of its texts taken away."""
    codes = np.arange(len(column.values))
    codes[[place for place, text in enumerate(column.values) if gone(text)]] = 0
    return Column(codes[column.codes], column.values)
