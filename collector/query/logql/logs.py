"""Log queries: the exact newest (or oldest) lines that a query matches, in a repeatable order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from collector.errors import QueryLimit
from collector.otlp.records import record
from collector.query.engine import newest
from collector.query.logql.labels import value_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from collector.otlp.records import Ref
    from collector.query.engine import Deadline, Slice
    from collector.query.logql.source import Source, Statistics
    from collector.store import View

ANSWER_BYTES_MAX = 64 << 20
"""Bytes of the records that one answer may be made of."""


class Line(NamedTuple):
    """One line of an answer."""

    time: int
    """Unix ns."""
    offset: int
    """The record's offset in the log."""
    text: str
    stream: dict[str, str]
    """The labels that name its stream, after the pipeline."""
    metadata: dict[str, str]
    """Its structured metadata, after the pipeline."""


def read_lines(
    deadline: Deadline,
    view: View,
    source: Source,
    start_ns: int,
    end_ns: int,
    limit: int,
    oldest_first: bool,
    statistics: Statistics,
) -> list[Line]:
    """Return the `limit` newest lines with start_ns <= time <= end_ns, newest first; or oldest, oldest first.

    Lines of one time are in the order of their offsets, in the direction asked for. Raises QueryTimeout, and
    QueryLimit when the records are larger than ANSWER_BYTES_MAX together.
    """

    def select(piece: Slice) -> NDArray[np.intp]:
        return source.batch(piece, view, deadline, statistics).rows

    if end_ns < start_ns:
        return []
    source.records.remember(view.memo)
    refs = newest(
        view,
        limit,
        select,
        start_ns,
        end_ns,
        deadline,
        oldest=oldest_first,
        terms=source.terms,
        pruning=statistics.pruning,
    )
    size = sum(int(ref.block.column("length")[ref.row]) for ref in refs)
    if size > ANSWER_BYTES_MAX:
        raise QueryLimit(f"the answer would hold {size} bytes of records, over {ANSWER_BYTES_MAX}; lower the limit")
    return [_line(source, ref) for ref in refs]


def _line(source: Source, ref: Ref) -> Line:
    block, row = ref.block, ref.row
    message = record(block, row)
    stream = source.records.container(block, block.records.number("group", row)).stream
    metadata = source.records.metadata(block, row, message)
    for change in source.changes:
        stream, metadata = change.labels(stream), change.labels(metadata)
    return Line(ref.time, ref.offset, value_text(message.body), stream, metadata)
