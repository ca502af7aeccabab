"""The data directory of a running daemon: its lock, the tenants that it holds, and room on its disk for the next start.

    LOCK                what a second daemon finds (wal/lock.py)
    RESERVE             room that a start gives up and takes again (wal/reserve.py)
    traces/ ...         the logs, where no tenants are kept apart
    tenants/NAME/       the same of each tenant, where they are

Locked first and released last, so that nobody else reads or writes there meanwhile.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from collector.otlp.signals import SIGNALS
from collector.tenants import place_of, stored_names
from collector.wal.lock import DirectoryLock
from collector.wal.recovery import require_known_formats
from collector.wal.reserve import Reserve
from collector.wal.restored import require_restored

if TYPE_CHECKING:
    from collector.wal.files import Files


class DataDirectory:
    """One data directory. Owned by the event loop's thread."""

    def __init__(self, path: str, files: Files, logger: Any) -> None:
        """Nothing is made or locked yet."""
        self._path = path
        self._files = files
        self._logger = logger
        self._lock = DirectoryLock(path, files)
        self._reserve: Reserve | None = None

    def open(self, tenants_max: int) -> list[str]:
        """Lock the directory, give up the reserve, and return the names of the tenants that have a place in it; 0 keeps
        none apart, and returns the one without a name.

        Raises a RingtailError that says what is in the way. Where anything is there that a newer version has written,
        nothing is changed.
        """
        self._lock.acquire()
        require_restored(self._path)
        names = [""]
        if tenants_max:
            if any(os.path.exists(os.path.join(self._path, one.name)) for one in SIGNALS):
                self._logger.warning("what was kept without tenants is not read", directory=self._path)
            names = stored_names(self._path, self._files, tenants_max)
        for name in names:
            require_known_formats(self._files, place_of(self._path, name))
        self._reserve = Reserve(self._path, self._files, self._logger)
        self._reserve.release()
        return names

    def hold_room(self) -> None:
        """Take the reserve again, unless `open` has failed before it gave that up."""
        if self._reserve is not None:
            self._reserve.hold()

    def release(self) -> None:
        """Let another daemon have the directory; safe after `open` has failed."""
        self._lock.release()
