"""What the roots of traces are called, for spans that are looked at by the million: `compare()` asks it of each.

The root of a trace is, as in `trees.py`, the span without a parent that started first. Roots are gone through once, in
ring and log as far around the range as a search looks for a trace's spans; traces are then told apart by numbers, and
each batch of spans looks its traces up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import QueryLimit
from collector.query.slices import END_OF_TIME
from collector.query.traceql import values
from collector.query.traceql.ast import Attribute, Expression, Intrinsic
from collector.query.traceql.candidates import TRACE_SPREAD_NS
from collector.query.traceql.matches import matches
from collector.query.traceql.plan import plan
from collector.query.traceql.remembered import IS_ROOT
from collector.query.traceql.structure import Numbering

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.traceql.matches import Batch
    from collector.query.traceql.values import Column
    from collector.store import View

ROOTS_MAX: Final = 4_000_000
"""Roots that are looked at: 50 bytes each."""
FIELDS: Final[dict[Intrinsic, Expression]] = {
    Intrinsic("trace:rootName"): Intrinsic("span:name"),
    Intrinsic("trace:rootService"): Attribute("resource", "service.name"),
}
"""What is told of a root, and which field of it that is."""


class Roots:
    """The roots of all traces around a range."""

    def __init__(self, deadline: Deadline, everything: View, start_ns: int, end_ns: int) -> None:
        """Look for the roots of traces with spans that started in [start_ns, end_ns]. Raises QueryLimit."""
        self._traces = Numbering()
        since, until = max(0, start_ns - TRACE_SPREAD_NS), min(END_OF_TIME, end_ns + TRACE_SPREAD_NS)
        ids, starts, places = [np.empty((0, 2), np.uint64)], [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        named = {field: _Texts() for field in FIELDS}
        count = 0
        for batch in matches(deadline, everything, everything, plan(IS_ROOT), since, until, list(FIELDS.values())):
            deadline.check()
            count += len(batch)
            if count > ROOTS_MAX:
                raise QueryLimit(f"the range has more than {ROOTS_MAX} traces: narrow it")
            ids.append(batch.trace_ids)
            starts.append(batch.times)
            places.append(batch.offsets)
            for field, expression in FIELDS.items():
                named[field].add(*batch.codes(expression))
        words = np.concatenate(ids)
        numbers = self._traces.add(words[:, 0], words[:, 1])
        latest = np.lexsort((np.concatenate(places), np.concatenate(starts)))[::-1]
        chosen = np.zeros(len(self._traces), np.intp)
        chosen[numbers[latest]] = latest
        self._codes = {field: np.append(texts.codes[chosen], 0) for field, texts in named.items()}
        self._dictionaries = {field: texts.dictionary for field, texts in named.items()}

    def fields(self, batch: Batch) -> list[tuple[Intrinsic, NDArray[Any], Column]]:
        """Return what is told of the roots of a batch's spans: codes and a dictionary, absent where there is no root."""
        words = batch.trace_ids
        numbers = self._traces.find(words[:, 0], words[:, 1])
        return [(field, codes[numbers], self._dictionaries[field]) for field, codes in self._codes.items()]


class _Texts:
    """One field of many roots: each distinct text once. Code 0 is an absent one."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._codes = [np.empty(0, np.int32)]

    def add(self, codes: NDArray[Any], dictionary: Column) -> None:
        used = np.flatnonzero(np.bincount(codes, minlength=len(dictionary.type)))
        numbers = np.zeros(len(dictionary.type), np.int32)
        for at in used.tolist():
            value = dictionary.value(at)
            if isinstance(value, str):
                numbers[at] = self._numbers.setdefault(value, len(self._numbers) + 1)
        self._codes.append(numbers[codes])

    @property
    def codes(self) -> NDArray[np.int32]:
        return np.concatenate(self._codes)

    @property
    def dictionary(self) -> Column:
        texts = [text.encode() for text in self._numbers]
        lengths = np.array([0, *map(len, texts)], np.uint32)
        starts = (np.cumsum(lengths) - lengths).astype(np.uint32)
        column = values.of_texts(starts, lengths, b"".join(texts))
        column.type[0] = 0
        return column
