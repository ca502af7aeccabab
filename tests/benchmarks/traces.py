"""Whole traces by their id from a log, with the ring excluded: in this process, and from a daemon as users ask.

In this process the ring is an empty one that begins where the log ends; the daemon has one with room for one span.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collector.otlp.records import Ref, regroup
from collector.otlp.signals import TRACES
from collector.query.slices import END_OF_TIME, slices
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.otlp import TRACE_SPANS
from collector.wal.log import Log
from tests.benchmarks.fresh import STEP_NS
from tests.benchmarks.measure import Incorrect
from tests.benchmarks.servers import Ringtail

RANGE_NS = 60 * STEP_NS
"""The fixed time range: the newest minute, 30,000 spans."""


@dataclass(frozen=True, slots=True)
class TraceReads:
    """Traces by id from one log, in ms."""

    spans: int
    bytes: int
    segments: int
    whole_p50: float
    """In the whole log."""
    whole_p99: float
    range_p50: float
    """Traces of the newest minute, asked for with that time range."""
    range_p99: float


def traces(log: Log, ids: Sequence[bytes], lookups: int) -> TraceReads:
    """Read whole traces by their id, with the ring excluded. Raises Incorrect when one is not complete.

    `ids` has the trace ids of every frame, the frames being `STEP_NS` apart.
    """
    loop = asyncio.new_event_loop()
    loop.close()
    store = Store(TRACES, Ring(TRACES, 1, 2**20, log.next_offset), log, loop)
    newest = max(one.max_time for one in (*log.sealed_segments, log.segments[-1]))
    recent = ids[1 - RANGE_NS // STEP_NS :]
    whole = _timed(lambda trace: _trace(store, trace, 0), ids, lookups)
    within = _timed(lambda trace: _trace(store, trace, newest - RANGE_NS), recent, lookups)
    return TraceReads(log.next_offset, log.byte_size, log.segment_count, *whole, *within)


def over_http(directory: Path, ids: Sequence[bytes], lookups: int) -> tuple[float, float]:
    """Return p50 and p99 in ms of `/api/traces/ID` from a daemon whose logs lie in `directory`/data, as JSON.

    Raises Incorrect when a trace is not complete.
    """
    settings = ("stores.traces.capacity=1", "wal.retention.max_bytes=0")
    server = Ringtail(directory, settings)

    def trace(wanted: bytes) -> int:
        batches = json.loads(server.get(f"/api/traces/{wanted.hex()}"))["batches"]
        return sum(len(scope["spans"]) for batch in batches for scope in batch["scopeSpans"])

    try:
        return _timed(trace, ids, lookups)
    finally:
        server.stop()


def _timed(spans_of: Callable[[bytes], int], ids: Sequence[bytes], lookups: int) -> tuple[float, float]:
    """Return p50 and p99 in ms of reading traces at random, after a few that do not count."""
    chance = random.Random("traces")
    taken = []
    for turn in range(-lookups // 4, lookups):
        trace = _one_of(chance.choice(ids), chance)
        begin = time.perf_counter_ns()
        spans = spans_of(trace)
        if turn >= 0:
            taken.append((time.perf_counter_ns() - begin) / 1e6)
        if spans != TRACE_SPANS:
            raise Incorrect(f"trace {trace.hex()} has {spans} spans")
    p50, p99 = np.percentile(taken, (50, 99)).tolist()
    return p50, p99


def _one_of(ids: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(ids) // 16) * 16
    return ids[at : at + 16]


def _trace(store: Store, trace: bytes, start_ns: int) -> int:
    """Find a trace's spans from a time on, and put them together as an answer has them; returns how many they are."""
    refs = []
    with store.view("trace_id", trace) as view:
        for block, rows in slices(view, start_ns, END_OF_TIME):
            times = block.column("time")[rows].tolist()
            refs += [Ref(at, block.base_offset + row, block, row) for row, at in zip(rows.tolist(), times, strict=True)]
    regroup(refs)
    return len(refs)
