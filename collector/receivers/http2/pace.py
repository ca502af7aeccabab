"""What one HTTP/2 connection may do: in one turn of the event loop, in a second, and in its life.

A turn is short, so that a connection with many small calls does not keep others waiting. Frames that bring no request
forward (PING, SETTINGS, empty DATA and such) and streams that are reset cost their client next to nothing: of both there
may be some for each request that is answered, and not many more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from collector.receivers.http2.frames import Code, ConnectionBroken

if TYPE_CHECKING:
    from collector.clock import Clock

RESETS_MAX: Final = 500
"""Streams that are reset beyond those that were answered (CVE-2023-44487)."""
IDLE_FRAMES_MAX: Final = 1000
"""Frames a second that bring no request forward, beyond `IDLE_FRAMES_EACH` for each answer."""
IDLE_FRAMES_EACH: Final = 16
DATA_BYTES_MIN: Final = 256
"""Smaller DATA frames, but for the last of a request, bring it hardly forward."""
TURN: Final = 128
"""What a connection may do before others come to their turn: a frame counts as 1, a header block as `BLOCK_COST` and 1
more for each 64 bytes, a message as 1 for each 4 KiB."""
BLOCK_COST: Final = 16


class Pace:
    """The accounts of one connection."""

    __slots__ = ("_clock", "_idle_frames", "_idle_since", "_resets", "answers")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.answers = 0
        """Requests that were answered, and have not yet paid for frames and resets: for who answers to count."""
        self._idle_frames = IDLE_FRAMES_MAX  # that may yet come
        self._idle_since = -math.inf
        self._resets = 0

    def idle_frames(self, count: int) -> None:
        """Count frames that bring no request forward; raise ConnectionBroken when they are too many."""
        if self.answers:
            self._pay()
        self._idle_frames -= count
        while self._idle_frames < 0:
            now = self._clock.monotonic()
            if now < self._idle_since + 1.0:
                raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, "too many frames that bring no request forward")
            self._idle_since = now
            self._idle_frames += IDLE_FRAMES_MAX

    def reset(self) -> None:
        """Count a stream that was reset; raise ConnectionBroken when it is one too many."""
        self._pay()
        self._resets += 1
        if self._resets > RESETS_MAX:
            raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, "too many streams are opened and reset")

    def _pay(self) -> None:
        """Let each answer pay for a reset and some frames."""
        self._resets = max(0, self._resets - self.answers)
        self._idle_frames = min(self._idle_frames + self.answers * IDLE_FRAMES_EACH, 2 * IDLE_FRAMES_MAX)
        self.answers = 0
