"""Lines at least some time apart: Loki's `interval`. Of a range that has a million lines it shows one every minute.

The first line that matches is one; then the first that is `interval_ns` or more behind it (before it, for newest first),
whatever its stream. Which lines match has to be known for the whole range: 16 bytes are kept for each, `MATCHES_MAX`
at most; then the chosen ones are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from collector.errors import QueryLimit
from collector.query.logql.logs import Line, lines_of
from collector.query.newest import newest
from collector.query.places import places

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.query.deadline import Deadline
    from collector.query.logql.source import Source, Statistics
    from collector.query.slices import Slice
    from collector.store import View

MATCHES_MAX: Final = 10_000_000
"""Lines of a range, of which some are chosen."""


def read_spaced(
    deadline: Deadline,
    view: View,
    source: Source,
    start_ns: int,
    end_ns: int,
    limit: int,
    oldest_first: bool,
    interval_ns: int,
    statistics: Statistics,
) -> list[Line]:
    """Return at most `limit` lines with start_ns <= time <= end_ns, as `read_lines`, each `interval_ns` from the one before.

    Raises QueryTimeout, and QueryLimit for more than MATCHES_MAX lines.
    """
    times: list[NDArray[np.uint64]] = []
    offsets: list[NDArray[np.int64]] = []
    count = 0
    for piece in source.pieces(view, start_ns, end_ns, deadline):
        rows = source.batch(piece, view, deadline, statistics).rows
        count += len(rows)
        if count > MATCHES_MAX:
            raise QueryLimit(f"more than {MATCHES_MAX} lines match, of which an interval would choose; ask for less")
        times.append(piece.block.column("time")[rows])
        offsets.append(places(piece.block, rows))
    if not count:
        return []
    chosen = _chosen(np.concatenate(times), np.concatenate(offsets), limit, interval_ns, oldest_first=oldest_first)

    def select(piece: Slice) -> NDArray[np.intp]:
        return piece.rows[np.isin(places(piece.block, piece.rows), chosen)]

    refs = newest(view, limit, select, start_ns, end_ns, deadline, oldest=oldest_first, hints=source.hints)
    return lines_of(source, refs, deadline)


def _chosen(
    times: NDArray[np.uint64], offsets: NDArray[np.int64], limit: int, interval_ns: int, *, oldest_first: bool
) -> NDArray[np.int64]:
    """Return the offsets of the lines that are far enough apart."""
    order = np.lexsort((offsets, times))
    times, offsets = times[order], offsets[order]
    places: list[int] = []
    place = 0 if oldest_first else len(times) - 1
    while 0 <= place < len(times) and len(places) < limit:
        places.append(place)
        if oldest_first:
            place = int(np.searchsorted(times, times[place] + np.uint64(interval_ns), "left"))
        elif int(times[place]) < interval_ns:
            break
        else:
            place = int(np.searchsorted(times, times[place] - np.uint64(interval_ns), "right")) - 1
    found: NDArray[np.int64] = offsets[places]
    return found
