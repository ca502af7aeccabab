"""The segments of one log, in order: one is added at the end, one removed at the beginning, one replaced in between.

What readers see is `all`, a tuple that is replaced, never edited, so that they need no lock. Two threads change it, the
committer's (`add`, `seal`, `remove`) and the compactor's (`replace`, `recycle`), and two locks keep those apart: the one here
is held for assignments only, never while the system works; a segment's own while its file is replaced or removed, which
is never the active one. So an acknowledgement waits for neither.

A removed segment's file is kept to be written over, at most one (`spare`): its blocks are there already, and a sync then
writes nothing but data. So is the file that a segment had before it was compacted. Not one that a reader holds, and
none while there is no room: what retention removes is what makes some.
"""

from __future__ import annotations

import threading

from collector.wal.files import Files
from collector.wal.retention import remove_segment
from collector.wal.segment import Segment
from collector.wal.spare import give_up, link_spare


class Segments:
    """See the module."""

    def __init__(
        self, files: Files, found: tuple[Segment, ...], spare: str | None, segment_bytes: int, *, last_is_active: bool
    ) -> None:
        """Begin with what recovery has `found`; `last_is_active` tells that its last one goes on being written to.

        `segment_bytes` is how large the next ones may become.
        """
        self.all = found
        """Oldest first."""
        self.sealed_bytes = sum(one.size for one in (found[:-1] if last_is_active else found))
        """Bytes of those that are not written to any more."""
        self.spare = spare
        """A file to be written over."""
        self.short = False
        """Whether there is no room on the disk, so that no file is kept."""
        self._files = files
        self._segment_bytes = segment_bytes
        # For every change of the above, which two threads make. Held for assignments only.
        self._changing = threading.Lock()

    def has(self, one: Segment) -> bool:
        """Whether the segment is one of these, and neither removed nor replaced; certain under its lock."""
        return any(held is one for held in self.all)

    def add(self, one: Segment) -> None:
        """Go on with a new segment, the active one from now on."""
        with self._changing:
            self.all = (*self.all, one)

    def seal(self, one: Segment) -> None:
        """The active segment has its last size."""
        with self._changing:
            self.sealed_bytes += one.size

    def remove(self, oldest: Segment) -> bool:
        """Remove the first of several segments. Raises OSError; then it is still there.

        False, and nothing is changed, when compaction has replaced it meanwhile.
        """
        with oldest.lock:
            if oldest.successor is not None:
                return False
            keep_file = self._recyclable(oldest) and not oldest.readers
            spare = remove_segment(self._files, oldest, keep_file=keep_file)
            with self._changing:
                self.all = self.all[1:]
                self.sealed_bytes -= oldest.size
        self._keep(spare)
        return True

    def replace(self, old: Segment, made: Segment, temporary: str) -> bool:
        """Put `made`, the compacted form of `old` in the file `temporary`, in its place, in one step for readers and
        for a start after a crash. All of `made` must be on the disk.

        False, and nothing is changed, when retention has removed the segment meanwhile. Raises OSError; then nothing
        is changed either. The name lasts once the directory has been synced; until then a power cut may bring back
        the old file.
        """
        with old.lock:
            if not self.has(old):
                return False
            second_name = link_spare(self._files, old) if self._recyclable(old) else None
            try:
                self._files.rename(temporary, old.path)
            except OSError:
                give_up(self._files, second_name)
                raise
            with self._changing:
                self.all = tuple(made if one is old else one for one in self.all)
                self.sealed_bytes += made.size - old.size
            old.successor = made
            old.second_name = second_name
        return True

    def recycle(self, old: Segment, *, durable: bool) -> None:
        """Keep the file that a compacted segment had before, to be written over, or give it up.

        `durable` tells that the directory was synced after `replace`: until then a power cut may bring it back.
        """
        with old.lock:
            idle = not old.readers  # And nobody can begin: who asks for it gets its successor.
        if durable and idle:
            self._keep(old.second_name)
        else:
            give_up(self._files, old.second_name)

    def take_spare(self) -> str | None:
        """Hand out the spare file, if there is one."""
        with self._changing:
            spare, self.spare = self.spare, None
        return spare

    def run_short(self) -> None:
        """There is no room on the disk: give up the spare file, and keep none until `short` is false again."""
        give_up(self._files, self.take_spare())
        self.short = True

    def _recyclable(self, one: Segment) -> bool:
        """Whether a segment's file is wanted for the next one, and as large as that may become; not while room is short."""
        return self.spare is None and not self.short and one.size >= self._segment_bytes // 2

    def _keep(self, name: str | None) -> None:
        """Keep a file for the next segment, unless there is one."""
        with self._changing:
            surplus = name if self.spare is not None else None
            self.spare = self.spare or name
        give_up(self._files, surplus)
