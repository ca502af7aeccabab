"""Cursors: written, found again, damaged, cut off by the power at every call."""

from __future__ import annotations

import errno
import random

import pytest

from collector.errors import Unavailable, UnsupportedFormat
from collector.otlp.signals import LOGS, TRACES
from collector.testing.files import CUT, WRITING, FaultyFiles, MemoryFiles, PowerCut, keep_all, lose_all, random_fates
from collector.wal.cursor import BOUNDS_MAX, SLOTS_AT, Cursor, State
from collector.wal.files import Files
from tests.wal.logs import RecordingLogger

PATH = "/data/cursors/otlp/traces.cursor"


def opened(files: Files, **options: object) -> Cursor:
    arguments = {"start": 7, "oldest": 3, "files": files, "logger": RecordingLogger(), **options}
    return Cursor.open(PATH, TRACES, **arguments)  # type: ignore[arg-type]


def test_a_cursor_keeps_what_it_was_told() -> None:
    files = MemoryFiles()
    cursor = opened(files)
    assert (cursor.state, cursor.found) == (State(7), "new")
    cursor.put(State(9), sync=False)
    cursor.put(State(12, (20, 31)), sync=True)
    cursor.put(State(20, (31,)), sync=False)
    cursor.close()
    cursor.close()
    again = opened(files)
    assert (again.state, again.found) == (State(20, (31,)), "kept")
    again.put(State(2**62, tuple(range(BOUNDS_MAX))), sync=True)
    assert opened(files).state == State(2**62, tuple(range(BOUNDS_MAX)))
    with pytest.raises(ValueError, match="has room for"):
        again.put(State(1, tuple(range(BOUNDS_MAX + 1))), sync=False)
    again.close()
    with pytest.raises(Unavailable, match="closed"):
        again.put(State(1), sync=False)
    assert files.open_handles == 1


def test_what_was_not_synced_never_touches_what_was() -> None:
    files = MemoryFiles()
    cursor = opened(files)
    cursor.put(State(10), sync=True)
    for position in range(11, 20):
        cursor.put(State(position), sync=False)
    assert opened(files.after_power_cut(keep_all)).state == State(19)
    assert opened(files.after_power_cut(lose_all)).state == State(10)
    for seed in range(50):
        assert opened(files.after_power_cut(random_fates(random.Random(seed)))).state.position in range(10, 20)


@pytest.mark.parametrize("seed", range(40))
def test_the_power_goes_at_every_call(seed: int) -> None:
    for k in range(1, 60):
        memory = MemoryFiles()
        files = FaultyFiles(memory, WRITING, k, CUT)
        synced, written = 0, {0}
        try:
            cursor = Cursor.open(PATH, TRACES, start=0, oldest=0, files=files, logger=RecordingLogger())
            for position in range(1, 12):
                sync = position % 3 == 0
                written.add(position)
                cursor.put(State(position), sync=sync)
                if sync:
                    synced = position
            cursor.close()
            synced = 11
        except PowerCut:
            pass
        found = Cursor.open(
            PATH,
            TRACES,
            start=0,
            oldest=0,
            files=memory.after_power_cut(random_fates(random.Random(seed))),
            logger=RecordingLogger(),
        )
        assert found.state.position >= synced, f"a synced step was lost at call {k}"
        assert found.state.position in written
        assert found.found != "damaged"
        if not files.reached:
            break
    else:
        raise AssertionError("there are more calls")


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_write_that_fails_is_told_and_the_next_one_counts(error: int) -> None:
    for k in range(1, 12):
        memory = MemoryFiles()
        opened(memory).close()
        files = FaultyFiles(memory, WRITING, k, error)
        try:
            cursor = opened(files)
        except Unavailable:
            continue
        position = 7
        for step in range(8, 14):
            try:
                cursor.put(State(step), sync=True)
                position = step
            except Unavailable:
                pass
            assert opened(memory.after_power_cut(lose_all)).state.position in (position, step)
        assert position == 13


def damaged(memory: MemoryFiles, *slots: int) -> MemoryFiles:
    data = bytearray(memory.contents(PATH))
    for slot in slots:
        data[SLOTS_AT[slot] + 30] ^= 1
    memory.put(PATH, bytes(data))
    return memory


def test_damage_costs_a_step_and_of_both_slots_all_of_them() -> None:
    def made() -> MemoryFiles:
        files = MemoryFiles()
        cursor = opened(files)
        cursor.put(State(40), sync=True)
        cursor.put(State(50), sync=True)
        cursor.close()
        return files

    assert {opened(damaged(made(), slot)).state.position for slot in (0, 1)} == {40, 50}
    logger = RecordingLogger()
    cursor = opened(damaged(made(), 0, 1), logger=logger)
    assert (cursor.state, cursor.found) == (State(3), "damaged")
    assert logger.named("cursor damaged")
    files = made()
    files.put(PATH, b"")
    assert opened(files).state == State(3)
    cursor = Cursor.open(PATH, LOGS, start=7, oldest=3, files=made(), logger=logger)
    assert cursor.found == "damaged", "another signal's cursor"


def test_a_newer_format_is_refused() -> None:
    files = MemoryFiles()
    opened(files).close()
    data = bytearray(files.contents(PATH))
    data[8] = 2
    import google_crc32c

    data[508:512] = google_crc32c.value(bytes(data[:508])).to_bytes(4, "little")
    files.put(PATH, bytes(data))
    with pytest.raises(UnsupportedFormat):
        opened(files)
