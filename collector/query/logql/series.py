"""The series of a range aggregation: what tells them apart, and which lines make the query fail.

By columns wherever the names of the labels are known: codes of several labels are made one code, and a label set is made
of each distinct one. Without a grouping, or with `without`, every label of every line counts, and lines are decoded one by
one; a `keep` in the pipeline spares that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from collector.errors import InvalidQuery
from collector.query.logql import ast
from collector.query.logql.column import compact
from collector.query.logql.literals import quote
from collector.query.logql.row import ERROR

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.errors import QueryLimit
    from collector.query.deadline import Deadline
    from collector.query.logql.columns import Batch
    from collector.query.logql.source import Source
    from collector.query.logql.vectors import Labels

NO_LABELS: Final = ast.Grouping(without=False, labels=())
"""The grouping that makes one series of all."""
LINES_BETWEEN_CHECKS: Final = 1000
"""Records decoded between two looks at the deadline."""

_NOT_OF_PARSERS: Final = frozenset(("", "SampleExtractionErr", "LabelFilterErr", "TemplateFormatErr"))


class SeriesOf:
    """The series of a range aggregation: which there are, and which one each line is in."""

    def __init__(
        self,
        deadline: Deadline,
        source: Source,
        grouping: ast.Grouping | None,
        most: int,
        refusal: Callable[[], QueryLimit],
    ) -> None:
        """Take how many series there may be at most, and what is raised when there is one more."""
        query = source.query
        self._deadline = deadline
        self.source = source
        self._rows: dict[Labels, int] = {}
        self.labels: list[Labels] = []
        """The labels of each series, by its number."""
        self._most = most
        self._refusal = refusal
        unwrapped = [stage.label for stage in query.stages if isinstance(stage, ast.Unwrap)]
        self.unwraps = bool(unwrapped)
        """Whether the lines are samples."""
        self._gone = frozenset(unwrapped)
        self.names: list[str] | None = None
        """The only labels that can tell series apart; None where any label can."""
        if grouping is not None and not grouping.without:
            self.names = sorted(set(grouping.labels))
        else:
            self._gone |= frozenset(grouping.labels if grouping is not None else ())
            if source.kept is not None:
                self.names = sorted(source.kept - self._gone)
        self._fails = not _never_fails(query.stages)
        self._preserves = grouping is not None and not grouping.without and _bears_errors(query.stages, grouping)

    def check(self, batch: Batch) -> None:
        """Raise InvalidQuery when a stage failed on a line."""
        if not self._fails:
            return
        errors = batch.column(ERROR)
        failed = errors.codes != 0
        if self._preserves:
            failed &= np.array([error in _NOT_OF_PARSERS for error in errors.values], np.bool_)[errors.codes]
        if failed.any():
            place = int(np.flatnonzero(failed)[0])
            labels = ", ".join(f"{name}={quote(text)}" for name, text in sorted(batch.labels(place).items()))
            error = errors.values[int(errors.codes[place])]
            raise InvalidQuery(
                f"pipeline error: '{error}' for series: '{{{labels}}}'.\n"
                f'Use a label filter to skip this error on purpose, as in | __error__!="{error}",\n'
                'or one that skips all errors: | __error__="". It can also stand behind unwrap.'
            )

    def of(self, batch: Batch) -> NDArray[np.intp]:
        """Return the series of each line. Raises QueryLimit."""
        if self.names is None:
            return self._by_rows(batch)
        codes = np.zeros(len(batch.rows), np.intp)
        keys: list[Labels] = [()]
        for name in self.names:
            column = batch.column(name)
            count = len(column.values)
            if count == 1:  # no line has the label
                continue
            used, codes = compact(codes * count + column.codes, len(keys) * count)
            longer = []
            for one in used.tolist():
                text = column.values[one % count]
                longer.append((*keys[one // count], (name, text)) if text else keys[one // count])
            keys = longer
        rows = np.array([self._row(key) for key in keys], np.intp)
        return rows[codes]

    def _by_rows(self, batch: Batch) -> NDArray[np.intp]:
        """Return the series of each line by all its labels, or all without some."""
        found = np.empty(len(batch.rows), np.intp)
        for place in range(len(batch.rows)):
            if place % LINES_BETWEEN_CHECKS == 0:
                self._deadline.check()
            pairs = batch.labels(place).items()
            found[place] = self._row(tuple(sorted(pair for pair in pairs if pair[1] and pair[0] not in self._gone)))
        return found

    def _row(self, labels: Labels) -> int:
        row = self._rows.get(labels)
        if row is None:
            row = len(self.labels)
            if row >= self._most:
                raise self._refusal()
            self._rows[labels] = row
            self.labels.append(labels)
        return row


def _never_fails(stages: tuple[ast.Stage, ...]) -> bool:
    """Tell whether no line can have an error after these stages."""
    for stage in stages:
        if isinstance(stage, ast.LabelStage):
            if not isinstance(stage.condition, ast.Matcher):
                return False
        elif not isinstance(stage, ast.LineFilter | ast.Drop | ast.Keep | ast.Decolorize):
            return False
    return True


def _bears_errors(stages: tuple[ast.Stage, ...], grouping: ast.Grouping) -> bool:
    """Tell whether lines that a parser failed on are in the result as others are.

    A filter or the grouping asks for `__error__`; or nobody asks for any label, and Loki does not parse lines at all.
    """
    pending: list[ast.LabelFilter] = [stage.condition for stage in stages if isinstance(stage, ast.LabelStage)]
    names = set(grouping.labels)
    while pending:
        condition = pending.pop()
        if isinstance(condition, ast.And | ast.Or):
            pending.extend(condition.terms)
        else:
            names.add(condition.label)
    if not names:
        return not any(isinstance(stage, ast.LineFormat | ast.LabelFormat | ast.Unwrap) for stage in stages)
    return ERROR in names
