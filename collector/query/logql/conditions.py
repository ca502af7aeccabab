"""Label filters: conditions on a line's labels, over batches and line by line.

As in Loki: a comparison with a text takes an absent label for an empty one; one with a number, a duration, a size or
an address drops a line without the label. A text that cannot be read as a number (…) keeps the line, which gets
`__error__="LabelFilterErr"` if it has no error yet. All terms of an `and` are tried, so a later one may set the
error although an earlier one does not hold; `or` stops at the first that holds. `ip()` keeps lines that have an
error. The one thing that differs: Loki's filters see `__error__` but find `__error_details__` always empty.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from collector.query.logql import ast
from collector.query.logql.address import AddressRange
from collector.query.logql.column import Column
from collector.query.logql.layer import FaultLayer
from collector.query.logql.quantity import Unreadable, read_duration_ns, read_number, read_size
from collector.query.logql.regex import full_matcher
from collector.query.logql.row import ERROR, ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.query.logql.columns import Batch
    from collector.query.logql.row import Row

LABEL_FILTER_ERROR = "LabelFilterErr"

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


class Trial:
    """A label filter on its way through a batch: which rows it has failed on so far."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._codes: NDArray[np.intp] | None = None
        self._details = [""]

    def fail(self, rows: NDArray[np.bool_], codes: NDArray[np.intp], details: dict[int, str]) -> None:
        """Note a fault on rows that have no error yet; `details` by the code that each row has in `codes`."""
        rows = rows & ~self.failed()
        if not rows.any():
            return
        if self._codes is None:
            self._codes = np.zeros(len(self.batch.rows), np.intp)
        places = np.zeros(max(details) + 1, np.intp)
        for code, text in details.items():
            places[code] = len(self._details)
            self._details.append(text)
        self._codes[rows] = places[codes[rows]]

    def failed(self) -> NDArray[np.bool_]:
        """Tell which rows have an error, from this filter or from before."""
        failed: NDArray[np.bool_] = self.batch.entry(ERROR).codes != 0
        return failed if self._codes is None else failed | (self._codes != 0)

    def column(self, label: str) -> Column:
        """Return a label as the filter sees it now."""
        layer = self._layer()
        return self.batch.column(label) if layer is None else layer.entry(label).column

    def outcome(self, mask: NDArray[np.bool_]) -> Batch:
        """Return what the filter leaves of the batch, with the faults."""
        layer = self._layer()
        return (self.batch if layer is None else self.batch.under(layer)).narrowed(mask)

    def _layer(self) -> FaultLayer | None:
        if self._codes is None:
            return None
        return FaultLayer.over(self.batch.layer, LABEL_FILTER_ERROR, self._codes, self._details)


class Condition(Protocol):
    """A label filter, ready to run."""

    def rows(self, trial: Trial, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Tell which of the active rows meet the condition; of others, anything."""
        ...

    def meets(self, row: Row) -> bool:
        """Tell whether a line meets the condition."""
        ...


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


def condition_of(node: ast.LabelFilter) -> Condition:
    """Return a label filter, ready to run. Raises InvalidQuery."""
    match node:
        case ast.And():
            return All([condition_of(term) for term in node.terms])
        case ast.Or():
            return Any([condition_of(term) for term in node.terms])
        case ast.Matcher():
            return Texts(node.label, text_predicate(node))
        case ast.AddressFilter():
            return Addresses(node.label, AddressRange(node.value, node.at), node.op == "!=")
        case ast.NumberFilter():
            return Values(node.label, node.op, node.value, read_number)
        case ast.DurationFilter():
            return Values(node.label, node.op, node.value, read_duration_ns)
        case ast.SizeFilter():
            return Values(node.label, node.op, node.value, read_size)


class All:
    """Conditions that must all be met."""

    def __init__(self, terms: list[Condition]) -> None:
        self._terms = terms

    def rows(self, trial: Trial, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """See `Condition.rows`."""
        met = self._terms[0].rows(trial, active)
        for term in self._terms[1:]:
            met = met & term.rows(trial, active)
        return met

    def meets(self, row: Row) -> bool:
        """See `Condition.meets`."""
        met = [term.meets(row) for term in self._terms]
        return all(met)  # a list: each must be tried


class Any:
    """Conditions of which one must be met."""

    def __init__(self, terms: list[Condition]) -> None:
        self._terms = terms

    def rows(self, trial: Trial, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """See `Condition.rows`."""
        met = self._terms[0].rows(trial, active)
        for term in self._terms[1:]:
            met = met | term.rows(trial, active & ~met)
        return met

    def meets(self, row: Row) -> bool:
        """See `Condition.meets`."""
        return any(term.meets(row) for term in self._terms)


class Texts:
    """A label whose text passes a test."""

    def __init__(self, label: str, predicate: Callable[[str], bool]) -> None:
        self._label = label
        self._predicate = predicate

    def rows(self, trial: Trial, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """See `Condition.rows`."""
        return trial.column(self._label).where(self._predicate)

    def meets(self, row: Row) -> bool:
        """See `Condition.meets`."""
        return self._predicate(row.get(self._label) or "")


class Addresses:
    """A label in whose text an address of a range stands."""

    def __init__(self, label: str, addresses: AddressRange, negative: bool) -> None:
        self._label = label
        self._addresses = addresses
        self._negative = negative

    def rows(self, trial: Trial, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """See `Condition.rows`."""
        column = (
            trial.column(self._label) if self._label not in ERRORS else Column(np.zeros_like(active, np.intp), [""])
        )
        met: NDArray[np.bool_] = ((column.codes != 0) & column.where(self._test)) | trial.failed()
        return met

    def meets(self, row: Row) -> bool:
        """See `Condition.meets`."""
        text = None if self._label in ERRORS else row.get(self._label)
        return bool(row.error) or (text is not None and self._test(text))

    def _test(self, text: str) -> bool:
        return self._addresses.occurs(text.encode()) != self._negative


class Values:
    """A label that compares with a value."""

    def __init__(self, label: str, op: str, value: float, read: Callable[[str], float]) -> None:
        self._label = label
        self._holds = _OPERATORS[op]
        self._value = value
        self._read = read

    def rows(self, trial: Trial, active: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """See `Condition.rows`."""
        if self._label in ERRORS:
            return np.zeros_like(active)
        column = trial.column(self._label)
        read, holds, value = self._read, self._holds, self._value
        met = np.zeros(len(column.values), np.bool_)
        unreadable: dict[int, str] = {}
        for code, text in enumerate(column.values):
            if code:
                try:
                    met[code] = holds(read(text), value)
                except Unreadable as error:
                    met[code] = True
                    unreadable[code] = str(error)
        if unreadable:
            bad = np.zeros(len(column.values), np.bool_)
            bad[list(unreadable)] = True
            trial.fail(bad[column.codes] & active, column.codes, unreadable)
        passed: NDArray[np.bool_] = met[column.codes]
        return passed

    def meets(self, row: Row) -> bool:
        """See `Condition.meets`."""
        text = None if self._label in ERRORS else row.get(self._label)
        if text is None:
            return False
        try:
            return self._holds(self._read(text), self._value)
        except Unreadable as error:
            if not row.error:
                row.fail(LABEL_FILTER_ERROR, str(error))
            return True
