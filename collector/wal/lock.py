"""One daemon per directory.

The lock is flock(2) on the file `LOCK`: the kernel drops it when the holder ends, so a stale lock does not
exist and the file is never removed (removing it would let two daemons hold two files of one name). The file
holds the holder's process id as text, for the message to whoever comes second.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Self

from collector.errors import Locked, Unavailable
from collector.wal.files import Files, make_directories, read_fully, write_fully

LOCK_NAME = "LOCK"
PID_BYTES_MAX = 32


class DirectoryLock:
    """The exclusive right to a data directory. A context manager; `acquire` and `release` do the same."""

    def __init__(self, directory: str | os.PathLike[str], files: Files) -> None:
        self._directory = os.fspath(directory)
        self._files = files
        self._handle: int | None = None

    @property
    def path(self) -> str:
        """The lock file."""
        return os.path.join(self._directory, LOCK_NAME)

    def acquire(self) -> None:
        """Create the directory if needed and take its lock.

        Raises Locked, naming the file and the process that holds it, and Unavailable when the directory cannot
        be used (no permission, a read-only file system).
        """
        if self._handle is not None:
            raise RuntimeError("this object holds the lock already")
        try:
            make_directories(self._files, self._directory)
            self._handle = self._lock_file()
        except OSError as error:
            raise Unavailable(f"the data directory {self._directory} cannot be used: {error}") from error

    def _lock_file(self) -> int:
        files = self._files
        try:
            handle = files.open(self.path, create=True)
        except FileExistsError:
            handle = files.open(self.path, write=True)
        try:
            if not files.lock(handle):
                holder = read_fully(files, handle, PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
                raise Locked(f"{self.path} is held by process {holder or 'unknown'}")
            self._tell_holder(handle)
        except BaseException:
            files.close(handle)
            raise
        return handle

    def _tell_holder(self, handle: int) -> None:
        """Put our process id into the file; a full disk has no room for it, and is no reason not to start."""
        try:
            self._files.truncate(handle, 0)
            write_fully(self._files, handle, [b"%d\n" % os.getpid()], 0)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._files.truncate(handle, 0)  # Half a number would name somebody else.

    def release(self) -> None:
        """Let go of the lock; nothing happens when it is not held."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            self._files.close(handle)

    def __enter__(self) -> Self:
        """Acquire; see `acquire`."""
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()
