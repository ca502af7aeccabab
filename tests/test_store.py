"""The store: what is acknowledged is in log and ring, in one order, and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.errors import Malformed, Unavailable
from collector.otlp.records import Ref, record, regroup
from collector.otlp.scan import scan
from collector.otlp.signals import TRACES
from collector.query.newest import newest
from collector.query.slices import slices
from collector.ring.ring import Ring
from collector.store import GATHER_BYTES, GATHER_S, Commit, Store
from collector.wal.commit import Committer
from collector.wal.files import OperatingSystemFiles
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from tests.ring.blocks import span_payload

MIB = 1 << 20


class Opened:
    """A store over a real log in a directory, as the daemon builds it."""

    def __init__(self, directory: Path, capacity: int = 100, max_bytes: int = MIB, **options: Any) -> None:
        self.log = Log.open(
            str(directory),
            TRACES,
            files=options.pop("files", OperatingSystemFiles()),
            clock=SystemClock(),
            metrics=LogMetrics(CollectorRegistry()),
            logger=structlog.get_logger(),
            **options,
        )
        ring = Ring(TRACES, capacity, max_bytes, self.log.next_offset)
        self.store = Store(TRACES, ring, self.log, asyncio.get_running_loop())
        self.store.adopt(self.store.replay(lambda: False))
        self.refilled = len(self.store.ring)
        self.committer = Committer(self.log, "always", 1.0, self.store.committed)
        self.store.attach(self.committer)

    async def close(self) -> None:
        await self.store.drain()
        self.committer.close()
        self.log.close()


def names(refs: list[Ref]) -> list[str]:
    return [record(ref.block, ref.row).name for ref in refs]


def everything(store: Store) -> list[str]:
    """The names of all records, newest first, as a query sees them."""
    return names(newest(store.view(), 10_000, lambda piece: piece.rows))


async def test_records_come_back_from_ring_and_log(tmp_path: Path) -> None:
    opened = Opened(tmp_path, capacity=10)
    for number in range(35):
        accepted = await opened.store.append(span_payload([(number + 1, "svc", f"op{number}", number + 1)]))
        assert (accepted.records, accepted.rejected) == (1, 0)
    assert len(opened.store.ring) == 10
    assert everything(opened.store) == [f"op{number}" for number in reversed(range(35))]
    assert opened.store.view().first_offset == 0
    await opened.close()


async def test_concurrent_requests_share_commits_and_all_are_answered(tmp_path: Path) -> None:
    opened = Opened(tmp_path, capacity=1000)
    futures = [opened.store.append(span_payload([(1, "a", f"op{number}", number)])) for number in range(200)]
    answers = await asyncio.gather(*futures)
    assert sum(answer.records for answer in answers) == 200
    assert len(opened.store.ring.snapshot().blocks) < 10
    assert everything(opened.store) == [f"op{number}" for number in reversed(range(200))]
    opened.store.ring.check()
    await opened.close()


class Held:
    """A committer that keeps what it gets until the test reports it."""

    def __init__(self) -> None:
        self.commits: list[Commit] = []

    def submit(self, batch: Commit) -> None:
        self.commits.append(batch)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_small_requests_are_gathered_and_large_ones_are_not() -> None:
    loop = asyncio.get_running_loop()
    store = Store(TRACES, Ring(TRACES, 10_000, 8 * MIB, 0), None, loop)
    held = Held()
    store.attach(held)
    alone = store.append(span_payload([(1, "a", "alone", 1)]))
    await turns(2)
    assert [commit.count for commit in held.commits] == [1], "one that comes alone waits for nobody"
    meanwhile = store.append(span_payload([(1, "a", "meanwhile", 1)]))
    await turns(5)
    assert len(held.commits) == 1, "one commit at a time"
    store.committed(held.commits[0], 0)
    await alone
    # The answer has made the client send again: both are one commit.
    again = store.append(span_payload([(1, "a", "again", 1)]))
    await turns(5)
    assert [commit.count for commit in held.commits] == [1, 2]
    large = store.append(span_payload([(1, "a", "x" * 2 * GATHER_BYTES, 1)]))
    store.committed(held.commits[1], 1)
    await meanwhile
    assert [commit.count for commit in held.commits] == [1, 2, 1], "what is large does not wait for answers to go out"
    store.committed(held.commits[2], 3)
    await asyncio.gather(again, large)
    assert len(store.ring) == 4


async def test_gathering_ends_however_much_comes() -> None:
    loop = asyncio.get_running_loop()
    store = Store(TRACES, Ring(TRACES, 1_000_000, 64 * MIB, 0), None, loop)
    held = Held()
    store.attach(held)
    futures = []
    ends = loop.time() + 100 * GATHER_S
    while not held.commits and loop.time() < ends:
        futures.append(store.append(span_payload([(1, "a", "b", 1)])))
        await asyncio.sleep(0)
    assert held.commits
    store.committed(held.commits[0], 0)
    await futures[0]


async def test_queries_read_the_log_while_the_ring_is_being_refilled(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    for number in range(20):
        await opened.store.append(span_payload([(1, "a", f"op{number}", number + 1)]))
    await opened.close()
    log = Opened(tmp_path).store.log
    assert log is not None
    store = Store(TRACES, Ring(TRACES, 10, 1 << 20, log.next_offset), log, asyncio.get_running_loop())
    seen: list[int] = []

    def query() -> bool:
        view = store.view()
        seen.append(sum(len(piece.rows) for piece in slices(view)))
        return False

    ring = store.replay(query)
    assert len(seen) > 5
    assert set(seen) == {20}
    store.adopt(ring)
    assert len(store.ring) == 10
    query()
    assert seen[-1] == 20


async def test_the_ring_is_refilled_from_the_log(tmp_path: Path) -> None:
    opened = Opened(tmp_path, capacity=50)
    for number in range(0, 120, 4):
        await opened.store.append(span_payload([(1, "a", f"op{number + i}", number + i) for i in range(4)]))
    before = everything(opened.store)
    await opened.close()
    again = Opened(tmp_path, capacity=50)
    assert again.refilled == 50
    assert everything(again.store) == before
    assert again.store.ring.next_offset == again.log.next_offset == 120
    again.store.ring.check()
    await again.store.append(span_payload([(1, "a", "after", 1000)]))
    assert everything(again.store) == ["after", *before]
    await again.close()


async def test_a_key_narrows_ring_and_log_alike(tmp_path: Path) -> None:
    opened = Opened(tmp_path, capacity=7)
    for number in range(20):
        batch = [(number + 1, "ab"[number % 2], f"x{number}", number), (number + 1, "b", f"y{number}", number)]
        await opened.store.append(span_payload(batch))
    view = opened.store.view("service", b"a")
    found = names(newest(view, 100, lambda piece: piece.rows))
    assert found == [f"x{number}" for number in reversed(range(0, 20, 2))]
    view = opened.store.view("trace_id", (3).to_bytes(16, "big"))
    assert names(newest(view, 100, lambda piece: piece.rows)) == ["y2", "x2"]
    await opened.close()


async def test_newest_is_exact_when_time_and_arrival_differ(tmp_path: Path) -> None:
    opened = Opened(tmp_path, capacity=12)
    times = [(number * 37) % 50 + 1 for number in range(50)]
    for begin in range(0, 50, 5):
        chunk = times[begin : begin + 5]
        await opened.store.append(span_payload([(1, "a", f"{time:02}", time) for time in chunk]))
    expected = [f"{time:02}" for time in sorted(times, reverse=True)]
    for limit in (1, 3, 10, 50, 60):
        assert names(newest(opened.store.view(), limit, lambda piece: piece.rows)) == expected[:limit]
        oldest = newest(opened.store.view(), limit, lambda piece: piece.rows, oldest=True)
        assert names(oldest) == expected[::-1][:limit]
    inside = newest(opened.store.view(), 100, lambda piece: piece.rows, start_ns=10, end_ns=20)
    assert names(inside) == [f"{time:02}" for time in range(20, 9, -1)]
    await opened.close()


async def test_a_ring_that_begins_within_a_frame_repeats_nothing(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    await opened.store.append(span_payload([(1, "a", f"op{number}", number) for number in range(10)]))
    [block] = opened.store.ring.snapshot().blocks
    ring = Ring(TRACES, 100, MIB, 4)
    ring.append(scan(TRACES, regroup([Ref(0, row, block, row) for row in range(4, 10)]), 4))
    opened.store.ring = ring
    assert everything(opened.store) == [f"op{number}" for number in reversed(range(10))]
    narrowed = newest(opened.store.view("service", b"a"), 100, lambda piece: piece.rows, oldest=True)
    assert names(narrowed) == [f"op{number}" for number in range(10)]
    await opened.close()


async def test_a_view_does_not_change_while_the_ring_turns_over(tmp_path: Path) -> None:
    opened = Opened(tmp_path, capacity=5)
    await opened.store.append(span_payload([(1, "a", f"op{number}", number) for number in range(5)]))
    view = opened.store.view("service", b"a")
    for number in range(5, 30):
        await opened.store.append(span_payload([(1, "a", f"op{number}", number)]))
    found = sorted(
        name for piece in slices(view) for name in names([Ref(0, 0, piece.block, row) for row in piece.rows])
    )
    assert found == [f"op{number}" for number in range(5)]
    await opened.close()


async def test_without_a_log_evicted_records_are_gone() -> None:
    store = Store(TRACES, Ring(TRACES, 3, MIB), None, asyncio.get_running_loop())
    await store.append(span_payload([(1, "a", f"op{number}", number) for number in range(5)]))
    assert everything(store) == ["op4", "op3", "op2"]
    await store.append(span_payload([(1, "a", "last", 9)]))
    assert everything(store) == ["last", "op4", "op3"]
    assert names(newest(store.view("service", b"a"), 9, lambda piece: piece.rows)) == ["last", "op4", "op3"]
    assert store.stats()["log"] == {"first_offset": 0, "next_offset": 0, "segments": 0, "bytes": 0}


async def test_a_malformed_request_costs_nobody_else(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    first = opened.store.append(span_payload([(1, "a", "good", 1)]))
    with pytest.raises(Malformed):
        opened.store.append(b"\x0a\x7f")
    assert (await first).records == 1
    assert everything(opened.store) == ["good"]
    await opened.close()


async def test_a_frame_that_is_no_request_costs_its_own_records_and_no_start(tmp_path: Path) -> None:
    """Its checksum is right: what wrote it had other rules. Ring and queries go on around it, and it is told once."""
    opened = Opened(tmp_path)
    await opened.store.append(span_payload([(1, "a", "before", 1)]))
    await opened.close()
    log = Opened(tmp_path).log
    log.append([b"no request"], 3, 1, 1, sync=True)
    log.close()
    opened = Opened(tmp_path)
    await opened.store.append(span_payload([(1, "a", "after", 2)]))
    assert everything(opened.store) == ["after", "before"]
    assert [(one.first_offset, one.end_offset) for one in opened.log.damaged] == [(1, 4)]
    await opened.close()
    opened = Opened(tmp_path, capacity=1)
    assert everything(opened.store) == ["after", "before"], "read from the log"
    assert [(one.first_offset, one.end_offset) for one in opened.log.damaged] == [(1, 4)]
    await opened.close()


async def test_nothing_to_store_is_answered_at_once(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    assert (await opened.store.append(b"")).records == 0
    assert opened.log.next_offset == 0
    await opened.close()


class FailingFiles(OperatingSystemFiles):
    """Files whose sync fails from a chosen moment on."""

    failing = False

    def pwritev(self, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False) -> int:
        self._burn(sync)
        return super().pwritev(handle, pieces, position, sync=sync)

    def fdatasync(self, handle: int) -> None:
        self._burn(True)
        super().fdatasync(handle)

    def _burn(self, sync: bool) -> None:
        if self.failing and sync:
            raise OSError(5, "the disk is on fire")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    structlog.configure(
        processors=[structlog.processors.KeyValueRenderer()], logger_factory=structlog.ReturnLoggerFactory()
    )
    yield
    structlog.reset_defaults()


async def test_a_failed_sync_stops_acknowledging(tmp_path: Path) -> None:
    files = FailingFiles()
    opened = Opened(tmp_path, files=files)
    await opened.store.append(span_payload([(1, "a", "kept", 1)]))
    files.failing = True
    with pytest.raises(Unavailable, match="could not be made durable"):
        await opened.store.append(span_payload([(1, "a", "lost", 2)]))
    files.failing = False
    with pytest.raises(Unavailable, match="log of traces has failed"):
        opened.store.append(span_payload([(1, "a", "refused", 3)]))
    assert everything(opened.store) == ["kept"]
    await opened.close()


async def test_drain_answers_what_was_taken_and_refuses_the_rest(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    taken = [opened.store.append(span_payload([(1, "a", f"op{number}", number)])) for number in range(3)]
    await opened.store.drain()
    assert all(future.done() for future in taken)
    with pytest.raises(Unavailable, match="shutting down"):
        opened.store.append(span_payload([(1, "a", "late", 1)]))
    await opened.close()


async def test_subscribers_are_told_when_there_is_something_to_read(tmp_path: Path) -> None:
    opened = Opened(tmp_path)
    seen: list[tuple[str, int]] = []
    unsubscribe = {
        name: opened.store.subscribe(lambda name=name: seen.append((name, opened.store.ring.next_offset)))  # type: ignore[misc]
        for name in ("a", "b")
    }
    await opened.store.append(span_payload([(1, "a", "x"), (1, "a", "y")]))
    assert seen == [("a", 2), ("b", 2)]
    unsubscribe["a"]()
    unsubscribe["a"]()
    await opened.store.append(span_payload([(1, "a", "z")]))
    assert seen[2:] == [("b", 3)]
    await opened.close()


async def test_a_trace_has_no_more_spans_than_it_may() -> None:
    """In memory only: further ones are rejected until its oldest ones are gone; other traces are not affected."""
    store = Store(TRACES, Ring(TRACES, 5, MIB), None, asyncio.get_running_loop())
    store.spans_per_trace = 3
    accepted = await store.append(span_payload([(1, "a", f"one{number}") for number in range(5)] + [(2, "a", "two")]))
    assert (accepted.records, accepted.rejected) == (4, 2)
    assert accepted.message == "2 spans rejected: their trace has 3 in memory (stores.traces.max_spans_per_trace)"
    accepted = await store.append(span_payload([(1, "a", "more")]))
    assert (accepted.records, accepted.rejected) == (0, 1)
    accepted = await store.append(span_payload([(3, "a", "three"), (3, "a", "three"), (1, "a", "still too many")]))
    assert (accepted.records, accepted.rejected) == (2, 1)
    accepted = await store.append(span_payload([(1, "a", "has room again"), (1, "a", "and no more")]))
    assert (accepted.records, accepted.rejected) == (1, 1)
    found = sorted(everything(store))
    assert found == sorted(["one2", "two", "three", "three", "has room again"])
    with pytest.raises(Malformed):
        store.append(b"\xff")


async def test_spans_that_are_too_many_are_taken_back_from_the_block_under_construction() -> None:
    """Also of a request that was rewritten, and beside requests of the same commit."""
    store = Store(TRACES, Ring(TRACES, 10, MIB), None, asyncio.get_running_loop())
    store.spans_per_trace = 2
    none = TRACES.request_type.FromString(
        span_payload([(0, "b", "no trace"), *[(7, "b", f"b{one}") for one in range(3)]])
    )
    payloads = [
        span_payload([(1, "a", "a0"), (2, "a", "a1")]),
        none.SerializeToString(),
        span_payload([(3, "c", "c0")]),
        span_payload([(4, "d", f"d{one}") for one in range(3)]),
    ]
    futures = [store.append(payload) for payload in payloads]
    answers = [await future for future in futures]
    assert [(one.records, one.rejected) for one in answers] == [(2, 0), (2, 2), (1, 0), (2, 1)]
    assert answers[1].message.startswith("1 spans rejected: 1 because trace_id must be")
    assert answers[1].message.endswith(
        "1 spans rejected: their trace has 2 in memory (stores.traces.max_spans_per_trace)"
    )
    assert sorted(everything(store)) == ["a0", "a1", "b0", "b1", "c0", "d0", "d1"]
    store.ring.check()
