"""Records that a backend shows although ring or log hold them, known by what is in them.

Most backends keep the offsets of records, and leave out what is held. One that keeps no offsets, as an existing schema may not
have a place for them, gives those records again; here they are looked for among those that are held, in the time of each of its
blocks. Alike are spans with the same start, trace and span id; log records with the same time, ids, severity and text; data
points with the same time, series and value. So many as are held are left out, and no more.

Cost: ring and log are gone through for the time range of every block: that is where the two overlap, and little, because a
backend is asked for what is older than what is held (reach.py).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from collector.otlp.signals import LOGS, METRICS
from collector.otlp.wire import hash_key
from collector.query import match

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.slices import Slice

Identity = tuple[int, ...]


def without_held(block: Block, rows: NDArray[np.intp], held: Iterable[Slice]) -> NDArray[np.intp]:
    """Return the rows of a backend's block that are not among the records of these slices."""
    times = block.column("time")[rows]
    known: Counter[Identity] = Counter()
    for piece in held:
        candidates = piece.rows[np.isin(piece.block.column("time")[piece.rows], times)]
        known.update(identities(piece.block, candidates))
    if not known:
        return rows
    kept = []
    for row, identity in zip(rows.tolist(), identities(block, rows), strict=True):
        if known[identity] > 0:
            known[identity] -= 1
        else:
            kept.append(row)
    return np.array(kept, np.intp)


def identities(block: Block, rows: NDArray[np.intp]) -> list[Identity]:
    """Return by what each of some records is known."""
    columns = [block.column("time")[rows].tolist()]
    if block.signal is METRICS:
        columns += [block.column("series")[rows].tolist(), block.column("value")[rows].view(np.uint64).tolist()]
    else:
        words = block.column("trace_id")[rows]
        columns += [words[:, 0].tolist(), words[:, 1].tolist(), block.column("span_id")[rows].tolist()]
    if block.signal is LOGS:
        columns += [block.column("severity")[rows].tolist(), _texts(block, rows)]
    return list(zip(*columns, strict=True))


def _texts(block: Block, rows: NDArray[np.intp]) -> list[int]:
    """Return the key of each body that is a text, 0 for others: those may be written in another way."""
    found = match.any_value(block.payload, block.column("body_start")[rows], block.column("body_length")[rows])
    payload = memoryview(block.payload)
    return [
        hash_key(bytes(payload[start : start + length])) if kind == match.STRING else 0
        for kind, start, length in zip(found.type.tolist(), found.start.tolist(), found.length.tolist(), strict=True)
    ]
