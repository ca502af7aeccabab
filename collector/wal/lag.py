"""How far a consumer of a log is behind, by what is known of its segments without reading them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from collector.wal.segment import Segment


class Lag(NamedTuple):
    """What lies between a position and the end of a log."""

    size: int
    """Bytes of frames, as they lie on the disk; about."""
    since_ns: int
    """When the record at the position was appended, ns since the Unix epoch; about. 0 when nothing is known of it."""


def lag(segments: Sequence[Segment], position: int) -> Lag:
    """Tell how much of these segments lies behind a position: within a segment, records count as equally large, and as
    appended at an even pace."""
    size, since, before = 0.0, 0, 0
    for one in segments:
        records = one.next_offset - one.base_offset
        behind = one.next_offset - max(position, one.base_offset)
        if behind > 0:
            if not size:
                began = before or one.last_append
                since = one.last_append - (one.last_append - began) * behind // records
            size += one.size * behind / records
        before = one.last_append or before
    return Lag(int(size), since)
