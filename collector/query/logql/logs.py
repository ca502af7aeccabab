"""Log queries: the exact newest (or oldest) lines that a query matches, in a repeatable order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from collector.errors import QueryLimit
from collector.query.engine import newest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from collector.otlp.records import Ref
    from collector.query.engine import Deadline, Slice
    from collector.query.logql.source import Source, Statistics
    from collector.store import View

ANSWER_BYTES_MAX = 64 << 20
"""Bytes of the records that one answer may be made of, and bytes of what a pipeline makes of them."""


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
    parsed: dict[str, str]
    """The labels that stages have set, `__error__` and `__error_details__` among them. A name is in one of the three."""


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
    )
    size = sum(int(ref.block.column("length")[ref.row]) for ref in refs)
    if size > ANSWER_BYTES_MAX:
        raise QueryLimit(f"the answer would hold {size} bytes of records, over {ANSWER_BYTES_MAX}; lower the limit")
    return lines_of(source, refs, deadline)


def lines_of(source: Source, refs: Sequence[Ref], deadline: Deadline) -> list[Line]:
    """Return the lines that a source's pipeline makes of records that it lets through.

    Raises QueryTimeout, and QueryLimit when they are larger than ANSWER_BYTES_MAX together.
    """
    lines: list[Line] = []
    size = 0
    for ref in refs:
        deadline.check()
        lines.append(_line(source, ref))
        size += len(lines[-1].text) + sum(map(len, lines[-1].parsed.values()))
        if size > ANSWER_BYTES_MAX:
            raise QueryLimit(f"the stages make more than {ANSWER_BYTES_MAX} bytes of the lines; lower the limit")
    return lines


def _line(source: Source, ref: Ref) -> Line:
    row = source.row(ref.block, ref.row)
    text = row.line.decode("utf-8", "replace")
    return Line(ref.time, ref.offset, text, row.stream, row.metadata, row.parsed | row.failures())
