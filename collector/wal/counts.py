"""What one reading of a log has come by, for who asks: segments and frames, by what became of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class ReadCounts:
    """Numbers of one reading, or of several."""

    segments: int = 0
    """Segments that have offsets in the range."""
    by_time: int = 0
    """Segments left out: outside of the time range."""
    not_wanted: int = 0
    """Segments left out when their turn came: the reader had enough."""
    by_index: int = 0
    """Segments left out: their key indexes name no frame."""
    indexed: int = 0
    """Segments of which only the frames were read that their key indexes name."""
    whole: int = 0
    """Segments read from frame to frame, because no key was asked for, or nothing is known of it."""
    stretches: int = 0
    """What key indexes have named: frames, or runs of small ones in a segment that is not compacted."""
    passed: int = 0
    """Frames of which the header was enough: outside of the range, or not wanted."""
    read: int = 0
    """Frames that were read from their files."""
    cached: int = 0
    """Frames whose blocks were there from an earlier read."""

    def narrowed(self, stretches: Sequence[Any] | None) -> None:
        """A segment is read where its key index says; None: whole."""
        if stretches is None:
            self.whole += 1
        elif stretches:
            self.indexed += 1
            self.stretches += len(stretches)
        else:
            self.by_index += 1
