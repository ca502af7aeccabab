"""Blocks that queries have read are there for the next query: the right ones, within their bytes, whatever happens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client import CollectorRegistry, generate_latest

from collector.otlp.block import Block
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, TRACES
from collector.testing.files import FaultyFiles, MemoryFiles
from collector.testing.otlp import BUILDERS, TIME_NS, WINDOW_NS
from collector.wal import cache as cache_module
from collector.wal import merging
from collector.wal.cache import ENTRY_BYTES, BlockCache
from collector.wal.log import Log
from collector.wal.retention import Retention
from tests.wal.logs import exchange_files, open_log
from tests.wal.test_compact import compact_all

BLOCKS = [scan(TRACES, BUILDERS[TRACES](records, seed=records), 0) for records in range(1, 8)]


def size_of(block: Block) -> int:
    """What a block takes in the cache."""
    return block.nbytes + ENTRY_BYTES


class Model(RuleBasedStateMachine):
    """The cache beside a list of what it should hold, oldest use first."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = BlockCache(CollectorRegistry(), 9000)
        self.expected: OrderedDict[tuple[int, int], Block] = OrderedDict()
        self.turned_away: list[tuple[int, int]] = []
        self.hits = 0

    @property
    def size(self) -> int:
        return sum(map(size_of, self.expected.values()))

    def shrink(self) -> None:
        while self.size > self.cache.bytes_max:
            self.expected.popitem(last=False)
        self.turned_away = self.turned_away[max(0, len(self.turned_away) - len(self.expected)) :]

    @rule(nonce=st.integers(1, 3), position=st.integers(0, 3), block=st.sampled_from(BLOCKS))
    def put(self, nonce: int, position: int, block: Block) -> None:
        kept = self.cache.put(nonce, position, block)
        key = nonce, position
        if size_of(block) > self.cache.bytes_max or key in self.expected:
            assert not kept
            return
        assert kept == (key in self.turned_away or self.size + size_of(block) <= self.cache.bytes_max)
        if kept:
            self.expected[key] = block
            self.turned_away = [other for other in self.turned_away if other != key]
        else:
            self.turned_away.append(key)
        self.shrink()

    @rule(nonce=st.integers(1, 3), position=st.integers(0, 3))
    def get(self, nonce: int, position: int) -> None:
        found = self.cache.get(LOGS, nonce, position)
        assert found is self.expected.get((nonce, position))
        if found is not None:
            self.expected.move_to_end((nonce, position))
            self.hits += 1

    @rule(nonce=st.integers(1, 3))
    def forget(self, nonce: int) -> None:
        self.cache.forget(nonce)
        for key in [key for key in self.expected if key[0] == nonce]:
            del self.expected[key]
        self.shrink()

    @rule(size=st.sampled_from([0, 3000, 9000, 30_000]))
    def resize(self, size: int) -> None:
        self.cache.bytes_max = size
        self.shrink()

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.expected.clear()
        self.turned_away.clear()

    @invariant()
    def same(self) -> None:
        assert self.cache.check() == []
        assert self.cache.nbytes == self.size <= self.cache.bytes_max
        assert list(self.cache._blocks.items()) == list(self.expected.items()), "and in this order they go"
        assert self.cache.stats()["hits"] == self.hits


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_a_count_that_is_wrong_is_caught() -> None:
    """The canary of `check`."""
    cache = BlockCache(CollectorRegistry(), 100_000)
    cache.put(1, 2, BLOCKS[0])
    cache._nbytes += 1
    assert cache.check() != []
    cache._nbytes -= 1
    cache._positions[1].add(3)
    assert cache.check() != []
    cache._positions[1].remove(3)
    cache._bytes_max = 1
    assert cache.check() != []


def test_many_threads() -> None:
    cache = BlockCache(CollectorRegistry(), 12_000)
    wrong: list[str] = []

    def work(seed: int) -> None:
        for step in range(400):
            number = (step * 7 + seed) % 11
            block = BLOCKS[number % len(BLOCKS)]
            found = cache.get(TRACES, number % 3, number)
            if found is not None and found is not block:
                wrong.append(f"{number} is {found}")
            cache.put(number % 3, number, block)
            if step % 50 == 0:
                cache.forget(number % 3)
                cache.bytes_max = 6000 + step * 20
                wrong.extend(cache.check())

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert cache.check() == []


# Behind a log


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compaction leaves several frames in a segment."""
    monkeypatch.setattr(merging, "FRAME_RECORDS", 24)


def at(seed: int) -> int:
    """The end of a request's second."""
    return TIME_NS + seed * WINDOW_NS


def a_log(files: Any, cache: BlockCache | None = None, requests: int = 36, **options: Any) -> Log:
    """A log of traces in several segments; request `seed` is of the second before `at(seed)`."""
    log = open_log(files, cache=cache, **{"segment_bytes": 60_000, **options})
    for seed in range(requests):
        payload = BUILDERS[TRACES](24, seed=seed, service=f"service-{seed % 4}", time_ns=at(seed))
        block = scan(TRACES, payload, 0)
        log.append([payload], 24, block.min_time, block.max_time)
    log.sync()
    return log


def compacted(bytes_max: int = 50_000_000, **options: Any) -> tuple[FaultyFiles, Log, BlockCache]:
    """A compacted log, whose last segment is not, with a cache."""
    memory = MemoryFiles()
    cache = BlockCache(CollectorRegistry(), bytes_max)
    log = a_log(memory, cache, **options)
    compact_all(memory, log)
    files = FaultyFiles(memory)
    exchange_files(log, files)
    log.key_indexes._files = files
    return files, log, cache


def same(found: list[Block], expected: list[Block]) -> bool:
    """Whether blocks tell the same."""
    return [(one.base_offset, bytes(one.payload), one.records.buffer) for one in found] == [
        (one.base_offset, bytes(one.payload), one.records.buffer) for one in expected
    ]


SELECTIONS: list[dict[str, Any]] = [
    {},
    {"newest_first": True},
    {"start_offset": 100, "end_offset": 300},
    {"start_ns": at(3), "end_ns": at(17), "newest_first": True},
    {"index": "service", "any_of": [b"service-2"]},
    {"index": "service", "any_of": [b"service-1"], "newest_first": True, "start_ns": at(6)},
    {"wanted": lambda low, high: high >= at(20)},
    {"index": "service", "any_of": [b"service-1"], "wanted": lambda low, high: low < at(20)},
]


def test_with_and_without_a_cache_the_same_is_read() -> None:
    files, log, cache = compacted()
    plain = open_log(files, segment_bytes=60_000)
    for _ in range(2):
        for selection in SELECTIONS:
            expected = [scan(TRACES, one.payload, one.base_offset) for one in plain.frames(**selection)]
            assert same(list(log.blocks(**selection)), expected)
            assert same(list(log.blocks(**selection, cached=False)), expected)
    assert cache.stats()["hits"] > 0
    assert cache.check() == []


def test_what_was_read_is_not_read_again() -> None:
    files, log, cache = compacted()
    end = log.sealed_segments[-1].next_offset
    first = list(log.blocks(index="service", any_of=[b"service-2"], end_offset=end))
    assert cache.stats() == cache.stats() | {"hits": 0, "misses": len(first), "blocks": len(first)}
    opened = files.calls["open"]
    again = list(log.blocks(index="service", any_of=[b"service-2"], end_offset=end))
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert files.calls["open"] - opened == len(log.sealed_segments), "the key indexes"
    assert cache.stats()["hits"] == len(first)
    files.bytes_read = 0
    assert [one.base_offset for one in log.blocks(first[1].base_offset + 5, first[1].base_offset + 6)] == [
        first[1].base_offset
    ]
    assert files.bytes_read < 3 * 64 * 1024, "headers"
    assert cache.stats()["hits"] == len(first) + 1
    assert cache.stats()["misses"] == len(first)


def test_a_scan_of_everything_leaves_what_is_useful() -> None:
    _, log, cache = compacted()
    useful = list(log.blocks(index="service", any_of=[b"service-3"]))
    cache.bytes_max = int(1.5 * cache.nbytes)
    for _ in range(4):
        assert len(list(log.blocks())) == 36
    assert len(cache) >= len(useful)
    misses = cache.stats()["misses"]
    assert same(list(log.blocks(index="service", any_of=[b"service-3"])), useful)
    assert cache.stats()["misses"] == misses


def test_a_cache_that_anything_may_fill_is_turned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary of the test above."""
    monkeypatch.setattr(cache_module, "READ_SHARE", 100)
    put = BlockCache.put
    monkeypatch.setattr(BlockCache, "put", lambda *arguments: put(*arguments) or put(*arguments))
    with pytest.raises(AssertionError):
        test_a_scan_of_everything_leaves_what_is_useful()


def test_segments_that_are_not_compacted_are_not_kept() -> None:
    cache = BlockCache(CollectorRegistry(), 50_000_000)
    log = a_log(MemoryFiles(), cache)
    assert len(list(log.blocks())) == 36
    assert cache.stats() == cache.stats() | {"hits": 0, "misses": 0, "blocks": 0}


def test_what_retention_removes_is_forgotten() -> None:
    _, log, cache = compacted()
    list(log.blocks())
    held = {nonce for nonce, _ in cache._blocks}
    oldest = log.sealed_segments[0]
    assert oldest.nonce in held
    log._retention = Retention(log.byte_size - 1)
    assert log.enforce_retention() > 0
    assert {nonce for nonce, _ in cache._blocks} == held & {one.nonce for one in log.sealed_segments}
    assert cache.check() == []
    assert next(log.blocks()).base_offset == log.first_offset


def test_compaction_under_a_reader_gives_each_record_once() -> None:
    """The file is replaced while a query is between two frames of it."""
    for newest_first in (False, True):
        memory = MemoryFiles()
        log = a_log(memory, BlockCache(CollectorRegistry(), 50_000_000))
        reading = log.blocks(newest_first=newest_first, index="service", any_of=[b"service-1", b"service-2"])
        found = [next(reading)]
        compact_all(memory, log)
        found += reading
        offsets = [offset for one in found for offset in range(one.base_offset, one.end_offset)]
        assert len(offsets) == len(set(offsets))
        expected = {24 * seed for seed in range(36) if seed % 4 in (1, 2)}
        assert expected <= set(offsets)
        assert log.damaged == ()


def test_readers_beside_compaction_and_retention() -> None:
    memory = MemoryFiles()
    cache = BlockCache(CollectorRegistry(), 150_000)
    log = a_log(memory, cache, requests=30)
    payloads = {one.base_offset + row: bytes(one.payload) for one in log.blocks() for row in range(one.count)}
    wrong: list[str] = []
    done = threading.Event()

    def read(newest_first: bool) -> None:
        rounds = 0
        while rounds < 2 or not done.is_set():
            rounds += 1
            end = None
            for one in log.blocks(newest_first=newest_first):
                if payloads[one.base_offset] not in bytes(one.payload):
                    wrong.append(f"{one} holds something else")
                if end is not None and (one.end_offset > end if newest_first else one.base_offset < end):
                    wrong.append(f"{one} comes twice")
                end = one.base_offset if newest_first else one.end_offset

    threads = [threading.Thread(target=read, args=(number % 2 == 0,)) for number in range(3)]
    for thread in threads:
        thread.start()
    compact_all(memory, log)
    log._retention = Retention(log.byte_size * 2 // 3)
    assert log.enforce_retention() > 0
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert log.damaged == ()
    assert cache.check() == []


def test_figures_are_exposed() -> None:
    registry = CollectorRegistry()
    cache = BlockCache(registry, 100_000)
    cache.put(1, 0, BLOCKS[2])
    cache.get(TRACES, 1, 0)
    cache.missed(LOGS)
    exposed = generate_latest(registry).decode()
    for line in (
        'ringtail_log_cache_hits_total{signal="traces"} 1.0',
        'ringtail_log_cache_misses_total{signal="logs"} 1.0',
        f"ringtail_log_cache_bytes {float(size_of(BLOCKS[2]))}",
        "ringtail_log_cache_limit_bytes 100000.0",
        "ringtail_log_cache_blocks 1.0",
    ):
        assert line in exposed
