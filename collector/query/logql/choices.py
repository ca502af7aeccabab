"""`drop` and `keep`: labels taken away by name, or where their text matches.

Both leave labels that are there and empty as they leave others. `keep` never takes `__error__` and
`__error_details__`; `drop __error__` takes the error and leaves the details, as in Loki.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.query.logql import ast
from collector.query.logql.conditions import text_predicate
from collector.query.logql.layer import Layer, StageLayer
from collector.query.logql.row import DETAILS, ERROR, ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.query.logql.column import Entry
    from collector.query.logql.columns import Batch
    from collector.query.logql.row import Row


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


class _ChoiceLayer(StageLayer):
    """Labels after a `drop`, or after a `keep`."""

    def __init__(self, below: Layer, choice: _Choice, *, keeps: bool) -> None:
        super().__init__(below)
        self._choice = choice
        self._keeps = keeps

    def _entry(self, name: str) -> Entry:
        entry = self.below.entry(name)
        if name in ERRORS if self._keeps else name not in self._choice.names():
            return entry
        gone = np.array([self._choice.has(name, text) != self._keeps for text in entry.values], np.bool_)
        gone[0] = False
        return entry.without(gone[entry.codes])


class Dropped:
    """`drop`."""

    def __init__(self, stage: ast.Drop) -> None:
        self._choice = _Choice(stage.labels)

    def apply(self, batch: Batch) -> Batch:
        """See `Step.apply`."""
        return batch.under(_ChoiceLayer(batch.layer, self._choice, keeps=False))

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        for name in self._choice.names():
            text = row.get(name)
            if text is not None and self._choice.has(name, text):
                if name == ERROR:
                    row.error = ""
                elif name == DETAILS:
                    row.details = ""
                else:
                    row.delete(name)
        return True


class Kept:
    """`keep`."""

    def __init__(self, stage: ast.Keep) -> None:
        self._choice = _Choice(stage.labels)

    def apply(self, batch: Batch) -> Batch:
        """See `Step.apply`."""
        return batch.under(_ChoiceLayer(batch.layer, self._choice, keeps=True))

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        for name, text in row.labels().items():
            if name not in ERRORS and not self._choice.has(name, text):
                row.delete(name)
        return True
