"""Log queries: the exact newest (or oldest) lines that a query matches, in a repeatable order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from collector.errors import QueryLimit
from collector.query.newest import newest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from collector.otlp.records import Ref
    from collector.query.deadline import Deadline
    from collector.query.logql.row import Row
    from collector.query.logql.source import Source, Statistics
    from collector.query.slices import Slice
    from collector.store import View

ANSWER_BYTES_MAX = 64 << 20
"""Bytes of the records that one answer may be made of, and bytes of what a pipeline makes of them."""
READ_BYTES_MAX = 4 << 20
"""Bytes of lines and their records that are kept to be answered when they were read to find out whether they match."""


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
    read = _Read()

    def select(piece: Slice) -> NDArray[np.intp]:
        return source.batch(piece, view, deadline, statistics).rows

    def among_few(refs: list[Ref]) -> list[Ref]:
        return read.keep(source.rows(refs, deadline, statistics))

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
        hints=source.hints,
        among_few=among_few,
    )
    size = sum([ref.block.records.number("length", ref.row) for ref in refs])
    if size > ANSWER_BYTES_MAX:
        raise QueryLimit(f"the answer would hold {size} bytes of records, over {ANSWER_BYTES_MAX}; lower the limit")
    return lines_of(source, refs, deadline, read.rows)


class _Read:
    """Rows that were read to tell whether they match, and are mostly what is answered."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        """By their records' offsets."""
        self._room = READ_BYTES_MAX

    def keep(self, found: list[tuple[Ref, Row]]) -> list[Ref]:
        """Keep what there is room for; return the records."""
        for ref, row in found:
            self._room -= len(row.line) + ref.block.records.number("length", ref.row)
            if self._room < 0:
                break
            self.rows[ref.offset] = row
        return [ref for ref, _ in found]


def lines_of(
    source: Source, refs: Sequence[Ref], deadline: Deadline, rows: Mapping[int, Row] | None = None
) -> list[Line]:
    """Return the lines that a source's pipeline makes of records that it lets through; some may be read already.

    Raises QueryTimeout, and QueryLimit when they are larger than ANSWER_BYTES_MAX together.
    """
    lines: list[Line] = []
    size = 0
    for ref in refs:
        deadline.check()
        row = rows.get(ref.offset) if rows else None
        lines.append(_line(ref, source.row(ref.block, ref.row) if row is None else row))
        size += len(lines[-1].text) + sum(map(len, lines[-1].parsed.values()))
        if size > ANSWER_BYTES_MAX:
            raise QueryLimit(f"the stages make more than {ANSWER_BYTES_MAX} bytes of the lines; lower the limit")
    return lines


def _line(ref: Ref, row: Row) -> Line:
    text = row.line.decode("utf-8", "replace")
    parsed = row.parsed | row.failures() if row.error or row.details else row.parsed
    return Line(ref.time, ref.offset, text, row.stream, row.metadata, parsed)
