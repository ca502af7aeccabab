"""The log against a list, over long random lives: append, sync, roll, close, kill, power cut, damaged indexes,
retention, and every way of reading.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from collector.errors import NotFound
from collector.testing.files import MemoryFiles, lose_all, random_fates
from collector.wal import index
from collector.wal.frame import Frame
from collector.wal.log import Log
from collector.wal.readable import TIME_MAX
from tests.wal.logs import open_log, payload, segment_paths

SETTINGS = settings(max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
times = st.integers(0, 30) | st.sampled_from([TIME_MAX - 1, TIME_MAX])


class LogMachine(RuleBasedStateMachine):
    """`model` is what the log must hold: (base offset, count, min time, max time, payload) in order."""

    log_type: type[Log] = Log

    def __init__(self) -> None:
        super().__init__()
        self.files = MemoryFiles()
        self.model: list[tuple[int, int, int, int, bytes]] = []
        self.synced = 0
        self.next_offset = 0
        self.stretch_bytes = pytest.MonkeyPatch()
        self.stretch_bytes.setattr(index, "STRETCH_BYTES", 160)

    def teardown(self) -> None:
        """Undo the small stretches."""
        self.stretch_bytes.undo()

    def open(self) -> None:
        self.log = open_log(self.files, segment_bytes=self.segment_bytes, retention_bytes=self.retention_bytes)
        self.log.__class__ = self.log_type

    @initialize(segment_bytes=st.sampled_from([200, 600, 2000]), retention_bytes=st.sampled_from([300, 1500, None]))
    def begin(self, segment_bytes: int, retention_bytes: int | None) -> None:
        self.segment_bytes = segment_bytes
        self.retention_bytes = retention_bytes
        self.open()

    @rule(count=st.integers(1, 4), size=st.integers(0, 300), low=times, high=times)
    def append(self, count: int, size: int, low: int, high: int) -> None:
        low, high = sorted((low, high))
        data = payload(self.next_offset, count, size)
        base = self.log.append([data[:7], data[7:]], count, low, high)
        assert base == self.next_offset
        self.model.append((base, count, low, high, data))
        self.next_offset += count

    @rule()
    def sync(self) -> None:
        self.log.sync()
        self.synced = self.next_offset
        assert self.log.synced_offset == self.synced

    @rule()
    def close_and_reopen(self) -> None:
        self.log.close()
        self.synced = self.next_offset
        self.open()
        assert self.log.recovery.truncated_bytes == 0
        assert self.log.recovery.records == sum(count for _, count, *_ in self.model)

    @rule()
    def kill_and_reopen(self) -> None:
        """The process dies, the page cache stays unsynced; opening syncs what it goes on with."""
        self.open()
        self.synced = self.next_offset

    @rule(seed=st.integers(0, 2**32))
    def lose_power_and_reopen(self, seed: int) -> None:
        synced = max(self.synced, self.log.synced_offset)
        self.files = self.files.after_power_cut(random_fates(random.Random(seed)) if seed else lose_all)
        self.open()
        found = [self.tuple_of(frame) for frame in self.log.frames()]
        assert all(frame in self.model for frame in found)
        assert all(frame in found for frame in self.model if frame[0] < synced)
        self.model = found
        self.next_offset = self.log.next_offset
        self.synced = self.next_offset
        assert self.next_offset >= max([synced, *(base + count for base, count, *_ in found)])

    @precondition(lambda self: segment_paths(self.files, "index"))
    @rule(data=st.data())
    def damage_an_index_and_reopen(self, data: st.DataObject) -> None:
        self.log.close()
        self.synced = self.next_offset
        path = data.draw(st.sampled_from(segment_paths(self.files, "index")))
        content = bytearray(self.files.contents(path))
        bit = data.draw(st.none() | st.integers(0, len(content) * 8 - 1))
        if bit is None:
            self.files.unlink(path)
        else:
            content[bit // 8] ^= 1 << bit % 8
            self.files.put(path, bytes(content))
        sealed = segment_paths(self.files)[:-1]
        self.open()
        # The index of the last segment, if it has one from before, is not even looked at.
        used = path.replace(".index", ".log") in sealed
        assert self.log.recovery.rebuilt_indexes == used

    @rule()
    def enforce_retention(self) -> None:
        before, size = self.log.first_offset, self.log.byte_size
        removed = self.log.enforce_retention()
        assert bool(removed) == (self.log.first_offset > before)
        if removed:
            assert self.retention_bytes is not None
            assert size > self.retention_bytes
        if self.retention_bytes is not None:
            assert self.log.segment_count == 1 or self.log.byte_size <= self.retention_bytes
        self.model = [frame for frame in self.model if frame[0] >= self.log.first_offset]

    @rule(data=st.data())
    def read_any_offset(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, self.next_offset + 2))
        expected = [frame for frame in self.model if frame[0] <= offset < frame[0] + frame[1]]
        if expected:
            assert [self.tuple_of(self.log.read(offset))] == expected
        else:
            with pytest.raises(NotFound):
                self.log.read(offset)

    @rule(data=st.data(), low=times, high=times, newest_first=st.booleans())
    def read_a_range(self, data: st.DataObject, low: int, high: int, newest_first: bool) -> None:
        start, end = (
            data.draw(st.integers(0, self.next_offset)),
            data.draw(st.integers(0, self.next_offset + 1)),
        )
        expected = [
            frame
            for frame in self.model
            if max(frame[0], start) < min(frame[0] + frame[1], end) and frame[2] <= high and frame[3] >= low
        ]
        found = [self.tuple_of(frame) for frame in self.log.frames(start, end, low, high, newest_first)]
        assert found == (expected[::-1] if newest_first else expected)

    @invariant()
    def holds_the_list(self) -> None:
        if hasattr(self, "log"):
            assert self.log.next_offset == self.next_offset
            assert [self.tuple_of(frame) for frame in self.log.frames()] == self.model
            assert self.log.check() == []
            assert self.log.failed is None
            assert self.log.record_count == sum(count for _, count, *_ in self.model)

    @staticmethod
    def tuple_of(frame: Frame) -> tuple[int, int, int, int, bytes]:
        return frame.base_offset, frame.count, frame.min_time, frame.max_time, frame.payload


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = SETTINGS


class SkipsSmallFrames(Log):
    """Canary: forgets to look at the maximum when it chooses by time."""

    def frames(self, start_offset=0, end_offset=TIME_MAX, start_ns=0, end_ns=TIME_MAX, newest_first=False):
        """See `Log.frames`, except that a frame must begin in the time range."""
        for frame in super().frames(start_offset, end_offset, start_ns, end_ns, newest_first):
            if frame.min_time >= start_ns:
                yield frame


class PromisesTooMuch(Log):
    """Canary: says it has synced, and has not."""

    def sync(self) -> None:
        """Do nothing but say so."""
        self._synced_offset = self._next_offset


@pytest.mark.parametrize("broken", [SkipsSmallFrames, PromisesTooMuch])
def test_the_machine_catches_a_broken_log(broken: type[Log]) -> None:
    machine = type("Broken", (LogMachine,), {"log_type": broken})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            machine,
            settings=settings(
                SETTINGS,
                max_examples=3000,
                database=None,
                derandomize=True,  # whether it is caught must not be a matter of luck
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )
