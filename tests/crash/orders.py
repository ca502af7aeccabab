"""Faults in the files of a daemon that runs, and jumps of its clock: what a test orders while the daemon works.

    orders = Orders(directory)                                   # the daemon's working directory
    orders.fail("fdatasync", errno.EIO, "/traces/")              # from now on, in files of that name
    orders.clear()

The test writes the file `orders` there, in one step; the daemon (`variants.py faulty`) reads it before each call to the
operating system. A call that is ordered to fail fails until the order is gone, an ordered SHORT makes writes short, and an
ordered HOLD keeps the call waiting until the order is gone. A failing write has written half of its blocks. A synced
write is a write, and then a sync, which fails as an `fdatasync` does.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from collector.clock import SystemClock
from collector.testing.files import SHORT
from collector.wal.files import BLOCK_BYTES, OperatingSystemFiles

NAME: Final = "orders"
HOLD: Final = -3
"""In place of an errno: the call waits until the order is gone."""
LOOK_S: Final = 0.002


class Orders:
    """The test's side."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / NAME
        self._orders: dict[str, Any] = {"faults": [], "clock_s": 0.0, "delay_s": 0.0}

    def fail(self, operation: str, error: int, part: str = "") -> None:
        """Let calls of an operation fail for paths that contain `part`: an errno, SHORT or HOLD."""
        self._orders["faults"].append([operation, error, part])
        self._write()

    def slow_down(self, delay_s: float) -> None:
        """Let every sync take so much longer."""
        self._orders["delay_s"] = delay_s
        self._write()

    def set_clock(self, ahead_s: float) -> None:
        """Set the daemon's wall clock so much before the true one."""
        self._orders["clock_s"] = ahead_s
        self._write()

    def clear(self) -> None:
        """No call fails any more."""
        self._orders["faults"] = []
        self._write()

    def _write(self) -> None:
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._orders))
        temporary.rename(self._path)


def _read(directory: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((directory / NAME).read_text())
    except FileNotFoundError:
        return {"faults": [], "clock_s": 0.0, "delay_s": 0.0}
    return found


class OrderedClock(SystemClock):
    """The system's clock, set as the test orders."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def now_ns(self) -> int:
        return max(0, super().now_ns() + int(_read(self._directory)["clock_s"] * 1e9))


class OrderedFiles(OperatingSystemFiles):
    """The operating system's files, failing as the test orders."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._paths: dict[int, str] = {}

    def _fault(self, operation: str, path: str) -> int | None:
        """The error that a call must meet; waits as long as it is to be held."""
        while True:
            errors = [
                error
                for name, error, part in _read(self._directory)["faults"]
                if name == operation and part in f"/{path}"
            ]
            if HOLD not in errors:
                return errors[0] if errors else None
            time.sleep(LOOK_S)

    def _check(self, operation: str, path: str) -> None:
        error = self._fault(operation, path)
        if error is not None and error != SHORT:
            raise OSError(error, os.strerror(error), path)

    def open(self, path: str, *, write: bool = False, create: bool = False, direct: bool = False) -> int:
        self._check("open", path)
        handle = super().open(path, write=write, create=create, direct=direct)
        self._paths[handle] = path
        return handle

    def pread(self, handle: int, length: int, position: int) -> bytes:
        error = self._fault("pread", self._paths[handle])
        if error == SHORT:
            length = (length + 1) // 2
        elif error is not None:
            raise OSError(error, os.strerror(error))
        return super().pread(handle, length, position)

    def pwritev(self, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False) -> int:
        error = self._fault("pwritev", self._paths[handle])
        if error is None:
            written = super().pwritev(handle, pieces, position)
        else:
            data = memoryview(pieces[0])
            half = len(data) // 2 // BLOCK_BYTES * BLOCK_BYTES
            if error == SHORT:
                half = half or len(data)
            written = super().pwritev(handle, [data[:half]], position) if half else 0
            if error != SHORT:
                raise OSError(error, os.strerror(error))
        if sync:
            self._sync(handle)
        return written

    def fdatasync(self, handle: int) -> None:
        self._sync(handle)

    def _sync(self, handle: int) -> None:
        self._check("fdatasync", self._paths[handle])
        time.sleep(_read(self._directory)["delay_s"])
        super().fdatasync(handle)

    def allocate(self, handle: int, position: int, length: int) -> None:
        self._check("allocate", self._paths[handle])
        super().allocate(handle, position, length)

    def truncate(self, handle: int, size: int) -> None:
        self._check("truncate", self._paths[handle])
        super().truncate(handle, size)

    def rename(self, source: str, target: str) -> None:
        self._check("rename", source)
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        self._check("unlink", path)
        super().unlink(path)

    def fsync_directory(self, path: str) -> None:
        self._check("fsync_directory", f"{path}/")
        super().fsync_directory(path)
