"""What the engine gives of ring and log, whatever of the log is compacted: each record once, and none left out."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from collector.clock import SystemClock
from collector.errors import QueryTimeout
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from collector.query import slices as module
from collector.query import together
from collector.query.deadline import Deadline
from collector.query.newest import newest
from collector.query.slices import END_OF_TIME, Among, slices
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.files import MemoryFiles
from collector.testing.otlp import BUILDERS
from collector.wal import merging, readable
from collector.wal.segment import Segment
from tests.wal.logs import open_log
from tests.wal.test_compact import compactor
from tests.wal.test_keys import column_keys

SERVICES = ("checkout", "cart", "payment")
TIME_NS = 1_000_000_000_000


class Ticking(SystemClock):
    """A tenth of a second later at each look."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:  # type: ignore[override]  # the system's is a function of the module time
        self._now += 0.1
        return self._now


class Stored:
    """A ring and a log as commits fill them, and every record that was stored: (offset, time, key by index)."""

    def __init__(self, signal: Signal, capacity: int, segment_bytes: int) -> None:
        self.signal = signal
        self.files = MemoryFiles()
        self.log = open_log(self.files, signal=signal, segment_bytes=segment_bytes)
        self.capacity = capacity
        self.refill()
        self.compactor = compactor(self.files, self.log)
        self.records: list[tuple[int, int, dict[str, int | bytes]]] = []

    def refill(self) -> None:
        """What a start does."""
        loop = asyncio.new_event_loop()
        loop.close()
        ring = Ring(self.signal, self.capacity, 1 << 24, self.log.next_offset)
        self.store = Store(self.signal, ring, self.log, loop)
        self.store.adopt(self.store.replay(lambda: False))
        self.ring = self.store.ring
        assert len(self.ring) == min(self.capacity, self.log.next_offset)

    def append(self, seed: int, count: int) -> None:
        """What a commit does."""
        time = TIME_NS + len(self.records) * 1_000_000
        payload = BUILDERS[self.signal](count, seed=seed, service=SERVICES[seed % 3], time_ns=time)
        block = scan(self.signal, payload, self.log.next_offset)
        self.log.append([payload], count, block.min_time, block.max_time)
        self.ring.append(block)
        columns = {index: column_keys(block, index) for index in self.signal.indexes}
        for row, record_time in enumerate(block.column("time").tolist()):
            keys = {index: column[row] for index, column in columns.items()}
            self.records.append((block.base_offset + row, record_time, keys))


def each_once(
    signal: Signal, commits: list[tuple[int, int, bool]], capacity: int, frame_records: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FRAME_RECORDS", frame_records)
        stored = Stored(signal, capacity, data.draw(st.sampled_from([3000, 8000, 20_000])))
        for seed, count, compacts in commits:
            stored.append(seed, count)
            while compacts and stored.compactor.work():
                pass
    if data.draw(st.booleans()):
        stored.refill()
    index = data.draw(st.sampled_from(["", *signal.indexes]))
    key = data.draw(st.sampled_from([keys[index] for *_, keys in stored.records])) if index else 0
    start, end = sorted(data.draw(st.tuples(*[st.sampled_from([time for _, time, _ in stored.records])] * 2)))
    if data.draw(st.booleans()):
        start, end = 0, END_OF_TIME
    newest_first = data.draw(st.booleans())
    expected = [
        offset for offset, time, keys in stored.records if start <= time <= end and (not index or keys[index] == key)
    ]
    view = stored.store.view(index, key) if index in ("trace_id", "severity", "type") else stored.store.view()
    among = Among(index, (key,)) if index and view.index is None else None
    floor = data.draw(st.sampled_from([0, start, *[time for _, time, _ in stored.records]]))
    expected = [offset for offset in expected if stored.records[offset][1] >= floor]
    found: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SINGLE", data.draw(st.sampled_from([0, 1, 8])))
        patch.setattr(together, "WINDOW_BYTES", data.draw(st.sampled_from([5_000, 20_000, together.WINDOW_BYTES])))
        pieces = list(
            slices(view, start, end, newest_first=newest_first, among=among, wanted=lambda low, high: high >= floor)
        )
    for block, rows in pieces:
        assert block.max_time >= floor
        own = column_keys(block, index) if index else []
        times = block.column("time").tolist()
        offsets = [
            block.base_offset + row for row in rows.tolist() if (not index or own[row] == key) and times[row] >= floor
        ]
        found += offsets[::-1] if newest_first else offsets
    assert found == (expected[::-1] if newest_first else expected)


arguments = given(
    st.sampled_from([TRACES, LOGS, METRICS]),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 12), st.booleans()), min_size=6, max_size=30),
    st.integers(1, 100),
    st.sampled_from([1, 5, 20, 100, 1000]),
    st.data(),
)
test_each_record_is_given_once = settings(max_examples=150, deadline=None)(arguments(each_once))


def test_a_merged_frame_that_reaches_into_the_ring() -> None:
    stored = Stored(TRACES, capacity=65, segment_bytes=20_000)
    for seed in range(8):
        stored.append(seed, 10)
    while stored.compactor.work():
        pass
    view = stored.store.view()
    [*_, last] = stored.log.frames(0, view.ring.blocks[0].base_offset)
    assert last.base_offset < view.ring.blocks[0].base_offset < last.end_offset
    found = [block.base_offset + row for block, rows in slices(view, newest_first=False) for row in rows.tolist()]
    assert found == list(range(80))


@pytest.mark.parametrize("newest_first", [True, False])
def test_small_blocks_of_the_log_are_looked_at_together(newest_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the first ones."""
    monkeypatch.setattr(module, "SINGLE", 3)
    monkeypatch.setattr(together, "WINDOW_BYTES", 1 << 20)
    stored = Stored(LOGS, capacity=15, segment_bytes=20_000)
    for seed in range(12):
        stored.append(seed, 10)
    found = list(slices(stored.store.view(), newest_first=newest_first))
    of_log, of_ring = [10, 10, 10, 70], [10, 10]
    assert [len(rows) for _, rows in found] == (of_ring + of_log if newest_first else of_log + of_ring)
    ordered = found[::-1] if newest_first else found
    assert [block.base_offset + row for block, rows in ordered for row in rows.tolist()] == list(range(120))


def test_the_newest_are_found_without_opening_what_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Stored(TRACES, capacity=1, segment_bytes=3000)
    for seed in range(12):
        stored.append(seed, 8)
    opened = []
    read_segment = readable.read_segment

    def noted(files: object, segment: Segment, *rest: object) -> object:
        opened.append(segment.base_offset)
        return read_segment(files, segment, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(readable, "read_segment", noted)
    segments = stored.log.segment_count
    assert segments > 5
    for oldest in (False, True):
        opened.clear()
        found = newest(stored.store.view(), 4, lambda piece: piece.rows, oldest=oldest)
        by_time = sorted((time, offset) for offset, time, _ in stored.records)
        assert [ref[:2] for ref in found] == (by_time[:4] if oldest else by_time[:-5:-1])
        assert len(opened) < segments / 2


def test_a_rare_key_is_found_from_posting_to_posting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace in two blocks of many, one of them half evicted."""
    stored = Stored(TRACES, capacity=8 * 60 + 4, segment_bytes=100_000)
    for seed in range(61):
        stored.append(seed, 8)
    looked_at = []
    rows_of = module.live_rows
    monkeypatch.setattr(module, "live_rows", lambda view, block, *rest, **named: (
        looked_at.append(block.base_offset), rows_of(view, block, *rest, **named))[1])  # fmt: skip
    for wanted, blocks in ((stored.records[0], 1), (stored.records[100], 2)):
        looked_at.clear()
        key = wanted[2]["trace_id"]
        view = stored.store.view("trace_id", key, ring_only=True)
        found = [block.base_offset + row for block, rows in slices(view) for row in rows.tolist()]
        assert found == [offset for offset, _, keys in stored.records if keys["trace_id"] == key and offset >= 4]
        assert len(looked_at) == blocks


def test_a_query_may_end_while_the_log_learns_what_its_newest_segment_holds() -> None:
    """Before anything comes out of it: the key is nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FRAME_RECORDS", 8)
        stored = Stored(TRACES, 8, 1 << 20)
        for seed in range(20):
            stored.append(seed, 8)
        stored.refill()
        nobody = Among("service", (b"nobody",))
        with pytest.raises(QueryTimeout):
            list(slices(stored.store.view(), 0, END_OF_TIME, Deadline(1.0, Ticking()), among=nobody))
        found = list(slices(stored.store.view(), 0, END_OF_TIME, Deadline(100.0, Ticking()), among=nobody))
        assert [one.block.base_offset for one in found] == [19 * 8], "what the ring holds is left to the asker"


def test_the_comparison_catches_records_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: a merged frame reaches from the log into the ring."""

    monkeypatch.setattr(module, "_before", lambda end, block, rows: rows)
    hurried = settings(max_examples=1000, deadline=None, database=None, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        hurried(arguments(each_once))()
