"""Files as a seam: the only module that opens data files.

`Files` is the smallest set of calls that a log needs, named after the system calls behind them. Two real sides
exist: `OperatingSystemFiles` here, and in `collector.testing.files` one that keeps everything in memory and
knows how to lose power, with a wrapper that makes the k-th call fail. What can be built from these calls is a
function below, not a method, so that every implementation shares it.

Rules that every implementation follows:

* A handle is an `int` that is valid until `close`. Reading and writing name their position; there is no seek.
* `pwritev` and `pread` may do less than was asked, as the system calls may. `write_fully` and `read_fully` repeat.
* A call interrupted by a signal is repeated, never reported: Python does so for all of them (PEP 475).
* Failures are `OSError` with an errno. Callers in this room turn them into causes of `collector.errors`.
* What `fdatasync` and `fsync_directory` have not confirmed may be gone after a power cut, in any combination.
  The name of a new, renamed or removed file belongs to its directory, not to the file.

Left out on purpose: memory mapping (a truncated file would kill the process with SIGBUS) and io_uring (which
containers forbid).
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from typing import Protocol

PIECES_MAX = 1024
"""The most pieces that one `pwritev` takes (IOV_MAX on Linux)."""

BLOCK_BYTES = 4096
"""What direct writes are made of: a multiple of every device's sectors and every file system's blocks."""

FILE_MODE = 0o640
DIRECTORY_MODE = 0o750
"""Telemetry may be confidential: others get no access, whatever the umask."""


class Files(Protocol):
    """The file system as a log sees it. Paths are absolute or relative to the working directory."""

    def open(self, path: str, *, write: bool = False, create: bool = False, direct: bool = False) -> int:
        """Open `path` for reading, or for both with `write`; `create` demands that it does not exist yet.

        `direct` asks that writes pass the page cache by, where the file system can do that. Then positions, sizes
        and addresses in memory must be multiples of `BLOCK_BYTES`, and the handle is not for reading.
        """
        ...

    def close(self, handle: int) -> None:
        """Give up a handle, and the lock that it holds."""
        ...

    def pread(self, handle: int, length: int, position: int) -> bytes:
        """Up to `length` bytes from `position`; empty at the end of the file."""
        ...

    def pwritev(self, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False) -> int:
        """Write at most `PIECES_MAX` pieces one after the other at `position`; returns the bytes written.

        With `sync` they are on the disk when this returns, with what is needed to read them; other writes need not.
        """
        ...

    def fdatasync(self, handle: int) -> None:
        """Return when the file's bytes, and the size needed to read them, are on the disk."""
        ...

    def release(self, handle: int, position: int, length: int) -> None:
        """Advise that these bytes of the file, which have been synced, need not stay in memory."""
        ...

    def allocate(self, handle: int, position: int, length: int) -> None:
        """Reserve space; the file grows to `position + length` if it is shorter, and reads zeros there."""
        ...

    def truncate(self, handle: int, size: int) -> None:
        """Cut or extend the file to `size` bytes."""
        ...

    def size(self, handle: int) -> int:
        """The file's size in bytes."""
        ...

    def names(self, handle: int) -> int:
        """How many names the open file has."""
        ...

    def lock(self, handle: int) -> bool:
        """Take the exclusive lock of an open file without waiting; False when another handle holds it."""
        ...

    def listdir(self, path: str) -> list[str]:
        """The names in a directory, in no particular order."""
        ...

    def mkdir(self, path: str) -> None:
        """Create one directory whose parent exists."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename within a file system, replacing `target` in one step."""
        ...

    def link(self, source: str, target: str) -> None:
        """Give a file a second name, which must not exist yet. Not all file systems can."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file's name."""
        ...

    def fsync_directory(self, path: str) -> None:
        """Return when the names in the directory are on the disk."""
        ...


class OperatingSystemFiles:
    """`Files` on the operating system. Holds no state; one instance serves every thread."""

    def open(self, path: str, *, write: bool = False, create: bool = False, direct: bool = False) -> int:
        """See `Files.open`. Not inherited by child processes."""
        flags = os.O_RDWR if write or create else os.O_RDONLY
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        handle = os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
        if direct and hasattr(os, "O_DIRECT"):
            try:
                fcntl.fcntl(handle, fcntl.F_SETFL, fcntl.fcntl(handle, fcntl.F_GETFL) | os.O_DIRECT)
            except OSError:
                pass  # Not a thing of this file system; through the page cache it is slower and as good.
        return handle

    def close(self, handle: int) -> None:
        """See `Files.close`."""
        os.close(handle)

    def pread(self, handle: int, length: int, position: int) -> bytes:
        """See `Files.pread`."""
        return os.pread(handle, length, position)

    def pwritev(self, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False) -> int:
        """See `Files.pwritev`."""
        if not sync:
            return os.pwritev(handle, pieces, position)
        if hasattr(os, "RWF_DSYNC"):
            return os.pwritev(handle, pieces, position, os.RWF_DSYNC)
        written = os.pwritev(handle, pieces, position)
        os.fdatasync(handle)
        return written

    def fdatasync(self, handle: int) -> None:
        """See `Files.fdatasync`."""
        os.fdatasync(handle)

    def release(self, handle: int, position: int, length: int) -> None:
        """See `Files.release`."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(handle, position, length, os.POSIX_FADV_DONTNEED)

    def allocate(self, handle: int, position: int, length: int) -> None:
        """See `Files.allocate`."""
        os.posix_fallocate(handle, position, length)

    def truncate(self, handle: int, size: int) -> None:
        """See `Files.truncate`."""
        os.ftruncate(handle, size)

    def size(self, handle: int) -> int:
        """See `Files.size`."""
        return os.fstat(handle).st_size

    def names(self, handle: int) -> int:
        """See `Files.names`."""
        return os.fstat(handle).st_nlink

    def lock(self, handle: int) -> bool:
        """See `Files.lock`: flock(2), which the kernel drops when the process ends, however it ends."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def listdir(self, path: str) -> list[str]:
        """See `Files.listdir`."""
        return os.listdir(path)

    def mkdir(self, path: str) -> None:
        """See `Files.mkdir`."""
        os.mkdir(path, DIRECTORY_MODE)

    def rename(self, source: str, target: str) -> None:
        """See `Files.rename`."""
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """See `Files.link`."""
        os.link(source, target)

    def unlink(self, path: str) -> None:
        """See `Files.unlink`."""
        os.unlink(path)

    def fsync_directory(self, path: str) -> None:
        """See `Files.fsync_directory`. Some network file systems have no such call; there the server decides."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
        finally:
            os.close(handle)


def write_fully(
    files: Files, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False
) -> None:
    """Write all pieces one after the other at `position`, however many calls that takes; each synced with `sync`.

    Raises OSError; then any part of the pieces may have been written.
    """
    pending: list[bytes | memoryview] = list(pieces)
    first = 0
    while first < len(pending):
        written = files.pwritev(handle, pending[first : first + PIECES_MAX], position, sync=sync)
        position += written
        before = first
        while first < len(pending) and written >= len(pending[first]):
            written -= len(pending[first])
            first += 1
        if written:
            pending[first] = memoryview(pending[first])[written:]
        elif first == before:
            raise OSError(errno.EIO, "a write made no progress")


def read_fully(files: Files, handle: int, length: int, position: int) -> bytes:
    """Exactly `length` bytes from `position`, or fewer when the file ends before. Raises OSError."""
    data = files.pread(handle, length, position)
    if len(data) == length or not data:
        return data
    parts = [data]
    missing = length - len(data)
    while missing and data:
        position += len(data)
        data = files.pread(handle, missing, position)
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def read_file(files: Files, path: str, bytes_max: int) -> bytes:
    """The first `bytes_max` bytes of a file. Raises OSError."""
    handle = files.open(path)
    try:
        return read_fully(files, handle, min(bytes_max, files.size(handle)), 0)
    finally:
        files.close(handle)


def sync_file(files: Files, path: str) -> None:
    """Have all that anybody has written to a file on the disk. Raises OSError."""
    handle = files.open(path, write=True)
    try:
        files.fdatasync(handle)
    finally:
        files.close(handle)


def replace_file(files: Files, path: str, data: bytes) -> None:
    """Put `data` at `path` so that a reader, or a start after a crash, sees the old file or the new one whole.

    The bytes are synced before the rename. The rename itself lasts once the caller has synced the directory.
    Raises OSError; then `path` is as it was, and `path` + ".tmp" may remain.
    """
    temporary = f"{path}.tmp"
    try:
        files.unlink(temporary)
    except FileNotFoundError:
        pass
    handle = files.open(temporary, create=True)
    try:
        write_fully(files, handle, [data], 0)
        files.fdatasync(handle)
    finally:
        files.close(handle)
    files.rename(temporary, path)


def make_directories(files: Files, path: str) -> None:
    """Create a directory and its missing parents, and sync every directory above it. Raises OSError.

    All of them, because an earlier process may have died between creating one and syncing its name. Those that we
    may not read, or that lie on a read-only file system, cannot be waiting for that.
    """
    wanted = [os.path.abspath(path)]
    while not _made(files, wanted[-1]):
        wanted.append(os.path.dirname(wanted[-1]))
    for name in reversed(wanted[:-1]):
        files.mkdir(name)
    at = wanted[0]
    while at != os.path.dirname(at):
        at = os.path.dirname(at)
        try:
            files.fsync_directory(at)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise


def _made(files: Files, path: str) -> bool:
    """Whether the directory exists now; False when its parent is missing."""
    try:
        files.mkdir(path)
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    return True
