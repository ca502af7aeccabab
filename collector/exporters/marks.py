"""When which offset was received: so a delivery knows how old the oldest record is that waits.

Noted every `MARK_S`, and `MARKS_MAX` times; beyond, every other note is forgotten, so that a delivery that is behind for
days is told to some minutes.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

MARK_S: Final = 0.5
MARKS_MAX: Final = 512


class _Mark(NamedTuple):
    """Everything before `offset` had been received at `time`, in s of the monotonic clock."""

    offset: int
    time: float


class Marks:
    """See the module. Owner: a delivery."""

    def __init__(self) -> None:
        self._marks: deque[_Mark] = deque()

    def note(self, offset: int, now: float) -> None:
        """Everything before `offset` has been received by now."""
        if not self._marks or now >= self._marks[-1].time + MARK_S:
            self._marks.append(_Mark(offset, now))
            if len(self._marks) > MARKS_MAX:
                self._marks = deque(list(self._marks)[::2])
        else:
            self._marks[-1] = _Mark(offset, self._marks[-1].time)

    def received(self, offset: int) -> float | None:
        """Return when the record at `offset` was received; None when it is not known yet."""
        return next((one.time for one in self._marks if one.offset > offset), None)

    def covers(self, offset: int) -> bool:
        """Tell whether the notes reach back to before this offset."""
        return bool(self._marks) and self._marks[0].offset <= offset
