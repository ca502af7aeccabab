"""The reserve: there is room for a start, or nobody is the worse for it."""

from __future__ import annotations

import errno

import pytest

from collector.testing.files import FaultyFiles, MemoryFiles
from collector.wal.reserve import RESERVE_BYTES, Reserve
from tests.wal.logs import RecordingLogger

PATH = "/data/RESERVE"


def test_room_is_held_and_released() -> None:
    files = MemoryFiles()
    files.mkdir("/data")
    reserve = Reserve("/data", files, RecordingLogger())
    reserve.release()
    reserve.hold()
    reserve.hold()
    assert len(files.contents(PATH)) == RESERVE_BYTES
    reserve.release()
    assert files.listdir("/data") == []
    assert files.open_handles == 0


@pytest.mark.parametrize("operation", ["open", "allocate"])
def test_without_room_nothing_is_left_behind(operation: str) -> None:
    memory = MemoryFiles()
    memory.mkdir("/data")
    logger = RecordingLogger()
    Reserve("/data", FaultyFiles(memory, {operation}, 1, errno.ENOSPC), logger).hold()
    assert memory.listdir("/data") == []
    assert memory.open_handles == 0
    assert len(logger.named("no reserve")) == 1


def test_a_reserve_that_cannot_be_released_is_told() -> None:
    memory = MemoryFiles()
    memory.mkdir("/data")
    logger = RecordingLogger()
    reserve = Reserve("/data", FaultyFiles(memory, {"unlink"}, 1, errno.EIO), logger)
    reserve.hold()
    reserve.release()
    assert len(logger.named("reserve not released")) == 1
    reserve.release()
    assert memory.listdir("/data") == []
