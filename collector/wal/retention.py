"""Which segments a log may forget: whole ones, oldest first, never the active one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from collector.wal.files import Files
from collector.wal.recovery import index_path, keys_path, spare_path, torn_path
from collector.wal.segment import Segment


@dataclass(frozen=True, slots=True)
class Retention:
    """The limits of one log; None is no limit."""

    max_bytes: int | None = None
    """Bytes of all segments together, the active one included."""
    max_age_s: float | None = None
    """Age of a segment's newest frame, counted from when it was appended."""

    def expired(self, segments: Sequence[Segment], byte_size: int, now_ns: int) -> bool:
        """Whether the oldest of these segments, which have `byte_size` bytes together, has to go."""
        if len(segments) < 2:
            return False
        if self.max_bytes is not None and byte_size > self.max_bytes:
            return True
        if self.max_age_s is None:
            return False
        # A segment without readable frames is as old as the one behind it.
        last_append = next((one.last_append for one in segments if one.last_append), now_ns)
        return now_ns - last_append > self.max_age_s * 1e9


def remove_segment(files: Files, one: Segment, *, keep_file: bool) -> str | None:
    """Remove a segment with its indexes and torn tail, and sync the directory. Raises OSError.

    With `keep_file` its file stays, under a name that says so, to be written over: the name is returned. The sync is
    part of it: a power cut between two removals must not keep the older segment and lose the newer.
    """
    spare = spare_path(one.path) if keep_file else None
    if spare is not None:
        try:
            files.rename(one.path, spare)
        except FileNotFoundError:
            spare = None  # An earlier attempt came this far.
    for path in (one.path, index_path(one.path), keys_path(one.path), torn_path(one.path)):
        try:
            files.unlink(path)
        except FileNotFoundError:
            pass
    files.fsync_directory(os.path.dirname(one.path))
    return spare
