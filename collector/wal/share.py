"""Which share of a log key indexes leave to be read, found out from a few of its segments.

A query that may begin at either of two ends asks which one is rare. Asking all key indexes would take as long as many an
answer; what `SEGMENTS_ASKED` of them say is about right for texts that are spread over the log, and for those that are
somewhere in it only, reading is cheap wherever it begins. Segments that are not compacted are not asked: the first question
about their texts reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from collector.wal.keys import Wanted
from collector.wal.pruning import KeyIndexes
from collector.wal.reading import at_once
from collector.wal.segment import Segment

SEGMENTS_ASKED: Final = 4


def share(indexes: KeyIndexes, segments: Sequence[Segment], wanted: Wanted) -> float:
    """Return about which share of the segments' bytes, between 0 and 1, lies in frames that may hold what is wanted; 1 when
    nobody knows."""
    known = [one for one in segments if one.compacted]
    count = min(len(known), SEGMENTS_ASKED)
    named = size = 0
    for at in range(count):
        one = known[(2 * at + 1) * len(known) // (2 * count)]
        stretches = indexes.stretches(one, wanted, at_once)
        size += one.size
        named += one.size if stretches is None else sum(end - begin for (_, begin), (_, end) in stretches)
    return named / size if size else 1.0
