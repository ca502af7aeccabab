"""One daemon per directory."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collector.errors import Locked, Unavailable
from collector.testing.files import FaultyFiles, MemoryFiles
from collector.wal.files import OperatingSystemFiles
from collector.wal.lock import DirectoryLock

HOLD = """
import sys
from collector.wal.files import OperatingSystemFiles
from collector.wal.lock import DirectoryLock
DirectoryLock(sys.argv[1], OperatingSystemFiles()).acquire()
print("locked", flush=True)
sys.stdin.read()
"""


def test_the_second_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    files = OperatingSystemFiles()
    with DirectoryLock(tmp_path / "data", files) as lock:
        with pytest.raises(Locked) as caught:
            DirectoryLock(tmp_path / "data", files).acquire()
        assert str(caught.value) == f"{lock.path} is held by process {os.getpid()}"
    with DirectoryLock(tmp_path / "data", files):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    files = OperatingSystemFiles()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(Locked, match=f"held by process {holder.pid}$"):
            DirectoryLock(tmp_path, files).acquire()
        holder.kill()
        holder.wait()
    with DirectoryLock(tmp_path, files):
        assert (tmp_path / "LOCK").read_text() == f"{os.getpid()}\n"


def test_a_longer_pid_from_before_is_not_left_behind() -> None:
    files = MemoryFiles()
    files.put("/LOCK", b"99999999999999\n")
    with DirectoryLock("/", files):
        assert files.contents("/LOCK") == b"%d\n" % os.getpid()


def test_a_lock_is_taken_once_and_released_at_will() -> None:
    files = MemoryFiles()
    lock = DirectoryLock("/data", files)
    lock.release()
    lock.acquire()
    with pytest.raises(RuntimeError):
        lock.acquire()
    lock.release()
    lock.release()
    assert files.open_handles == 0


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=f"{tmp_path}/file/data cannot be used: .*Not a directory"):
        DirectoryLock(tmp_path / "file" / "data", OperatingSystemFiles()).acquire()


def test_a_full_disk_keeps_nobody_from_the_lock() -> None:
    files = FaultyFiles(MemoryFiles(), {"pwritev"}, 1, errno.ENOSPC)
    with DirectoryLock("/data", files), pytest.raises(Locked, match="is held by process unknown"):
        DirectoryLock("/data", files).acquire()


def test_no_failing_call_leaks_a_handle() -> None:
    for at in range(1, 50):
        memory = MemoryFiles()
        files = FaultyFiles(memory, {"open", "lock", "truncate", "pwritev", "mkdir", "fsync_directory"}, at)
        lock = DirectoryLock("/data", files)
        try:
            lock.acquire()
        except Unavailable:
            assert memory.open_handles == 0
        lock.release()
        if not files.reached:
            return
    pytest.fail("the calls never ended")
