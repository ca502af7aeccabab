"""The C heap: what the process holds of memory, and how it gives back what it has no use for.

A ring frees its oldest blocks while new ones of other sizes come. glibc keeps what is freed in the middle of its heap,
and under requests of mixed sizes that is a fifth of a small ring, or 45 MiB of a large one (measured). Memory mapped
for each buffer would be exact at once, but costs as much as scanning the request does: fresh pages. So the holes stay,
as long as they are few, and `malloc_trim` gives their pages back when they have become many: some milliseconds, about
one for each 10 MiB. It does so when they have been many for a while, for what comes next needs pages again: a query holds
blocks that the ring evicts meanwhile, and what it then lets go of are holes that the next one fills. Given back after each
query, they made receiving a third dearer.

Without glibc, or without /proc, nothing happens here.
"""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
SLACK_BYTES: Final = 8 * 1024 * 1024
SLACK_SHARE: Final = 32
"""Memory goes back when this much more is held without use than after the last time: the larger of a number of bytes,
and one part in so many of what is used."""

PATIENCE: Final = 60
"""Looks at a heap with too many holes, no query running, before they are given back."""


def resident_bytes() -> int:
    """Return the process's resident memory in bytes, files mapped into it included; 0 where there is no /proc."""
    return _pages()[0]


def anonymous_bytes() -> int:
    """Return the process's resident memory without pages of files and of shared memory; 0 where there is no /proc."""
    resident, shared = _pages()
    return resident - shared


def _pages() -> tuple[int, int]:
    """Return resident memory, and the files' and shared part of it, in bytes."""
    try:
        file = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return 0, 0
    try:
        fields = os.read(file, 256).split()
    finally:
        os.close(file)
    return int(fields[1]) * PAGE_BYTES, int(fields[2]) * PAGE_BYTES


_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Return every page of the heap that holds nothing to the operating system."""
    if _TRIM is not None:
        _TRIM(ctypes.c_size_t(0))


class HeapKeeper:
    """Gives memory back when what is held beyond what is used has grown. Ask it from time to time."""

    def __init__(
        self,
        used: Callable[[], int],
        held: Callable[[], int] = anonymous_bytes,
        give_back: Callable[[], None] = give_back,
        *,
        querying: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take what tells the bytes in use, and those held; the difference may be of any size, but should not grow.

        `querying` tells whether queries are running: what they hold of blocks that are evicted is no hole, and is not
        counted as used.
        """
        self._used = used
        self._held = held
        self._give_back = give_back
        self._querying = querying
        self._excess: int | None = None
        self._looks = 0
        self.times = 0
        """How often memory was given back."""

    def look(self) -> bool:
        """Give memory back if it is time; return whether it was. About 30 µs when it is not."""
        if self._querying():
            return False
        used = self._used()
        excess = self._held() - used
        before = excess if self._excess is None else self._excess
        if excess <= before + max(SLACK_BYTES, used // SLACK_SHARE):
            self._excess, self._looks = min(before, excess), 0
            return False
        self._looks += 1
        if self._looks < PATIENCE:
            return False
        self._give_back()
        self.times += 1
        self._excess, self._looks = self._held() - used, 0
        return True
