"""`unwrap`: a number out of a label, for range aggregations of samples.

For who aggregates: run a query's stages, `unwrap` and what follows it among them, as all others (`Source.batches`).
Then `samples(batch)` has a number for every row that is left, and which rows have failed. As in Loki,

* a line without the label, or with an empty one, has no sample: it is gone from the batch;
* a text that is no number (duration, size) makes a sample all the same (0, or what could be read), and
  `__error__="SampleExtractionErr"` with `__error_details__`; label filters behind `unwrap` may drop it by that;
  if one is left, Loki refuses the query: "pipeline error: 'SampleExtractionErr' for series: …";
* the label itself is not among the labels of the series, unless a grouping `by` names it.

`duration` and `duration_seconds` make seconds, `bytes` makes bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from collector.query.logql.layer import FaultLayer
from collector.query.logql.quantity import CONVERSIONS, Unreadable
from collector.query.logql.row import ERROR, ERRORS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.logql import ast
    from collector.query.logql.column import Column
    from collector.query.logql.columns import Batch
    from collector.query.logql.row import Row

SAMPLE_ERROR = "SampleExtractionErr"


class Samples(NamedTuple):
    """The numbers of a batch's rows."""

    values: NDArray[np.float64]
    """For each row, what `unwrap` has made of its label; 1 without an `unwrap`."""
    errors: Column
    """For each row, its `__error__`; empty where nothing failed."""


def samples(batch: Batch) -> Samples:
    """Return the samples of a batch that has gone through all stages."""
    values = np.ones(len(batch.rows)) if batch.samples is None else batch.samples
    return Samples(values, batch.column(ERROR))


class UnwrapStep:
    """`unwrap label` or `unwrap conversion(label)`."""

    def __init__(self, stage: ast.Unwrap) -> None:
        self._label = stage.label
        self._read = CONVERSIONS[stage.conversion]

    def apply(self, batch: Batch) -> Batch:
        """Keep the rows that have the label, and set their samples."""
        if self._label in ERRORS:
            return batch.narrowed(np.zeros(len(batch.rows), np.bool_))
        codes, texts = batch.column(self._label)
        values = np.zeros(len(texts))
        faults, details = np.zeros(len(texts), np.intp), [""]
        present = np.array([bool(text) for text in texts], np.bool_)
        for code, text in enumerate(texts):
            if text:
                try:
                    values[code] = self._read(text)
                except Unreadable as error:
                    values[code] = error.value
                    faults[code] = len(details)
                    details.append(str(error))
        if faults[codes].any():
            batch = batch.under(FaultLayer.over(batch.layer, SAMPLE_ERROR, faults[codes], details))
        batch = batch.narrowed(present[codes])
        left = batch.under(batch.layer)
        left.samples = values[codes[present[codes]]]
        return left

    def line(self, row: Row) -> bool:
        """See `Step.line`."""
        text = None if self._label in ERRORS else row.get(self._label)
        if not text:
            return False
        try:
            row.sample = self._read(text)
        except Unreadable as error:
            row.sample = error.value
            row.fail(SAMPLE_ERROR, str(error))
        return True
