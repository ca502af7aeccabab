"""How far a consumer is behind, reckoned from segments."""

from __future__ import annotations

from collector.testing.files import MemoryFiles, lose_all
from collector.wal.lag import Lag, lag
from tests.wal.logs import FakeClock, append, open_log


def test_lag_is_what_lies_behind_a_position() -> None:
    clock = FakeClock()
    log = open_log(MemoryFiles(), clock=clock)
    assert lag(log.segments, 0) == Lag(0, 0)
    times = []
    for _ in range(40):
        clock.pass_time(10)
        append(log, 2)
        times.append(clock.wall_ns)
    assert log.segment_count > 5
    assert lag(log.segments, log.next_offset) == Lag(0, 0)
    whole = lag(log.segments, 0)
    assert whole.size == log.byte_size
    sizes = [lag(log.segments, position).size for position in range(log.next_offset)]
    assert sizes == sorted(sizes, reverse=True)
    for position in range(20, log.next_offset):
        since = lag(log.segments, position).since_ns
        assert abs(since - times[position // 2]) <= 45 * 10**9, "within a segment"


def test_what_is_not_synced_can_be_settled_by_a_reader() -> None:
    files = MemoryFiles()
    log = open_log(files)
    append(log, 3)
    assert (log.synced_offset, log.next_offset) == (0, 3)
    assert log.settled_offset() == 3
    assert open_log(files.after_power_cut(lose_all)).next_offset == 3
