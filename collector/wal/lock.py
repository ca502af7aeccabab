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


def require_writable(directory: str) -> None:
    """Raise Unavailable when files cannot be made in a directory, or the directory cannot be made where it is missing."""
    at = os.path.abspath(directory)
    while not os.path.lexists(at):
        at = os.path.dirname(at)
    number = 0
    if not os.path.isdir(at):
        number = errno.ENOTDIR
    elif not os.access(at, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(at).f_flag & os.ST_RDONLY else errno.EACCES
    if number:
        cause = OSError(number, os.strerror(number), at)
        raise Unavailable(f"the data directory {directory} cannot be used: {cause}")


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

    def check(self) -> None:
        """Raise what `acquire` would raise, as things are now, and create and change nothing.

        The lock is held for the moment of looking, if nobody has it.
        """
        require_writable(self._directory)
        try:
            handle = self._files.open(self.path, write=True)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"the data directory {self._directory} cannot be used: {error}") from error
        try:
            self._require_free(handle)
        finally:
            self._files.close(handle)

    def _lock_file(self) -> int:
        files = self._files
        try:
            handle = files.open(self.path, create=True)
        except FileExistsError:
            handle = files.open(self.path, write=True)
        try:
            self._require_free(handle)
            self._tell_holder(handle)
        except BaseException:
            files.close(handle)
            raise
        return handle

    def _require_free(self, handle: int) -> None:
        """Lock an open file; raise Locked, naming the process that holds it."""
        if not self._files.lock(handle):
            holder = read_fully(self._files, handle, PID_BYTES_MAX, 0).decode("ascii", "replace").strip()
            raise Locked(f"{self.path} is held by process {holder or 'unknown'}")

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
