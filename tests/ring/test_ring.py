"""The ring and its postings against a plain list, over long random sequences with wrap-around."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collector.otlp.block import METRIC_TYPES
from collector.otlp.records import record_bytes
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from collector.otlp.wire import hash_key
from collector.ring import ring as module
from collector.ring.blocks import RUN_BLOCKS, Limits
from collector.ring.postings import Postings
from collector.ring.ring import Ring, Snapshot, bytes_min
from tests.ring import blocks

MIB = 1 << 20
_services = st.sampled_from(["", "a", "b", "c"])
_records = {
    TRACES: st.tuples(st.integers(1, 5), _services, st.sampled_from(["", "get", "put"])),
    LOGS: st.tuples(st.integers(0, 4), st.integers(0, 24), _services),
    METRICS: st.tuples(st.sampled_from(["m", "n"]), _services, st.sampled_from(METRIC_TYPES[1:])),
}
_make = {TRACES: blocks.spans, LOGS: blocks.logs, METRICS: blocks.points}


def keys_of(signal: Signal, record: tuple) -> dict[str, int]:
    """The key of a record in each index, 0 for none, worked out without the scanner."""
    if signal is TRACES:
        trace, service, name = record
        return {
            "trace_id": trace_key(trace),
            "service": hash_key(service.encode()),
            "name": hash_key(name.encode()),
        }
    if signal is LOGS:
        trace, severity, service = record
        return {"trace_id": trace_key(trace), "severity": severity + 1, "service": hash_key(service.encode())}
    name, service, kind = record
    return {
        "name": hash_key(name.encode()),
        "service": hash_key(service.encode()),
        "type": METRIC_TYPES.index(kind) + 1,
    }


def trace_key(trace: int) -> int:
    from collector.ring.postings import key_of_column

    return key_of_column(memoryview(trace.to_bytes(16, "big")), 16, 0)


class RingMachine(RuleBasedStateMachine):
    """A ring beside a list of what it must hold; and beside the payloads that went in, whatever was merged since."""

    @initialize(signal=st.sampled_from([TRACES, LOGS, METRICS]), capacity=st.integers(1, 40), data=st.data())
    def start(self, signal: Signal, capacity: int, data: st.DataObject) -> None:
        self.signal = signal
        self.capacity = capacity
        records, size = data.draw(st.sampled_from([12, 20, 5, 0])), data.draw(st.sampled_from([MIB, 4000]))
        run = data.draw(st.sampled_from([2, 3, 4, 1]))
        small = min(records, data.draw(st.sampled_from([6, 2, 20]))) + 1
        merging = Limits(records, size, small, size, run)
        self.ring = Ring(signal, capacity, MIB, merging=merging)
        self.model: list[tuple] = []
        self.payloads: list[bytes] = []
        self.appended = 0
        self.fits = True
        self.snapshots: list[tuple[Snapshot, list[int]]] = []

    @rule(data=st.data(), counts=st.lists(st.one_of(st.integers(1, 2), st.integers(1, 12)), min_size=1, max_size=9))
    def append(self, data: st.DataObject, counts: list[int]) -> None:
        for count in counts:
            self.append_one(data, count)

    def append_one(self, data: st.DataObject, count: int) -> None:
        records = data.draw(st.lists(_records[self.signal], min_size=count, max_size=count))
        block = _make[self.signal](self.ring.next_offset, records)
        self.payloads += [record_bytes(block, row) for row in range(count)]
        before = self.ring.total_bytes
        evicted = self.ring.append(block)
        self.appended += count
        self.model += records
        surplus = max(0, len(self.model) - self.capacity)
        if self.ring.max_bytes == MIB:
            assert evicted == surplus
        assert evicted >= surplus
        assert self.ring.total_bytes <= (self.ring.max_bytes if self.fits else max(before, self.ring.max_bytes))
        del self.model[:evicted]
        self.fits = self.ring.total_bytes <= self.ring.max_bytes

    @rule(data=st.data(), share=st.sampled_from([1, 2, 3, 100]))
    def resize(self, data: st.DataObject, share: int) -> None:
        """The ring shrinks in bounded steps, oldest first, and no further than it must."""
        least = bytes_min(self.signal, self.capacity)
        wanted = MIB if share == 1 else max(least, self.ring.total_bytes // share)
        self.shrunk(lambda: self.ring.resize(wanted))

    @rule(capacity=st.integers(1, 40))
    def change_capacity(self, capacity: int) -> None:
        """The indexes are made anew; what is too much goes, oldest first."""
        before = self.ring.first_offset
        if self.ring.max_bytes < bytes_min(self.signal, capacity):
            with pytest.raises(ValueError, match="wants at least"):
                self.ring.resize(self.ring.max_bytes, capacity)
            return
        self.capacity = capacity
        self.fits = self.ring.resize(self.ring.max_bytes, capacity)
        gone = self.ring.first_offset - before
        assert gone >= len(self.model) - capacity
        if self.ring.max_bytes == MIB:
            assert gone == max(0, len(self.model) - capacity)
        del self.model[:gone]

    @rule()
    def shrink(self) -> None:
        self.shrunk(self.ring.shrink)

    def shrunk(self, step: Callable[[], bool]) -> None:
        before = self.ring.first_offset
        self.fits = step()
        gone = self.ring.first_offset - before
        assert gone <= module.SHRINK_RECORDS
        assert self.fits == (self.ring.total_bytes <= self.ring.max_bytes)
        assert self.fits or gone == module.SHRINK_RECORDS
        del self.model[:gone]

    @rule()
    def take_snapshot(self) -> None:
        snapshot = self.ring.snapshot()
        self.snapshots.append((snapshot, [len(self.payloads), snapshot.first_offset, snapshot.next_offset]))

    @rule(data=st.data())
    def find_part(self, data: st.DataObject) -> None:
        """A limited walk from the middle returns the same as the list."""
        if not self.model:
            return
        index = data.draw(st.sampled_from(self.signal.indexes))
        key = keys_of(self.signal, data.draw(st.sampled_from(self.model)))[index]
        limit = data.draw(st.integers(0, 5))
        before = data.draw(st.integers(self.ring.first_offset, self.ring.next_offset))
        expected = [offset for offset in self.offsets(index, key) if offset < before][::-1][:limit]
        if limit == 0 or key == 0:
            expected = []
        assert self.ring.find(index, key, limit, before).tolist() == expected

    def offsets(self, index: str, key: int) -> list[int]:
        first = self.appended - len(self.model)
        return [first + i for i, record in enumerate(self.model) if keys_of(self.signal, record)[index] == key]

    def holds(self, snapshot: Snapshot) -> None:
        """Every record that the blocks have room for is there, as it came."""
        for block in snapshot.blocks:
            for row in range(block.count):
                assert record_bytes(block, row) == self.payloads[block.base_offset + row]

    @invariant()
    def equal_to_the_list(self) -> None:
        if not hasattr(self, "ring"):
            return
        self.ring.check()
        assert len(self.ring) == len(self.model)
        assert self.ring.evicted == self.appended - len(self.model)
        self.holds(self.ring.snapshot())
        for index in self.signal.indexes:
            keys = {keys_of(self.signal, record)[index] for record in self.model} - {0}
            assert {key for key, _, _ in self.ring.newest_of_each_key(index)} == keys
            for key in keys:
                assert self.ring.find(index, key).tolist() == self.offsets(index, key)[::-1]
        stats = self.ring.stats()
        assert stats["total_bytes"] == stats["payload_bytes"] + stats["column_bytes"] + stats["index_bytes"]

    def teardown(self) -> None:
        """Snapshots are as they were, whatever the ring has merged and evicted since."""
        for snapshot, (_, first, end) in getattr(self, "snapshots", ()):
            assert (snapshot.first_offset, snapshot.next_offset) == (first, end)
            offset = snapshot.blocks[0].base_offset if snapshot.blocks else end
            for block in snapshot.blocks:
                assert block.base_offset == offset
                offset = block.end_offset
            assert offset == end
            self.holds(snapshot)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHRINK_RECORDS", 5)


TestRing = RingMachine.TestCase
TestRing.settings = settings(stateful_step_count=40, deadline=None)


class Forgetful(Ring):
    """The canary: a ring that forgets to evict from one index."""

    def _evict_records(self, count: int) -> None:
        kept = self._columns
        self._columns = [column for column in kept if column[0] is not self._indexes["service"]]
        super()._evict_records(count)
        self._columns = kept


def test_check_catches_a_ring_that_forgets_an_index() -> None:
    ring = Forgetful(TRACES, 3, MIB)
    ring.append(blocks.spans(0, [(1, "a", "x")] * 3))
    ring.check()
    ring.append(blocks.spans(3, [(2, "b", "y")]))
    with pytest.raises(AssertionError, match="service"):
        ring.check()


def test_the_classic_case() -> None:
    """Capacity 3: trace1/svc1, trace2/svc1, trace3/svc2, then trace4/svc2."""
    ring = Ring(TRACES, 3, MIB)
    for offset, (trace, service) in enumerate([(1, "svc1"), (2, "svc1"), (3, "svc2"), (4, "svc2")]):
        ring.append(blocks.spans(offset, [(trace, service, "op")]))
    assert ring.count("trace_id", trace_key(1)) == 0
    assert ring.count("service", hash_key(b"svc1")) == 1
    assert ring.count("service", hash_key(b"svc2")) == 2
    assert ring.stats()["indexes"]["trace_id"]["keys"] == 3
    assert ring.evicted == 1


def test_bytes_bound_evicts_whole_blocks() -> None:
    block = blocks.spans(0, [(1, "svc", "x" * 400)])
    ring = Ring(TRACES, 1000, 40_000)
    for offset in range(200):
        ring.append(blocks.spans(offset, [(1, "svc", "x" * 400)]))
        assert ring.total_bytes <= 40_000
        ring.check()
    room = 40_000 - ring.index_bytes
    assert len(ring) == room // block.nbytes


def test_a_block_beyond_the_bound_is_not_held() -> None:
    ring = Ring(TRACES, 100, 20_000)
    ring.append(blocks.spans(0, [(1, "svc", "x")]))
    assert ring.append(blocks.spans(1, [(1, "svc", "x" * 30_000)])) == 2
    assert len(ring) == 0
    ring.check()
    ring.append(blocks.spans(2, [(1, "svc", "x")]))
    assert len(ring) == 1


@pytest.mark.parametrize(("capacity", "max_bytes"), [(1_000, MIB), (10_000, 64 * MIB), (300, 64 * MIB)])
def test_requests_of_one_record_are_few_blocks(capacity: int, max_bytes: int) -> None:
    """Blocks stay few, small against the ring, and as light as their records."""
    ring = Ring(TRACES, capacity, max_bytes)
    limits = Limits.of(capacity, max_bytes)
    payload = blocks.span_payload([(1, "service", "name")])
    for _ in range(2 * capacity + 17):
        ring.append(scan(TRACES, payload, ring.next_offset))
    ring.check()
    held = ring.snapshot().blocks
    assert max(block.count for block in held) <= max(1, limits.records) <= capacity / 64 + 1
    assert max(block.nbytes for block in held) <= limits.bytes <= max_bytes / 64
    assert sum(block.count for block in held) - len(ring) < max(2, limits.records)
    assert len(held) <= 2 * RUN_BLOCKS + 2 * capacity / limits.records


def test_one_large_request_among_small_ones_does_not_keep_them_apart() -> None:
    ring = Ring(TRACES, 20_000, 64 * MIB)
    for number in range(1000):
        count = 300 if number % 50 == 49 else 1
        ring.append(blocks.spans(ring.next_offset, [(1, "service", "name")] * count))
    ring.check()
    # For each large one: itself, and the small ones before it as two blocks at most.
    assert len(ring.snapshot().blocks) <= 3 * 20


def test_a_snapshot_does_not_change() -> None:
    ring = Ring(TRACES, 2, MIB)
    ring.append(blocks.spans(0, [(1, "a", "x"), (2, "a", "x")]))
    snapshot = ring.snapshot()
    assert ring.snapshot() is snapshot
    ring.append(blocks.spans(2, [(3, "b", "y"), (4, "b", "y")]))
    assert [block.base_offset for block in snapshot.blocks] == [0]
    assert (snapshot.first_offset, snapshot.next_offset) == (0, 2)


def test_a_hole_in_the_offsets_restarts_the_ring() -> None:
    ring = Ring(TRACES, 5, MIB)
    ring.append(blocks.spans(0, [(1, "a", "x")]))
    ring.restart(10)
    ring.append(blocks.spans(10, [(2, "a", "x")]))
    ring.check()
    assert ring.find("service", hash_key(b"a")).tolist() == [10]


def test_a_block_out_of_place_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="ring ends at 0"):
        Ring(TRACES, 5, MIB).append(blocks.spans(3, [(1, "a", "x")]))


def test_indexes_larger_than_the_bound_are_refused() -> None:
    with pytest.raises(ValueError, match="wants at least"):
        Ring(TRACES, 1_000_000, MIB)


def test_postings_of_many_keys_grow_and_shrink() -> None:
    postings = Postings(5000, 8)
    keys = np.arange(1, 5001, dtype=np.uint64)
    postings.append(0, keys.tobytes(), 0, len(keys))
    assert postings.keys == postings.postings == 5000
    grown = postings.nbytes
    assert [postings.find(int(key), 0).tolist() for key in keys[::500]] == [[i] for i in range(0, 5000, 500)]
    postings.evict(keys.tobytes(), 0, 4990)
    assert postings.keys == 10
    assert postings.nbytes < grown
    assert sorted(key for key, _, _ in postings.items()) == list(range(4991, 5001))


@given(st.integers(0, 2**32), st.sampled_from([1_500, 6_000]))
def test_postings_answer_while_a_table_moves_into_another(seed: int, slots: int) -> None:
    """Keys come and go by the thousand, new ones and known ones, beside a plain dictionary."""
    chance = np.random.default_rng(seed)
    postings = Postings(slots, 8)
    live: deque[int] = deque()
    model: dict[int, deque[int]] = {}
    end = 0
    for _ in range(12):
        distinct = int(chance.choice([10, 3_000, 10**9]))
        keys = chance.integers(1, distinct + 1, int(chance.integers(1, slots)), np.uint64)
        gone = min(len(live), max(len(live) + len(keys) - slots, int(chance.integers(0, slots))))
        oldest = np.array([live.popleft() for _ in range(gone)], np.uint64)
        postings.evict(oldest.tobytes(), 0, gone)
        for key in oldest.tolist():
            model[key].popleft()
            if not model[key]:
                del model[key]
        some = [*chance.permutation(list(model))[:20].tolist(), 10**9 + 1]
        assert [postings.count(int(key)) for key in some] == [len(model.get(key, ())) for key in some]
        postings.append(end, keys.tobytes(), 0, len(keys))
        live.extend(keys.tolist())
        for offset, key in enumerate(keys.tolist(), end):
            model.setdefault(key, deque()).append(offset)
        end += len(keys)
        assert (postings.keys, postings.postings) == (len(model), len(live))
        if chance.random() < 0.5:
            assert sorted(postings.items()) == sorted((key, found[-1], len(found)) for key, found in model.items())
        for key in chance.permutation(list(model))[:20].tolist():
            assert postings.find(key, end - len(live)).tolist() == list(model[key])[::-1]
    postings.evict(np.array(live, np.uint64).tobytes(), 0, len(live))
    assert postings.items() == []
    assert postings.keys == postings.postings == 0
    assert postings.nbytes <= Postings(slots, 8).nbytes + 2 * 24 * 2048


def test_evicting_what_was_never_appended_is_a_mistake() -> None:
    postings = Postings(4, 8)
    with pytest.raises(AssertionError, match="not in the postings"):
        postings.evict(np.array([7], np.uint64).tobytes(), 0, 1)
